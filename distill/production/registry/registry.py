"""The registry of one model: register, promote, roll back, and fetch what is in production.

The ledger is written first and is right; the server's aliases follow, and are mended from it at
every opening. One process at a time changes anything. Knows the order of things; the rules, the
files and the server have modules of their own.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.budget import Outcome, conjunction
from distill.contract import Contract
from distill.errors import UserError
from distill.files import exclusive, to_json
from distill.production.registry.connection import UnreachableError
from distill.production.registry.ledger import Entry, Head, Ledger
from distill.production.registry.package import Package
from distill.production.registry.place import Place, cached, download_anew, keep, kept, registered
from distill.production.registry.promotion import (
    Decision,
    Finding,
    Request,
    Rules,
    challenger_findings,
    classes_finding,
    drop_finding,
    in_the_way,
    no_common_test,
    paired_answers,
    verdict_finding,
)
from distill.production.registry.store import Files
from distill.runtime import OnnxModel
from distill.statistics.scoring import Scoring, Truth

log = logging.getLogger(__name__)

ALIASES = ("champion", "challenger", "fallback")


class Registry:
    """One model's registry, held by this process; get one from `open_registry`."""

    def __init__(self, place: Place) -> None:
        self.place, self.store = place, place.store
        self.ledger = Ledger.read(place.ledger_path)
        self.repaired: list[str] = []

    def synchronise(self) -> None:
        """Check the ledger against the server's anchor, and mend the server's aliases from it.

        Raises:
            UnreachableError: the server does not answer.
            UserError: the ledger is shorter than what the server has seen, or another one.
        """
        anchor = self.store.anchor()
        if anchor is not None:
            self.ledger.check_anchor(Head.parse(anchor), "MLflow")
        elif not self.ledger.entries:
            return  # nothing on either side
        self._follow(report=True)

    def register(self, package: Package) -> Entry:
        """Take a run's package as a version; the same content again is the same version.

        A server that is new numbers from 1: what was registered before goes there first.

        Raises:
            UserError: it is not whole, the server is out of reach, or a run that was registered
                before this one has to be first there.
        """
        self.synchronise()
        there = self.store.versions()
        for entry in self.ledger.state.registered.values():
            if entry.content == package.content == there.get(entry.version):
                return entry
        source = str(package.root.resolve())
        package = keep(self.place, package)
        known = self.ledger.state.registered
        numbers = {number: entry.content for number, entry in known.items()}
        version = self.store.upload(_files(package), numbers, self._kept)
        if version in known:  # it was registered before, and is back where the server had lost it
            self._follow(report=True)
            return known[version]
        self._commit(
            "register",
            version,
            content=package.content,
            artefact=package.artefact,
            artefact_sha256=package.artefact_sha256,
            source=source,
        )
        return self.ledger.entries[-1]

    def _kept(self, version: int) -> Files | None:
        """Find the files of a version that the server does not know, to have its number again."""
        entry = self.ledger.state.registered[version]
        package = kept(self.place, entry)
        if package is not None:
            return _files(package)
        if entry.source is not None and Path(entry.source).is_dir():
            raise UserError(
                f"Expected the runs in the order of their numbers, as the server of "
                f"`{self.place.model}` is new, but got another one: {version} is next. Run "
                f"`promote register run_dir={entry.source}` first."
            )
        log.warning(
            "Version %d stays away from the server: neither %s nor its run folder has its files.",
            version,
            self.place.folder,
        )
        return None

    def promote(self, request: Request, rules: Rules) -> Decision:
        """Make a version challenger or champion, if the rules hold or are set aside.

        Raises:
            UserError: the version is unknown, or not whole as the store has it; no force helps.
        """
        self.synchronise()
        state = self.ledger.state
        version = request.version or self._candidate(request.alias)
        entry = registered(self.ledger, version)
        if state.aliases.get(request.alias) == version:
            return Decision(
                outcome=Outcome.PASS,
                entry=None,
                version=version,
                findings=(),
                why=f"Version {version} is the {request.alias} already.",
            )
        if request.alias == "challenger" and version == state.champion:
            raise UserError(
                f"Expected another version than the champion as its challenger but got {version}."
            )
        download_anew(self.place, entry)
        candidate = cached(self.place, entry)
        findings = tuple(self._findings(request, rules, candidate))
        outcome = conjunction([finding.outcome for finding in findings])
        forced = request.force and outcome is not Outcome.PASS
        if outcome is not Outcome.PASS and not forced:
            bad = [f for f in findings if f.outcome is outcome]
            why = f"Version {version} is not promoted: {_said(candidate, bad, outcome)}"
            return Decision(
                outcome=outcome, entry=None, version=version, findings=findings, why=why
            )
        self._commit(
            "promote",
            version,
            alias=request.alias,
            evidence=tuple(map(to_json, findings)),
            forced=forced,
            reason=request.reason,
            **_of(entry),
        )
        why = f"Version {version} is {request.alias}" + (", by force." if forced else ".")
        return Decision(
            outcome=Outcome.PASS,
            entry=self.ledger.entries[-1],
            version=version,
            findings=findings,
            why=why,
        )

    def rollback(self, version: int | None = None, reason: str | None = None) -> Entry | None:
        """Bring back the version that was champion before, or an earlier one; no analysis.

        Works while the server is out of reach, if the version was fetched before.

        Returns:
            The entry; None where that version is champion already.

        Raises:
            UserError: there is none before, or it is not whole.
        """
        try:
            self.synchronise()
        except UnreachableError as error:
            log.warning("%s", error)
        state = self.ledger.state
        if version is not None and version == state.champion:
            return None
        wanted = version or state.fallback
        if wanted is None or wanted not in state.champions[:-1]:
            before = ", ".join(map(str, dict.fromkeys(state.champions[:-1]))) or "none"
            raise UserError(
                f"Expected a version that was champion before {state.champion or 'any other'} to "
                f"roll back to{f', not {version}' if version else ''}: there is {before}."
            )
        entry = registered(self.ledger, wanted)
        cached(self.place, entry)
        self._commit("rollback", wanted, alias="champion", reason=reason, **_of(entry))
        return self.ledger.entries[-1]

    def _commit(self, action: str, version: int, **facts: Any) -> None:
        self.ledger = self.ledger.append(action, version, **facts)
        try:
            self._follow(report=False)
        except UnreachableError as error:
            log.warning("The ledger has it; the server follows at the next command. %s", error)

    def _follow(self, *, report: bool) -> None:
        """Make the server say what the ledger says: aliases, then the head."""
        there, wanted = self.store.aliases(), self.ledger.state.aliases
        contents = self.store.versions() if wanted else {}
        for alias in ALIASES:
            found, version = there.get(alias), wanted.get(alias)
            own = None if version is None else self.ledger.state.registered[version].content
            if version is not None and contents.get(version) != own:
                self._report(f"version {version}, {alias} by the ledger, is gone from MLflow")
                continue
            if found == version:
                continue
            self.store.set_alias(alias, version)
            if report:
                self._report(
                    f"MLflow's alias `{alias}` was {found or 'not set'} and is "
                    f"{version or 'not set'} again, as the ledger says"
                )
        head = str(self.ledger.head)
        if self.store.anchor() != head:
            self.store.set_anchor(head)

    def _report(self, repair: str) -> None:
        log.warning("%s", repair)
        self.repaired.append(repair)

    def _candidate(self, alias: str) -> int:
        state = self.ledger.state
        if alias == "champion" and state.challenger is not None:
            return state.challenger
        return max(state.registered)

    def _findings(self, request: Request, rules: Rules, candidate: Package) -> Iterator[Finding]:
        if request.alias == "challenger":
            yield from challenger_findings(candidate)
            return
        yield verdict_finding(candidate)
        number = self.ledger.state.champion
        if number is None:
            return
        entry = registered(self.ledger, number)
        try:
            champion = cached(self.place, entry)
        except UserError as error:
            champion = None
            yield Finding(rule="champion_at_hand", outcome=Outcome.INCONCLUSIVE, note=str(error))
        else:
            same = classes_finding(candidate, champion)
            yield same
            if same.outcome is not Outcome.PASS:
                return  # there is no test set that both could answer
        confidence, scoring = rules.confidence, candidate.scoring
        drop, rule = rules.max_drop_vs_champion, "drop_vs_champion"
        if request.audit is not None and champion is not None:
            audited = (_marks(one, scoring, request.audit) for one in (champion, candidate))
            first, second = audited
            pair, where = (first, second), "the audited data"
            yield drop_finding(rule, pair, where, scoring, max_drop=drop, confidence=confidence)
            drop, rule = rules.max_drop_on_old_test, "drop_on_old_test"
        common = paired_answers(candidate, champion, entry.artefact_sha256)
        if common is None:
            yield no_common_test(rule)
        else:
            blocks = candidate.truth.blocks
            yield drop_finding(
                rule, *common, scoring, blocks=blocks, max_drop=drop, confidence=confidence
            )


@contextmanager
def open_registry(place: Place, *, new: bool = False) -> Iterator[Registry]:
    """Hold a model's registry, to change it.

    Args:
        place: where it is.
        new: whether it may be empty so far.

    Raises:
        UserError: another process holds it, there is none, or its ledger is damaged.
    """
    if not new:
        place.read()
    folder = place.ledger_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"change the registry of `{place.model}` in {place.folder}"
    otherwise = (
        "Only one at a time can; nothing was changed. Look at `promote history`, and repeat."
    )
    with exclusive(folder / ".lock", wanted=wanted, otherwise=otherwise):
        yield Registry(place)


def _of(entry: Entry) -> dict[str, Any]:
    """What every later entry repeats of a version."""
    names = ("content", "artefact", "artefact_sha256")
    return {name: getattr(entry, name) for name in names}


def _files(package: Package) -> Files:
    return Files(folder=package.root, content=package.content, tags=_tags(package))


def _tags(package: Package) -> dict[str, str]:
    """What the server's own page shows of a version."""
    models = package.verdict["models"].values()
    own = next(model for model in models if model.get("artefact") == package.artefact)
    metric = package.scoring.metric
    return {
        "distill.verdict": package.verdict["verdict"],
        "distill.artefact": package.artefact,
        "distill.artefact_sha256": package.artefact_sha256,
        f"distill.{metric}": f"{own[metric]:.4f}",
        "distill.code": str(package.contract.provenance.get("code")),
    }


def _marks(package: Package, scoring: Scoring, audit: Callable[[Contract], Any]) -> NDArray[Any]:
    inputs, labels = audit(package.contract)
    answers = OnnxModel(package.artefact_path, num_threads=2).predict(inputs)
    return scoring.marks(answers, Truth(labels=labels))


def _said(candidate: Package, findings: Sequence[Finding], outcome: Outcome) -> str:
    """Say which rules are in the way, and what to do."""
    names = " and ".join(f"`{finding.rule}`" for finding in findings)
    are = "is" if len(findings) == 1 else "are"
    if outcome is Outcome.FAIL:
        return (
            f"{names} {are} not held. Look at what each says; `force=true "
            'reason="..."` sets them aside.'
        )
    return (
        f"{names} {are} not decided. {in_the_way(candidate, findings)}. `force=true "
        'reason="..."` sets rules aside.'
    )
