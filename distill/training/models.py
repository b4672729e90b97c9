"""Networks for students and teachers, and the wrapper that puts preprocessing inside a model.

A network maps normalised [B, C, H, W] floats to logits. An `ImageClassifier` maps what the user
has, uint8 [B, H, W, C], to logits: the same graph is trained, exported and served.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distill.errors import UserError, nearest
from distill.training.pretrained import pretrained


class ImageClassifier(nn.Module):
    """A network with its own normalisation (and input size) inside.

    Args:
        network: maps [B, C, H, W] floats to logits [B, num_classes].
        mean: per channel, in units of 0..1.
        std: per channel, in units of 0..1.
        input_size: (height, width) that the network wants; None takes images as they come.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.input_size = input_size
        # In units of 0..255, so that the graph is one Sub and one Div.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32) * 255)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) * 255)

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise by these from now on, per channel, in units of 0..1."""
        self.mean.copy_(torch.tensor(mean) * 255)
        self.std.copy_(torch.tensor(std) * 255)

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 images [B, H, W, C] to logits [B, num_classes].

        A contiguous NHWC batch permuted to NCHW is channels-last in memory, which is what
        convolutions on CPU and GPU want.
        """
        x = image.permute(0, 3, 1, 2)
        if torch.compiler.is_exporting():
            # onnxruntime moves a byte faster than a float, and normalises planes, not pixels of
            # three, at full width: 1.8 times the latency of mobilenet_v3_small otherwise.
            x = x.contiguous()
        x = (x.float() - self.mean[:, None, None]) / self.std[:, None, None]
        if self.input_size is not None:
            x = nn.functional.interpolate(
                x, size=self.input_size, mode="bilinear", antialias=True, align_corners=False
            )
        return self.network(x)


