"""A student that computes in float what its int8 file will compute, so that it can learn to.

What is rounded is what static quantisation rounds in the exported graph: the weights of
convolutions and linear layers per output channel, symmetric; per tensor and affine, what such a
layer, a sum, a product, a pooling or a gate reads; the logits. A ReLU or a batch norm is part of
the layer before it, so what is between the two stays as it is. Batch norm scales every output
channel by a number, and the grid of that channel with it: folded or not, weights round alike.

Rounding has no slope; the gradient passes it as if it were not there (the straight-through
estimator: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation", 2013), but not where a value was clipped. Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018; with a teacher: Mishra, Marr, "Apprentice", 2018.

Knows neither files nor ONNX: a test holds the two against each other.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from distill.errors import UserError

LEVELS = 255  # uint8
MAX_WEIGHT, MAX_WEIGHT_REDUCED = 127, 64
SHRINK = 0.01

LAYERS = (F.conv1d, F.conv2d, F.conv3d, F.linear)
GATES = {F.hardswish: F.hardsigmoid, F.silu: torch.sigmoid}  # exported as x * gate(x)
PAIRS = {torch.add, torch.mul, torch.matmul, Tensor.add, Tensor.add_, Tensor.mul, Tensor.mul_}
PAIRS |= {Tensor.matmul}
READERS = {torch.cat, torch.mean, torch.sigmoid, Tensor.mean, Tensor.sigmoid, F.hardsigmoid}
READERS |= {F.avg_pool2d, F.adaptive_avg_pool2d}


class Rounding(torch.autograd.Function):
    """Round to a grid of 256 levels; the gradient passes where nothing was clipped.

    As `torch.fake_quantize_per_tensor_affine`, whose loop torch 2.14 does not vectorise on a CPU:
    with it a step of resnet8 takes 40 % longer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Round floats of any shape by a scale and a zero point (a whole number, as float)."""
        level = x.div(scale).round_().add_(zero_point)
        kept = level.clamp(0, LEVELS)
        ctx.save_for_backward(kept.eq(level))
        return kept.sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass the gradient straight through."""
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


