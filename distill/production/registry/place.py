"""Where a model's versions and history are kept, and how a version is fetched from there, whole.

What was fetched once stands in a folder named by its content and needs no server again. Changes
nothing; knows nothing of rules.
"""

import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distill.contract import Contract
from distill.errors import UsageError, UserError, nearest
from distill.files import whole_folder
from distill.production.registry.ledger import IS_HASH, Entry, Ledger
from distill.production.registry.package import Package, read_package
from distill.production.registry.store import Store

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one model's versions and history are kept.

    Attributes:
        folder: of ledgers, of versions that were fetched, and of what a bare database cannot hold.
        model: its name.
        tracking_uri: MLflow's database or server.
    """

    folder: Path
    model: str
    tracking_uri: str

    def __post_init__(self) -> None:
        """Refuse a name that cannot be a folder's."""
        if not _NAME.fullmatch(self.model):
            raise UsageError(
                f"Expected `registry.model` of letters, digits, `_`, `.` and `-` but got "
                f"{self.model!r}."
            )

    @property
    def ledger_path(self) -> Path:
        """Of this model's ledger."""
        return self.folder / self.model / "ledger.jsonl"

    def read(self) -> Ledger:
        """Read the ledger, in milliseconds and without a server.

        Raises:
            UserError: nothing was registered, or the ledger is damaged.
        """
        if not self.ledger_path.is_file():
            known = models(self.folder)
            raise UserError(
                f"Expected a model `{self.model}` in the registry {self.folder} but found "
                f"{'none' if not known else 'others'}. "
                + (nearest(self.model, known) if known else "Run `promote register run_dir=...`.")
            )
        return Ledger.read(self.ledger_path)

    def champion(self) -> Entry:
        """Read who is in production, in milliseconds and without a server.

        Raises:
            UserError: nobody is.
        """
        state = self.read().state
        if state.champion is None:
            raise UserError(
                f"Expected a champion of `{self.model}` in {self.folder} but no version was "
                "promoted yet. Run `promote to=champion`."
            )
        return state.registered[state.champion]

    @property
    def store(self) -> Store:
        """The server's part."""
        return Store(self.tracking_uri, self.model, self.folder / "artefacts")


def models(folder: Path) -> list[str]:
    """Names of the models whose ledgers are in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/ledger.jsonl"))


def fetch(place: Place, version: int) -> Package:
    """Get a version's files, whole; what was fetched once needs no server again.

    Raises:
        UserError: it was never registered, is gone from the server, or is not whole.
    """
    return cached(place, registered(place.read(), version))


def keep(place: Place, package: Package) -> Package:
    """Copy a run's package to where fetched versions are, alone, and prove it."""
    path = _folder(place, package.content)
    try:
        found = read_package(path) if path.is_dir() else None
        if found is not None and found.content == package.content:
            found.prove()
            return found
    except UserError as error:
        log.warning("%s It is copied again.", error)
    shutil.rmtree(path, ignore_errors=True)
    with whole_folder(path) as folder:
        if folder is not None:
            package.copy_to(folder).prove()
    return read_package(path)


def kept(place: Place, entry: Entry) -> Package | None:
    """Find a version among what was registered or fetched here; None where it is not whole."""
    path = _folder(place, entry.content)
    try:
        return _proven(path, entry) if path.is_dir() else None
    except UserError as error:
        log.warning("%s", error)
        return None


def cached(place: Place, entry: Entry) -> Package:
    """Take a version from what was fetched before, or fetch it.

    Raises:
        UserError: it is gone from the server, or is not what the ledger says.
    """
    path = _folder(place, entry.content)
    if path.is_dir():
        try:
            return _proven(path, entry)
        except UserError as error:
            log.warning("%s It is fetched again.", error)
            shutil.rmtree(path)
    with whole_folder(path) as folder:
        if folder is not None:
            _download(place, entry, folder)
    return _proven(path, entry)


def download_anew(place: Place, entry: Entry) -> None:
    """Prove that a version is whole as the server has it, whatever was fetched before.

    Raises:
        UserError: it is gone from the server, or is not what the ledger says.
    """
    own = place.ledger_path.parent
    for leftover in own.glob(".download-*"):  # of a kill; the caller holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=own, prefix=".download-") as folder:
        _download(place, entry, Path(folder))


def artefacts_alike(place: Place, contract: Contract) -> frozenset[str]:
    """Hashes of what was ever champion or challenger, takes the same inputs and answers the same.

    A version that cannot be had now is left out with a warning.

    Raises:
        UserError: nothing was registered, or the ledger is damaged.
    """
    wanted = _form(contract)
    ledger, found = place.read(), set()
    for version in {e.version for e in ledger.entries if e.action == "promote"}:
        try:
            package = cached(place, registered(ledger, version))
        except UserError as error:
            log.warning("%s What it answered is passed over.", error)
            continue
        if _form(package.contract) == wanted:
            found.add(package.artefact_sha256)
    return frozenset(found)


def _form(contract: Contract) -> tuple[object, ...]:
    table = contract.table  # the categories seen in training change nothing
    return contract.input, table and table.columns, contract.asks


def _download(place: Place, entry: Entry, folder: Path) -> None:
    place.store.download(entry.version, folder)
    _proven(folder, entry)


def _proven(folder: Path, entry: Entry) -> Package:
    package = read_package(folder)
    if package.content != entry.content:
        raise UserError(
            f"Expected version {entry.version} to hold {entry.content[:12]}, as the ledger says, "
            f"but {folder} holds {package.content[:12]}: it was replaced. Register its run again."
        )
    package.prove()
    return package


def _folder(place: Place, content: str) -> Path:
    assert IS_HASH.fullmatch(content)  # a folder of this name is removed where it is not whole
    return place.folder / "versions" / content


def registered(ledger: Ledger, version: int) -> Entry:
    """Find the entry that registered a version.

    Raises:
        UserError: there is no such version; the known ones are named.
    """
    known = ledger.state.registered
    if version not in known:
        raise UserError(
            f"Expected a registered version but there is no version {version}. Known: "
            f"{', '.join(map(str, known)) or 'none'}."
        )
    return known[version]
