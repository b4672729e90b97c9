"""Twenty minutes of everything that the service answers, while who answers changes all the time.

Requests come at random moments at a given rate, each of a kind that is drawn. A process of its own
promotes, takes back and names challengers as the ledger allows; the challenger's process is killed,
frozen and held. What was answered is looked for in the log; memory is that of the service's own
process (PSS), beside that of the challengers, which come and go.
"""

import asyncio
import io
import json
import random
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from common import check
from PIL import Image
from registry_kills import NUM_VERSIONS, Forked, do, draw, replayed, warm_up
from registry_runs import CLASSES, Run, make_run, place
from serving_faults import children_of, faults
from serving_load import Connection
from serving_subjects import following

from distill.production.registry.package import collect
from distill.production.registry.place import Place
from distill.production.registry.registry import open_registry

SECONDS, RATE, CONNECTIONS = 1200.0, 80.0, 8
MOVE_EVERY_S, LOOK_EVERY_S = 10.0, 5.0
DEADLINE_MS, MAX_GROWTH = 1000, 0.05
KINDS = {"infer": 50, "picture": 25, "feedback": 12, "refused": 5, "metrics": 4, "status": 4}


def rows(work: Path, seed: int, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Load, move and break for a while, then look at what is left."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    warm_up()
    home, log = _registry(work), work / "predictions.db"
    seconds = 30.0 if quick else SECONDS
    settings = (
        f"registry.folder={home.folder}",
        f"registry.model={home.model}",
        f"log.url=sqlite:///{log}",
        f"deadline_ms={DEADLINE_MS}",
        "rollout=canary",
        "rollout.cooldown_seconds=0",
        "rollout.rollback_window_seconds=2",
        "rollout.min_units=20",
        "trial.limits.hang_seconds=1",
    )
    with following(home.model, *settings) as where, faults(where) as harmed:
        load = _Load(where.url, seed)
        moves, memory = asyncio.run(_all(load, home, where.process.pid, seconds, seed))
        time.sleep(1)  # what was answered is written behind the answer's back
    with closing(sqlite3.connect(log)) as database:
        kept = {name for (name,) in database.execute("SELECT id FROM distill_predictions")}
        sound = database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    latencies = np.array(load.latencies_ms)
    row = {
        "subject": "soak",
        "seconds": seconds,
        "num_requests": len(latencies),
        "num_by_kind": dict(load.kinds),
        "failed": load.failed[:10],
        "num_failed": len(load.failed),
        "versions_that_answered": dict(load.versions),
        "moves": moves,
        "ledger_entries": len(home.ledger_path.read_text().splitlines()),
        "harmed": harmed,
        **{f"p{level}_ms": float(np.percentile(latencies, level)) for level in (50, 99)},
        "max_ms": float(latencies.max()),
        "num_answered": len(load.given),
        "num_not_in_log": len(load.given - kept),
        "log_is_sound": sound,
        "memory_mib": [own for own, _ in memory],
        "challengers_mib": [childrens for _, childrens in memory],
        "memory_growth": _growth([own for own, _ in memory]),
    }
    checks = [
        check("soak: failed answers", row["num_failed"], 0, at_most=True),
        check("soak: answers that the log lacks", row["num_not_in_log"], 0, at_most=True),
        check("soak: memory, last third over the middle one", row["memory_growth"],
              MAX_GROWTH, at_most=True),
        check("soak: slowest answer, ms", row["max_ms"], DEADLINE_MS, at_most=True),
    ]  # fmt: skip
    return [row], checks


def _registry(work: Path) -> Place:
    home = place(work / "registry")

    def fill() -> None:
        for seed in range(NUM_VERSIONS):
            package = collect(make_run(work / f"run{seed}", Run(seed=seed)))
            with open_registry(home, new=True) as registry:
                registry.register(package)
        do(home, ("champion", 1))

    assert Forked(fill).answer() == {"ok": None}
    return home


async def _all(
    load: "_Load", home: Place, pid: int, seconds: float, seed: int
) -> tuple[dict[str, int], list[tuple[float, float]]]:
    """Load, move and look side by side until the time is up."""
    end = time.monotonic() + seconds
    moves, memory, _ = await asyncio.gather(
        asyncio.to_thread(_move, home, end, seed), _watch(pid, end), load.until(end)
    )
    return moves, memory


def _move(home: Place, end: float, seed: int) -> dict[str, int]:
    """Promote, take back and name challengers; a rollout's own moves may come in between."""
    rng, done = random.Random(seed), Counter()
    while time.monotonic() + MOVE_EVERY_S < end:
        time.sleep(MOVE_EVERY_S)
        operation = draw(rng, *replayed(home.ledger_path), num_challengers=9)
        answer = Forked(lambda operation=operation: do(home, operation)).answer()
        done[operation[0] if answer and "ok" in answer else "refused"] += 1
    return dict(done)


async def _watch(pid: int, end: float) -> list[tuple[float, float]]:
    """Note the memory of a process, and of its children, in MiB."""
    found: list[tuple[float, float]] = []
    while time.monotonic() < end:
        found.append((_pss_kib(pid) / 1024, sum(map(_pss_kib, children_of(pid))) / 1024))
        await asyncio.sleep(LOOK_EVERY_S)
    return [(round(own, 1), round(childrens, 1)) for own, childrens in found]


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just been killed
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _growth(memory: list[float]) -> float:
    """Tell by which share the median of the last third is above that of the middle one."""
    third = max(1, len(memory) // 3)
    middle, last = np.median(memory[third : 2 * third]), np.median(memory[2 * third :])
    return float(last / middle - 1)


class _Load:
    """Asks for everything, and holds each answer against what it must be."""

    def __init__(self, url: str, seed: int) -> None:
        where = urlsplit(url)
        self.host, self.port, self.netloc = str(where.hostname), where.port or 80, where.netloc
        self.infer = where.path
        self.rng = random.Random(seed)
        self.latencies_ms: list[float] = []
        self.kinds: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.failed: list[dict] = []
        self.given: set[str] = set()  # ids of predictions
        self.latest: list[str] = []

    async def until(self, end: float) -> None:
        """Ask at random moments until the time is up."""
        start, due = time.monotonic(), 0.0
        moments = []
        while start + due < end:
            due += self.rng.expovariate(RATE)
            moments.append(start + due)
        waiting = iter(moments)

        async def work() -> None:
            connection = Connection(self.host, self.port)
            for moment in waiting:
                await asyncio.sleep(max(0.0, moment - time.monotonic()))
                await self._ask(connection, moment)
            connection.close()

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))

    async def _ask(self, connection: Connection, moment: float) -> None:
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "feedback" and not self.latest:
            kind = "infer"
        request, wanted = getattr(self, f"_{kind}")()
        status, content = await connection.ask(request, 10.0)
        self.latencies_ms.append(1000 * (time.monotonic() - moment))
        self.kinds[kind] += 1
        if status != wanted:
            said = content[:200].decode(errors="replace")
            self.failed.append({"kind": kind, "status": status, "said": said})
        elif kind in ("infer", "picture"):
            self._note(json.loads(content))

    def _note(self, said: dict) -> None:
        parameters = said.get("parameters", said)
        self.versions[str(said.get("model_version", said.get("version")))] += 1
        self.given.add(parameters["prediction_id"])
        self.latest = [*self.latest[-200:], parameters["prediction_id"]]

    def _post(self, path: str, content: bytes, kind: str = "application/json") -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.netloc}\r\nContent-Type: {kind}\r\n"
            f"X-Unit: {self.rng.randrange(100_000)}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def _get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self.netloc}\r\n\r\n".encode()

    def _infer(self) -> tuple[bytes, int]:
        data = [self.rng.randrange(256) for _ in range(4)]
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": data}
        return self._post(self.infer, json.dumps({"inputs": [tensor]}).encode()), 200

    def _picture(self) -> tuple[bytes, int]:
        side = self.rng.choice((2, 2, 16, 64))  # others are brought to the model's format
        pixels = np.frombuffer(self.rng.randbytes(side * side), np.uint8).reshape(side, side)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        return self._post("/predict", content.getvalue(), "image/png"), 200

    def _feedback(self) -> tuple[bytes, int]:
        truth = {
            "prediction_id": self.latest.pop(self.rng.randrange(len(self.latest))),
            "label": self.rng.choice(CLASSES),
        }
        return self._post("/feedback", json.dumps(truth).encode()), 200

    def _refused(self) -> tuple[bytes, int]:
        bad = [b"{", b"[]", b'{"inputs": []}', b'{"inputs": [{"name": "image"}]}']
        return self._post(self.infer, self.rng.choice(bad)), 400

    def _metrics(self) -> tuple[bytes, int]:
        return self._get("/metrics"), 200

    def _status(self) -> tuple[bytes, int]:
        return self._get(self.rng.choice(["/status", "/", "/v2/health", "/experiments"])), 200
