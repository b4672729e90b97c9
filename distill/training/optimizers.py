"""Optimizers that know of two kinds of loss. Everything else is torch's own."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.errors import UserError


class DistillationOrientedSGD(torch.optim.Optimizer):
    """SGD with a momentum of its own for the task's and for the distillation's gradients.

    v_task = (momentum - delta) v_task + g_task + weight_decay p
    v_distill = (momentum + delta) v_distill + g - g_task
    p = p - lr (v_task + v_distill)

    The longer memory lets distillation dominate the direction; Zhao et al., "DOT: A
    Distillation-Oriented Trainer", 2023. With delta 0 it is `torch.optim.SGD`. Whoever computes the
    losses hands over g_task with `set_task_gradients` before each backward pass of their sum; a
    step without them (a model trained on labels alone has one kind of loss) is plain SGD.

    Args:
        params: as of any optimizer.
        lr: learning rate.
        momentum: between the two.
        delta: half the difference of the two; the paper has 0.075 and 0.09.
        weight_decay: counted with the task's gradients.

    Raises:
        UserError: `momentum` plus or minus `delta` leaves 0..1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= momentum - abs(delta) <= momentum + abs(delta) < 1:
            raise UserError(
                f"Expected `momentum` plus or minus `delta` from 0 to below 1 but got {momentum} "
                f"and {delta}. Try 0.9 and 0.075."
            )
        defaults = {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._task_gradients: list[Tensor | None] | None = None

    def set_task_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of the losses on labels alone, in the order of the parameters."""
        expected = sum(len(group["params"]) for group in self.param_groups)
        if len(gradients) != expected:
            raise ValueError(f"Expected {expected} gradients but got {len(gradients)}.")
        self._task_gradients = list(gradients)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step, with the task's gradients handed over since the last one, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        handed_over, self._task_gradients = self._task_gradients, None
        gradients = iter(handed_over or ())
        for group in self.param_groups:
            for parameter in group["params"]:
                task = next(gradients, None)
                if parameter.grad is None:
                    continue
                momentum, delta = group["momentum"], group["delta"]
                if handed_over is None:
                    parts = {"task": (parameter.grad, momentum)}
                else:
                    task = torch.zeros_like(parameter) if task is None else task
                    parts = {
                        "task": (task, momentum - delta),
                        "distillation": (parameter.grad - task, momentum + delta),
                    }
                self._update(parameter, parts, group)
        return loss

    def _update(
        self, parameter: Tensor, parts: dict[str, tuple[Tensor, float]], group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        decay = group["weight_decay"] * parameter
        for name, (gradient, memory) in parts.items():
            if name not in state:
                state[name] = torch.zeros_like(parameter)
            state[name].mul_(memory).add_(gradient + decay if name == "task" else gradient)
            parameter.add_(state[name], alpha=-group["lr"])
