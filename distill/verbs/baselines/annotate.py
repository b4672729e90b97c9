"""`baseline annotate`: a random sample of the test set, for people to label before any model is."""

import json
from typing import Any

import numpy as np
from rich.markup import escape

from distill.errors import UsageError
from distill.files import write_json, write_text
from distill.people.annotating import label_studio_config, make_tasks, render_page, split_pages
from distill.verbs.run.workspace import Workspace

FOLDER = "annotate"
ENOUGH = 1000  # samples, which tell an accuracy to 2 or 3 points


def annotate_stage(workspace: Workspace) -> dict[str, Any]:
    """Draw a simple random sample and write it as pages, and as tasks of Label Studio.

    Raises:
        UsageError: the test set has not as many samples.
    """
    cfg, data, folder = workspace.cfg, workspace.images, workspace.run_dir / FOLDER
    total = len(data.test)
    n = min(ENOUGH, total) if cfg.n is None else cfg.n
    if not isinstance(n, int) or not 1 <= n <= total:
        raise UsageError(
            f"Expected `n` from 1 to the {total} test samples of {data.name} but got {n}. "
            f"Set `n={min(ENOUGH, total)}`, or fewer."
        )
    # In the order drawn: neighbours in a file are often of one class.
    drawn = np.random.default_rng(cfg.seed).permutation(total)[:n]
    chosen = data.test.take(drawn)

    def compute() -> dict[str, Any]:
        tasks = make_tasks(chosen.inputs, chosen.indices)
        pages = list(split_pages(tasks))
        names = []
        for number, page in enumerate(pages, start=1):
            suffix = "" if len(pages) == 1 else f"_{number}"
            title = f"{data.name}: {n} images"
            title += f", page {number} of {len(pages)}" if suffix else ""
            names.append(f"page{suffix}.html")
            html = render_page(
                page,
                data.classes,
                title=title,
                name=f"distill {data.fingerprint[:12]} {cfg.seed} {n} {number}",
                file=f"annotations{suffix}.csv",
            )
            write_text(folder / names[-1], html)
        write_text(folder / "tasks.json", json.dumps(tasks))
        write_text(folder / "config.xml", label_studio_config(data.classes))
        sample = {
            "data": data.name,
            "fingerprint": data.fingerprint,
            "split": "test",
            "seed": cfg.seed,
            "num_samples": total,
            "inclusion_probability": n / total,
            "indices": chosen.indices,
        }
        write_json(folder / "sample.json", sample)
        return {
            "run_dir": str(workspace.run_dir),
            "pages": [str(folder / name) for name in names],
            "tasks": str(folder / "tasks.json"),
            "config": str(folder / "config.xml"),
            "sample": str(folder / "sample.json"),
            "num_drawn": n,
            "inclusion_probability": n / total,
        }

    files = tuple(f"{FOLDER}/{name}" for name in ("tasks.json", "config.xml", "sample.json"))
    values = {"data": data.fingerprint, "n": n, "seed": cfg.seed, "classes": data.classes}
    result = workspace.stage("annotate", compute, values=values, outputs=files)
    for page in result["pages"]:
        workspace.console.print(f"open {escape(page)}", soft_wrap=True, highlight=False)
    workspace.console.print(
        "Each person downloads a file; then: baseline humans=[<file>,<file>]", markup=False
    )
    return result
