"""Claims about columns of several values: what a runtime takes, refuses and is measured with."""

import numpy as np
import pytest
from series_files import answer, assert_near, export, network_of, odd
from series_files import trained as trained
from series_files import wrapped as wrapped

from distill.deployment.device.openvino_model import OpenVinoModel
from distill.deployment.intake import inspect, random_inputs, read_inputs
from distill.deployment.measurement import Effort, Measurement
from distill.deployment.series_graph import wrap_windows
from distill.deployment.targets.local import LocalTarget
from distill.errors import UserError
from distill.runtime import ModelError, OnnxModel
from distill.tables.columns import make_records
from distill.tables.windows import fit_windows


def cut(rows, name, length):
    return make_records(
        {n: rows[n][:, :length] if n == name else rows[n] for n in rows.dtype.names}
    )


def test_records_of_another_form_are_refused_by_name_and_length(wrapped):
    windows, _, rows, path = wrapped
    model = OnnxModel(path)
    for own in windows.takes:
        shorter = cut(rows, own.name, 5)
        said = f"`{own.name}` as .*double.* of length {own.length} .*got .*double.* of length 5"
        with pytest.raises(ModelError, match=said):
            model.predict(shorter)
        single = make_records(
            {n: shorter[n][:, 0] if n == own.name else rows[n] for n in windows.widths}
        )
        with pytest.raises(ModelError, match=r"got .*double.* of length 1"):
            model.predict(single)
        narrow = make_records(
            {n: rows[n].astype("f4" if n == own.name else "f8") for n in windows.widths}
        )
        with pytest.raises(ModelError, match=r"got tensor\(float\) of length"):
            model.predict(narrow)
        with pytest.raises(Exception, match=own.name):  # unchecked: no rows run into each other
            model(shorter)
    with pytest.raises(ModelError, match=r"Expected the column `sold` .* but got none"):
        model.predict(make_records({"bought": rows["sold"]}))


def test_an_array_is_taken_for_one_column_and_refused_for_several(wrapped):
    windows, _, rows, path = wrapped
    model = OnnxModel(path)
    if windows.covariates:
        with pytest.raises(ModelError, match=r"`sold` .* but got an array, float64"):
            model.predict(rows["sold"])
    else:
        np.testing.assert_array_equal(model.predict(rows["sold"]), model.predict(rows))


@pytest.mark.slow
def test_windows_of_one_step_are_columns_too(tmp_path):
    rows = make_records({"sold": np.arange(9.0)[:, None], "price": np.ones((9, 2))})
    windows = fit_windows(rows, horizon=1, known=["price"])
    network = network_of(windows)
    wrap_windows(windows, export(network, windows, tmp_path / "m.onnx"))
    found = OnnxModel(tmp_path / "m.onnx").predict(rows)
    assert_near(found, answer(network, windows, rows), windows, rows)


@pytest.mark.slow
def test_openvino_takes_windows_as_onnxruntime_does(trained):
    pytest.importorskip("openvino", reason="needs the `openvino` extra")
    data, path = trained
    rows = np.delete(odd(data.test.records[:40]), [6, 7, 8])  # its doubles are float32 inside
    expected, found = OnnxModel(path).predict(rows), OpenVinoModel(path).predict(rows)
    assert_near(found, expected, data.windows, rows)


def test_a_file_that_takes_windows_is_measured_with_drawn_or_given_ones(wrapped, tmp_path):
    windows, _, rows, path = wrapped
    artefact = inspect(path)
    drawn = random_inputs(artefact, 16, seed=0)
    if windows.covariates:
        assert drawn.dtype == rows.dtype
        assert not artefact.takes(rows["sold"])
    np.save(tmp_path / "rows.npy", rows[:16])
    given = read_inputs(tmp_path / "rows.npy", artefact, None)
    np.save(tmp_path / "short.npy", cut(rows, "sold", 3))
    with pytest.raises(UserError, match=r"Expected inputs .*8"):
        read_inputs(tmp_path / "short.npy", artefact, None)
    asked = Measurement(
        confidence=0.95,
        effort=Effort(cold_starts=1, processes=1, warm_up_seconds=0, rounds=2, max_seconds=5),
    )
    for inputs in (drawn, given):
        (row,) = LocalTarget(name="here").measure([path], inputs, asked).artefacts
        assert row.golden["max_abs"] == 0
        assert row.p50_latency_ms.estimate > 0
