"""The whole circle on digits: serve, log, audit, review, train again, shadow, promote.

python benchmarks/lifecycle_circle.py       # or: make loop

A model of old digits is promoted and served. The world changes: the camera hangs askew, its
pictures are noisy. Requests go to the service over HTTP, an audit is drawn, people (here: the
truth) label on /review what is asked, `monitor` asks for a training, `pipeline experiment=feedback`
trains the champion again and holds it against the champion, the new one stands beside it in shadow
and becomes champion by what turns out. Nothing is done by hand but the labels. Held against a model
that learnt the new world with all labels, on digits of it that nobody was ever asked about.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import check
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from distill.runtime import OnnxModel

NUM_OLD, NUM_OLD_TEST, NUM_NEW = 600, 400, 400  # of 1,797 digits; the rest is held out
NUM_REQUESTS, NUM_SHADOWED, MAX_TOLD = 6000, 600, 120
AUDIT_SHARE, NUM_CHOSEN = 0.03, 270
PATIENCE = 5  # seconds, for what the service decides by itself
ANGLE, NOISE = 10, 10  # degrees, gray levels
MAX_LABELS, MAX_POINTS = 0.10, 2.0
COMMON = ("data.channels=1", "data.classes=[0,1,2,3,4,5,6,7,8,9]")
MARGIN = "budget.accuracy.min_gain_vs_baseline"  # that 400 test samples resolve, and 150 audited
QUIET = (
    "effort=quick",
    "budget.latency={p95_ms: null, cold_start_ms: null}",
)  # others may run, too
OLD = (f"{MARGIN}=-0.05", "budget.accuracy.max_drop_vs_teacher=0.08")
RECIPE = ("data=parquet_images", *COMMON, *QUIET, *OLD)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images [N, 8, 8], uint8, and their digits [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, places: NDArray[np.int64]) -> "Pictures":
        """Select some."""
        return Pictures(images=self.images[places], labels=self.labels[places])

    def png(self, place: int) -> bytes:
        """Encode one as a client sends it."""
        buffer = io.BytesIO()
        Image.fromarray(self.images[place]).save(buffer, "PNG")
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write them as `data=parquet_images` reads them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        images = [{"bytes": self.png(place)} for place in range(len(self.labels))]
        pq.write_table(pa.table({"image": images, "label": self.labels}), path)

    def beside(self, other: "Pictures") -> "Pictures":
        """Put others behind them."""
        return Pictures(
            images=np.concatenate([self.images, other.images]),
            labels=np.concatenate([self.labels, other.labels]),
        )


@dataclass(frozen=True, kw_only=True)
class World:
    """Before and after; no digit is in two of these."""

    old_train: Pictures
    old_test: Pictures
    requests: Pictures
    held_out: Pictures


def world(seed: int) -> World:
    """Draw digits for each part, and let the camera hang askew in the new ones."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    whole = Pictures(images=images, labels=np.asarray(labels, np.int64))
    rng = np.random.default_rng(seed)
    ends = np.cumsum([NUM_OLD, NUM_OLD_TEST, NUM_NEW])
    old_train, old_test, new, held_out = np.split(rng.permutation(len(labels)), ends)
    asked = rng.choice(new, NUM_REQUESTS + NUM_SHADOWED)  # the same digit, seen again, differs
    return World(
        old_train=whole.take(old_train),
        old_test=whole.take(old_test),
        requests=_askew(whole.take(asked), rng),
        held_out=_askew(whole.take(held_out), rng),
    )


