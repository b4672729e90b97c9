"""Registries whose processes are killed at random moments, and what a fresh process then finds.

Every operation and every look runs in a fork of one process that has imported MLflow and opened
nothing. What ought to be there is computed here, from the operations alone, and what is there is
read with `json`, `hashlib` and `sqlite3`, not with the registry's own code; only the champion's
files are fetched with it.
"""

import hashlib
import json
import os
import random
import signal
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry_runs import Run, make_run, place

from distill.errors import UserError
from distill.production.registry.ledger import Ledger
from distill.production.registry.package import collect, read_package
from distill.production.registry.place import Place
from distill.production.registry.promotion import Request, Rules
from distill.production.registry.registry import open_registry

NUM_VERSIONS = 4
Operation = tuple[str, int | None]  # champion, challenger or rollback, and the version


def warm_up() -> None:
    """Import what takes seconds, and open nothing: connections do not survive a fork."""
    import mlflow.store.artifact.local_artifact_repo
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


class Forked:
    """A function in a process of its own; its answer comes back as JSON if it lives to give it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            try:
                answer = {"ok": function()}
            except UserError as error:
                answer = {"refused": str(error)}
            except BaseException:
                answer = {"crashed": traceback.format_exc()}
            os.write(writer, json.dumps(answer).encode())
            os._exit(0)
        os.close(writer)
        self._reader = reader

    def answer(self) -> dict[str, Any] | None:
        """Wait for the answer; None if it was killed before it gave one."""
        parts = []
        while part := os.read(self._reader, 65536):
            parts.append(part)
        os.close(self._reader)
        os.waitpid(self.pid, 0)
        content = b"".join(parts)
        try:
            return json.loads(content)
        except ValueError:
            return None

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)


def do(home: Place, operation: Operation) -> None:
    """Carry an operation out."""
    action, version = operation
    with open_registry(home) as registry:
        if action == "rollback":
            registry.rollback()
        else:
            decision = registry.promote(Request(alias=action, version=version), Rules())
            assert decision.entry is not None, decision.why


def after(stack: list[int], challenger: int | None, operation: Operation) -> tuple:
    """Say what champions and challenger an operation leaves."""
    action, version = operation
    if action == "rollback":
        return stack[:-1], challenger
    if action == "challenger":
        return stack, version
    return [*stack, version], None if challenger == version else challenger


def draw(
    rng: random.Random, stack: list[int], challenger: int | None, num_challengers: int = 1
) -> Operation:
    """Draw an operation that is legal: champions 5, challengers so many, rollbacks 4 times."""
    kinds = ["champion"] * 5 + ["challenger"] * num_challengers
    kinds += ["rollback"] * (4 if len(stack) > 1 else 0)
    kind = rng.choice(kinds)
    taken = {stack[-1], challenger} if kind == "challenger" else {stack[-1]}
    others = [v for v in range(1, NUM_VERSIONS + 1) if v not in taken]
    return kind, None if kind == "rollback" else rng.choice(others)


def look(home: Place) -> dict[str, Any]:
    """Open the registry as the next process does, then read what is there by other means."""
    with open_registry(home) as registry:
        registry.synchronise()
        repaired = len(registry.repaired)
    stack, challenger = replayed(home.ledger_path)
    with sqlite3.connect(home.tracking_uri.removeprefix("sqlite:///")) as database:
        query = "select alias, version from registered_model_aliases where name = ?"
        rows = database.execute(query, (home.model,)).fetchall()
    wanted = {"champion": stack[-1], "fallback": stack[-2] if len(stack) > 1 else None}
    wanted = {a: v for a, v in (wanted | {"challenger": challenger}).items() if v is not None}
    with tempfile.TemporaryDirectory() as folder:
        home.store.download(stack[-1], Path(folder))
        package = read_package(Path(folder))
        package.prove()  # every file by its hash, and the golden samples
    named = json.loads(home.ledger_path.read_text().splitlines()[stack[-1] - 1])
    return {
        "stack": stack,
        "challenger": challenger,
        "num_champions": sum(alias == "champion" for alias, _ in rows),
        "aliases_agree": dict(rows) == wanted,
        "champion_is_whole": package.artefact_sha256 == named["artefact_sha256"],
        "repaired": repaired,
    }


def replayed(path: Path) -> tuple[list[int], int | None]:
    """Verify a ledger's chain and replay it, by this module's own reading of the file.

    Returns:
        The champions, the present one last, and the challenger.
    """
    stack: list[int] = []
    challenger: int | None = None
    previous = "0" * 64
    content = path.read_text()
    assert content.endswith("\n"), "a torn line is left"
    for number, line in enumerate(content.splitlines(), 1):
        entry = json.loads(line)
        claimed = entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == claimed, f"entry {number}: hash"
        assert (entry["number"], entry["previous_hash"]) == (number, previous), f"entry {number}"
        previous = claimed
        if entry["action"] == "rollback":
            stack = stack[:-1]
            assert stack[-1] == entry["version"], f"entry {number}: stack"
        elif entry["action"] == "promote":
            operation = entry["alias"], entry["version"]
            stack, challenger = after(stack, challenger, operation)
    return stack, challenger


def prepare(folder: Path) -> tuple[Place, list[float]]:
    """Make a registry with a few versions and a champion; time some operations, in seconds."""
    home = place(folder / "registry")

    def fill() -> None:
        for seed in range(NUM_VERSIONS):
            package = collect(make_run(folder / f"run{seed}", Run(seed=seed)))
            with open_registry(home, new=True) as registry:
                registry.register(package)
        do(home, ("champion", 1))

    _ok(Forked(fill))
    seconds = []
    for operation in (("champion", 2), ("rollback", None)) * 3:
        start = time.monotonic()
        _ok(Forked(lambda operation=operation: do(home, operation)))
        seconds.append(time.monotonic() - start)
    return home, seconds


def kills(folder: Path, count: int, seed: int = 0) -> dict[str, Any]:
    """Kill promotions and rollbacks, and look after each."""
    rng = random.Random(seed)
    home, seconds = prepare(folder)
    stack, challenger = [1], None
    tally = {
        "kills": 0,
        "acknowledged_before_the_kill": 0,
        "committed_unacknowledged": 0,
        "not_committed": 0,
        "left_to_repair": 0,
        "wrong": [],
    }
    for number in range(count):
        operation = draw(rng, stack, challenger)
        running = Forked(lambda operation=operation: do(home, operation))
        time.sleep(rng.uniform(0, 1.1 * max(seconds)))
        running.kill()
        answered = running.answer()
        found = Forked(lambda: look(home)).answer()
        expected = after(stack, challenger, operation)
        problem = _problem(found, answered, expected, (stack, challenger))
        if problem:
            tally["wrong"].append({"kill": number, "operation": operation, "problem": problem})
            break
        assert found is not None
        now = found["ok"]
        committed = (now["stack"], now["challenger"]) == expected
        stack, challenger = now["stack"], now["challenger"]
        tally["kills"] += answered is None
        tally["acknowledged_before_the_kill"] += answered is not None
        tally["committed_unacknowledged"] += answered is None and committed
        tally["not_committed"] += not committed
        tally["left_to_repair"] += now["repaired"] > 0
    entries = len(Ledger.read(home.ledger_path).entries)
    return {"operations": count, **tally, "ledger_entries": entries, "seconds": max(seconds)}


def _problem(found: Any, answered: Any, expected: tuple, before: tuple) -> str | None:
    if found is None or "ok" not in found:
        return f"the next process cannot open the registry: {found}"
    if answered is not None and "ok" not in answered:
        return f"the operation failed by itself: {answered}"
    now = found["ok"]
    state = now["stack"], now["challenger"]
    if answered is not None and state != expected:
        return f"acknowledged but lost: {state}, not {expected}"
    if state not in (expected, before):
        return f"neither before nor after: {state}"
    if now["num_champions"] != 1 or not now["aliases_agree"]:
        return f"MLflow says something else than the ledger: {now}"
    return None if now["champion_is_whole"] else "the champion has no whole artefact"


def register_kills(folder: Path, count: int, seed: int = 1) -> dict[str, Any]:
    """Kill registrations, repeat each, and look for half versions and for doubles."""
    rng = random.Random(seed)
    home, _ = prepare(folder)
    cut_off, wrong = 0, []

    def register(run_dir: Path) -> int:
        with open_registry(home) as registry:
            return registry.register(collect(run_dir)).version

    start = time.monotonic()
    _ok(Forked(lambda: register(make_run(folder / "timed", Run(seed=99)))))
    seconds = time.monotonic() - start
    for number in range(count):
        run_dir = folder / f"new{number}"
        _ok(Forked(lambda run_dir=run_dir, n=number: str(make_run(run_dir, Run(seed=100 + n)))))
        running = Forked(lambda run_dir=run_dir: register(run_dir))
        time.sleep(rng.uniform(0, 1.1 * seconds))
        running.kill()
        cut_off += running.answer() is None
        again = Forked(lambda run_dir=run_dir: register(run_dir)).answer()
        with sqlite3.connect(home.tracking_uri.removeprefix("sqlite:///")) as database:
            query = "select count(*) from model_versions"
            (versions,) = database.execute(query).fetchone()
        expected = NUM_VERSIONS + 2 + number
        if again != {"ok": expected} or versions != expected:
            wrong.append({"kill": number, "answer": again, "versions": versions})
            break
    return {"registrations": count, "cut_off": cut_off, "wrong": wrong, "seconds": seconds}


def races(folder: Path, count: int) -> dict[str, Any]:
    """Let two processes promote at the same moment, again and again."""
    home, _ = prepare(folder)
    won, told, wrong = 0, 0, []
    champion = 1
    for number in range(count):
        others = [v for v in range(1, NUM_VERSIONS + 1) if v != champion][:2]
        gate_out, gate_in = os.pipe()

        def race(version: int, gate_out: int = gate_out, gate_in: int = gate_in) -> int:
            os.close(gate_in)
            os.read(gate_out, 1)  # returns in both when the parent closes its end
            do(home, ("champion", version))
            return version

        pair = [Forked(lambda v=version: race(v)) for version in others]
        os.close(gate_out)
        os.close(gate_in)
        answers = [process.answer() for process in pair]
        winners = [a["ok"] for a in answers if a and "ok" in a]
        refusals = [a["refused"] for a in answers if a and "refused" in a]
        clear = len(refusals) == 1 and "held by process" in refusals[0]
        found = Forked(lambda: look(home)).answer()
        if len(winners) != 1 or not clear or _ok_value(found)["stack"][-1] != winners[0]:
            wrong.append({"race": number, "answers": answers, "found": found})
            break
        champion = winners[0]
        won, told = won + 1, told + clear
    return {"races": count, "one_won": won, "other_told": told, "wrong": wrong}


def _ok(forked: Forked) -> Any:
    return _ok_value(forked.answer())


def _ok_value(answer: dict[str, Any] | None) -> Any:
    if answer is None or "ok" not in answer:
        raise RuntimeError(f"Expected an answer but got {answer}.")
    return answer["ok"]
