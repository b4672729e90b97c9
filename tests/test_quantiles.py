"""Claims about quantiles of numbers, from the data's option to the file: scikit-learn, NumPy."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import BRIEF, run_cli
from quantile_rows import LEVELS, houses_of, network_of, rows
from series_rows import frame, made
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from distill.contract import Contract
from distill.deployment.export import export_onnx
from distill.deployment.report.sentences import coverage_sentences, unit_sentences
from distill.deployment.series_graph import wrap_windows
from distill.deployment.table_graph import in_units, prepend_encoder
from distill.errors import UsageError, UserError
from distill.files import from_json, to_json
from distill.runtime import OnnxModel
from distill.statistics.scoring import Quantiles, Truth, scoring_of
from distill.tasks import Task, TaskKind, with_quantiles
from distill.training.baselines.forecasts import LastValue
from distill.training.baselines.numbers import LinearRegression, Mean
from distill.training.baselines.quantiles import with_error_quantiles
from distill.training.baselines.scoring import score_baselines
from distill.training.data.tables import Choice, from_table, table
from distill.training.modules import SupervisedModule
from distill.training.objectives import validation_figures
from distill.verbs.learning.configuration import _check_quantiles

PAIR = Task(
    kind=TaskKind.REGRESSION,
    outputs=("price", "days"),
    mean=(1e5, 20.0),
    scale=(3e4, 5.0),
    quantiles=tuple(LEVELS),
)


@pytest.fixture(scope="module")
def houses():
    return houses_of("price", "days")


@pytest.fixture(scope="module")
def sales():
    return made(frame(150), quantiles=LEVELS)


@pytest.fixture
def answered(rng):
    """Quantiles of two numbers that never cross, and what turned out to be true."""
    labels = rng.normal(PAIR.mean, PAIR.scale, (200, 2))
    quantiles = rng.normal(np.repeat(PAIR.mean, 3), np.repeat(PAIR.scale, 3), (200, 6))
    return PAIR.ascending(quantiles), Truth(labels=labels)


def test_each_number_is_named_at_each_level_and_labels_stay_as_they_were(houses, sales):
    assert houses.classes[:3] == ("price[q0.1]", "price[q0.5]", "price[q0.9]")
    assert houses.task.outputs == ("price", "days")
    assert houses.train.labels.shape[1] == houses.train.learnt.shape[1] == 2
    assert sales.classes[-1] == "sold[+3][q0.9]"
    assert len(sales.classes) == 9


@pytest.mark.parametrize("levels", [[], [0.5, 0.1], [0.1, 0.1], [0, 0.5], [0.5, 1], 0.5, ["a"]])
def test_levels_that_do_not_ascend_inside_0_to_1_are_refused(levels):
    with pytest.raises(UsageError, match=r"data\.quantiles.*ascend inside 0 to 1"):
        houses_of("price", quantiles=levels)


def test_quantiles_of_classes_are_refused():
    whole = pa.table({"size": np.arange(40.0), "sold": ["yes", "no"] * 20})
    with pytest.raises(UsageError, match=r"numbers for `data\.quantiles`.*classification"):
        from_table(whole, "x", Choice(label="sold", quantiles=LEVELS))


def test_rows_without_labels_are_refused_beside_quantiles(tmp_path):
    pq.write_table(rows(), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"data\.unlabelled"):
        table(path=path, label="price", unlabelled=path, quantiles=LEVELS)


def test_sorted_quantiles_never_err_more(rng):
    labels, crossing = rng.normal(size=(500, 2)), rng.normal(size=(500, 6))
    task = with_quantiles(PAIR, LEVELS)
    scoring = Quantiles(Task(kind=task.kind, outputs=task.outputs, quantiles=task.quantiles,
                             has_one_unit=True))  # fmt: skip
    truth, ordered = Truth(labels=labels), task.ascending(crossing)
    assert (np.diff(ordered.reshape(500, 2, 3), axis=2) >= 0).all()
    assert np.sort(crossing[:, :3]).tolist() == ordered[:, :3].tolist()
    by_row = [scoring.marks(own, truth).sum(axis=1) for own in (ordered, crossing)]
    assert (by_row[0] <= by_row[1] + 1e-12).all()


def test_figures_are_scikit_learns_and_numpys_in_units_of_the_spread(answered):
    quantiles, truth = answered
    scaled, labels = quantiles / np.repeat(PAIR.scale, 3), truth.labels / np.array(PAIR.scale)
    losses = [
        mean_pinball_loss(labels[:, d], scaled[:, 3 * d + q], alpha=level)
        for d in range(2)
        for q, level in enumerate(LEVELS)
    ]
    found = scoring_of(PAIR).score(quantiles, truth, confidence=0.95)
    assert list(found) == ["pinball", "coverage", "width", "mae", "rmse"]
    assert found["pinball"].estimate == pytest.approx(np.mean(losses))
    inside = (quantiles[:, ::3] <= truth.labels) & (truth.labels <= quantiles[:, 2::3])
    assert found["coverage"].estimate == pytest.approx(inside.mean())
    assert found["width"].estimate == pytest.approx((scaled[:, 2::3] - scaled[:, ::3]).mean())
    assert found["mae"].estimate == pytest.approx(mean_absolute_error(labels, scaled[:, 1::3]))
    rmse = mean_squared_error(labels, scaled[:, 1::3]) ** 0.5
    assert found["rmse"].estimate == pytest.approx(rmse)


def test_marks_are_the_pinball_losses_and_come_to_the_metric(answered):
    quantiles, truth = answered
    scoring = scoring_of(PAIR)
    marks = scoring.marks(quantiles, truth)
    assert marks.shape == quantiles.shape
    alone = mean_pinball_loss(truth.labels[:, 1] / 5, quantiles[:, 5] / 5, alpha=0.9)
    assert marks[:, 5].mean() == pytest.approx(alone)
    metric = scoring.score(quantiles, truth, confidence=0.95)["pinball"].estimate
    assert scoring.value(marks) == pytest.approx(metric)
    assert scoring.pooled(np.stack([marks, 3 * marks])) == pytest.approx(2 * marks)
    gain = scoring.compare(marks, 2 * marks, blocks=None, confidence=0.95)
    assert gain.estimate == pytest.approx(0.5)
    assert scoring.agreement(quantiles, quantiles, blocks=None, confidence=0.95).estimate == 1


def test_a_single_level_has_no_coverage_and_no_median():
    task = Task(kind=TaskKind.REGRESSION, outputs=("price",), mean=(0,), scale=(1,),
                quantiles=(0.9,))  # fmt: skip
    found = scoring_of(task).score(np.ones((5, 1)), Truth(labels=np.zeros((5, 1))), confidence=0.9)
    assert found.keys() == {"pinball"}
    assert found["pinball"].estimate == pytest.approx(0.1)


def test_another_metric_than_the_pinball_loss_is_refused():
    with pytest.raises(UsageError, match=r"metric` of quantiles to be one of pinball but got rmse"):
        scoring_of(PAIR, "rmse")


def test_the_report_sets_coverage_beside_the_nominal_one():
    found = {"estimate": 0.767, "interval": [0.692, 0.835]}
    said = coverage_sentences({"models": {"student": {"coverage": found}}, "quantiles": LEVELS})
    assert "covers 76.7 % of the test labels (69.2 to 83.5 %), nominal 80 %" in said[0]
    assert not coverage_sentences({"models": {"student": {}}, "quantiles": ()})
    found["interval"] = [None, None]  # a single stretch of time tells nothing of others
    said = coverage_sentences({"models": {"student": {"coverage": found}}, "quantiles": LEVELS})
    assert "covers 76.7 % of the test labels (unknown), nominal 80 %" in said[0]


def test_the_report_names_what_several_numbers_are_measured_in():
    units = {"price": 231_000.0, "rooms": 1.2}
    (said,) = unit_sentences({"metric": "rmse", "units": units})
    assert "1 is 231,000 of price, 1.2 of rooms" in said
    assert unit_sentences({"metric": "rmse", "units": {}}) == []


@pytest.mark.parametrize("name", ["houses", "sales"])
def test_answers_go_to_the_labels_units_and_back(name, request, rng):
    data = request.getfixturevalue(name)
    split = data.test
    own = rng.normal(size=(len(split), len(data.classes))).astype(np.float32)
    found = data.in_units(own, split)
    ordered = np.sort(own.reshape(len(own), -1, 3)).reshape(own.shape)
    np.testing.assert_allclose(data.scaled(found, split), ordered, atol=1e-3)
    targets = np.repeat(split.learnt, 3, axis=1)
    np.testing.assert_allclose(
        data.in_units(targets, split), np.repeat(split.labels, 3, axis=1), rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["houses", "sales"])
def test_the_file_answers_ordered_quantiles_in_units_as_python_does(name, request, tmp_path):
    data, path = request.getfixturevalue(name), tmp_path / "m.onnx"
    network, split = network_of(data), data.test
    export_onnx(network, data.input_shape, path, dtype=torch.float32, kind=TaskKind.REGRESSION)
    if name == "sales":
        wrap_windows(data.encoder, path, data.task)
    else:
        prepend_encoder(data.encoder, path)
        in_units(data.task, path)
    with torch.no_grad():
        raw = network(torch.from_numpy(split.inputs)).numpy()
    assert (np.diff(raw.reshape(len(raw), -1, 3)) < 0).any(), "an untrained network's cross"
    found = OnnxModel(path).predict(split.served)
    np.testing.assert_allclose(found, data.in_units(raw, split), rtol=1e-5)
    assert (np.diff(found.reshape(len(raw), -1, 3)) >= 0).all()
    assert OnnxModel(path).predict(split.served[:1]).shape == (1, len(data.classes))


def test_a_network_on_labels_alone_learns_by_the_pinball_loss(houses):
    network = network_of(houses).train()
    kind, levels = TaskKind.REGRESSION, houses.task.quantiles
    module = SupervisedModule(network, torch.optim.SGD, kind=kind, quantiles=levels)
    inputs, target = (torch.from_numpy(x) for x in (houses.test.inputs, houses.test.learnt))
    loss = module.training_step({"input": inputs, "label": target}, 0)
    outputs = network(inputs).detach().numpy()
    expected = np.mean([
        mean_pinball_loss(target[:, d], outputs[:, 3 * d + q], alpha=level)
        for d in range(2) for q, level in enumerate(LEVELS)
    ])  # fmt: skip
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    figures, selection = validation_figures(kind, torch.from_numpy(outputs), target, levels)
    assert figures["pinball"].item() == -selection.item() == pytest.approx(expected, rel=1e-5)


def test_a_baseline_of_the_mean_answers_the_quantiles_of_the_training_labels(houses):
    fitted = with_error_quantiles(Mean().fit(houses.train, 2), houses)
    expected = np.quantile(houses.train.labels.astype(float), LEVELS, axis=0).T.ravel()
    np.testing.assert_allclose(fitted.answer(houses.test.inputs), [expected] * len(houses.test))


def test_a_linear_baseline_covers_about_what_it_says(houses):
    asked = {"mean": Mean(), "linear": LinearRegression()}
    scores, answers = score_baselines(houses, asked, scoring_of(houses.task), confidence=0.95)
    assert answers["linear"].shape == (len(houses.test), 6)
    low, high = scores["linear"]["coverage"].interval
    assert low < 0.8 < high
    assert scores["linear"]["pinball"].estimate < scores["mean"]["pinball"].estimate


def test_a_forecasts_errors_are_those_of_its_own_series(sales):
    """One series moves ten times as much as the other, and its windows say so."""
    fitted = with_error_quantiles(LastValue().fit(sales.train, 3), sales)
    answers = fitted.answer(sales.test.records).reshape(len(sales.test), 3, 3)
    width = (answers[..., 2] - answers[..., 0])[:, 0]
    spread = sales.test.records["sold"].std(axis=1)
    assert np.corrcoef(width, spread)[0, 1] > 0.99
    assert answers[..., 1] == pytest.approx(
        np.repeat(sales.test.records["sold"][:, -1:], 3, axis=1), abs=3 * spread.max()
    )


def test_a_function_as_baseline_has_to_answer_all_quantiles(houses):
    rule = {"mine": lambda train, test, num_outputs: np.zeros((len(test), 2))}
    with pytest.raises(UserError, match=r"Expected quantiles \[\d+, 6\]"):
        score_baselines(houses, rule, scoring_of(houses.task), confidence=0.95)


class Loss:
    def __init__(self, of_quantiles, levels=None):
        self.of_quantiles = of_quantiles
        if levels:
            self.quantiles = levels


@pytest.mark.parametrize(
    ("levels", "loss", "said"),
    [
        ((0.1, 0.9), Loss(False), "loss=quantile"),
        ((), Loss(True, (0.1, 0.9)), "loss=regression"),
        ((0.1, 0.9), Loss(True, (0.1, 0.5)), r"loss\.x\.levels"),
    ],
)
def test_losses_that_do_not_go_with_the_levels_are_refused(levels, loss, said):
    with pytest.raises(UsageError, match=said):
        _check_quantiles(levels, "x", loss)
    _check_quantiles((0.1, 0.5), "x", Loss(True, (0.1, 0.5)))
    _check_quantiles((0.1, 0.5), "x", Loss(None))


def test_a_contract_carries_the_levels_and_those_without_keep_their_hash():
    def contract(task):
        return Contract(input=None, normalization=None, task=task, output="predictions",
                        classes=task.answers, provenance={}, golden_sha256="0")  # fmt: skip

    own = contract(PAIR)
    read = from_json(Contract, json.loads(json.dumps(to_json(own))))
    assert read == own
    assert read.asks.answers == own.classes
    point = contract(with_quantiles(Task(**{**to_json(PAIR), "kind": PAIR.kind, "quantiles": ()}),
                                    None))  # fmt: skip
    older = to_json(point)
    del older["task"]["quantiles"]
    assert from_json(Contract, older).sha256 == point.sha256 != own.sha256


@pytest.mark.slow
def test_a_table_of_quantiles_goes_from_rows_to_a_report_and_predictions(tmp_path):
    pq.write_table(rows(), tmp_path / "houses.parquet")
    ran = run_cli(
        "pipeline", "experiment=table_ensemble", "data=table", "data.path=houses.parquet",
        "data.label=price", "data.task=regression", "data.quantiles=[0.1,0.5,0.9]",
        "teacher=sklearn_quantiles", "teacher.regressor.max_iter=10", "teacher.folds=0",
        "budget=none", *BRIEF, "trainer.max_epochs=3", "run_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.document["metric"] == "pinball"
    contract = json.loads((tmp_path / "run/export/contract.json").read_text())
    assert contract["task"]["quantiles"] == LEVELS
    with np.load(tmp_path / "run/predictions/test_logits.npz") as kept:
        labels, answers = kept["label"], kept["student"]
    expected = [mean_pinball_loss(labels[:, 0], answers[:, q], alpha=LEVELS[q]) for q in range(3)]
    found = ran.document["models"]["student"]["pinball"]
    assert found == pytest.approx(np.mean(expected), rel=1e-6)
    covered = ((answers[:, :1] <= labels) & (labels <= answers[:, 2:])).mean()
    report = (tmp_path / "run/report.md").read_text()
    assert f"covers {100 * covered:.1f} % of the test labels" in report
    assert "nominal 80 %" in report
    ran = run_cli(
        "predict", "artefact=run/export/model.onnx", "input=houses.parquet",
        "output=p.parquet", "run_dir=p", cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    told = pd.read_parquet(tmp_path / "p.parquet")
    names = [f"predicted price[q{level}]" for level in LEVELS]
    assert (np.diff(told[names].to_numpy()) >= 0).all()
