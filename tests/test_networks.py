"""Claims about weights that are read back, and about those that do not fit."""

import pytest
import torch

from distill.errors import UserError
from distill.training.models import ImageClassifier, PlainCNN
from distill.verbs.learning.networks import _load_state


def network(num_classes, widths=(4, 8)):
    return ImageClassifier(PlainCNN(num_classes, 1, widths=widths), [0.3], [0.4])


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize(
    ("num_classes", "advice"),
    [
        (4, r"`teacher\.classes=\[\.\.\.\]`, and set `teacher\.drop_classes=true`"),
        (2, "Name weights of another teacher"),
    ],
)
def test_weights_for_another_number_of_classes_are_named_as_such(
    num_classes, advice, inner, tmp_path
):
    other = network(num_classes)
    content = (other.network if inner else other).state_dict()
    with pytest.raises(
        UserError, match=rf"3 classes \(a, b, c\) but .* for {num_classes}\. .*{advice}"
    ):
        _load_state(network(3), content, tmp_path / "x.pt", "teacher", ("a", "b", "c"))


@pytest.mark.parametrize("other", [network(4, (4, 6)), torch.nn.Linear(2, 4)])
def test_weights_of_another_network_are_not_taken_for_those_of_other_classes(other, tmp_path):
    with pytest.raises(UserError, match="but they do not fit"):
        _load_state(network(3), other.state_dict(), tmp_path / "x.pt", "teacher", ("a", "b", "c"))
