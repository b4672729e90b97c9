import shutil

import pytest
from registered import agree, artefact_in_store, rollback
from registry_runs import place

from distill.errors import UserError
from distill.production.registry.registry import open_registry


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
