"""Pretrained weights: from a file that is what its name says, and never a program."""

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision

from distill.errors import UserError
from distill.training.models import torchvision_classifier

NETWORK = "squeezenet1_1"


class Program:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Put something into torch.hub's folder, as the weights of a network; gives its path."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision.models.get_model_weights(NETWORK)["DEFAULT"].value
    url = weights.url

    def call(content):
        made = tmp_path / "made"
        torch.save(content, made)
        name = f"net-{hashlib.sha256(made.read_bytes()).hexdigest()[:8]}.pth"
        object.__setattr__(weights, "url", f"https://nowhere.invalid/{name}")  # it is frozen
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir()
        return made.rename(path)

    yield call
    object.__setattr__(weights, "url", url)


def classifier():
    return torchvision_classifier(7, 3, name=NETWORK, weights="DEFAULT")


def test_weights_of_the_folder_are_used(put):
    own = torchvision.models.get_model(NETWORK, weights=None)
    put(own.state_dict())
    features = classifier().get_submodule("features").state_dict()
    assert all(torch.equal(features[k], v) for k, v in own.features.state_dict().items())


def test_a_file_that_is_not_what_its_name_says_is_refused(put):
    path = put({})
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="begin as its name says"):
        classifier()


def test_a_program_in_place_of_weights_does_not_run(put, tmp_path):
    put({"weight": Program(tmp_path / "ran")})
    with pytest.raises(UserError, match="tensors alone"):
        classifier()
    assert not (tmp_path / "ran").exists()
