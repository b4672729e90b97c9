"""One version of a model, loaded, warm and ready: what answers, and what it promises.

An edition is loaded beside the one that answers, is held against its golden samples, is tried, and
then never changes. Knows files; knows neither the registry nor HTTP.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from distill.contract import HASH_KEY, Contract, check_golden, contract_beside, read_golden
from distill.errors import UserError
from distill.files import sha256
from distill.production.serving.batcher import Batcher, Batching, Feeds, Outputs
from distill.production.serving.signature import Signature, signature_of
from distill.production.serving.tensors import TensorSpec
from distill.runtime import open_session

log = logging.getLogger(__name__)

TRIAL_ROWS = 4
TOLERANCE = 1e-4  # relative; kernels for other sizes round otherwise


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A file to load, and what it is called.

    Attributes:
        path: of the ONNX file; a contract may stand beside it.
        model: name under which it is asked.
        version: in the registry; None of a plain path.
        sha256: of the file; None computes it.
    """

    path: Path
    model: str
    version: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Edition:
    """A version that can be asked.

    Attributes:
        model: name under which it is asked.
        version: in the registry; None of a plain path.
        artefact_sha256: hash of the file.
        contract: what it promises; None of a bare ONNX file.
        signature: what it takes and gives.
        batcher: where it is asked.
        note: why requests are run one by one; None where they are put together.
    """

    model: str
    version: int | None
    artefact_sha256: str
    contract: Contract | None
    signature: Signature
    batcher: Batcher
    note: str | None = None

    @property
    def label(self) -> str:
        """The version as the protocol writes it; empty where there is none."""
        return "" if self.version is None else str(self.version)

    def __str__(self) -> str:
        version = "" if self.version is None else f" version {self.version}"
        return f"{self.model}{version} ({self.artefact_sha256[:12]})"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How models are loaded.

    Attributes:
        num_threads: for one operator.
        batching: how requests are put together.
        on_batch: told the rows of each batch.
    """

    num_threads: int = 1
    batching: Batching = field(default_factory=Batching)
    on_batch: Callable[[int], None] = lambda rows: None


def load(artefact: Artefact, loading: Loading) -> Edition:
    """Load a model, prove it, and warm it up. Takes as long as it takes: not for the event loop.

    Raises:
        UserError: the file cannot be loaded, is not its contract's, or answers otherwise than when
            it was exported.
        ModelError: it is no ONNX file.
    """
    path = artefact.path
    session = open_session(path, num_threads=loading.num_threads, spin=False)
    contract = _contract_of(path, session.get_modelmeta().custom_metadata_map)
    signature = signature_of(session, path, contract)
    names = signature.output_names

    def run(feeds: Feeds) -> Outputs:
        return session.run(names, feeds)  # type: ignore[return-value]

    trial = _trial(path, signature, contract, run)
    note = _why_alone(signature, run, trial)
    if note is not None:
        log.info("%s: requests are run one by one: %s.", path.name, note)
    batching = loading.batching if note is None else replace(loading.batching, max_size=1)
    return Edition(
        model=artefact.model,
        version=artefact.version,
        artefact_sha256=artefact.sha256 or sha256(path),
        contract=contract,
        signature=signature,
        batcher=Batcher(run, batching, on_batch=loading.on_batch, name=f"run {path.name}"),
        note=note,
    )


def artefact_at(path: Path, name: str | None = None) -> Artefact:
    """Find the file that a plain path means: an ONNX file, or an export folder.

    Of a folder that is `model.onnx`, or the only ONNX file in it.

    Raises:
        UserError: there is none, or it is not clear which.
    """
    if path.is_dir():
        found = sorted(path.glob("*.onnx"))
        chosen = path / "model.onnx" if path / "model.onnx" in found else None
        if chosen is None and len(found) == 1:
            chosen = found[0]
        if chosen is None:
            there = ", ".join(file.name for file in found) or "none"
            raise UserError(
                f"Expected model.onnx, or one ONNX file, in {path} but found {there}. Name the "
                "file: `artefact=folder/model.int8.onnx`."
            )
        path = chosen
    if not path.is_file():
        raise UserError(f"Expected an ONNX file or an export folder at {path} but there is none.")
    return Artefact(path=path, model=name or path.stem)


def _contract_of(path: Path, metadata: dict[str, str]) -> Contract | None:
    """Read the contract beside a file; None of a bare ONNX file."""
    contract = contract_beside(path, metadata)
    if contract is None and HASH_KEY in metadata:
        raise UserError(
            f"Expected the contract of {path} beside it but there is none. Keep an artefact "
            "together with the contract it was exported with."
        )
    return contract


def _trial(
    path: Path, signature: Signature, contract: Contract | None, run: Callable[[Feeds], Outputs]
) -> Feeds:
    """Make inputs to try a model with: its golden samples, which must be answered as they were."""
    if contract is None:
        rng = np.random.default_rng(0)
        return {spec.name: _made_up(spec, rng) for spec in signature.inputs}
    inputs, expected = read_golden(path.parent, path.name)
    if inputs.dtype.names is None:
        feeds = {signature.inputs[0].name: inputs}
    else:
        fields = {spec.name: inputs[spec.name] for spec in signature.inputs}
        feeds = {
            name: np.ascontiguousarray(values).reshape(len(inputs), -1)
            for name, values in fields.items()
        }
    size = signature.inputs[0].shape[0] or len(inputs)
    parts = [_rows(feeds, start, start + size) for start in range(0, len(inputs), size)]
    at = signature.output_names.index(contract.output)
    check_golden(np.concatenate([run(part)[at] for part in parts]), expected, path)
    return _rows(feeds, 0, TRIAL_ROWS)


def _made_up(spec: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    shape = [size or TRIAL_ROWS for size in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, "", object)
    if spec.dtype.kind == "f":
        return rng.normal(size=shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)


def _rows(feeds: Feeds, start: int, end: int) -> Feeds:
    return {name: values[start:end] for name, values in feeds.items()}


def _why_alone(signature: Signature, run: Callable[[Feeds], Outputs], trial: Feeds) -> str | None:
    """Try whether rows are answered alike alone and together; say why not.

    Of a model quantised as it runs the range of a batch decides how its rows are rounded; of others
    the first dimension is no batch.
    """
    if not signature.has_rows:
        run(trial)
        return "the file takes one size alone"
    try:
        together = run(trial)
        count = len(next(iter(trial.values())))
        alone = [run(_rows(trial, at, at + 1)) for at in range(count)]
    except Exception as error:  # made-up inputs may be none of the model's
        return f"it could not be tried ({str(error).splitlines()[0][:120]})"
    for at, output in enumerate(together):
        parts = np.concatenate([answer[at] for answer in alone])
        if parts.shape != output.shape or not _close(parts, output):
            return "an answer depends on what else is in the batch"
    return None


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind not in "fc":
        return bool((one == other).all())
    scale = max(float(np.abs(other).max(initial=0.0)), 1e-6)
    return np.allclose(one, other, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
