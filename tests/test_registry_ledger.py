import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UsageError, UserError
from distill.production.registry.history import champions_at, periods
from distill.production.registry.ledger import Head, Ledger

OF = {"content": "c" * 64, "artefact": "model.onnx", "artefact_sha256": "a" * 64}


def written(path, steps=("r1", "r2", "c1", "c2", "b1")):
    """Write a ledger: r for register, c for champion, h for challenger, b for rollback."""
    ledger = Ledger.read(path)
    for step in steps:
        version = int(step[1:])
        facts = dict(OF)
        if step[0] in "ch":
            facts["alias"] = {"c": "champion", "h": "challenger"}[step[0]]
            facts["evidence"] = ({"rule": "verdict", "outcome": "pass", "measured": 0.1},)
        if step[0] == "b":
            facts["alias"] = "champion"
        action = {"r": "register", "c": "promote", "h": "promote", "b": "rollback"}[step[0]]
        ledger = ledger.append(action, version, **facts)
    return ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return written(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")


def test_what_is_read_is_what_was_written(ledger):
    again = Ledger.read(ledger.path)
    assert again == ledger
    assert [entry.number for entry in again.entries] == [1, 2, 3, 4, 5]
    assert again.num_bytes == ledger.path.stat().st_size
    assert again.entries[3].previous_champion == 1
    assert again.entries[2].evidence[0]["measured"] == 0.1


@pytest.mark.parametrize(
    ("steps", "champions", "challenger", "fallback"),
    [
        (["r1"], (), None, None),
        (["r1", "c1"], (1,), None, None),
        (["r1", "r2", "c1", "c2"], (1, 2), None, 1),
        (["r1", "r2", "c1", "h2"], (1,), 2, None),
        (["r1", "r2", "c1", "h2", "c2"], (1, 2), None, 1),
        (["r1", "r2", "r3", "c1", "c2", "c3", "b2", "b1"], (1,), None, None),
        (["r1", "r2", "r3", "c1", "c2", "c3", "b1"], (1,), None, None),
        (["r1", "r2", "r3", "c1", "c2", "b1", "c3"], (1, 3), None, 1),
        (["r1", "r2", "c1", "c2", "c1", "c2", "b1"], (1, 2, 1), None, 2),
    ],
)
def test_champions_are_a_stack(tmp_path, steps, champions, challenger, fallback):
    state = written(tmp_path / "ledger.jsonl", steps).state
    assert state.champions == champions
    assert state.champion == (champions[-1] if champions else None)
    assert (state.challenger, state.fallback) == (challenger, fallback)


@given(data=st.data())
def test_any_edit_of_any_byte_is_detected_against_the_anchor(ledger, tmp_path_factory, data):
    whole = ledger.path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[position]))
    edited = whole[:position] + bytes([byte]) + whole[position + 1 :]
    path = tmp_path_factory.mktemp("edited") / "ledger.jsonl"
    path.write_bytes(edited)
    if position < len(whole) - 1:  # all but the newline that ends the last entry: by the chain
        with pytest.raises(UserError, match="damaged"):
            Ledger.read(path)
    else:
        with pytest.raises(UserError, match="truncated"):
            Ledger.read(path).check_anchor(ledger.head, "the anchor")


@given(data=st.data())
def test_any_removed_inserted_or_swapped_bytes_are_detected(ledger, tmp_path_factory, data):
    whole = ledger.path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    inserted = data.draw(st.binary(max_size=4))
    edited = whole[:start] + inserted + whole[end:]
    if edited == whole:
        return
    path = tmp_path_factory.mktemp("edited") / "ledger.jsonl"
    path.write_bytes(edited)
    try:
        found = Ledger.read(path)
    except UserError:
        return
    if found.head == ledger.head:  # then only a torn tail was added, which never happened
        assert edited.startswith(whole)
        assert found.entries == ledger.entries
        return
    with pytest.raises(UserError, match="truncated"):
        found.check_anchor(ledger.head, "the anchor")


