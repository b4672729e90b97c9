import json
import os
import shutil
import sqlite3

import numpy as np
import pytest
from registry_runs import ARTEFACT, NUM_TEST, Run, make_run, place, rewrite_json

from distill.budget import Outcome
from distill.errors import UsageError, UserError
from distill.files import sha256
from distill.production.registry.connection import UnreachableError, be_quick, talking_to
from distill.production.registry.ledger import Ledger
from distill.production.registry.package import collect
from distill.production.registry.place import fetch, models
from distill.production.registry.promotion import Request, Rules
from distill.production.registry.registry import open_registry
from distill.production.registry.store import Store

RULES = Rules()


@pytest.fixture
def home(tmp_path, mlflow_database):
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    return place(folder)


@pytest.fixture
def register(home, tmp_path):
    """Make a run and register it."""

    def call(**kind):
        name = f"run{len(list(tmp_path.glob('run*')))}"
        package = collect(make_run(tmp_path / name, Run(**kind)))
        with open_registry(home, new=True) as registry:
            return registry.register(package)

    return call


@pytest.fixture
def promote(home):
    def call(alias="champion", version=None, rules=RULES, **asked):
        with open_registry(home) as registry:
            return registry.promote(Request(alias=alias, version=version, **asked), rules)

    return call


def rollback(home, *arguments):
    with open_registry(home) as registry:
        return registry.rollback(*arguments)


def agree(home):
    """Whether MLflow says what the ledger says."""
    return home.store.aliases() == home.read().state.aliases


def test_a_version_holds_what_its_run_left(home, register):
    entry = register()
    package = fetch(home, entry.version)
    for name, expected in package.files.items():
        assert sha256(package.root / name) == expected
    assert {"verdict.json", "reference.json", "train/student/best.pt", "config.yaml"} <= {
        *package.files
    }
    assert f"export/{ARTEFACT}" in package.files
    assert entry.artefact_sha256 == package.files[f"export/{ARTEFACT}"]
    assert (entry.number, entry.version, entry.action) == (1, 1, "register")


def test_the_same_content_is_the_same_version(home, register, tmp_path):
    first = register()
    shutil.copytree(tmp_path / "run0", tmp_path / "moved")
    for run_dir in ("run0", "moved"):
        with open_registry(home) as registry:
            assert registry.register(collect(tmp_path / run_dir)) == first
    assert register(seed=1).version == 2
    assert len(home.read().entries) == 2


def test_a_champion_is_fetched_once_and_then_without_a_server(home, register, promote):
    register()
    promote()
    (home.folder / "mlflow.db").unlink()
    shutil.rmtree(home.folder / "artefacts")
    assert home.champion().version == 1
    assert fetch(home, 1).artefact_path.is_file()


def test_what_was_fetched_and_then_damaged_is_fetched_again(home, register, caplog):
    register()
    damaged = fetch(home, 1).root / "reference.json"
    expected = damaged.read_bytes()
    damaged.write_text("{}")
    assert fetch(home, 1).root == damaged.parent
    assert damaged.read_bytes() == expected


def test_the_first_champion_needs_a_pass_and_no_comparison(home, register, promote):
    register()
    decision = promote()
    assert decision.outcome is Outcome.PASS
    assert [finding.rule for finding in decision.findings] == ["verdict"]
    assert home.champion().version == 1
    assert agree(home)


def test_a_win_and_a_tie_become_champion(home, register, promote):
    register(seed=0, num_wrong=200)
    promote()
    register(seed=1, num_wrong=100)
    won = promote()
    assert won.outcome is Outcome.PASS
    assert won.findings[-1].measured == pytest.approx((100 - 200) / NUM_TEST)
    register(seed=2, num_wrong=101)
    assert promote().outcome is Outcome.PASS
    assert home.read().state.champions == (1, 2, 3)
    assert home.store.aliases() == {"champion": 3, "fallback": 2}


def test_a_loss_fails_and_what_is_unsure_is_inconclusive(home, register, promote):
    register(seed=0, num_wrong=100)
    promote()
    register(seed=1, num_wrong=200)
    lost = promote()
    assert lost.outcome is Outcome.FAIL
    assert lost.findings[-1].interval[0] > RULES.max_drop_vs_champion
    register(seed=2, num_wrong=118)
    unsure = promote()
    assert unsure.outcome is Outcome.INCONCLUSIVE
    low, high = unsure.findings[-1].interval
    assert low < RULES.max_drop_vs_champion < high
    assert home.champion().version == 1
    assert len(home.read().entries) == 4