class Rounded(TorchFunctionMode):
    """While entered, passes whatever the int8 file holds in 8 bits through a function.

    Args:
        activation: called with each activation in the order of its use.
        weight: called with each weight.
    """

    def __init__(
        self, activation: Callable[[Tensor], Tensor], weight: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.activation, self.weight = activation, weight

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Change a function's operands, then call it."""
        kwargs = dict(kwargs or {})
        if func in LAYERS:
            named = [kwargs.pop(name) for name in ("input", "weight")[len(args) :]]
            x, weight, *others = *args, *named
            args = (self.activation(x), self.weight(weight), *others)
        elif func in GATES:
            x = self.activation(args[0])
            return x * self.activation(GATES[func](x))
        elif func in PAIRS and all(map(_is_activation, args[:2])):
            args = (self.activation(args[0]), self.activation(args[1]), *args[2:])
        elif func in READERS:
            args = (self._each(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _each(self, operand: Any) -> Any:
        if isinstance(operand, list | tuple):
            return [self._each(item) for item in operand]
        return self.activation(operand) if _is_activation(operand) else operand


def _is_activation(value: Any) -> bool:
    """Tell a batch of floats from shapes, scalars and settings, and from what holds nothing."""
    is_batch = isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2
    return is_batch and value.numel() > 0


class FakeQuantization(nn.Module):
    """The ranges of a student's activations, and its weights and activations rounded by them.

    A range starts as the smallest and the largest value that calibration images give in float, as
    the file's does. In training it grows to whatever a batch holds at once, and shrinks by a
    hundredth of the difference a step: a smooth stand-in for the extremes over many images.

    Args:
        student: maps images to logits; left as it is.
        images: [N, H, W, C] uint8, for calibration.
        reduce_range: weights of 7 bits, for processors that add products in 16 bits.
        batch_size: of the calibration.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        student: nn.Module,
        images: Tensor,
        *,
        reduce_range: bool = False,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.max_weight = MAX_WEIGHT_REDUCED if reduce_range else MAX_WEIGHT
        training = student.training
        student.eval()
        with torch.no_grad():
            found = [_extremes(student, batch) for batch in images.split(batch_size)]
        student.train(training)
        if len({len(extremes) for extremes in found}) > 1:
            raise _changing()
        extremes = torch.stack(found)  # [num_batches, num_activations, 2]
        self.register_buffer("low", extremes[..., 0].amin(dim=0).clamp(max=0))
        self.register_buffer("high", extremes[..., 1].amax(dim=0).clamp(min=0))
        self._hooks: list[Any] = []
        self._entered: list[_Pass] = []

    def attach(self, student: nn.Module) -> None:
        """Have every call of a student rounded; its own state keeps its form.

        Batch norm keeps its statistics from now on: the file's are constants, and a grid that
        moves with each batch cannot be learnt.
        """

        def enter(module: nn.Module, args: Any) -> None:
            for part in module.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
            one = _Pass(self, follow=module.training)
            one.stack.enter_context(one.mode)
            self._entered.append(one)

        def leave(module: nn.Module, args: Any, logits: Any) -> Any:
            one = self._entered.pop()
            one.stack.close()
            if logits is None:  # the student has raised
                return None
            logits = one.activation(logits)
            one.finish()
            return logits

        self._hooks = [
            student.register_forward_pre_hook(enter, prepend=True),
            student.register_forward_hook(leave, always_call=True),
        ]

    def detach(self) -> None:
        """Let the student compute in float again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def round_weight(self, weight: Tensor) -> Tensor:
        """Round a weight [out, ...] to 8 (or 7) bits per output channel, symmetric."""
        flat = weight.detach().float().flatten(start_dim=1)
        scale = flat.abs().amax(dim=1) / self.max_weight
        scale = scale.where(scale > 0, torch.ones_like(scale))
        return torch.fake_quantize_per_channel_affine(
            weight.float(),
            scale,
            torch.zeros_like(scale, dtype=torch.int32),
            0,
            -self.max_weight,
            self.max_weight,
        )

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point (a whole number) of every activation, [num_activations] each."""
        width = self.high - self.low
        width = width.where(width > 0, torch.full_like(width, LEVELS))
        return width / LEVELS, (-self.low * LEVELS / width).round()

    @torch.no_grad()
    def follow(self, extremes: Tensor) -> None:
        """Let the ranges follow what a batch has shown, [num_activations, 2]."""
        low, high = extremes[:, 0].clamp(max=0), extremes[:, 1].clamp(min=0)
        self.low.copy_(torch.minimum(low, self.low.lerp(low, SHRINK)))
        self.high.copy_(torch.maximum(high, self.high.lerp(high, SHRINK)))


class _Pass:
    """One call of the student: counts its activations, rounds them, and remembers extremes."""

    def __init__(self, ranges: FakeQuantization, *, follow: bool) -> None:
        self._ranges, self._follow = ranges, follow
        self._scale, self._zero_point = ranges.grid()
        self._count = 0
        self._extremes: list[Tensor] = []
        self.mode = Rounded(self.activation, ranges.round_weight)
        self.stack = ExitStack()

    def activation(self, x: Tensor) -> Tensor:
        """Round the next activation."""
        number, self._count = self._count, self._count + 1
        if self._count > len(self._scale):
            raise _changing()
        x = x.float()
        if self._follow:
            self._extremes.append(_extremes_of(x))
        rounded = Rounding.apply(x, self._scale[number], self._zero_point[number])
        assert isinstance(rounded, Tensor)
        return rounded

    def finish(self) -> None:
        """Check that all were seen, and let the ranges follow."""
        if self._count != len(self._scale):
            raise _changing()
        if self._follow:
            self._ranges.follow(torch.stack(self._extremes))


def _extremes(student: nn.Module, images: Tensor) -> Tensor:
    """Observe the smallest and the largest value of every activation, [num_activations, 2]."""
    seen: list[Tensor] = []

    def observe(x: Tensor) -> Tensor:
        seen.append(_extremes_of(x.float()))
        return x

    with Rounded(observe, lambda weight: weight):
        logits = student(images)
    observe(logits)
    return torch.stack(seen)


def _extremes_of(x: Tensor) -> Tensor:
    """The smallest and the largest value, [2]; `aminmax` takes ten times as long on a CPU."""
    x = x.detach()
    return torch.stack([x.amin(), x.amax()])


def _changing() -> UserError:
    return UserError(
        "Expected a student that computes the same steps for every batch but their number "
        "changes, so their ranges cannot be told apart. Set `repair=null`, or take the branch out "
        "of its forward."
    )


class QuantizationAware(Callback):
    """Rounds a module's student while it is trained and validated.

    The ranges are the module's, beside the student: they travel in its checkpoints and over its
    processes, and the student's state stays that of a plain student.

    Args:
        images: [N, H, W, C] uint8, for the first ranges.
        reduce_range: see `FakeQuantization`.
    """

    def __init__(self, images: NDArray[Any], *, reduce_range: bool = False) -> None:
        self.images, self.reduce_range = images, reduce_range

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Calibrate, in every process that a trainer runs in; a checkpoint's ranges come after."""
        student = pl_module.student
        assert isinstance(student, nn.Module)
        images = torch.from_numpy(self.images)
        ranges = FakeQuantization(student, images, reduce_range=self.reduce_range)
        ranges.attach(student)
        pl_module.fake_quantization = ranges

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Leave a plain student."""
        ranges = pl_module.fake_quantization
        assert isinstance(ranges, FakeQuantization)
        ranges.detach()
