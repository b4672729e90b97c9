"""Networks for encoded windows of a series: students that are small, and quick on one core.

A network maps [B, F] float32, laid out as `encoding.Layout` says, to outputs [B, num_classes], a
step of the horizon each. Knows nothing of units: to it a window's last value is 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.errors import UserError
from distill.tables.encoding import Layout


class Fields(nn.Module):
    """Encoded windows taken apart: what was, as channels over the window, and what is known ahead.

    Args:
        layout: of the rows, with `fields`.

    Raises:
        UserError: they are rows of a table.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        if not layout.fields:
            raise UserError(
                "Expected windows of a series for a network that looks along time but got rows of "
                "a table, which has none. Use `data=series`, or `student=mlp`."
            )
        self.widths = [width for _, width in layout.fields]
        self.window = self.widths[0]  # the value's: it is not known ahead
        self.num_ahead = sum(self.widths) - self.window * len(self.widths)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, F] to channels [B, fields, window] and what is known ahead, [B, num_ahead]."""
        fields = rows.split(self.widths, dim=1)
        past = torch.stack([field[:, : self.window] for field in fields], dim=1)
        return past, torch.cat([field[:, self.window :] for field in fields], dim=1)


class TCN(nn.Module):
    """Temporal convolutional network, and a linear forecast beside it.

    Residual blocks of dilated causal convolutions: Bai, Kolter, Koltun, "An Empirical Evaluation of
    Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018; here without weight
    norm. A hidden layer reads the last step's features and what is known ahead. Their answer is
    added to a linear map of the value's window, which alone beats many a deep network: Zeng et al.,
    "Are Transformers Effective for Time Series Forecasting?", 2022. Both begin at 0, and so the
    network at the forecast that nothing changes.

    Args:
        num_classes: outputs.
        layout: of the rows, with `fields`.
        width: channels of every block; there are as many as it takes to see the whole window.
        kernel_size: of the convolutions, in steps, 2 or more.
        hidden: width of the hidden layer.
        dropout: after each convolution, in training.

    Raises:
        UserError: the rows are no windows, or `kernel_size` is below 2.
    """

    def __init__(
        self,
        num_classes: int,
        layout: Layout,
        *,
        width: int = 16,
        kernel_size: int = 3,
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size < 2:
            raise UserError(f"Expected `kernel_size` of 2 steps or more but got {kernel_size}.")
        self.fields = Fields(layout)
        channels = len(self.fields.widths)
        blocks: list[nn.Module] = []
        for dilation in _dilations(self.fields.window, kernel_size):
            blocks.append(
                _CausalBlock(channels, width, kernel_size, dilation=dilation, dropout=dropout)
            )
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Sequential(nn.Linear(channels + self.fields.num_ahead, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)
        self.linear = nn.Linear(self.fields.window, num_classes, bias=False)
        for last in (self.head.weight, self.head.bias, self.linear.weight):
            nn.init.zeros_(last)

    def forward(self, rows: Tensor) -> Tensor:
        """Map [B, F] to outputs [B, num_classes]."""
        past, ahead = self.fields(rows)
        latest = self.blocks(past)[:, :, -1]
        return self.head(self.hidden(torch.cat([latest, ahead], dim=1))) + self.linear(past[:, 0])


class _CausalBlock(nn.Module):
    """Two convolutions that see no later step, and a way around them; [B, C, T] to the same T."""

    def __init__(
        self, in_channels: int, width: int, kernel_size: int, *, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        past = nn.ConstantPad1d(((kernel_size - 1) * dilation, 0), 0.0)

        def layers(channels: int) -> Sequence[nn.Module]:
            convolution = nn.Conv1d(channels, width, kernel_size, dilation=dilation)
            return past, convolution, nn.ReLU(), nn.Dropout(dropout)

        self.residual = nn.Sequential(*layers(in_channels), *layers(width))
        same = in_channels == width
        self.shortcut = nn.Identity() if same else nn.Conv1d(in_channels, width, kernel_size=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def _dilations(window: int, kernel_size: int) -> list[int]:
    """1, 2, 4, ... until the last step has seen the whole window."""
    dilations, seen = [1], 1 + 2 * (kernel_size - 1)
    while seen < window:
        dilations.append(2 * dilations[-1])
        seen += 2 * (kernel_size - 1) * dilations[-1]
    return dilations
