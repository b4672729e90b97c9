"""Claims about `train` and `soft_labels` as a user runs them, on real digits."""

import dataclasses
import shutil
import signal

import numpy as np
import pytest
import torch
from commands import SHORT, run_cli, run_process
from warm import command, kill_when, signal_when

from distill.files import read_json
from distill.runtime import OnnxModel
from distill.statistics.metrics import nll
from distill.training.fit import fit, load_weights

pytestmark = pytest.mark.slow


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of a finished run, to spoil."""
    return shutil.copytree(finished[0], tmp_path / "run")


def test_seeds_report_control_and_student_at_both_epochs_with_paired_tests(cli, tmp_path):
    ran = cli("train", "run_dir=run", "seeds=2", *SHORT)
    assert ran.code == 0, ran.stderr
    for role in ("control", "student"):
        trained = ran.document[role]["seeds"]
        assert [result["seed"] for result in trained] == [0, 1]
        weights = [
            torch.load(tmp_path / f"run/train/{role}{folder}/best.pt", weights_only=True)
            for folder in ("", "/seed_1")
        ]
        first, second = (content["state_dict"]["network.head.1.weight"] for content in weights)
        assert not torch.equal(first, second)
        for epoch in ("best", "last"):
            figures = ran.document["over_seeds"][f"{epoch}_epoch"][role]
            scores = [result[f"test_at_{epoch}_epoch"] for result in trained]
            accuracies = [score["accuracy"]["estimate"] for score in scores]
            assert figures["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
            assert {"nll", "nll_scaled", "ece", "ece_scaled", "temperature"} <= set(figures)
    found = ran.document["over_seeds"]["last_epoch"]["student_minus_control"]
    gains = [
        s["test_at_last_epoch"]["accuracy"]["estimate"]
        - c["test_at_last_epoch"]["accuracy"]["estimate"]
        for s, c in zip(
            ran.document["student"]["seeds"], ran.document["control"]["seeds"], strict=True
        )
    ]
    assert found["estimate"] == pytest.approx(np.mean(gains))
    assert found["num_seeds"] == 2
    assert "student against control, " in ran.stderr


@pytest.mark.parametrize(
    ("spoil", "max_epochs", "kept"),
    [
        ("best", 3, 2),  # the highest on validation by luck
        ("best", 4, 2),  # likewise, and all steps were done before all epochs
        ("last", 3, 0),  # an earlier one that is better beyond doubt
        ("stopped", 4, 0),  # before its schedule ended: the highest on validation
    ],
)
def test_the_last_epoch_is_kept_unless_validation_proves_another_better(
    cli, tmp_path, monkeypatch, spoil, max_epochs, kept
):
    def fitted(*arguments, **options):
        found = fit(*arguments, **options)
        untrained = {n: t * 0 if "head" in n else t for n, t in found.last.items()}
        own = {"history": found.history[:3], "best_epoch": 0, "best": found.last}
        own["was_stopped"] = spoil == "stopped"
        if spoil in ("best", "last"):
            own[spoil] = untrained
        return dataclasses.replace(found, **own)

    monkeypatch.setattr("distill.training.fit.fit", fitted)
    ran = cli("train", "control", "run_dir=run", f"trainer.max_epochs={max_epochs}")
    assert ran.code == 0, ran.stderr
    control = read_json(tmp_path / "run/train/control.json")
    assert (control["best_epoch"], control["last_epoch"]) == (kept, 2)
    best, last = (
        torch.load(tmp_path / f"run/train/control/{epoch}.pt", weights_only=True)["state_dict"]
        for epoch in ("best", "last")
    )
    same = all(torch.equal(best[name], last[name]) for name in best)
    assert same == (spoil != "last")
    assert control["test_at_best_epoch"]["accuracy"]["estimate"] > 0.2


def test_another_metric_marks_every_training_anew_and_trains_none_again(cli, tmp_path):
    small = ("data.length=400", "data.num_series=2", "trainer.max_epochs=1", "seeds=2")
    small += ("teacher=sklearn", "teacher.regressor.n_estimators=5", "teacher.folds=2")
    weights = tmp_path / "run/train/student/seed_1/best.pt"
    kept = set()
    for metric in ("rmse", "mase"):
        asked = (f"budget.accuracy.metric={metric}", *small)
        ran = cli("train", "run_dir=run", "experiment=series", *asked)
        assert ran.code == 0, ran.stderr
        kept.add(weights.read_bytes())
        control, student = (
            [own["test_at_best_epoch"][metric]["estimate"] for own in ran.document[role]["seeds"]]
            for role in ("control", "student")
        )
        gains = [1 - ours / theirs for ours, theirs in zip(student, control, strict=True)]
        found = ran.document["over_seeds"]["best_epoch"]["student_minus_control"]
        assert found["estimate"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert len(kept) == 1


def test_the_temperature_fitted_on_validation_is_folded_into_the_artefact(finished, data):
    run_dir, _ = finished
    content = torch.load(run_dir / "train/student/best.pt", weights_only=True)
    scores = read_json(run_dir / "train/student.json")["test_at_best_epoch"]
    assert content["temperature"] == pytest.approx(scores["temperature"])
    logits = OnnxModel(run_dir / "export/model.onnx").predict(data.test.inputs)
    artefact = nll(logits, data.test.labels).mean()
    assert artefact == pytest.approx(scores["nll_scaled"]["estimate"], abs=1e-3)
    raw = nll(logits * content["temperature"], data.test.labels).mean()
    assert raw == pytest.approx(scores["nll"]["estimate"], abs=1e-3)


def test_the_student_learns_from_the_store_by_default(finished):
    run_dir, _ = finished
    manifest = read_json(run_dir / "soft_labels/manifest.json")
    assert manifest["num_views"] == 3  # of 40, no more than there are epochs
    facts = read_json(run_dir / "train/teacher/teacher.json")
    assert manifest["recipe"]["teacher"] == facts["fingerprint"]
    assert read_json(run_dir / "soft_labels.json")["num_samples"] == 918


def retrain(cli, *overrides):
    return cli("train", "student", "run_dir=run", "trainer.max_epochs=1", *SHORT[1:], *overrides)


def test_a_flipped_byte_in_the_store_stops_training_and_names_the_file(run_dir, cli):
    path = run_dir / "soft_labels/view_002.logits.npy"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    ran = retrain(cli)
    assert ran.code == 1
    assert "view_002.logits.npy changed" in ran.stderr
    assert "Traceback" not in ran.stderr
    path.unlink()
    mended = cli("soft_labels", "run_dir=run", *SHORT)
    assert mended.code == 0, mended.stderr
    assert mended.document["num_blocks_labelled"] == 1
    content[500] ^= 1
    assert path.read_bytes() == content
    assert retrain(cli).code == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("views.padding=2", "other augmentation"),
        ("data.seed=1", "other data"),
        ("soft_labels.top_k=3", "top_k"),
    ],
)
def test_a_store_elsewhere_of_something_else_is_refused(run_dir, cli, tmp_path, override, said):
    shutil.move(run_dir / "soft_labels", tmp_path / "labels")
    checkpoint = run_dir / "train/teacher/best.pt"
    ran = cli(
        "train",
        "student",
        "run_dir=new",
        f"teacher.checkpoint={checkpoint}",
        "soft_labels.path=labels",
        override,
        *SHORT[:1],
    )
    assert ran.code == 1, ran.stderr
    assert said in ran.stderr
    assert "delete the folder, or restore what has changed" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_another_teacher_is_refused_elsewhere_and_labelled_anew_in_the_run(run_dir, cli, tmp_path):
    other = run_dir / "train/teacher/last.pt"
    content = torch.load(other, weights_only=True)
    content["state_dict"]["network.head.1.bias"] += 0.5
    torch.save(content, tmp_path / "other.pt")
    before = (run_dir / "soft_labels/view_000.logits.npy").read_bytes()
    shutil.copytree(run_dir / "soft_labels", tmp_path / "labels")
    ran = retrain(cli, "teacher.checkpoint=other.pt", "soft_labels.path=labels")
    assert ran.code == 1
    assert "another teacher, or other weights" in ran.stderr
    ran = retrain(cli, "teacher.checkpoint=other.pt")
    assert ran.code == 0, ran.stderr
    assert (run_dir / "soft_labels/view_000.logits.npy").read_bytes() != before


def test_a_live_teacher_is_asked_where_no_store_is_wanted(run_dir, cli):
    ran = retrain(cli, "soft_labels=none")
    assert ran.code == 0, ran.stderr
    assert "soft labels verified" not in ran.stderr


def test_a_build_killed_by_sigkill_ends_byte_identical(finished, tmp_path):
    teacher = finished[0] / "train/teacher/best.pt"
    arguments = [
        "soft_labels",
        f"teacher.checkpoint={teacher}",
        "soft_labels.num_views=60",
        "trainer.max_epochs=60",
        "soft_labels.batch_size=64",
    ]
    parts = tmp_path / "killed/soft_labels/.parts"
    kill_when(
        lambda: len(list(parts.glob("view_*"))) >= 5,
        command(*arguments, "run_dir=killed", cwd=tmp_path),
    )
    assert not (tmp_path / "killed/soft_labels/manifest.json").exists()
    for name in ("killed", "whole"):
        ran = run_cli(*arguments, f"run_dir={name}", cwd=tmp_path)
        assert ran.code == 0, ran.stderr
    assert ran.document["num_blocks_labelled"] == 60
    folders = [tmp_path / name / "soft_labels" for name in ("killed", "whole")]
    names = sorted(path.name for path in folders[0].iterdir() if path.suffix)
    assert names == sorted(path.name for path in folders[1].iterdir() if path.suffix)
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_two_processes_share_batches_and_labels_and_end_as_well_as_one(tmp_path):
    common = ("train", "student", "trainer.max_epochs=10", "soft_labels.precision=float32")
    alone = ("teacher_training.trainer.max_epochs=8", "run_dir=one")
    together = (
        "teacher.checkpoint=one/train/teacher/best.pt",
        "trainer=ddp",
        "run_dir=two",
    )
    for run, overrides in ((run_cli, alone), (run_process, together)):
        ran = run(*common, *overrides, cwd=tmp_path)
        assert ran.code == 0, ran.stderr
    for path in (tmp_path / "one/soft_labels").glob("*.npy"):
        assert path.read_bytes() == (tmp_path / "two/soft_labels" / path.name).read_bytes()
    histories = [
        read_json(tmp_path / name / "train/student/history.json") for name in ("one", "two")
    ]
    assert [len(history) for history in histories] == [10, 10]
    for epochs in zip(*histories, strict=True):
        assert epochs[0]["learning_rate"] == pytest.approx(epochs[1]["learning_rate"])
    states = load_weights(tmp_path / "two/train/student/last.ckpt")["callbacks"]["RandomStates"]
    assert [len(of_each) for of_each in states.values()] == [2, 2, 2, 2]  # processes
    one, two = (history[-1]["val/accuracy"] for history in histories)
    assert two == pytest.approx(one, abs=0.06)  # of 160 validation samples


def test_without_a_compiler_compiling_is_refused(cli, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    ran = cli("train", "run_dir=run", "compile=true", *SHORT)
    assert ran.code == 1
    assert "Expected a C++ compiler" in ran.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.kd.weight=0", "loss.ce.weight=0"], "a weight above 0 but got ce, kd, all 0"),
        (["loss.kd.weight=-1"], "`weight` of a loss term to be 0 or more"),
        (["loss.kd.temperature=0"], "`temperature` > 0 but got 0"),
        (["seeds=0"], "Expected `seeds`"),
        (["embedding=maybe"], "Expected `embedding` to be true or false"),
        (["soft_labels.num_views=0"], "num_views"),
        (["soft_labels.num_views=null"], "`soft_labels.num_views`"),
        (["soft_labels.batch_size=0"], "`batch_size`"),
        (["soft_labels.path=null"], "`soft_labels.path`"),
        (["soft_labels.top_k=10"], "top_k"),
        (["loss=regression"], "losses for classification but `loss.label` is one of regression"),
        (["trainer.devices=2"], "Take `trainer=ddp`"),
        (["trainer.precision=bf16-true"], "weights stay in float32"),
        (["optimizer=dot_sgd", "loss=soft_only"], "Add `loss.ce`"),
        (["optimizer=dot_sgd", "trainer.gradient_clip_val=1"], "without clipping"),
        (["loss=hint"], "live torch teacher for losses on features (`loss.hint`)"),
        (["loss=hint", "soft_labels=none", "loss.hint.student_tap=nose"], "there is no `nose`"),
    ],
)
def test_bad_input_ends_in_one_message_before_training(cli, overrides, message):
    ran = cli("train", "run_dir=run", *overrides, *SHORT)
    assert ran.code in (1, 2), ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "train/teacher ──" not in ran.stderr


ENDLESS = "trainer.max_epochs=-1"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([ENDLESS], "Add `callbacks=early_stopping`"),
        ([ENDLESS, "callbacks=early_stopping"], "or take `scheduler=constant`"),
        ([ENDLESS, "callbacks=early_stopping", "scheduler=cosine"], "got `scheduler.T_max=-1`"),
        (
            [f"teacher_training.{ENDLESS}", "callbacks=early_stopping"],
            "or take `scheduler@teacher_training.scheduler=constant`",
        ),
        ([f"repair.{ENDLESS}", "scheduler@repair.scheduler=constant"], "`repair.trainer.max_epoch"),
    ],
)
def test_a_training_without_an_end_is_refused_before_the_teachers(cli, overrides, message):
    ran = cli("train", "run_dir=run", *overrides)
    assert ran.code == 1, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "train/teacher ──" not in ran.stderr


@pytest.mark.parametrize("scheduler", ["constant", "multistep"])
def test_a_training_without_a_limit_ends_by_early_stopping(cli, tmp_path, scheduler):
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")
    ran = cli("train", "control", "run_dir=run", ENDLESS, f"scheduler={scheduler}", *stopping)
    assert ran.code == 0, ran.stderr
    assert "\nepoch 2  loss" in ran.stderr
    assert len(read_json(tmp_path / "run/train/control/history.json")) > 1


def test_ctrl_c_says_so_and_the_run_goes_on_from_there(run_dir, tmp_path):
    overrides = ["student", "run_dir=run", "trainer.max_epochs=400", *SHORT[1:]]
    said = tmp_path / "stderr"
    code = signal_when(
        lambda: "\nepoch 2/" in said.read_text(),
        command("train", *overrides, cwd=tmp_path),
        signal.SIGINT,
        said,
    )
    assert code == 130
    assert "Interrupted" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert (run_dir / "train/student/last.ckpt").exists()


def test_answers_in_another_order_than_the_images_are_warned_of(cli, tmp_path, data, rng):
    index = np.concatenate([s.indices for s in (data.train, data.validation, data.test)])
    label = np.concatenate([s.labels for s in (data.train, data.validation, data.test)])
    for name, order in (
        ("right", np.arange(len(label))),
        ("shuffled", rng.permutation(len(label))),
    ):
        np.savez(tmp_path / f"{name}.npz", index=index, logits=5.0 * np.eye(10)[label[order]])
        ran = cli(
            "soft_labels", f"run_dir={name}", "teacher=predictions", f"teacher.path={name}.npz",
            "views=none",
        )  # fmt: skip
        assert ran.code == 0, ran.stderr
        assert (ran.document["agreement_with_labels"] == 1) == (name == "right")
        assert ("most common class" in ran.stderr) == (name == "shuffled")
        assert ran.document["num_views"] == 1  # all would be the same


def test_the_runs_own_export_of_its_teacher_is_a_teacher_that_knows_its_classes(run_dir, cli):
    ran = cli(
        "soft_labels",
        "run_dir=other",
        "teacher=onnx",
        f"teacher.path={run_dir}/export/teacher.onnx",
    )
    assert ran.code == 0, ran.stderr
    assert ran.document["agreement_with_labels"] > 0.5


def test_compiled_training_keeps_the_names_of_the_weights(run_dir, cli, monkeypatch):
    compiled, calls = torch.nn.Module.compile, []

    def compile_quickly(module):  # torch traces the module; what it generates is its own business
        calls.append(module)
        compiled(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    before = torch.load(run_dir / "train/student/best.pt", weights_only=True)["state_dict"]
    ran = retrain(cli, "compile=true")
    assert ran.code == 0, ran.stderr
    after = torch.load(run_dir / "train/student/best.pt", weights_only=True)["state_dict"]
    assert calls
    assert list(after) == list(before)
