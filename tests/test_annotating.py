"""Claims about what people are given to label: blind, whole, and read back as it was said."""

import base64
import io
import json
import re
import subprocess
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from distill.people.annotating import (
    data_uri,
    keys_of,
    label_studio_config,
    make_tasks,
    render_page,
    split_pages,
)
from distill.people.annotations import read_annotations

NASTY = ("</script><b>", 'a "quoted", name', "owl & cat")


def page(images, classes, **changes):
    tasks = make_tasks(images, np.arange(10, 10 + len(images)))
    names = {"title": "t", "name": "n", "file": "annotations.csv"} | changes
    return render_page(tasks, classes, **names)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_bit_by_bit(rng, channels):
    image = rng.integers(0, 256, (5, 7, channels)).astype(np.uint8)
    head, _, content = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).reshape(image.shape)
    np.testing.assert_array_equal(back, image)


def test_pages_hold_all_tasks_in_order_and_no_more_than_fits(rng):
    tasks = make_tasks(rng.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8), np.arange(9))
    size = len(tasks[0]["data"]["image"])
    pages = list(split_pages(tasks, limit=3 * size + 30))
    assert [task for part in pages for task in part] == tasks
    assert max(map(len, pages)) == 3
    assert [len(part) for part in split_pages(tasks, limit=1)] == [1] * 9


def test_names_of_classes_can_do_no_harm(rng):
    html = page(rng.integers(0, 256, (1, 4, 4, 1)).astype(np.uint8), NASTY, title=NASTY[0])
    assert html.count("</script>") == 2  # its own two
    content = json.loads(re.search(r'id="content">(.*?)</script>', html, re.DOTALL).group(1))
    assert content["classes"] == list(NASTY)
    choices = ElementTree.fromstring(label_studio_config(NASTY)).iter("Choice")
    assert [choice.get("value") for choice in choices] == list(NASTY)


def test_keys_are_the_classes_own_names_or_in_order():
    assert keys_of(("0", "1", "a")) == ["0", "1", "a"]
    assert keys_of(("cat", "dog")) == ["1", "2"]
    many = keys_of([f"class {i}" for i in range(50)])
    assert len(many) == 50
    assert len({key for key in many if key}) == 36


@pytest.mark.slow
@pytest.mark.browser
def test_what_is_pressed_is_what_is_read_back(require, rng, tmp_path):
    chromium = require("browser", "chromium")
    html = page(rng.integers(0, 256, (4, 8, 8, 1)).astype(np.uint8), NASTY)
    pressed = """<script>
      const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
      find("annotator").value = 'Ann "A", B';
      find("annotator").dispatchEvent(new Event("input"));
      ["2", "1", "ArrowLeft", "3", "ArrowRight"].forEach(press);
      find("classes").children[0].click();
      const output = document.createElement("pre");
      output.id = "output";
      output.textContent = JSON.stringify({ csv: csv(), status: find("status").textContent,
        open: !find("download").disabled, kept: JSON.parse(localStorage.getItem("n")) });
      document.body.append(output);
    </script></body>"""
    file = tmp_path / "page.html"
    file.write_text(html.replace("</body>", pressed))
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{file}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    dom = ElementTree.fromstring(re.search(r'<pre id="output">.*?</pre>', done.stdout).group(0))
    said = json.loads(dom.text)
    assert said["open"]
    assert said["status"] == "image 4 of 4, 3 answered."
    assert said["kept"]["annotator"] == 'Ann "A", B'
    (tmp_path / "annotations.csv").write_text(said["csv"])
    samples = SimpleNamespace(indices=np.arange(10, 14), paths=None)
    found = read_annotations([tmp_path / "annotations.csv"], samples, NASTY)
    assert found.samples.tolist() == [0, 1, 3]
    assert found.labels.tolist() == [1, 2, 0]  # the second was mended
    assert set(found.annotators) == {'Ann "A", B'}
    assert (found.seconds >= 0).all()
