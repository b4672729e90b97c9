"""torchvision's pretrained networks, out of files that are what their names say and no programs.

torch.hub runs what a pickle asks for, and looks at a file's hash only when it has fetched it.
"""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from distill.errors import UserError, nearest
from distill.files import sha256

_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # in the file's name: how its sha256 begins
_TENSORS_ALONE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def pretrained(name: str, weights: str) -> nn.Module:
    """Build a network of torchvision with weights from torch.hub's folder, or fetched into it.

    It knows its own `normalization`, (mean, std).

    Raises:
        UserError: there are no such weights, they cannot be had, or their file is another.
    """
    choices = torchvision.models.get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(
            f"Unknown weights `{weights}` for `{name}`. {nearest(weights, choices.__members__)}"
        )
    chosen: Any = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rsplit("/", 1)[-1])
    if path.is_file():
        _check(path)
    try:
        with _tensors_alone():
            network = torchvision.models.get_model(name, weights=chosen)
    except OSError as error:  # URLError is one
        raise UserError(
            f"Expected the weights {path.name} in {path.parent} but they are not "
            f"there and the download failed ({error}). Put the file there, or set `weights: null`."
        ) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"Expected tensors alone in {path} but it holds other things, and may be a program. "
            "Delete the file: it is fetched again."
        ) from error
    except RuntimeError as error:
        if "invalid hash" not in str(error):  # of what was fetched
            raise
        raise UserError(
            f"Expected the download of {path.name} to be what its name says but found: {error}. "
            "Try again, or set `weights: null`."
        ) from error
    transform = chosen.transforms()
    setattr(network, "normalization", (transform.mean, transform.std))  # noqa: B010
    return network


def _check(path: Path) -> None:
    wanted = _HASH.search(path.name)
    if wanted is None:
        return
    found = sha256(path)
    if not found.startswith(wanted[1]):
        raise UserError(
            f"Expected the sha256 of {path} to begin as its name says but it is {found[:12]}: the "
            "file is damaged, or another. Delete it: it is fetched again."
        )


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let torch.load, which torchvision asks to unpickle anything, read tensors alone."""
    before = os.environ.get(_TENSORS_ALONE)
    os.environ[_TENSORS_ALONE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ALONE]
        else:
            os.environ[_TENSORS_ALONE] = before
