"""Claims about teachers of quantiles: a regressor for each level, files that answer them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from quantile_rows import LEVELS, houses_of, network_of, rows
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import QuantileRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distill.deployment.export import export_onnx
from distill.deployment.table_graph import prepend_encoder
from distill.errors import UserError
from distill.training.labelling import ask_test
from distill.training.teachers.levels import at_level
from distill.training.teachers.sources import onnx_teacher, predictions_teacher, sklearn_teacher

BOOSTING = HistGradientBoostingRegressor(loss="quantile", quantile=0.5, max_iter=8, random_state=0)


@pytest.fixture(scope="module")
def houses():
    return houses_of("price", "days")


@pytest.mark.slow
@pytest.mark.parametrize("folds", [0, 2])
def test_a_regressor_is_fitted_for_each_level_as_scikit_learn_does(folds, houses, tmp_path):
    teacher = sklearn_teacher(houses, tmp_path, regressor=BOOSTING, folds=folds)
    found = houses.in_units(ask_test(teacher, houses.test), houses.test)
    for d in range(2):
        by_level = [
            HistGradientBoostingRegressor(loss="quantile", quantile=q, max_iter=8, random_state=0)
            .fit(houses.train.inputs, houses.train.learnt[:, d])
            .predict(houses.test.inputs)
            for q in LEVELS
        ]
        expected = np.sort(by_level, axis=0).T * houses.task.scale[d] + houses.task.mean[d]
        np.testing.assert_allclose(found[:, 3 * d : 3 * d + 3], expected, rtol=1e-4)
    kept = sorted(tmp_path.glob("*.skops"))
    assert len(kept) == 3 * (1 + folds)
    again = sklearn_teacher(houses, tmp_path, regressor=BOOSTING, folds=folds)
    assert again.fingerprint == teacher.fingerprint
    assert sorted(tmp_path.glob("*.skops")) == kept


@pytest.mark.parametrize(
    ("regressor", "parameter"),
    [
        (BOOSTING, "quantile"),
        (GradientBoostingRegressor(loss="quantile"), "alpha"),
        (QuantileRegressor(alpha=0.0), "quantile"),
        (make_pipeline(StandardScaler(), BOOSTING), "histgradientboostingregressor__quantile"),
    ],
)
def test_the_level_is_set_where_a_regressor_has_it(regressor, parameter):
    before = regressor.get_params()
    found = at_level(regressor, 0.8).get_params()
    changed = {k for k, v in found.items() if isinstance(v, float) and v != before[k]}
    assert found[parameter] == 0.8
    assert changed == {parameter}


@pytest.mark.parametrize(
    "regressor", [RandomForestRegressor(), HistGradientBoostingRegressor(), StandardScaler()]
)
def test_a_regressor_of_single_numbers_is_refused_with_what_to_do(regressor, houses, tmp_path):
    with pytest.raises(UserError, match="teacher=sklearn_quantiles"):
        sklearn_teacher(houses, tmp_path, regressor=regressor)


@pytest.mark.slow
def test_files_that_answer_single_numbers_are_refused_with_what_to_do(houses, tmp_path):
    index = np.arange(rows().num_rows)
    values = pa.FixedSizeListArray.from_arrays(np.zeros(2 * len(index)), 2)
    told = pa.table({"index": index, "prediction": values})
    metadata = {"classes": "price\ndays"}
    pq.write_table(told.replace_schema_metadata(metadata), tmp_path / "named.parquet")
    with pytest.raises(UserError, match="teacher=sklearn_quantiles"):
        predictions_teacher(houses, tmp_path, path=str(tmp_path / "named.parquet"))
    pq.write_table(told, tmp_path / "p.parquet")
    teacher = predictions_teacher(houses, tmp_path, path=str(tmp_path / "p.parquet"))
    with pytest.raises(UserError, match="teacher=sklearn_quantiles"):
        teacher(torch.zeros(2, 2), torch.arange(2))
    numbers = houses_of("price", "days", quantiles=None)
    path = tmp_path / "m.onnx"
    export_onnx(network_of(numbers), numbers.input_shape, path, dtype=torch.float32)
    prepend_encoder(numbers.encoder, path)
    teacher = onnx_teacher(houses, tmp_path, path=str(path))
    with pytest.raises(UserError, match="teacher=sklearn_quantiles"):
        ask_test(teacher, houses.test)
