"""Every loss of `conf/loss`, as it stands there, between the networks its taps are named for."""

import pytest
import torch
import yaml
from conftest import REPOSITORY
from hydra.utils import instantiate

from distill.training.models import CifarResNet, ImageClassifier
from distill.training.modules import DistillationModule
from distill.training.teachers.live import TorchTeacher

OF_NUMBERS = ("regression", "regression_bounded")  # not of classes
LOSSES = [p for p in sorted((REPOSITORY / "conf/loss").glob("*.yaml")) if p.stem not in OF_NUMBERS]


def network(depth, seed):
    torch.manual_seed(seed)
    return ImageClassifier(CifarResNet(10, 3, depth=depth), [0.5] * 3, [0.25] * 3)


@pytest.mark.parametrize("mixed", [False, True], ids=["classes", "shares"])
@pytest.mark.parametrize("path", LOSSES, ids=lambda path: path.stem)
def test_every_term_is_finite_and_teaches_the_student(path, mixed):
    torch.manual_seed(2)
    images = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    label = torch.rand(6, 10).softmax(dim=1) if mixed else torch.arange(6)
    module = DistillationModule(
        network(8, 0),
        TorchTeacher(network(20, 1)),
        instantiate(yaml.safe_load(path.read_text()), _convert_="all"),
        torch.optim.SGD,
        example=images[:2],
    )
    batch = {"input": images, "label": label, "index": torch.arange(6), "view": 0}
    for name, term in module.terms(batch, epoch=5).items():
        module.zero_grad()
        term.backward(retain_graph=True)
        gradients = [p.grad for p in module.student.parameters() if p.grad is not None]
        assert torch.isfinite(term), name
        assert all(torch.isfinite(gradient).all() for gradient in gradients), name
        assert any(gradient.abs().max() > 1e-7 for gradient in gradients), name
    assert all(p.grad is None for p in module.teacher.parameters())
