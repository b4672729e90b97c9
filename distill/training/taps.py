"""Taps: the outputs of named modules inside a network, gathered while it runs.

Knows nothing of losses, nor of which of two networks it is in.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from distill.errors import UserError, nearest


class Taps:
    """Gathers what the named modules return at each forward pass of a model.

    Args:
        model: run by others as ever.
        names: dotted module names, as in `model.named_modules()`.
        whose: `student` or `teacher`, for messages.

    Raises:
        UserError: a name does not exist; the message lists those that do.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], whose: str) -> None:
        known = dict(model.named_modules())
        self.features: dict[str, Tensor] = {}
        for name in names:
            if not name or name not in known:
                there = [other for other in known if other]
                raise UserError(
                    f"Expected `{whose}_tap` to name a module of the {whose}'s network but there "
                    f"is no `{name}`. {nearest(name, there)} Its modules: {', '.join(there)}."
                )
            known[name].register_forward_hook(partial(self._keep, name))

    def take(self, names: Sequence[str]) -> list[Tensor]:
        """Return the features of the last forward pass, in the order of the names."""
        return [self.features[name] for name in names]

    def _keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise UserError(
                f"Expected the tapped module `{name}` to return a tensor but it returns "
                f"{type(output).__name__}. Tap a module inside it."
            )
        self.features[name] = output
