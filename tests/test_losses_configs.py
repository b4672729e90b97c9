"""Every loss of `conf/loss`, as it stands there, between the networks its taps are named for."""

import pytest
import torch
import yaml
from commands import REPOSITORY
from hydra.utils import instantiate

from distill.tables.encoding import Layout
from distill.tasks import TaskKind
from distill.training.models import CifarResNet, ImageClassifier
from distill.training.modules import DistillationModule
from distill.training.series_models import TCN
from distill.training.table_models import build_table_network
from distill.training.teachers.live import TorchTeacher

OF_NUMBERS = {"regression": 1, "regression_bounded": 1, "quantile": 3}  # outputs of each number
OTHERS = {*OF_NUMBERS, "by_task"}  # which names some of the others
LOSSES = [p for p in sorted((REPOSITORY / "conf/loss").glob("*.yaml")) if p.stem not in OTHERS]


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
    check_terms(module, batch)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_every_term_of_numbers_is_finite_and_teaches_the_student(name):
    torch.manual_seed(2)
    layout = Layout(names=("",) * 8, cardinalities=(), fields=(("sold", 8),))
    rows, label = torch.randn(6, 8), torch.randn(6, 2)
    student, teacher = (
        build_table_network(TCN, num_classes=2 * OF_NUMBERS[name], layout=layout) for _ in range(2)
    )
    torch.nn.init.normal_(teacher.network.head.weight, std=0.3)  # an untrained one answers 0
    losses = yaml.safe_load((REPOSITORY / f"conf/loss/{name}.yaml").read_text())
    module = DistillationModule(
        student, TorchTeacher(teacher), instantiate(losses, _convert_="all"), torch.optim.SGD
    )
    check_terms(module, {"input": rows, "label": label, "index": torch.arange(6), "view": 0})


def check_terms(module, batch):
    for name, term in module.terms(batch, epoch=5).items():
        module.zero_grad()
        term.backward(retain_graph=True)
        gradients = [p.grad for p in module.student.parameters() if p.grad is not None]
        assert torch.isfinite(term), name
        assert all(torch.isfinite(gradient).all() for gradient in gradients), name
        assert any(gradient.abs().max() > 1e-7 for gradient in gradients), name
    assert all(p.grad is None for p in module.teacher.parameters())


@pytest.mark.parametrize("kind", TaskKind)
def test_what_a_task_is_given_by_default_are_losses_of_it(kind):
    defaults = yaml.safe_load((REPOSITORY / "conf/loss/by_task.yaml").read_text())["defaults"]
    (name,) = [entry.split("@")[0] for entry in defaults if entry.endswith(f"@{kind}")]
    losses = yaml.safe_load((REPOSITORY / f"conf/loss/{name}.yaml").read_text())
    assert losses
    for loss in instantiate(losses, _convert_="all").values():
        assert kind in loss.kinds


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_losses_of_numbers_are_of_nothing_else(name):
    losses = yaml.safe_load((REPOSITORY / f"conf/loss/{name}.yaml").read_text())
    found = {kind for loss in instantiate(losses, _convert_="all").values() for kind in loss.kinds}
    assert found == {TaskKind.REGRESSION}
