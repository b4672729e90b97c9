"""What an experiment gives to alert on, in Prometheus's form: read off its status when asked.

Knows what a router says of itself; knows nothing of how it decides.
"""

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

VERDICTS = ("pass", "inconclusive", "fail")


class ExperimentCollector(Collector):
    """Collects nothing but whether there is a problem while there is no experiment.

    Args:
        status: of the router, see `Router.status`.
    """

    def __init__(self, status: Callable[[], dict[str, Any] | None]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Give the gauges of now."""
        own = self._status() or {}
        problem = _gauge("problem", "Whether it does not move, or nobody is tried who should be.")
        problem.add_metric([], float(own.get("problem") is not None or own.get("stage") == "none"))
        yield problem
        name = own.get("name")
        if name is None:
            return
        info = _gauge("info", "Who is tried, and where it is.", "challenger", "stage")
        info.add_metric([name, own["challenger"], own["phase"]], 1)
        weight = _gauge("weight", "Share of the units that the challenger answers.")
        weight.add_metric([name], own["weight"])
        text = "1 at what is known so far: pass, inconclusive or fail."
        verdict = _gauge("verdict", text, "verdict")
        for one in VERDICTS:
            verdict.add_metric([name, one], float(own["verdict"] == one))
        yield from (info, weight, verdict)
        if own["difference"] is not None:
            text = "Challenger minus champion, in the outcome that decides."
            difference = _gauge("difference", text)
            difference.add_metric([name], own["difference"])
            yield difference


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    own = () if name == "problem" else ("experiment", *labels)
    return GaugeMetricFamily(f"distill_experiment_{name}", text, labels=own)
