"""Claims about a whole search: who wins, what it leaves, how it ends, also after a kill."""

import json
import shutil

import optuna
import pytest
from commands import BRIEF, run_cli
from warm import command, kill_when

from distill.files import read_json

SPACE = (
    "~space.deep_cnn",
    "~space.resnet",
    "space.plain_cnn.grid.widths=[[2,2],[8,16],[12,24],[64,128]]",
)
TINY = (
    *SPACE,
    "budget.size_bytes=40000",
    "quantize=none",  # which of two files is chosen may be a matter of milliseconds
    "budget.latency={p95_ms: null, cold_start_ms: null}",  # time decides nothing here
    "budget.peak_rss_bytes=null",
    "budget.parity.min_top1_agreement=0.5",
    "budget.accuracy.max_drop_vs_teacher=0.2",
    "budget.accuracy.min_gain_vs_baseline=-0.3",
    "trainer.max_epochs=10",
    "teacher_training.trainer.max_epochs=3",
    "preflight_effort.processes=1",
    "preflight_effort.rounds=2",
    *BRIEF,
)
FEWER = (*TINY, "space.plain_cnn.grid.widths=[[2,2],[8,16]]", "trainer.max_epochs=4")


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    ran = run_cli("search", "run_dir=run", *TINY, cwd=folder)
    assert ran.code in (0, 3, 4), ran.stderr
    return folder / "run", ran


@pytest.mark.slow
def test_the_winner_is_a_whole_pipeline_with_its_own_verdict(searched):
    run_dir, ran = searched
    found = ran.document
    assert found == read_json(run_dir / "search.json")
    assert (ran.code, found["verdict"]) == (0, "pass"), found["why"]
    winner = run_dir / found["winner"]["run_dir"]
    verdict = read_json(winner / "verdict.json")
    assert verdict["verdict"] == "pass"
    assert verdict["chosen"]["artefact"] == found["winner"]["artefact"]
    assert {"control", "teacher", "baseline"} <= set(verdict["models"])
    for name in ("export/contract.json", "train/student/best.pt", "predictions/test_logits.npz"):
        assert (winner / name).is_file()
    teachers = [read_json(folder / "teacher.json") for folder in (run_dir, winner)]
    assert teachers[0]["fingerprint"] == teachers[1]["fingerprint"]
    assert read_json(winner / "manifests/train/teacher.json")["seconds"] == 0  # not made twice
    assert not (winner / "soft_labels").exists()


@pytest.mark.slow
def test_what_cannot_fit_is_never_trained_and_every_candidate_has_its_fate(searched):
    run_dir, ran = searched
    by_name = {c["name"]: c for c in ran.document["candidates"]}
    large = by_name["plain_cnn widths=64-128"]
    assert large["preflight"]["outcome"] == "fail"
    assert large["dropped"].startswith("preflight: size")
    assert large["rungs"] == []
    trained = {path.name for path in run_dir.glob("train/rung_*/*")}
    assert "plain_cnn_widths_64-128" not in trained
    for candidate in by_name.values():
        assert candidate["dropped"] or candidate["rungs"]


@pytest.mark.slow
def test_the_compute_is_that_of_epochs_samples_and_macs(searched):
    _, ran = searched
    spent, samples, expected = ran.document["compute"], 918, 0
    for candidate in ran.document["candidates"]:
        epochs = sum(rung["trained"]["epochs"] for rung in candidate["rungs"])
        epochs += 20 if candidate["attempt"] else 0  # the student and its control
        expected += epochs * samples * candidate["preflight"]["macs"]
    full = sum(10 * samples * c["preflight"]["macs"] for c in ran.document["candidates"])
    assert spent["spent_macs"] == expected
    assert spent["share"] == pytest.approx(expected / full)
    tiny = next(c for c in ran.document["candidates"] if c["name"] == "plain_cnn widths=2-2")
    # 3x3 on 8x8 from 1 to 2 channels, 3x3 on 4x4 from 2 to 2, and 2 by 10
    assert tiny["preflight"]["macs"] == 9 * 2 * 64 + 9 * 4 * 16 + 20