class TemperatureScaled(nn.Module):
    """A classifier whose logits are divided by a temperature: same answers, honest confidence.

    Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, image: Tensor) -> Tensor:
        """Map images to calibrated logits [B, num_classes]."""
        return self.model(image) / self.temperature


NetworkFactory = Callable[..., nn.Module]


def build_classifier(
    factory: NetworkFactory,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    input_size: tuple[int, int] | None = None,
) -> ImageClassifier:
    """Build a network for a data set and put the data's normalisation inside it.

    Args:
        factory: called with those of `num_classes` and `in_channels` that it takes.
        num_classes: width of the logits.
        image_shape: (height, width, channels).
        mean: per channel, in units of 0..1; a network with a `normalization` of its own
            (pretrained weights) keeps that instead.
        std: as `mean`.
        input_size: (height, width) that images are resized to first; None leaves them.

    Raises:
        UserError: the network does not map such images to that many logits.
    """
    height, width, channels = image_shape
    offered = {"num_classes": num_classes, "in_channels": channels}
    takes = inspect.signature(factory).parameters
    network = factory(**{name: value for name, value in offered.items() if name in takes})
    mean, std = getattr(network, "normalization", (mean, std))
    model = ImageClassifier(network, mean, std, input_size=input_size).to(
        memory_format=torch.channels_last
    )
    name = getattr(factory, "func", factory).__name__
    try:
        with torch.no_grad():
            shape = tuple(
                model.eval()(torch.zeros(2, height, width, channels, dtype=torch.uint8)).shape
            )
    except RuntimeError as error:
        raise UserError(
            f"Expected `{name}` to take images of {height}x{width}x{channels} but it failed: "
            f"{error}. Choose another network or another `data.image_size`."
        ) from error
    if shape != (2, num_classes):
        raise UserError(
            f"Expected `{name}` to return logits of shape (2, {num_classes}) for two images but "
            f"got {shape}. Give it a `num_classes` argument, or a head of that width."
        )
    return model.train()


class PlainCNN(nn.Module):
    """3x3 convolutions with batch norm, the first at full size, each further one at half of it.

    With widths (16, 24, 28) on one channel it has 10,074 parameters.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, widths: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for depth, width in enumerate(widths):
            blocks += [_conv(in_channels, width, stride=2 if depth == 1 else 1), nn.ReLU()]
            in_channels = width
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to logits [B, num_classes]."""
        return self.head(self.features(x))


class CifarResNet(nn.Module):
    """Residual network for 32x32 images: depth 6n+2, three stages of n blocks.

    He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2, with 1x1
    projections where the shape changes, as in the distillation literature (CRD, 2020). The "x4"
    networks of that literature have widths (32, 64, 128, 256).

    Args:
        num_classes: width of the logits.
        in_channels: 1 or 3.
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        widths: of the stem and the three stages.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        depth: int,
        widths: Sequence[int] = (16, 16, 32, 64),
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"Expected `depth` to be 6n+2 (8, 14, 20, ...) but got {depth}.")
        if len(widths) != 4:
            raise UserError(f"Expected `widths` of the stem and 3 stages but got {list(widths)}.")
        stem, *stages = widths
        self.stem = nn.Sequential(_conv(in_channels, stem), nn.ReLU())
        blocks: list[nn.Module] = []
        for stage, width in enumerate(stages):
            for block in range((depth - 2) // 6):
                blocks.append(_ResidualBlock(stem, width, stride=2 if stage and not block else 1))
                stem = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(stem, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to logits [B, num_classes]."""
        return self.head(self.pool(self.blocks(self.stem(x))))


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(in_channels, width, stride=stride), nn.ReLU(), _conv(width, width)
        )
        same = stride == 1 and in_channels == width
        self.shortcut = (
            nn.Identity() if same else _conv(in_channels, width, kernel_size=1, stride=stride)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


class _StridedPixels(nn.Conv2d):
    """A strided 1x1 convolution, trained on pixels that were taken first.

    oneDNN's own gradient of one over few channels writes past its memory
    (uxlfoundation/oneDNN#6035).
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


def _conv(in_channels: int, width: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    kind = _StridedPixels if kernel_size == 1 and stride > 1 else nn.Conv2d
    convolution = kind(
        in_channels, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(width))


def torchvision_classifier(
    num_classes: int, in_channels: int, *, name: str, weights: str | None = None
) -> nn.Module:
    """Build any torchvision classifier by name, with a head of the right width.

    Args:
        num_classes: width of the new head.
        in_channels: 1 is repeated to 3.
        name: as in `torchvision.models.list_models()`.
        weights: e.g. `DEFAULT` or `IMAGENET1K_V1` (downloaded by torchvision on first use, from
            then on read from its cache); None starts from random weights.

    Raises:
        UserError: the name or the weights are unknown, or the weights cannot be had.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"Unknown torchvision classifier `{name}`. {nearest(name, known)}")
    if weights is None:
        with warnings.catch_warnings():
            # Of GoogLeNet and Inception, about an initialisation that will change one day.
            warnings.simplefilter("ignore", FutureWarning)
            network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    else:
        network = pretrained(name, weights)
        _replace_head(network, num_classes)
    if hasattr(network, "aux_logits"):  # GoogLeNet and Inception train with extra heads
        setattr(network, "aux_logits", False)  # noqa: B010 - no attribute of every network
        for extra in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, extra):
                setattr(network, extra, None)
    return network if in_channels == 3 else _GrayToRgb(network)


def _replace_head(network: nn.Module, num_classes: int) -> None:
    """Replace the last linear (or 1x1 convolution) layer by one of the right width."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    path, last = layers[-1]
    head: nn.Module
    if isinstance(last, nn.Linear):
        head = nn.Linear(last.in_features, num_classes)
    else:
        head = nn.Conv2d(last.in_channels, num_classes, kernel_size=1)
    network.set_submodule(path, head)


class _GrayToRgb(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.expand(-1, 3, -1, -1))


def num_parameters(model: nn.Module) -> int:
    """Count trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def unalike(model: nn.Module) -> nn.Module:
    """Move all weights and statistics a little, so that no two tensors are the same; return it.

    Of a fresh model many are all zeros or ones, which a file stores once and a runtime may skip.
    """
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.01 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    return model


def num_macs(model: nn.Module, example: Tensor) -> int:
    """Count the multiply-accumulates of one sample [1, ...]: convolutions, matrix products."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(example)
    return counter.get_total_flops() // 2
