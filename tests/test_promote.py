import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import SHORT
from omegaconf import OmegaConf
from PIL import Image
from registry_runs import ARTEFACT, CLASSES, Run, make_run, write_model
from sshd import free_port

from distill.files import read_json, sha256
from distill.runtime import OnnxModel
from distill.verbs.production.registry import champion_path


@pytest.fixture
def runs(tmp_path, mlflow_database):
    """Two runs of equal quality and one that is worse."""
    (tmp_path / "registry").mkdir()
    shutil.copy(mlflow_database, tmp_path / "registry")
    for name, run in {
        "a": Run(seed=0, num_wrong=100),
        "b": Run(seed=1, num_wrong=100),
        "worse": Run(seed=2, num_wrong=300),
    }.items():
        make_run(tmp_path / name, run)
    return tmp_path


@pytest.fixture
def promoted(runs, cli):
    """A registry with a champion, 2, that replaced 1."""
    for name in "ab":
        assert cli("promote", "register", f"run_dir={name}").code == 0
        assert cli("promote", "to=champion").code == 0
    return cli


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_from_run_to_champion_and_back(runs, cli):
    ran = cli("promote", "register", "run_dir=a")
    assert (ran.code, ran.document["version"], ran.document["model"]) == (0, 1, "pets")
    assert cli("promote", "register", "run_dir=a").document["registered"] is False
    ran = cli("promote", "to=champion")
    assert (ran.code, ran.document["promotion"], ran.document["promoted"]) == (0, "pass", True)
    cli("promote", "register", "run_dir=b")
    ran = cli("promote", "to=champion", "version=2")
    assert ran.code == 0
    assert [check["rule"] for check in ran.document["checks"]] == [
        "verdict", "same_classes", "drop_vs_champion",
    ]  # fmt: skip
    ran = cli("promote", "rollback", "reason=complaints")
    assert (ran.document["from"], ran.document["version"]) == (2, 1)
    ran = cli("promote", "history")
    assert ran.document["champion"] == 1
    assert [entry["action"] for entry in ran.document["entries"]] == [
        "register", "promote", "register", "promote", "rollback",
    ]  # fmt: skip
    assert "complaints" in ran.stderr
    assert "rollback 2 → 1" in ran.stderr
    assert "drop vs champion: pass" in ran.stderr


def test_a_loss_exits_3_and_a_wider_margin_bears_it(runs, promoted):
    promoted("promote", "register", "run_dir=worse")
    ran = promoted("promote", "to=champion")
    assert (ran.code, ran.document["promoted"]) == (3, False)
    assert "`drop_vs_champion` is not held" in ran.stderr
    ran = promoted("promote", "to=champion", "rules.max_drop_vs_champion=0.12")
    assert (ran.code, ran.document["promoted"]) == (0, True)


def test_what_is_inconclusive_exits_4(runs, promoted):
    make_run(runs / "close", Run(seed=3, num_wrong=115))
    promoted("promote", "register", "run_dir=close")
    ran = promoted("promote", "to=champion")
    assert (ran.code, ran.document["promotion"]) == (4, "inconclusive")


def test_force_is_shown_in_the_history(runs, promoted):
    promoted("promote", "register", "run_dir=worse")
    ran = promoted("promote", "to=champion", "force=true")
    assert ran.code == 2
    assert "reason=" in ran.stderr
    ran = promoted("promote", "to=champion", "force=true", "reason=fire")
    assert (ran.code, ran.document["forced"]) == (0, True)
    ran = promoted("promote", "history")
    assert "BY FORCE" in ran.stderr
    assert '"fire"' in ran.stderr


