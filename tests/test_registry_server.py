import os
import shutil
import sqlite3

import pytest
from registered import agree
from registry_runs import Run, make_run, place

from distill.errors import UserError
from distill.production.registry.connection import UnreachableError, be_quick, talking_to
from distill.production.registry.ledger import Ledger
from distill.production.registry.package import collect
from distill.production.registry.place import models
from distill.production.registry.promotion import Request, Rules
from distill.production.registry.registry import open_registry
from distill.production.registry.store import CONTENT, Store

BY_FORCE = {"force": True, "reason": "to have a look"}


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


@pytest.fixture
def two(register, promote):
    """Two versions, the second of which is champion."""
    for seed in range(2):
        register(seed=seed)
        promote()


@pytest.fixture(params=["new server", "model deleted", "model made by hand", "model of others"])
def rebuilt(request, home, two, mlflow_database):
    """The registry, and a server that does not know its versions."""
    if request.param == "model deleted":
        home.store._client.delete_registered_model("pets")
        return home
    shutil.copy(mlflow_database, home.folder / "new.db")
    away = place(home.folder, f"sqlite:///{home.folder}/new.db")
    if request.param != "new server":
        away.store._client.create_registered_model("pets")
    if request.param == "model of others":
        away.store._client.create_model_version("pets", str(home.folder), run_id=None)
    return away


def others(where):
    """Numbers that are not ours."""
    listed = where.store._client.search_model_versions("name='pets'")
    return {int(version.version) for version in listed if CONTENT not in version.tags}


def register_at(where, run):
    with open_registry(where) as registry:
        return registry.register(collect(run))


def test_a_server_that_does_not_know_a_version_says_what_to_do(rebuilt):
    with open_registry(rebuilt) as registry, pytest.raises(UserError) as refused:
        registry.promote(Request(alias="champion", version=1), Rules())
    assert "Register its run again" in str(refused.value)
    assert "Start the server" not in str(refused.value)


def test_a_version_that_is_registered_again_at_a_new_server_has_its_number_again(rebuilt, tmp_path):
    before = rebuilt.read()
    assert register_at(rebuilt, tmp_path / "run1") == before.state.registered[2]
    assert rebuilt.read() == before
    contents = {number: entry.content for number, entry in before.state.registered.items()}
    back = contents.keys() - others(rebuilt)
    assert rebuilt.store.versions() == {number: contents[number] for number in back}
    aliases = before.state.aliases.items()
    assert rebuilt.store.aliases() == {name: number for name, number in aliases if number in back}
    with open_registry(rebuilt) as registry:
        assert registry.promote(Request(alias="champion", version=2), Rules()).entry is None


def test_no_number_that_a_new_server_begins_with_again_means_two_versions(rebuilt, tmp_path):
    before = rebuilt.read().state
    entry = register_at(rebuilt, make_run(tmp_path / "run7", Run(seed=7)))
    assert entry.version == 3
    assert set(rebuilt.store.versions()) == {1, 2, 3} - others(rebuilt)
    after = rebuilt.read().state
    assert {number: after.registered[number] for number in (1, 2)} == before.registered
    assert rebuilt.champion() == before.registered[2]


@pytest.mark.parametrize("order", [(2, 0, 1), (2, 1, 0), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("copies", [True, False], ids=["copies", "runs alone"])
def test_runs_have_their_old_numbers_in_whatever_order_they_are_registered_again(
    home, two, register, tmp_path, mlflow_database, order, copies
):
    register(seed=2)
    before = home.read()
    shutil.copy(mlflow_database, home.folder / "new.db")
    away = place(home.folder, f"sqlite:///{home.folder}/new.db")
    if not copies:
        shutil.rmtree(home.folder / "versions")
    for number in order:
        run = tmp_path / f"run{number}"
        if not copies and number != len(away.store.versions()):
            (following, *_) = set(range(3)) - {one - 1 for one in away.store.versions()}
            with pytest.raises(UserError, match=f"{following + 1} is next.*run{following}` first"):
                register_at(away, run)
            continue
        assert register_at(away, run) == before.state.registered[number + 1]
    contents = {number: entry.content for number, entry in before.state.registered.items()}
    if copies or order == (0, 1, 2):
        assert away.store.versions() == contents
        with open_registry(away) as registry:
            found = registry.promote(Request(alias="champion", version=1, **BY_FORCE), Rules())
        assert found.version == 1
        assert found.entry is not None
    else:
        assert home.read() == before


def test_a_number_whose_files_are_gone_stays_free_and_bars_nobody(
    home, two, tmp_path, mlflow_database
):
    before = home.read().state.registered
    shutil.copy(mlflow_database, home.folder / "new.db")
    away = place(home.folder, f"sqlite:///{home.folder}/new.db")
    shutil.rmtree(home.folder / "versions")
    shutil.rmtree(tmp_path / "run0")
    assert register_at(away, tmp_path / "run1") == before[2]
    assert away.store.versions() == {2: before[2].content}


def test_an_alias_is_given_to_no_version_that_another_has_put_under_its_number(rebuilt):
    client = rebuilt.store._client
    if not client.search_registered_models("name='pets'"):
        client.create_registered_model("pets")
    for _ in range(2):
        client.create_model_version("pets", str(rebuilt.folder), tags={CONTENT: "d" * 64})
    with open_registry(rebuilt) as registry:
        registry.synchronise()
    assert rebuilt.store.aliases() == {}
    assert "version 2, champion by the ledger, is gone from MLflow" in registry.repaired


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