@pytest.mark.parametrize(
    ("verdict", "champion", "challenger"),
    [
        ("pass", Outcome.PASS, Outcome.PASS),
        ("inconclusive", Outcome.INCONCLUSIVE, Outcome.PASS),
        ("fail", Outcome.FAIL, Outcome.FAIL),
    ],
)
def test_a_verdict_decides_what_a_version_may_become(
    home, register, promote, verdict, champion, challenger
):
    register(verdict=verdict)
    assert promote("challenger").outcome is challenger
    assert promote("champion").outcome is champion
    assert agree(home)


def test_another_order_of_classes_is_refused_and_so_are_other_classes(home, register, promote):
    register()
    promote()
    register(seed=1, classes=("dog", "cat", "owl"))
    found = promote().findings[-1]
    assert (found.rule, found.outcome) == ("same_classes", Outcome.FAIL)
    assert "another order" in found.note
    register(seed=2, classes=("cat", "dog", "owl", "rat"))
    found = promote().findings[-1]
    assert "new rat; gone none" in found.note
    assert home.champion().version == 1


def test_without_a_common_test_set_nothing_is_decided(home, register, promote):
    register()
    promote()
    register(seed=1, test="another")
    decision = promote()
    assert decision.outcome is Outcome.INCONCLUSIVE
    assert "pipeline against=champion" in decision.findings[-1].note


def test_a_run_that_asked_the_champion_is_compared_on_its_own_test_set(home, register, promote):
    champion = register().artefact_sha256
    promote()
    register(seed=1, test="another", num_wrong=100, incumbent=(champion, 300))
    decision = promote()
    assert decision.outcome is Outcome.PASS
    assert decision.findings[-1].measured == pytest.approx((100 - 300) / NUM_TEST)
    assert "the candidate's test set" in decision.findings[-1].note


def test_a_run_that_asked_somebody_else_says_nothing_of_the_champion(home, register, promote):
    register()
    promote()
    register(seed=1, test="another", num_wrong=100, incumbent=("b" * 64, 300))
    assert promote().outcome is Outcome.INCONCLUSIVE


def audit_of(seed, num_samples=1000):
    """Data on which the model of a seed is right, and others are as often as chance."""
    images = np.random.default_rng(5).integers(0, 256, (num_samples, 2, 2, 1), dtype=np.uint8)
    weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    labels = (images.reshape(num_samples, 4).astype(np.float32) @ weights).argmax(axis=1)
    return lambda contract: (images, labels)


def test_after_a_drift_audited_data_decides_and_the_old_test_set_guards(home, register, promote):
    register(seed=0, num_wrong=100)
    promote()
    register(seed=1, num_wrong=140)  # loses on the old test set, but within the guardrail
    assert promote().outcome is not Outcome.PASS
    decision = promote(audit=audit_of(seed=1))
    assert [f.rule for f in decision.findings[-2:]] == ["drop_vs_champion", "drop_on_old_test"]
    assert decision.outcome is Outcome.PASS
    assert decision.findings[-2].measured < -0.2
    register(seed=2, num_wrong=400)
    decision = promote(audit=audit_of(seed=2))
    assert [f.outcome for f in decision.findings[-2:]] == [Outcome.PASS, Outcome.FAIL]
    assert promote(audit=audit_of(seed=1)).findings[-2].outcome is Outcome.FAIL
    assert home.champion().version == 2


def test_force_needs_a_reason_and_the_ledger_keeps_both(home, register, promote):
    register()
    promote()
    register(seed=1, num_wrong=400, verdict="fail")
    for reason in (None, "", "  "):
        with pytest.raises(UsageError, match="reason="):
            Request(alias="champion", force=True, reason=reason)
    decision = promote(force=True, reason="the old one is broken")
    assert decision.entry.forced
    assert decision.entry.reason == "the old one is broken"
    outcomes = [finding["outcome"] for finding in decision.entry.evidence]
    assert outcomes == ["fail", "pass", "fail"]
    assert home.champion().version == 2


def test_force_is_not_noted_where_all_rules_hold(home, register, promote):
    register()
    assert not promote(force=True, reason="to be sure").entry.forced


def artefact_in_store(home):
    (path,) = home.folder.glob(f"artefacts/*/artifacts/version/export/{ARTEFACT}")
    return path


def test_no_force_promotes_what_is_not_whole(home, register, promote):
    register()
    path = artefact_in_store(home)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="it was changed"):
        promote(force=True, reason="now")
    path.unlink()
    with pytest.raises(UserError, match="it is missing"):
        promote(force=True, reason="now")
    assert home.read().state.champion is None


def test_a_version_replaced_in_the_store_by_a_whole_other_one_is_refused(home, register, promote):
    register()
    path = artefact_in_store(home).parent.parent
    register(seed=1)
    other = fetch(home, 2).root
    shutil.rmtree(path)
    shutil.copytree(other, path)
    with pytest.raises(UserError, match="it was replaced"):
        promote(version=1)