@pytest.mark.parametrize(
    "reason",
    ["complaints: too slow, again", "it's (bad)!", 'a "quoted" \\" word', "a=b {c}", "null"],
)
def test_a_reason_is_free_text(promoted, reason):
    ran = promoted("promote", "rollback", f"reason={reason}")
    assert ran.code == 0, ran.stderr
    assert promoted("promote", "history").document["entries"][-1]["reason"] == reason


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["register"], 2, "Expected `run_dir=`"),
        (["register", "run_dir=typo"], 1, "no"),
        (["to=champion"], 1, "Run `promote register"),
        (["rollback"], 1, "Run `promote register"),
        (["history"], 1, "Run `promote register"),
        (["history", "registry.model=x"], 1, "Expected a model `x`"),
        (["histry"], 2, "Did you mean `history`"),
    ],
)
def test_what_is_refused_leaves_no_folder(cli, tmp_path, arguments, code, message):
    ran = cli("promote", *arguments)
    assert ran.code == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["to=winner"], 2, "champion or challenger"),
        (["version=9"], 1, "Known: 1, 2"),
        (["rollback", "version=2"], 0, "version 2 is there"),
        (["rollback", "version=9"], 1, "not 9"),
        (["+rules.max_dorp=1"], 2, "max_drop"),
        (["history", "at=someday"], 2, "2026-11-01"),
        (["history", "anchor=1:2"], 1, "Expected an anchor"),
        (["history", f"anchor=9:{'0' * 64}"], 1, "truncated"),
        (["history", f"anchor=2:{'0' * 64}"], 1, "rewritten"),
        (["audit=nowhere.parquet", "version=1"], 1, "nowhere.parquet"),
        (["registry.tracking_uri=http://127.0.0.1:9", "version=1"], 1, "Nothing is lost"),
    ],
)
def test_bad_input_is_one_message(promoted, arguments, code, message):
    ran = promoted("promote", *arguments)
    assert ran.code == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_printed_anchor_and_the_servers_fit(promoted):
    anchor = promoted("promote", "history").document["anchor"]
    for kept in (anchor, "mlflow"):
        assert promoted("promote", "history", f"anchor={kept}").code == 0


def test_who_was_champion_today(promoted):
    day = promoted("promote", "history").document["periods"][0]["since"][:10]
    ran = promoted("promote", "history", f"at={day}")
    assert [period["version"] for period in ran.document["champions"]] == [1, 2]
    assert promoted("promote", "history", "at=2001-01-01").document["champions"] == []


def test_several_models_share_a_registry_and_are_named_where_they_must_be(promoted):
    promoted("promote", "register", "run_dir=a", "registry.model=other")
    ran = promoted("promote", "history")
    assert ran.code == 1
    assert "2: other, pets" in ran.stderr
    assert promoted("promote", "history", "registry.model=other").document["champion"] is None


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(buffer, format="png")
    return buffer.getvalue()


def test_audited_images_decide_after_a_drift(runs, promoted, rng):
    make_run(runs / "new", Run(seed=5, num_wrong=150))  # loses on the old test set
    promoted("promote", "register", "run_dir=new")
    assert promoted("promote", "to=champion").code in (3, 4)
    write_model(runs / "truth.onnx", Run(seed=5))
    images = rng.integers(0, 256, (300, 2, 2, 1), dtype=np.uint8)
    labels = OnnxModel(runs / "truth.onnx").predict(images).argmax(axis=1)
    columns = {"image": [{"bytes": png(image)} for image in images]}
    names = [CLASSES[label] for label in labels]
    pq.write_table(pa.table({**columns, "label": names}), runs / "names.parquet")
    pq.write_table(pa.table({**columns, "truth": labels}), runs / "numbers.parquet")
    pq.write_table(pa.table({**columns, "label": ["cow"] * 300}), runs / "cow.parquet")
    ran = promoted("promote", "audit=cow.parquet")
    assert ran.code == 1
    assert "300 of 300 are none, such as `cow`" in ran.stderr
    ran = promoted("promote", "audit=names.parquet")
    assert ran.code == 0, ran.stderr
    checks = {check["rule"]: check for check in ran.document["checks"]}
    assert checks["drop_vs_champion"]["measured"] < -0.3
    assert checks["drop_on_old_test"]["limit"] == 0.05
    promoted("promote", "rollback")
    ran = promoted("promote", "audit=numbers.parquet", "label_column=truth", "version=3")
    assert ran.code == 0, ran.stderr


def test_the_champions_file_is_found_by_configuration(promoted):
    cfg = OmegaConf.create(
        {"registry": {"folder": "registry", "model": None, "tracking_uri": "sqlite:///gone.db"}}
    )
    entry = promoted("promote", "history").document["entries"][-1]
    path = champion_path(cfg)
    assert sha256(path) == entry["artefact_sha256"]
    assert (path.parent / "contract.json").is_file()


def test_nothing_is_written_beside_the_registry(runs, cli):
    before = files(runs)
    cli("promote", "register", "run_dir=a")
    cli("promote", "to=champion")
    cli("promote", "history")
    assert {path.parts[0] for path in files(runs) - before} == {"registry"}