@pytest.mark.slow
def test_a_finished_search_does_nothing_again_and_says_the_same(searched):
    run_dir, ran = searched
    again = run_cli("search", "run_dir=run", *TINY, cwd=run_dir.parent)
    assert again.document == ran.document
    ran_again = [line for line in again.stderr.splitlines() if line.startswith("train/")]
    assert ran_again
    assert all("unchanged" in line or "─" in line for line in ran_again)


@pytest.mark.slow
def test_what_was_done_later_does_not_use_up_the_time_of_what_was_decided_before(
    searched, tmp_path
):
    run_dir, ran = searched
    shutil.copytree(run_dir, tmp_path / "run")
    winner = ran.document["winner"]["run_dir"]  # what was done last
    manifest = tmp_path / "run" / winner / "manifests" / "train" / "student.json"
    document = {**read_json(manifest), "seconds": 1e6}  # more than any limit
    manifest.write_text(json.dumps(document))
    again = run_cli("search", "run_dir=run", *TINY, cwd=tmp_path)
    assert again.document["why"] == ran.document["why"]
    assert again.code == ran.code


@pytest.mark.slow
def test_the_study_opens_in_optuna_with_every_candidate(searched):
    run_dir, ran = searched
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{run_dir / 'study.db'}")
    assert len(study.trials) == len(ran.document["candidates"])
    for trial, candidate in zip(study.trials, ran.document["candidates"], strict=True):
        assert trial.params["candidate"] == candidate["name"]
        assert list(trial.intermediate_values.values()) == [
            rung["accuracy"]["estimate"] for rung in candidate["rungs"]
        ]


@pytest.mark.slow
def test_a_search_killed_anywhere_goes_on_and_ends_with_the_same(searched, tmp_path):
    run_dir, ran = searched
    milestones = ["preflight.json", "train/rung_2", "attempts/*/train/student"]
    for milestone in milestones:
        kill_when(
            lambda m=milestone: [*(tmp_path / "run").glob(m)],
            command("search", "run_dir=run", *TINY, cwd=tmp_path),
        )
        if milestone == "preflight.json":  # costs, which are times, must not tell the two apart
            for own in ("preflight.json", "preflight.npz", "manifests/preflight.json"):
                (tmp_path / "run" / own).parent.mkdir(exist_ok=True)  # it was killed that early
                shutil.copy(run_dir / own, tmp_path / "run" / own)
    again = run_cli("search", "run_dir=run", *TINY, cwd=tmp_path)

    def decided(document):
        return {
            c["name"]: (
                [r["accuracy"] for r in c["rungs"]],
                c["attempt"] and c["attempt"]["accuracy"],
            )
            for c in document["candidates"]
        }

    assert again.document["winner"]["candidate"] == ran.document["winner"]["candidate"]
    assert decided(again.document) == decided(ran.document)


@pytest.mark.slow
def test_production_and_people_are_in_the_search_too(searched, data, tmp_path):
    run_dir, ran = searched
    shutil.copytree(run_dir, tmp_path / "run")
    winner = run_dir / ran.document["winner"]["run_dir"]
    answers = [f"{index},ann,{data.classes[index % 10]}" for index in data.test.indices[:100]]
    (tmp_path / "said.csv").write_text("\n".join(["index,annotator,label", *answers]))
    incumbent = winner / "export/model.onnx"
    more = ("budget.accuracy.min_gain_vs_baseline=-0.02", f"against={incumbent}", "humans=said.csv")
    again = run_cli("search", "run_dir=run", *TINY, *more, cwd=tmp_path)
    assert again.code in (0, 3, 4), again.stderr
    training = read_json(winner / "train/student.json")
    history = read_json(winner / "train/student/history.json")
    reached = history[training["best_epoch"]]["val/accuracy"]
    seen = again.document["on_validation"]
    assert seen["references"]["incumbent"]["estimate"] == pytest.approx(reached)
    (floor,) = [f for f in seen["floors"] if f["name"] == "gain_vs_incumbent"]
    assert floor["accuracy"] == pytest.approx(reached - 0.02)
    report = (tmp_path / "run/report.html").read_text()
    shown = 100 * seen["references"]["incumbent"]["estimate"]
    assert f"incumbent {shown:.1f} %" in report
    humans = read_json(tmp_path / "run/baseline.json")["humans"]["score"]["majority"]["estimate"]
    assert f"humans (test) {100 * humans:.1f} %" in report