def test_an_artefact_that_answers_otherwise_than_its_golden_samples_is_refused(home, register):
    with pytest.raises(UserError, match="golden samples"):
        register(golden_error=0.1)
    assert home.store.versions() == {}


def test_rollback_goes_back_one_champion_at_a_time(home, register, promote):
    for seed in range(3):
        register(seed=seed)
        promote()
    assert rollback(home).version == 2
    assert home.store.aliases() == {"champion": 2, "fallback": 1}
    assert rollback(home, None, "worse").reason == "worse"
    assert home.store.aliases() == {"champion": 1}
    with pytest.raises(UserError, match="there is none"):
        rollback(home)
    assert agree(home)


def test_rollback_to_a_version_may_be_repeated(home, register, promote):
    for seed in range(3):
        register(seed=seed)
        promote()
    assert rollback(home, 1).version == 1
    assert rollback(home, 1) is None
    assert home.read().state.champions == (1,)


def test_rollback_to_what_was_never_champion_is_refused(home, register, promote):
    for seed in range(2):
        register(seed=seed)
        promote()
    register(seed=2)
    with pytest.raises(UserError, match=r"not 3: there is 1"):
        rollback(home, 3)


def test_rollback_never_goes_to_what_is_not_whole(home, register, promote):
    register()
    path = artefact_in_store(home)
    promote()
    register(seed=1)
    promote()
    path.unlink()
    shutil.rmtree(home.folder / "versions")
    with pytest.raises(UserError, match="it is missing"):
        rollback(home)
    assert home.champion().version == 2


def test_rollback_works_while_the_server_is_away_and_the_server_follows_later(
    home, register, promote, caplog
):
    for seed in range(2):
        register(seed=seed)
        promote()
    away = place(home.folder, "http://127.0.0.1:9")
    assert rollback(away).version == 1
    assert home.store.aliases()["champion"] == 2
    with open_registry(home) as registry:
        registry.synchronise()
    assert registry.repaired
    assert home.store.aliases() == {"champion": 1}


def test_an_unreachable_server_is_one_message_and_registering_can_be_repeated(home, tmp_path):
    package = collect(make_run(tmp_path / "run"))
    away = place(home.folder, "http://me:hunter2@127.0.0.1:9")
    with open_registry(away, new=True) as registry, pytest.raises(UserError) as refused:
        registry.register(package)
    assert "Nothing is lost" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    with open_registry(home, new=True) as registry:
        assert registry.register(package).version == 1


@pytest.mark.parametrize("uri", ["nowhere://x", "sqlite:////proc/none/mlflow.db"])
def test_a_database_that_cannot_be_opened_is_one_message(tmp_path, uri):
    with pytest.raises(UnreachableError, match="Expected an MLflow server at"):
        Store(uri, "pets", tmp_path).aliases()


def test_defects_are_not_taken_for_an_unreachable_server():
    with pytest.raises(ZeroDivisionError), talking_to("sqlite:///x"):
        _ = 1 / 0


def test_aliases_moved_by_hand_are_set_back_and_reported(home, register, promote):
    register()
    promote()
    register(seed=1)
    home.store.set_alias("champion", 2)
    home.store.set_alias("challenger", 2)
    with open_registry(home) as registry:
        registry.synchronise()
    assert len(registry.repaired) == 2
    assert "`champion` was 2 and is 1 again" in registry.repaired[0]
    assert home.store.aliases() == {"champion": 1}


def test_a_champion_deleted_on_the_server_is_reported_and_can_be_rolled_back(
    home, register, promote
):
    for seed in range(2):
        register(seed=seed)
        promote()
    home.store._client.delete_model_version("pets", "2")
    with open_registry(home) as registry:
        registry.synchronise()
        assert "version 2, champion by the ledger, is gone from MLflow" in registry.repaired
        assert registry.rollback().version == 1
    assert agree(home)


def test_a_truncated_ledger_is_told_by_the_servers_anchor(home, register, promote):
    register()
    promote()
    register(seed=1)
    lines = home.ledger_path.read_text().splitlines(keepends=True)
    home.ledger_path.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="truncated"):
        promote()
    home.ledger_path.unlink()
    with open_registry(home, new=True) as registry, pytest.raises(UserError, match="truncated"):
        registry.synchronise()


def test_a_kill_between_server_and_ledger_leaves_a_version_that_is_adopted(
    home, tmp_path, monkeypatch
):
    package = collect(make_run(tmp_path / "run"))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", killed)
        with open_registry(home, new=True) as registry, pytest.raises(KeyboardInterrupt):
            registry.register(package)
    assert models(home.folder) == []
    with open_registry(home, new=True) as registry:
        assert registry.register(package).version == 1
    assert list(home.store.versions()) == [1]


def test_a_kill_in_the_upload_leaves_no_version_and_is_gone_on_with(home, tmp_path, monkeypatch):
    package = collect(make_run(tmp_path / "run"))
    client = type(home.store._client)

    def killed(*_, **__):
        raise KeyboardInterrupt

    for step in ("log_artifacts", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(client, step, killed)
            with open_registry(home, new=True) as registry, pytest.raises(KeyboardInterrupt):
                registry.register(package)
        assert home.store.versions() == {}
    with open_registry(home, new=True) as registry:
        assert registry.register(package).version == 1
    with sqlite3.connect(home.folder / "mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
    assert len(list(home.folder.glob("artefacts/*"))) == 1


def test_only_one_process_at_a_time_changes_a_registry(home, register):
    register()
    with (
        open_registry(home),
        pytest.raises(UserError, match=r"held by process \d+ on"),
        open_registry(home),
    ):
        pass


def test_what_is_champion_already_is_left_and_is_no_challenger(home, register, promote):
    register()
    promote()
    again = promote()
    assert again.entry is None
    assert "is the champion already" in again.why
    with pytest.raises(UserError, match="another version than the champion"):
        promote("challenger", 1)
    with pytest.raises(UserError, match="no version 7"):
        promote(version=7)


def test_a_challenger_is_what_becomes_champion_by_default(home, register, promote):
    for seed in range(3):
        register(seed=seed)
    promote(version=1)
    promote("challenger", 2)
    assert promote().version == 2
    assert home.store.aliases() == {"champion": 2, "fallback": 1}


def test_a_missing_model_is_named_with_its_neighbours(home, register):
    with pytest.raises(UserError, match="Run `promote register"):
        home.read()
    register()
    with pytest.raises(UserError, match="Did you mean `pets`"):
        place(home.folder, model="pest").read()
    with pytest.raises(UserError, match="no version was promoted yet"):
        home.champion()
    with pytest.raises(UsageError, match="letters, digits"):
        place(home.folder, model="../x")


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


def test_a_run_without_verdict_is_refused(run_dir, tmp_path):
    with pytest.raises(UserError, match="there is none"):
        collect(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    (run_dir / "manifests/verdict.json").unlink()  # the pipeline was killed while it judged again
    with pytest.raises(UserError, match="the run has none"):
        collect(run_dir)
    (run_dir / "verdict.json").unlink()
    with pytest.raises(UserError, match="the run has none"):
        collect(run_dir)


def test_an_edited_verdict_is_refused(run_dir):
    rewrite_json(run_dir / "verdict.json", verdict="pass", extra=1)
    with pytest.raises(UserError, match="it was edited"):
        collect(run_dir)


def test_a_verdict_of_another_artefact_is_refused(run_dir, tmp_path):
    other = make_run(tmp_path / "other", Run(seed=1))
    for name in ("verdict.json", "manifests/verdict.json"):
        shutil.copy(other / name, run_dir / name)
    with pytest.raises(UserError, match="judged another artefact"):
        collect(run_dir)


def test_an_artefact_changed_after_its_verdict_is_refused(run_dir):
    path = run_dir / "export" / ARTEFACT
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="changed after its verdict"):
        collect(run_dir)


@pytest.mark.parametrize(
    "name", ["predictions/test_logits.npz", "export/contract.json", "report.html", "baseline.json"]
)
def test_whatever_was_changed_after_its_stage_is_refused(run_dir, name):
    path = run_dir / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="changed"):
        collect(run_dir)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        collect(run_dir)


def test_a_verdict_older_than_its_evaluation_is_refused(run_dir):
    manifest = run_dir / "manifests/verdict.json"
    made = json.loads(manifest.read_text())
    made["needs"]["inputs"]["evaluate.json"] = "0" * 64
    manifest.write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"drawn from evaluate\.json"):
        collect(run_dir)


def test_a_verdict_of_an_older_distill_is_refused(run_dir):
    verdict = json.loads((run_dir / "verdict.json").read_text())
    del verdict["artefacts"]
    (run_dir / "verdict.json").write_text(json.dumps(verdict))
    manifest = json.loads((run_dir / "manifests/verdict.json").read_text())
    manifest["outputs"]["verdict.json"] = sha256(run_dir / "verdict.json")
    (run_dir / "manifests/verdict.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="older distill"):
        collect(run_dir)


def test_mlflow_that_is_missing_is_one_message(home, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'distill\[mlflow\]'"):
        home.store.aliases()


def test_patience_is_the_users_where_they_set_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    be_quick()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