@pytest.mark.parametrize("gone", range(4))
def test_a_removed_entry_is_named_by_the_one_after_it(ledger, tmp_path, gone):
    lines = ledger.path.read_text().splitlines(keepends=True)
    del lines[gone]
    (tmp_path / "ledger.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match=f"entry {gone + 1} is damaged.*entries were removed"):
        Ledger.read(tmp_path / "ledger.jsonl")


def test_an_edit_that_seals_its_own_entry_again_breaks_the_chain_after_it(ledger, tmp_path):
    lines = ledger.path.read_text().splitlines(keepends=True)
    forged = ledger.entries[2].__class__(**{**vars(ledger.entries[2]), "reason": "none"}).sealed()
    lines[2] = forged.line
    (tmp_path / "ledger.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match="entry 4 is damaged"):
        Ledger.read(tmp_path / "ledger.jsonl")


def test_a_ledger_sealed_again_from_an_edit_on_is_told_by_the_anchor(ledger, tmp_path):
    rewritten = written(tmp_path / "ledger.jsonl", ("r1", "r2", "c2", "c1", "b2"))
    with pytest.raises(UserError, match="rewritten"):
        rewritten.check_anchor(ledger.head, "the anchor")


def test_a_longer_ledger_fits_an_older_anchor(ledger):
    for entry in ledger.entries:
        ledger.check_anchor(Head(number=entry.number, hash=entry.hash), "the anchor")
    ledger.check_anchor(Head(number=0, hash="0" * 64), "the anchor")


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_line_torn_by_a_kill_never_happened_and_is_written_over(tmp_path, kept):
    path = tmp_path / "ledger.jsonl"
    before = written(path, ("r1", "c1"))
    line = before.append("register", 2, **OF).entries[-1].line.encode()
    os.truncate(path, before.num_bytes + len(line[:kept]))
    found = Ledger.read(path)
    assert found == before
    after = found.append("register", 3, **OF)
    assert Ledger.read(path) == after
    assert after.entries[-1].number == 3


def test_an_entry_that_cannot_follow_is_refused_and_not_written(tmp_path):
    ledger = written(tmp_path / "ledger.jsonl", ("r1", "c1"))
    for action, version in (("promote", 2), ("rollback", 1)):
        with pytest.raises(ValueError, match="version"):
            ledger.append(action, version, alias="champion", **OF)
    assert Ledger.read(ledger.path) == ledger


def test_a_number_never_means_another_version(tmp_path):
    ledger = written(tmp_path / "ledger.jsonl", ("r1", "c1"))
    with pytest.raises(UserError, match="a number that no version has but 1 is cccccccccccc"):
        ledger.append("register", 1, **OF | {"content": "d" * 64})
    assert Ledger.read(ledger.path) == ledger


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path, monkeypatch):
    ledger = written(tmp_path / "ledger.jsonl", ("r1",))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:20], at))
    with pytest.raises(UserError, match="No space left"):
        ledger.append("promote", 1, alias="champion", **OF)
    assert ledger.path.stat().st_size == ledger.num_bytes


def test_there_is_one_way_to_write_an_entry(ledger, tmp_path):
    lines = ledger.path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]), sort_keys=True)  # the same values, other spaces
    (tmp_path / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="entry 2 is damaged: it was edited"):
        Ledger.read(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize("text", ["", "3", "x:" + "0" * 64, "3:abc"])
def test_an_anchor_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="Expected an anchor"):
        Head.parse(text)


@pytest.mark.slow
def test_reading_needs_no_mlflow():
    code = (
        "import sys, distill.verbs.promote, distill.production.registry.registry\n"
        "print({'mlflow', 'torch', 'sqlalchemy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class At:
    """An entry that made a champion at some time."""

    def __init__(self, version, time, alias="champion", number=0):
        self.version, self.time, self.alias, self.number = version, time, alias, number


HISTORY = [
    At(1, "2026-10-01T08:00:00+00:00"),
    At(9, "2026-10-15T08:00:00+00:00", "challenger"),
    At(2, "2026-11-01T12:00:00+00:00"),
    At(1, "2026-11-03T12:00:00+00:00"),
]


@pytest.mark.parametrize(
    ("when", "versions"),
    [
        ("2026-09-30", []),
        ("2026-10-01", [1]),
        ("2026-10-20", [1]),
        ("2026-11-01", [1, 2]),
        ("2026-11-01T11:59", [1]),
        ("2026-11-01T12:00", [2]),
        ("2026-11-01T13:00+02:00", [1]),
        ("2026-11-02", [2]),
        ("2030-01-01", [1]),
    ],
)
def test_who_was_champion_on_a_day(when, versions):
    assert [period.version for period in champions_at(HISTORY, when)] == versions


def test_periods_follow_each_other_without_a_gap():
    found = periods(HISTORY)
    assert [period.version for period in found] == [1, 2, 1]
    assert [period.until for period in found[:-1]] == [period.since for period in found[1:]]
    assert found[-1].until is None


def test_a_day_that_is_none_is_wrong_usage():
    with pytest.raises(UsageError, match="2026-11-01"):
        champions_at(HISTORY, "yesterday")


@pytest.mark.parametrize("content", ["../../home", "c" * 63, "C" * 64, ""])
def test_a_content_that_is_no_hash_is_refused_however_well_it_is_sealed(content, tmp_path):
    ledger = Ledger(path=tmp_path / "ledger.jsonl").append(
        "register", 1, **OF | {"content": content}
    )
    with pytest.raises(UserError, match="of its content is none"):
        Ledger.read(ledger.path)