def _askew(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    seen = []
    for image in pictures.images.astype(np.float64):
        turned = rotate(image, ANGLE + 3 * rng.normal(), reshape=False, order=1)
        seen.append(np.clip(turned + NOISE * rng.normal(size=image.shape), 0, 255))
    return Pictures(images=np.array(seen, np.uint8), labels=pictures.labels)


@dataclass(kw_only=True)
class Circle:
    """One turn of it, in a folder of its own."""

    work: Path
    world: World
    seed: int
    truth: dict[str, str] = field(default_factory=dict)  # by prediction
    num_labels: int = 0

    def run(self, *command: str, expected: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a verb as a user does; gives the document that it prints."""
        self.say(f"$ distill {' '.join(command)}")
        done = subprocess.run(
            [sys.executable, "-m", "distill", *command],
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in expected:
            raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        print(text, file=sys.stderr, flush=True)

    def ask(self, client: httpx.Client, places: range) -> list[str]:
        """Send requests; gives the ids of the predictions."""
        ids = []
        for place in places:
            picture, label = self.world.requests.png(place), str(self.world.requests.labels[place])
            answer = client.post("/predict", content=picture, headers={"X-Unit": f"user {place}"})
            ids.append(answer.raise_for_status().json()["prediction_id"])
            self.truth[ids[-1]] = label
        return ids

    def label(self, client: httpx.Client) -> None:
        """Be the person at /review, who is always right."""
        item = self._step(client, "next")["item"]
        while item is not None:
            one = item["prediction_id"]
            self._step(client, "answer", prediction_id=one, label=self.truth[one])
            self.num_labels += 1
            item = self._step(client, "next")["item"]

    def shadow(self, client: httpx.Client) -> str:
        """Go on asking; of more and more it turns out what they were, until that decides."""
        self._until(client, "is_ready", 120)
        stage, ids = None, self.ask(client, range(NUM_REQUESTS, NUM_REQUESTS + NUM_SHADOWED))
        for number, one in enumerate(ids[:MAX_TOLD], 1):
            told = {"prediction_id": one, "label": self.truth[one]}
            client.post("/feedback", json=told).raise_for_status()
            self.num_labels += 1
            if number % 20 == 0:
                stage = self._until(
                    client, "is_over", PATIENCE * (12 if number == MAX_TOLD else 1)
                )["stage"]
                if stage != "shadow":
                    break
        return str(stage)

    def follows(self, client: httpx.Client, version: int) -> None:
        """Wait for the service to answer with a version."""
        end = time.monotonic() + 60
        while str(client.get("/status").raise_for_status().json()["version"]) != str(version):
            if time.monotonic() > end:
                raise SystemExit(f"version {version} is champion but the service does not follow")
            time.sleep(0.1)

    def _until(self, client: httpx.Client, what: str, seconds: float) -> dict[str, Any]:
        """Wait until something holds of the rollout, or no longer; gives its status."""
        end = time.monotonic() + seconds
        while True:
            own = client.get("/status").raise_for_status().json()["experiment"]
            if (own is not None and own[what]) or time.monotonic() > end:
                return own or {"stage": None}
            time.sleep(0.1)

    def with_all_labels(self) -> float:
        """Train the same student, taught alike, on the old world and all requests' labels."""
        asked = self.world.requests.take(np.arange(NUM_REQUESTS))
        write(self.work / "all", self.world.old_train.beside(asked), self.world.held_out)
        trained = self.run(
            "train", "experiment=digits", *RECIPE, "data.root=all", "run_dir=all_labels",
            f"seed={self.seed}",
        )  # fmt: skip
        return trained["student"]["test_at_best_epoch"]["accuracy"]["estimate"]

    def _step(self, client: httpx.Client, step: str, **facts: str) -> dict[str, Any]:
        answer = client.post(f"/review/{step}", json={"annotator": "ann", **facts})
        return answer.raise_for_status().json()

    def accuracy(self, path: Path) -> float:
        """Of a file, on pictures of the new world that nobody was asked about."""
        own = self.world.held_out
        said = OnnxModel(path).predict(own.images[..., None]).argmax(axis=1)
        return float(np.mean(said == own.labels))

    @contextmanager
    def served(self) -> Iterator[httpx.Client]:
        """Serve the registry's champion, and whoever is its challenger."""
        rollout = ("rollout=shadow", "rollout.tuned_at=100")
        trial = ("trial.tick_seconds=0.2", "trial.slow_ms=5000", "trial.limits.hang_seconds=20")
        trial += ("trial.limits.max_shadows_per_second=null",)
        service = subprocess.Popen(
            [sys.executable, "-m", "distill", "serve", "port=0", *rollout, *trial],
            cwd=self.work,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said, address = "", None
            while address is None:
                line = service.stderr.readline() if service.stderr else ""
                if not line:
                    raise SystemExit(f"the service does not start:\n{said}")
                said, address = said + line, re.search(r"http://\S+", line)
            with httpx.Client(base_url=address[0].rstrip("/"), timeout=60) as client:
                yield client
        finally:
            service.terminate()
            service.communicate()


def turn(work: Path, *, seed: int = 0) -> dict[str, Any]:
    """Go round once; gives what was measured."""
    own, found = retrained(work, seed)
    full = own.with_all_labels()
    own.say(f"with all {NUM_REQUESTS:,} labels it would be right on {full:.1%}")
    short = 100 * (full - found["accuracy_after"])
    return found | {"accuracy_with_all_labels": full, "points_short": short}


def retrained(work: Path, seed: int) -> tuple[Circle, dict[str, Any]]:
    """Go from the old world to a successor in production; gives what was measured."""
    own = Circle(work=work, world=world(seed), seed=seed)
    data = own.world
    write(work / "old", data.old_train, data.old_test)
    first = own.run("pipeline", *RECIPE, "data.root=old", "run_dir=first", f"seed={seed}")
    own.run("promote", "register", "run_dir=first")
    own.run("promote")
    before = own.accuracy(work / "first" / "export" / first["chosen"]["artefact"])
    own.say(f"the world changes: the champion is right on {before:.1%} of it")
    with own.served() as client:
        own.ask(client, range(NUM_REQUESTS))
        looking = (
            f"looking.audit_share={AUDIT_SHARE}",
            "looking.overlap=0",
            "teacher.path=first/export/teacher.onnx",
        )
        chosen = ("strategy=random", f"limits.budget={NUM_CHOSEN}")
        own.run("feedback", "select", *looking, *chosen)
        own.label(client)
        asked = own.run("monitor", "rules.cooldown_days=0", expected=(0, 3, 4))
        own.say(asked["says"])
        version = own.run("feedback", "collect", *looking)
        second = own.run(
            "pipeline", "experiment=feedback", f"data.version={version['dataset']}",
            "data@data.base=parquet_images", "data.base.root=old",
            *(setting.replace("data.", "data.base.") for setting in COMMON), *QUIET,
            f"{MARGIN}=-0.05", "registry.model=digits", "run_dir=second", f"seed={seed}",
            expected=(0, 3, 4),
        )  # fmt: skip
        after = own.accuracy(work / "second" / "export" / "model.onnx")
        own.say(f"the new model is right on {after:.1%}; its verdict is {second['verdict']}")
        own.run("promote", "register", "run_dir=second", "registry.model=digits")
        own.run("promote", "to=challenger")
        stage = own.shadow(client)
        if stage == "decided" and own.run("promote", expected=(0, 3, 4))["promoted"]:
            own.follows(client, 2)
    champion = own.run("promote", "history")["champion"]
    return own, {
        "subject": "circle",
        "seed": seed,
        "num_requests": NUM_REQUESTS,
        "num_labels": own.num_labels,
        "share_of_labels": own.num_labels / NUM_REQUESTS,
        "accuracy_before": before,
        "accuracy_after": after,
        "monitor_asks": asked["asks"],
        "verdict": second["verdict"],
        "rollout": stage,
        "is_champion": champion == 2,
    }


def write(folder: Path, train: Pictures, test: Pictures) -> None:
    """Write what `data=parquet_images` reads."""
    train.write(folder / "train.parquet")
    test.write(folder / "test.parquet")


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Go round with each seed."""
    found = []
    for seed in range(1 if quick else 3):
        with TemporaryDirectory(dir=work) as folder:
            found.append(turn(Path(folder), seed=seed))
    return found, checks_of(found)


def checks_of(found: list[dict]) -> list[dict]:
    """Hold rounds against what is asked of them."""
    points, share = (
        max(one[name] for one in found) for name in ("points_short", "share_of_labels")
    )
    return [
        check("circle: points short of all labels, the most", points, MAX_POINTS, at_most=True),
        check("circle: share of those labels, the most", share, MAX_LABELS, at_most=True),
        check("circle: rounds promoted", sum(one["is_champion"] for one in found), len(found)),
    ]


def main() -> None:
    """Go round once in a folder that is kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    fresh = Path("outputs/loop") / time.strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("--work", type=Path, default=fresh, help="default: new in outputs/loop")
    options = parser.parse_args()
    if options.work.exists() and any(options.work.iterdir()):
        parser.error(f"expected a new or empty folder but {options.work} is none; name another")
    options.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(turn(options.work.resolve(), seed=options.seed)))


if __name__ == "__main__":
    main()
