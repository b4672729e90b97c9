"""What people need to label images: a page that works offline, and tasks for Label Studio.

Blind: it is given images and class names, so that it can show neither labels nor predictions.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.pages import render

KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
PAGE_BYTES = 8_000_000  # of pictures on one page, so that a browser stays quick

CHOICES, PICTURE, ROW = "label", "image", "row"  # names in a configuration of Label Studio

Task = dict[str, Any]


def make_tasks(images: Any, indices: NDArray[np.int64]) -> list[Task]:
    """Turn images, [n, H, W, C] uint8, into tasks of Label Studio's import format, as data URIs."""
    return [
        {"data": {"index": int(index), "image": data_uri(image)}}
        for image, index in zip(images, indices, strict=True)
    ]


def data_uri(image: NDArray[np.uint8]) -> str:
    """Write an image, [H, W, C] of 1 or 3 channels, as a PNG inside a URI."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def split_pages(tasks: Sequence[Task], limit: int = PAGE_BYTES) -> Iterator[list[Task]]:
    """Cut tasks into pages of at most `limit` bytes of pictures, and of one task at least."""
    page: list[Task] = []
    size = 0
    for task in tasks:
        own = len(task["data"]["image"])
        if page and size + own > limit:
            yield page
            page, size = [], 0
        page.append(task)
        size += own
    yield page


def render_page(
    tasks: Sequence[Task], classes: Sequence[str], *, title: str, name: str, file: str
) -> str:
    """Render one page; it keeps answers in the browser and writes them as CSV.

    Args:
        tasks: see `make_tasks`.
        classes: names in the order of their keys.
        title: of the page.
        name: under which the browser keeps the answers; another sample needs another name.
        file: name of the CSV file that it offers.
    """
    content = {
        "tasks": [task["data"] for task in tasks],
        "classes": list(classes),
        "keys": keys_of(classes),
        "name": name,
        "file": file,
    }
    return render("annotate.html", {"title": title, "content": content})


def keys_of(classes: Sequence[str]) -> list[str]:
    """Give each class a key: its name where all names are keys, else in order; "" past the last."""
    if all(len(name) == 1 and name in KEYS for name in classes):
        return list(classes)
    return [*KEYS[: len(classes)], *[""] * (len(classes) - len(KEYS))]


def label_studio_config(classes: Sequence[str], *, is_table: bool = False) -> str:
    """Write the labelling configuration of Label Studio that fits the tasks, as XML."""
    choices = "".join(
        f"    <Choice value={quoteattr(name)}" + (f' hotkey="{key}"' if key else "") + "/>\n"
        for name, key in zip(classes, keys_of(classes), strict=True)
    )
    tag, name = ("Table", ROW) if is_table else ("Image", PICTURE)
    return (
        f'<View>\n  <{tag} name="{name}" value="${name}"/>\n'
        f'  <Choices name="{CHOICES}" toName="{name}" choice="single" required="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )
