"""`promote`: runs become versions, versions become champions, and the history says why."""

import logging
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from distill.contract import Contract
from distill.decode import decode_images
from distill.errors import UsageError, UserError
from distill.files import from_json, to_json
from distill.production.registry.history import champions_at, periods
from distill.production.registry.ledger import Head
from distill.production.registry.package import collect
from distill.production.registry.promotion import Request, Rules
from distill.production.registry.registry import open_registry
from distill.tasks import TaskKind
from distill.verbs.production.history import show_decision, show_history
from distill.verbs.production.registry import registry_place
from distill.verbs.rows.image_files import format_of, read_labels, read_sources
from distill.verbs.rows.table_rows import count_unseen, labels_of, read_rows, text_labels
from distill.verbs.run.workspace import plain

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Do one of the registry's actions."""
    actions = {"register": _register, "rollback": _rollback, "history": _history}
    return actions.get(cfg.action, _promote)(cfg, Console(stderr=True))


def _register(cfg: DictConfig, console: Console) -> dict[str, Any]:
    if cfg.run_dir is None:
        raise UsageError("Expected `run_dir=` of a finished pipeline to register.")
    package = collect(Path(cfg.run_dir))
    place = registry_place(cfg, package.verdict["name"])
    with open_registry(place, new=True) as registry:
        before = len(registry.ledger.entries)
        entry = registry.register(package)
        fresh = len(registry.ledger.entries) > before
    console.print(
        f"[bold]{place.model}[/bold] version {entry.version}: {entry.artefact} "
        f"({entry.artefact_sha256[:12]}), verdict {package.verdict['verdict']}"
        + ("" if fresh else "; it was registered already")
    )
    return {
        "action": "register",
        "model": place.model,
        "version": entry.version,
        "registered": fresh,
        "artefact": entry.artefact,
        "artefact_sha256": entry.artefact_sha256,
        "content": entry.content,
        "repaired": registry.repaired,
        "anchor": str(registry.ledger.head),
    }


def _promote(cfg: DictConfig, console: Console) -> dict[str, Any]:
    place = registry_place(cfg)
    rules = from_json(Rules, plain(cfg.rules), where="rules")
    request = Request(
        alias=cfg.to,
        version=cfg.version,
        force=cfg.force,
        reason=cfg.reason,
        audit=_audit(cfg) if cfg.audit else None,
    )
    with open_registry(place) as registry:
        decision = registry.promote(request, rules)
    show_decision(console, place.model, decision)
    return {
        "action": "promote",
        "to": cfg.to,
        "model": place.model,
        "version": decision.version,
        "promotion": str(decision.outcome),
        "promoted": decision.entry is not None,
        "forced": decision.entry is not None and decision.entry.forced,
        "why": decision.why,
        "checks": to_json(decision.findings),
        "repaired": registry.repaired,
        "anchor": str(registry.ledger.head),
    }


def _rollback(cfg: DictConfig, console: Console) -> dict[str, Any]:
    place = registry_place(cfg)
    with open_registry(place) as registry:
        before = registry.ledger.state.champion
        entry = registry.rollback(cfg.version, cfg.reason)
        after = registry.ledger.state.champion
    done = f"version {before} is rolled back to {after}" if entry else f"version {after} is there"
    console.print(f"[bold]{place.model}[/bold]: {done}.")
    return {
        "action": "rollback",
        "model": place.model,
        "rolled_back": entry is not None,
        "from": before,
        "version": after,
        "repaired": registry.repaired,
        "anchor": str(registry.ledger.head),
    }


def _history(cfg: DictConfig, console: Console) -> dict[str, Any]:
    place = registry_place(cfg)
    ledger = place.read()
    if cfg.anchor:
        text = place.store.anchor() if cfg.anchor == "mlflow" else str(cfg.anchor)
        ledger.check_anchor(Head.parse(text or ""), "the anchor")
    asked = None if cfg.at is None else champions_at(ledger.entries, str(cfg.at))
    show_history(console, place.model, ledger, asked)
    return {
        "action": "history",
        "model": place.model,
        "ledger": str(ledger.path),
        "anchor": str(ledger.head),
        **{alias: ledger.state.aliases.get(alias) for alias in ("champion", "challenger")},
        "fallback": ledger.state.fallback,
        **({} if asked is None else {"at": str(cfg.at), "champions": to_json(asked)}),
        "periods": to_json(periods(ledger.entries)),
        "entries": to_json(ledger.entries),
    }


def _audit(cfg: DictConfig) -> Any:
    """Make a reader of audited data in the format of a contract."""
    path, wanted = Path(cfg.audit), plain(cfg.label_column)

    def read(contract: Contract) -> tuple[NDArray[Any], NDArray[Any]]:
        if contract.series is not None:
            raise UserError(
                "Expected `audit=` for a model of images or of a table but this one forecasts "
                "series. Run `pipeline against=champion` on newer series, and register that run."
            )
        if contract.table is not None:
            kind = contract.asks.kind
            own = ["label"] if kind is TaskKind.CLASSIFICATION else list(contract.asks.outputs)
            columns = [wanted] if isinstance(wanted, str) else wanted or own
            texts = text_labels(contract, columns)
            table, records = read_rows(cfg, path, contract.table, texts=texts)
            count_unseen(records, contract.table)
            return records, labels_of(table, contract, columns)
        sources, names = read_sources(path, cfg.column)
        labels = read_labels(path, wanted or "label", contract.classes)
        return decode_images(sources, format_of(contract), names=names).images, labels

    return read
