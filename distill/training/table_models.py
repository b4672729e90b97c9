"""Networks for encoded rows of a table: students that are small, and quick on one core.

A network maps [B, F] float32, laid out as `encoding.Layout` says, to outputs [B, num_classes].
"""

from collections.abc import Callable, Sequence
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor, nn

from distill.errors import UserError
from distill.tables.encoding import Layout


class TableModel(nn.Module):
    """A network for encoded rows; `network` holds the weights, as in an `ImageClassifier`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        """Map encoded rows [B, F] to outputs [B, num_classes]."""
        return self.network(rows)


class Codes(nn.Module):
    """Encoded rows to plain features: figures and gaps as they are, codes as embeddings.

    Args:
        layout: of the rows.
        max_embedding: a code of n values becomes min(max_embedding, ceil(sqrt(n))) numbers.
    """

    def __init__(self, layout: Layout, max_embedding: int = 16) -> None:
        super().__init__()
        self.num_figures = len(layout.names)
        sizes = [min(max_embedding, int(n**0.5 + 0.999)) for n in layout.cardinalities]
        self.tables = nn.ModuleList(
            nn.Embedding(n, size) for n, size in zip(layout.cardinalities, sizes, strict=True)
        )
        self.num_features = self.num_figures + sum(sizes)

    def forward(self, rows: Tensor) -> Tensor:
        """Map [B, F] to [B, num_features]."""
        if not len(self.tables):
            return rows
        codes = rows[:, self.num_figures :].long()
        embedded = [table(codes[:, number]) for number, table in enumerate(self.tables)]
        return torch.cat([rows[:, : self.num_figures], *embedded], dim=1)


class MLP(nn.Module):
    """Fully connected layers with ReLU, on features with embeddings for codes.

    Args:
        num_classes: outputs.
        layout: of the rows.
        widths: of the hidden layers; none makes it linear.
        dropout: before each hidden layer but the first, in training.
    """

    def __init__(
        self,
        num_classes: int,
        layout: Layout,
        widths: Sequence[int] = (128, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = Codes(layout)
        sizes = [self.features.num_features, *widths]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Dropout(dropout)] if dropout and number else []
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], num_classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Map [B, F] to outputs [B, num_classes]."""
        return self.head(self.hidden(self.features(rows)))


def build_table_network(
    factory: Callable[..., nn.Module], *, num_classes: int, layout: Layout
) -> TableModel:
    """Build a network for a table.

    Args:
        factory: called with those of `num_classes`, `layout` and `in_features` that it takes.
        num_classes: width of the outputs.
        layout: of the rows.

    Raises:
        UserError: the network does not map such rows to that many outputs.
    """
    offered = {
        "num_classes": num_classes, "layout": layout, "in_features": layout.num_features
    }  # fmt: skip
    takes = signature(factory).parameters
    name = getattr(factory, "func", factory).__name__
    try:
        model = TableModel(factory(**{key: v for key, v in offered.items() if key in takes}))
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(2, layout.num_features)).shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"Expected `{name}` to take rows of {layout.num_features} features but it does not: "
            f"{error}. Choose a network for tables, such as `student=mlp`."
        ) from error
    if shape != (2, num_classes):
        raise UserError(
            f"Expected `{name}` to return outputs of shape (2, {num_classes}) for two rows but got "
            f"{shape}. Give it a `num_classes` argument, or a head of that width."
        )
    return model.train()