@pytest.mark.slow
def test_time_that_is_up_ends_inconclusive_with_the_best_known(searched, tmp_path):
    ran = run_cli("search", "run_dir=run", *FEWER, "search.max_minutes=0.01", cwd=tmp_path)
    assert (ran.code, ran.document["verdict"]) == (4, "inconclusive")
    assert "the time was up" in ran.document["why"]
    assert ran.document["winner"] is None
    assert (tmp_path / "run/report.html").is_file()


@pytest.mark.slow
def test_no_attempt_is_begun_whose_quantisation_may_take_longer_than_is_left(tmp_path):
    five_minutes = ("quantize=auto", "quantize.max_seconds=300", "search.max_minutes=5")
    ran = run_cli("search", "run_dir=run", *FEWER, *five_minutes, cwd=tmp_path)
    assert (ran.code, ran.document["verdict"]) == (4, "inconclusive")
    assert "the time was up" in ran.document["why"]
    assert "`quantize.max_seconds`" in ran.document["why"]
    assert not (tmp_path / "run/attempts").exists()
    assert not (tmp_path / "run/train").exists()  # not even the teacher


@pytest.mark.slow
def test_a_budget_that_nothing_can_meet_names_the_nearest_and_what_it_misses(cli, tmp_path):
    ran = cli("search", "run_dir=run", *FEWER, "budget.size_bytes=1000")
    assert (ran.code, ran.document["verdict"]) == (3, "fail")
    assert ran.document["nearest"]["candidate"] == "plain_cnn widths=2-2"
    (miss,) = ran.document["nearest"]["misses"]
    assert (miss["name"], miss["limit"]) == ("size_bytes", 1000)
    assert miss["by"] == miss["measured"] - 1000 > 0
    assert not (tmp_path / "run/train").exists()


@pytest.mark.slow
def test_an_accuracy_that_nothing_reaches_names_the_nearest_and_by_how_much(cli):
    asked = ("budget.accuracy.min=0.9999", "search.max_attempts=1")
    ran = cli("search", "run_dir=run", *FEWER, *asked)
    assert ran.code in (3, 4)
    assert len([c for c in ran.document["candidates"] if c["attempt"]]) == 1
    names = {miss["name"] for miss in ran.document["nearest"]["misses"]}
    assert "accuracy" in names
    assert "points" in ran.document["why"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~space"], "at least one student"),
        (["+space.plain_cnn.grid.depth=[3]"], "`plain_cnn widths=2-4-4 depth=3` does not"),
        (["space.resnet.grid.depth=[9]"], "6n+2"),
        (["space.plain_cnn.student._target_=distill.nothing.Net"], "distill.nothing"),
        (["search.keep=0"], "`search.keep` above 0"),
        (["search.rungs=[0.5,0.1]"], "rising shares"),
        (["trainer.max_epochs=1"], "Raise `trainer.max_epochs`"),
        (["trainer.max_epochs=null"], "a whole number above 0, of which short trainings are"),
        (["trainer.max_epochs=-1"], "are shares, but got -1"),
        (["trainer.max_epochs=2.5"], "are shares, but got 2.5"),
        (["search.max_attempts=0"], "`search.max_attempts` above 0"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(cli, tmp_path, overrides, message):
    ran = cli("search", "run_dir=run", *overrides)
    assert ran.code in (1, 2), ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "run/preflight.json").exists()


def test_a_student_may_look_at_smaller_images(data):
    from omegaconf import OmegaConf
    from rich.console import Console

    from distill.verbs.learning.networks import build_student
    from distill.verbs.run.workspace import Workspace

    target = {"_target_": "distill.training.models.PlainCNN", "_partial_": True, "widths": [4]}
    for size in (None, [4, 4]):
        cfg = OmegaConf.create({"student": target | {"input_size": size}})
        workspace = Workspace(cfg, "", Console()).changed(cfg, data)
        assert build_student(workspace).input_size == (tuple(size) if size else None)
