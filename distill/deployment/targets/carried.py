"""A device that nobody reaches from here: someone carried a bundle there and its results back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.deployment.measurement import Measurement, Result, TargetReport, summarise
from distill.deployment.targets.stream import read_results
from distill.errors import UserError
from distill.files import sha256


@dataclass(frozen=True, kw_only=True)
class CarriedTarget:
    """Results of a portable bundle, as `run.sh` left them.

    Attributes:
        name: in reports.
        results: the file that came back.
    """

    name: str
    results: str | Path

    @property
    def files(self) -> tuple[Path, ...]:
        """What a measurement depends on besides the artefacts: the results, if they are there."""
        path = Path(self.results)
        return (path,) if path.is_file() else ()

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> TargetReport:
        """Summarise what was measured, see `Target`; the first artefact is that of the bundle.

        Raises:
            UserError: there are no results, or they are of other models or other settings.
        """
        path = Path(self.results)
        if not path.is_file():
            raise UserError(
                f"Expected the results of a bundle in {path} but there is no such file. Run "
                "`sh run.sh` in the bundle on the device and copy its results.jsonl here."
            )
        results, incomplete = read_results(path)
        found = {r["step"]: r for r in results if r["step"] in ("machine", "plan")}
        if len(found) < 2:
            why = f" ({incomplete})" if incomplete else ""
            raise UserError(
                f"Expected the results of a bundle in {path} but it says neither machine nor "
                f"plan{why}. Run the bundle again."
            )
        try:
            plan = found["plan"]["plan"]
            ordered = self._same_models(artefacts, plan, found["machine"]["models"])
            self._same_settings(plan, measurement)
            return summarise(self.name, ordered, plan, results, measurement, incomplete=incomplete)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"Expected the results of a bundle in {path} but they are damaged ({error!r}). "
                "Copy the file again."
            ) from error

    def _same_models(
        self, artefacts: Sequence[Path], plan: Result, measured: dict[str, str]
    ) -> list[Path]:
        """Refuse results of other models; return the artefacts in the order of the bundle."""
        asked = {path.name: path for path in artefacts}
        names = [entry["name"] for entry in plan["contenders"]]
        if sorted(names) != sorted(asked):
            raise UserError(
                f"Expected results of {', '.join(asked)} in {self.results} but they are of "
                f"{', '.join(names)}. Give the artefacts of the bundle."
            )
        for name, path in asked.items():
            if sha256(path) != measured[name]:
                raise UserError(
                    f"Expected results of {path} in {self.results} but the {name} that was "
                    "measured is another file. Write the bundle anew and run it again."
                )
        return [asked[name] for name in names]

    def _same_settings(self, plan: Result, measurement: Measurement) -> None:
        """Refuse results of another runtime or scenario than this measurement's."""
        for what, here, there in (
            ("scenario", measurement.scenario._asdict(), plan["scenario"]),
            ("runtime", measurement.runtime.model, plan["runtime"]),
            ("runtime options", measurement.runtime.options, plan["runtime_options"]),
        ):
            if here != there:
                raise UserError(
                    f"Expected results of {what} {here} in {self.results} but found {there}. "
                    "Choose what the bundle was written with."
                )
