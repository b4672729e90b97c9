"""Claims about rows and labels that a table gives a finished model: of classes, labels, numbers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import BRIEF, run_cli

from distill.contract import Contract, TableInput
from distill.errors import UsageError, UserError
from distill.files import from_json, sha256_json
from distill.tables.columns import Column, Kind
from distill.tasks import Task, TaskKind
from distill.verbs.rows.table_rows import kept_columns, kept_names, labels_of, read_rows

TINY = (
    "experiment=table_ensemble", "data.name=diabetes", "trainer.max_epochs=2",
    "teacher.regressor.n_estimators=5", "teacher.regressor.n_jobs=1", "teacher.folds=2",
    *BRIEF, "preflight=false", "quantize=none",
)  # fmt: skip


def contract_of(kind, *outputs):
    return Contract(
        input=None, normalization=None, task=Task(kind=kind, outputs=outputs), output="logits",
        classes=outputs, provenance={}, golden_sha256="none",
    )  # fmt: skip


def labels(kind, outputs, names, **columns):
    return labels_of(pa.table(columns), contract_of(kind, *outputs), names)


@pytest.mark.parametrize(
    ("classes", "given", "expected"),
    [
        (("no", "yes"), ["yes", "no", "yes"], [1, 0, 1]),
        (("no", "yes"), [1, 0, 1], [1, 0, 1]),
        (("false", "true"), [True, False, True], [1, 0, 1]),
        (("3", "4", "5"), [4, 3, 5], [1, 0, 2]),  # names, though they are numbers
        (("1", "2"), [1, 1, 2], [0, 0, 1]),
        (("3", "4", "5"), [4.0, 3.0, 5.0], [1, 0, 2]),
    ],
)
def test_classes_are_told_by_name_and_else_by_number(classes, given, expected):
    found = labels(TaskKind.CLASSIFICATION, classes, ["label"], label=given)
    assert found.tolist() == expected


def test_several_labels_and_numbers_have_a_column_each_in_the_order_of_the_outputs():
    given = {"b": [1.5, 2.5], "a": [0, 1]}
    found = labels(TaskKind.REGRESSION, ("a", "b"), ["a", "b"], **given)
    np.testing.assert_array_equal(found, [[0, 1.5], [1, 2.5]])
    found = labels(TaskKind.MULTI_LABEL, ("a", "c"), ["a", "c"], a=[0, 1], c=[True, False])
    np.testing.assert_array_equal(found, [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("kind", "names", "columns", "message"),
    [
        (TaskKind.CLASSIFICATION, ["y"], {"y": ["a", "cow"]}, "1 of 2 are none, such as `cow`"),
        (TaskKind.CLASSIFICATION, ["y"], {"y": ["a", None]}, "`y` has 1 gaps"),
        (TaskKind.CLASSIFICATION, ["z"], {"y": ["a"]}, r"`z` \(`label_column`\)"),
        (TaskKind.REGRESSION, ["y"], {"y": [1.0]}, "name 2 columns of labels but got 1"),
        (TaskKind.REGRESSION, ["y", "z"], {"y": ["?"], "z": [1]}, r"row 0 has '\?'"),
        (TaskKind.MULTI_LABEL, ["y", "z"], {"y": [2], "z": [1]}, "0 and 1 in the labels y, z"),
    ],
)
def test_labels_that_the_task_does_not_have_are_refused(kind, names, columns, message):
    with pytest.raises(UserError, match=message):
        labels(kind, ("a", "b"), names, **columns)


def test_advice_can_be_followed_where_there_is_no_data_group(tmp_path):
    written: Any = SimpleNamespace(delimiter=None, encoding="utf-8", date_format=None)
    takes = TableInput(columns=(Column(name="x", kind=Kind.NUMBER),), categories={})
    (tmp_path / "a.csv").write_text("x\n1\n?\n")
    with pytest.raises(UserError, match=r"row 1 has '\?'\..*leave the cell empty") as features:
        read_rows(written, tmp_path / "a.csv", takes)
    with pytest.raises(UserError, match="Write yes and no as 1 and 0") as several:
        labels(TaskKind.MULTI_LABEL, ("a", "b"), ["y", "z"], y=["yes"], z=[1])
    with pytest.raises(UserError, match="the model tells numbers") as numbers:
        labels(TaskKind.REGRESSION, ("a",), ["y"], y=["?"])
    assert not any("data." in str(own.value) for own in (features, several, numbers))


def test_columns_that_come_along_are_what_is_written_in_the_file(tmp_path):
    written: Any = SimpleNamespace(delimiter=None, encoding="utf-8", date_format=None)
    takes = TableInput(columns=(Column(name="x", kind=Kind.NUMBER),), categories={})
    (tmp_path / "a.csv").write_text("id;row;x\n007;1;1,5\n012;2;2,5\n")
    rows, found = read_rows(written, tmp_path / "a.csv", takes, codes=["id", "row", "x"])
    assert rows.to_pydict() == {"id": ["007", "012"], "row": [1, 2], "x": [1.5, 2.5]}
    assert found["x"].tolist() == [1.5, 2.5]


def test_columns_come_along_by_name_and_never_as_the_place_in_the_input():
    rows = pa.table({"id": ["x", "y"], "index": [7, 8], "2024": [1, 2]})
    assert kept_names("id") == ["id"]
    assert kept_names(2024) == kept_names([2024]) == ["2024"]
    assert kept_columns(rows, ["id", "2024"]) == {"id": rows["id"], "2024": rows["2024"]}
    assert kept_columns(rows, kept_names([])) == {}
    with pytest.raises(UsageError, match=r"no `idd`.*Did you mean `id`"):
        kept_columns(rows, ["id", "idd"])
    with pytest.raises(UsageError, match="the place in the input"):
        kept_columns(rows, ["index"])


def test_a_contract_keeps_its_hash_though_contracts_of_series_say_more():
    content = {
        "input": None, "normalization": None, "output": "logits", "classes": ["a", "b"],
        "provenance": {}, "golden_sha256": "none", "schema_version": 1,
    }  # fmt: skip
    contract = from_json(Contract, content)
    assert contract.series is None
    assert contract.sha256 == sha256_json(content)


@pytest.mark.slow
def test_a_model_of_numbers_becomes_champion_and_audited_rows_decide(tmp_path):
    from sklearn.datasets import load_diabetes

    def call(*arguments):
        done = run_cli(*arguments, "registry.model=sugar", cwd=tmp_path)
        assert "Traceback" not in done.stderr
        return done

    def rules(done):
        return {check["rule"]: check for check in done.document["checks"]}

    assert call("pipeline", "run_dir=a", *TINY).code in (0, 3, 4)
    assert call("promote", "register", "run_dir=a").code == 0
    assert call("promote", "to=champion", "force=true", "reason=first").document["promoted"]
    better = ("trainer.max_epochs=30", "against=champion")
    assert call("pipeline", "run_dir=b", *TINY, *better).code in (0, 3, 4)
    assert call("promote", "register", "run_dir=b").document["version"] == 2
    checks = rules(call("promote", "to=champion"))
    assert checks["same_classes"]["outcome"] == "pass"
    assert checks["drop_vs_champion"]["measured"] < 0
    whole = load_diabetes(as_frame=True).frame
    whole.to_csv(tmp_path / "audit.csv", index=False, sep=";")
    checks = rules(call("promote", "to=champion", "audit=audit.csv"))
    artefacts = [tmp_path / run / "export/model.onnx" for run in "ab"]
    errors = []
    for path in artefacts:
        done = run_cli("predict", f"artefact={path}", "input=audit.csv", cwd=tmp_path)
        said = pq.read_table(done.document["predictions"])["predicted target"].to_numpy()
        errors.append(np.sqrt(np.mean((said - whole.target) ** 2)))
    assert checks["drop_vs_champion"]["measured"] == pytest.approx(
        1 - errors[0] / errors[1], rel=1e-3
    )
    assert checks["drop_on_old_test"]["outcome"] == "pass"
    done = call("promote", "to=champion", "audit=audit.csv", "label_column=tagret")
    assert "Did you mean `target`" in done.stderr
