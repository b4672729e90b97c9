"""Claims about `-m`: every value has a run of its own, in the folder that was asked for."""

import shlex
from pathlib import Path

import pytest

from distill.verbs import doctor, monitor, promote

BASELINE = ("baseline", "-m", "baselines=[majority_class]")


def test_a_sweep_lies_in_the_folder_that_was_named_and_goes_on_in_it(cli, tmp_path):
    command = (*BASELINE, "seed=0,1", "run_dir=outputs/Köln & more")
    first = cli(*command)
    assert first.code == 0, first.stderr
    folder = tmp_path / "outputs/Köln & more"
    assert {*tmp_path.glob("**/[01]/baseline.json")} == {
        folder / f"{n}/baseline.json" for n in "01"
    }
    told = (folder / "1/config.yaml").read_text().splitlines()[0]
    words = shlex.split(told.partition(": distill ")[2])
    assert words == [
        "baseline", "baselines=[majority_class]", "seed=1", 'run_dir="outputs/Köln & more/1"'
    ]  # fmt: skip
    again = cli(*command)
    assert again.stderr.count("baseline: unchanged, not run again") == 2
    assert again.document == first.document


def test_names_are_swept_with_any_letters_and_have_a_folder_each(cli, tmp_path):
    ran = cli(*BASELINE, "name=Köln,bonn")
    assert ran.code == 0, ran.stderr
    names = {path.relative_to(tmp_path).parts[1] for path in tmp_path.rglob("baseline.json")}
    assert names == {"Köln", "bonn"}


def test_looks_at_the_log_have_a_folder_each(cli, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        monitor, "run", lambda cfg: seen.append((cfg.window_days, Path(cfg.out))) or {}
    )
    assert cli("monitor", "-m", "window_days=7,14", "out=looks").code == 0
    assert seen == [(7, tmp_path / "looks/0"), (14, tmp_path / "looks/1")]
    ran = cli("experiment", "plan", "-m", "plan.difference=0.01,0.02")
    first, second = ran.document["runs"]
    assert first["question"]["difference"] == 0.01
    assert second["question"]["difference"] == 0.02


def test_an_experiment_of_ones_own_needs_no_name(cli, tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    mine = "# @package _global_\nbatch_size: 32\n"
    (tmp_path / "conf/experiment/mine.yaml").write_text(mine)
    ran = cli("baseline", "--config-dir=conf", "-m", "experiment=mine", "seed=0,1", *BASELINE[2:])
    assert ran.code == 0, ran.stderr
    folders = {path.parent for path in tmp_path.glob("outputs/baseline/*/*/baseline.json")}
    assert {folder.name for folder in folders} == {"0", "1"}


def test_names_and_paths_are_those_of_a_single_run(cli, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(monitor, "run", lambda cfg: seen.append((cfg.run, cfg.a)) or {})
    given = ("run=2024_10", '+a.b={"c.d": 1, "7": 2}', "+a.b.ö=3", "+a.b.e f=4", "++a.b.e=5")
    kept = {"c.d": 1, "7": 2, "ö": 3, "e f": 4, "e": 5}
    assert cli("monitor", *given).code == 0
    assert cli("monitor", "-m", "window_days=7,14", *given).document["num_failed"] == 0
    assert seen == 3 * [("2024_10", {"b": kept})]


@pytest.mark.parametrize(("verb", "name"), [(doctor, "doctor"), (promote, "promote")])
def test_verbs_that_make_no_folder_make_none(cli, monkeypatch, tmp_path, verb, name):
    seen = []
    monkeypatch.setattr(verb, "run", lambda cfg: seen.append(cfg.get("run_dir")) or {})
    runs = ["+run_dir=a,b"] if name == "doctor" else ["run_dir=a,b"]
    assert cli(name, "-m", *runs).document["num_failed"] == 0
    assert seen == ["a", "b"]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("verb", ["serve", "feedback"])
@pytest.mark.parametrize("option", ["-m", "--multirun", "--multi", "hydra.mode=MULTIRUN"])
def test_verbs_for_one_run_are_refused(cli, verb, option):
    ran = cli(verb, option, "log.url=a,b")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: Expected `{verb}` without -m")
