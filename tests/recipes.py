"""The README's four jobs as commands, and what one brings along to do them."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import torch
from commands import BRIEF, REPOSITORY, SHORT, Ran, run_cli
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torchvision.models import resnet18

MEAN, STD = (np.array(own, np.float32) for own in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
BRIEFLY = {  # what is not claimed takes little time
    "pipeline": (*SHORT, "preflight=false", "soft_labels.num_views=2", "repair=null"),
    "benchmark": BRIEF,
}


def jobs() -> list[list[str]]:
    """Read the commands of each job from the README."""
    text = (REPOSITORY / "README.md").read_text()
    section = text[text.index("## Four jobs") : text.index("## What a run does")]
    fences = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [fence.replace("\\\n", " ").splitlines() for fence in fences]


def do(command: str, cwd: Path, *more: str) -> Ran:
    """Run a command as it is written, only briefly."""
    _, script, *words = shlex.split(command, comments=True)
    verb = Path(script).stem
    views = "views=none" in words
    briefly = [one for one in BRIEFLY.get(verb, ()) if not (views and "num_views" in one)]
    return run_cli(verb, *words, *briefly, *more, cwd=cwd)


def photos(folder: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Write photos of two classes, which differ in colour; return [N, H, W, C] and [N]."""
    images = rng.integers(0, 120, (120, 16, 16, 3), dtype=np.uint8)
    labels = np.repeat([0, 1], 60)
    images[np.arange(120), :, :, labels] += 60
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / ("green", "red")[1 - label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    order = np.concatenate([np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)])
    return images[order], np.repeat([0, 1], 60)  # by folder: green, red


def teacher(images: np.ndarray, labels: np.ndarray) -> torch.nn.Module:
    """Make a ResNet that tells them apart: its random features, and a fitted last layer."""
    torch.manual_seed(0)
    network = resnet18(num_classes=2).eval()
    last, network.fc = network.fc, torch.nn.Identity()
    with torch.no_grad():
        features = network(normalised(images)).numpy()
    fitted = LogisticRegression(max_iter=1000).fit(features, labels)
    with torch.no_grad():
        last.weight[:] = torch.tensor(np.concatenate([-fitted.coef_, fitted.coef_]) / 2)
        last.bias[:] = torch.tensor(np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2)
    network.fc = last
    return network


def normalised(images: np.ndarray) -> torch.Tensor:
    """Bring images to what ImageNet's networks take, [N, C, H, W]."""
    return torch.tensor(((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def churn(folder: Path, rng: np.random.Generator) -> None:
    """Write a table with a label, and rows without."""
    columns = ["age", "plan", "since", "churned"]
    rows = []
    for _ in range(300):
        age, plan = int(rng.integers(18, 90)), str(rng.choice(["free", "paid"]))
        leaves = (age < 40) != (plan == "paid") and rng.random() < 0.9
        since = f"2024-{rng.integers(1, 13):02}-{rng.integers(1, 28):02}"
        rows.append([age, plan, since, "yes" if leaves else "no"])
    for name, kept, width in (("churn.csv", rows, 4), ("new.csv", rows[:20], 3)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([columns[:width], *(row[:width] for row in kept)])