@pytest.mark.slow
def test_another_process_that_holds_the_registry_is_named(promoted, tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from distill.production.registry.place import Place\n"
        "from distill.production.registry.registry import open_registry\n"
        "place = Place(folder=Path('registry'), model='pets', tracking_uri='sqlite:///x')\n"
        "with open_registry(place):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(100)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        ran = promoted("promote", "rollback")
        assert ran.code == 1
        assert f"held by process {holder.pid}" in ran.stderr
        assert promoted("promote", "history").code == 0
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert promoted("promote", "rollback").document["version"] == 1


@pytest.mark.slow
def test_a_finished_pipeline_can_be_registered_and_fetched_whole(finished, cli):
    run_dir, ran = finished
    done = cli("promote", "register", f"run_dir={run_dir}")
    assert done.code == 0, done.stderr
    assert done.document["artefact_sha256"] in ran.document["artefacts"].values()
    done = cli("promote", "to=champion", "force=true", "reason=test")
    assert done.document["promoted"], done.stderr
    reference = json.loads((run_dir / "reference.json").read_text())
    assert set(reference["models"]) == set(ran.document["artefacts"])
    assert reference["count"] == 160


@pytest.mark.slow
def test_a_new_run_asks_the_champion_and_is_promoted_on_a_test_set_of_its_own(
    finished, cli, tmp_path
):
    run_dir, _ = finished
    done = cli("promote", "register", f"run_dir={run_dir}")
    first = cli("promote", "to=champion", "force=true", "reason=the first")
    assert first.document["promoted"], first.stderr
    new = (*SHORT, "preflight=false", "budget=none", "data.test_fraction=0.3")
    alone = cli("pipeline", "run_dir=new", *new)
    assert (alone.code, alone.document["verdict"]) == (0, "pass"), alone.stderr
    cli("promote", "register", "run_dir=new")
    ran = cli("promote", "to=champion")
    assert (ran.code, ran.document["promoted"]) == (4, False)
    assert "pipeline against=champion" in drop_of(ran)["note"]

    asked = cli("pipeline", "run_dir=new", *new, "against=champion")
    assert asked.code == 0, asked.stderr
    incumbent = read_json(tmp_path / "new/baseline.json")["incumbent"]
    assert incumbent["sha256"] == done.document["artefact_sha256"]
    cli("promote", "register", "run_dir=new")
    ran = cli("promote", "to=champion", "rules.max_drop_vs_champion=0.5")
    assert (ran.code, ran.document["promoted"]) == (0, True), ran.stderr
    models = asked.document["models"]
    chosen = asked.document["chosen"]["artefact"]
    shipped = next(model for model in models.values() if model.get("artefact") == chosen)
    drop = models["incumbent"]["accuracy"] - shipped["accuracy"]
    assert drop_of(ran)["measured"] == pytest.approx(drop)


def drop_of(ran):
    return next(c for c in ran.document["checks"] if c["rule"] == "drop_vs_champion")


def test_the_made_up_artefact_is_what_the_made_up_contract_says(runs):
    answers = OnnxModel(runs / "a/export" / ARTEFACT).predict(np.zeros((2, 2, 2, 1), np.uint8))
    assert answers.shape == (2, 3)


FORKED = """
import json, sys
from pathlib import Path
from registry_kills import kills, races, register_kills, warm_up
PARTS = ((kills, 12), (races, 3), (register_kills, 3))
warm_up()
found = [part(Path(sys.argv[1]) / part.__name__, count) for part, count in PARTS]
print(json.dumps([wrong for part in found for wrong in part["wrong"]]))
"""


@pytest.mark.slow
def test_killed_and_racing_processes_leave_one_whole_champion(tmp_path, mlflow_database):
    for part in ("kills", "races", "register_kills"):
        (tmp_path / part / "registry").mkdir(parents=True)
        shutil.copy(mlflow_database, tmp_path / part / "registry")
    # Forked from a process without threads, which that of the tests is not.
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.slow
def test_a_server_takes_versions_and_gives_them_back(runs, cli, tmp_path, mlflow_database):
    shutil.copy(mlflow_database, tmp_path / "server.db")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination", str(tmp_path / "server"),
    ]  # fmt: skip
    with (tmp_path / "server.log").open("w") as out:
        # Its runners of jobs, which a registry has none of, are seven processes.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, env=environment
        )
    try:
        there = f"registry.tracking_uri={uri}"
        deadline = time.monotonic() + 90
        while cli("promote", "register", "run_dir=a", there).code and time.monotonic() < deadline:
            time.sleep(0.2)
        assert cli("promote", "to=champion", there).code == 0
        ran = cli("promote", "register", "run_dir=b", there)
        assert ran.document["version"] == 2
        assert cli("promote", "to=champion", there).document["promoted"]
        assert list((tmp_path / "server").rglob(ARTEFACT))
        assert not (tmp_path / "registry" / "artefacts").exists()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    ran = cli("promote", "rollback", there)  # the server is gone, the version is here
    assert (ran.code, ran.document["version"]) == (0, 1)
    assert "Connection refused" in ran.stderr
