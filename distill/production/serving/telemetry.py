"""What the service counts: for Prometheus, and the last minute for the dashboard.

Knows names and numbers; knows nothing of HTTP, nor of models.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from distill import __version__
from distill.production.serving.refusals import Oddity

LATENCIES_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = 60  # that the dashboard looks back
NUM_LATENCIES = 8_192  # of the newest answers, for its quantiles


class Telemetry:
    """Counters of one service. Touched by the event loop; `on_batch` by the model's thread too."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "distill_requests", "Requests that were answered.", ["endpoint", "version"], **given
        )
        self._errors = Counter(
            "distill_errors", "Requests that got no answer.", ["endpoint", "kind"], **given
        )
        self._wrong = Counter(
            "distill_refused_inputs",
            "Inputs that were refused, by what was wrong with which.",
            ["kind", "column"],
            **given,
        )
        self._latency = Histogram(
            "distill_request_latency_seconds",
            "From the request's headers to its answer.",
            ["endpoint"],
            buckets=LATENCIES_S,
            **given,
        )
        self._batch_rows = Histogram(
            "distill_batch_rows", "Rows that the model was asked at once.", buckets=ROWS, **given
        )
        self._waiting = Gauge("distill_queue_depth", "Requests that wait or run.", **given)
        self._skew = Counter(
            "distill_skew",
            "Rows that were answered, with an input unlike those of training.",
            ["model", "kind", "column"],
            **given,
        )
        self._adapted = Counter(
            "distill_adapted_pictures", "Pictures that were resized or greyed.", ["kind"], **given
        )
        self._roles = Counter("distill_answers", "Answers by the model's role.", ["role"], **given)
        self._feedback = Counter(
            "distill_feedback",
            "Predictions told right, wrong, or something else about, by the role of who gave them.",
            ["role", "told"],
            **given,
        )
        self._info = Gauge(
            "distill_model_info",
            "The model that answers now.",
            ["model", "version", "artefact_sha256"],
            **given,
        )
        Gauge("distill_build_info", "This program.", ["version"], **given).labels(__version__).set(
            1
        )
        self._bound: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._role_counters: dict[str, Counter] = {}
        self.seconds: deque[list[float]] = deque(maxlen=SECONDS)  # [second, answered, refused]
        self.latencies_ms: deque[float] = deque(maxlen=NUM_LATENCIES)
        self.num_answered = 0
        self.errors: dict[str, int] = {}
        self.skew: dict[tuple[str, str], int] = {}
        self.pictures: dict[str, int] = {}
        self.roles: dict[str, int] = {}
        self.feedback: dict[tuple[str, str], int] = {}
        self.since = time.time()

    def answered(self, endpoint: str, version: str, role: str, latency_ms: float) -> None:
        """Count an answer."""
        counters = self._bound.get((endpoint, version))
        if counters is None:
            counters = (
                self._requests.labels(endpoint, version),
                self._latency.labels(endpoint),
            )
            self._bound[endpoint, version] = counters
        counters[0].inc()
        counters[1].observe(latency_ms / 1000)
        if role not in self._role_counters:
            self._role_counters[role] = self._roles.labels(role)
        self._role_counters[role].inc()
        self.roles[role] = self.roles.get(role, 0) + 1
        self.num_answered += 1
        self.latencies_ms.append(latency_ms)
        self._second()[1] += 1

    def refused(self, endpoint: str, kind: str, oddity: Oddity | None = None) -> None:
        """Count a request without an answer, and what was wrong with its input."""
        self._errors.labels(endpoint, kind).inc()
        if oddity is not None:
            self._wrong.labels(oddity.kind, oddity.column).inc()
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self._second()[2] += 1

    def on_batch(self, num_rows: int) -> None:
        """Count a batch."""
        self._batch_rows.observe(num_rows)

    def odd(self, model: str, oddities: Sequence[Oddity]) -> None:
        """Count inputs unlike those of training."""
        for one in oddities:
            self._skew.labels(model, one.kind, one.column).inc(one.count)
            key = (one.kind, one.column)
            self.skew[key] = self.skew.get(key, 0) + one.count

    def told(self, role: str, what: str) -> None:
        """Count what turned out about a prediction: right, wrong or other."""
        self._feedback.labels(role, what).inc()
        self.feedback[role, what] = self.feedback.get((role, what), 0) + 1

    def adapted(self, kinds: Iterable[str]) -> None:
        """Count what was done to a picture, as training did: resized, greyed. It is no skew."""
        for kind in kinds:
            self._adapted.labels(kind).inc()
            self.pictures[kind] = self.pictures.get(kind, 0) + 1

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Read how many wait when somebody looks."""
        self._waiting.set_function(depth)

    def changed(self, model: str, version: str, artefact_sha256: str) -> None:
        """Say which model answers from now on."""
        self._info.clear()
        self._info.labels(model, version, artefact_sha256).set(1)

    def _second(self) -> list[float]:
        now = int(time.time())
        if not self.seconds or self.seconds[-1][0] != now:
            self.seconds.append([now, 0, 0])
        return self.seconds[-1]
