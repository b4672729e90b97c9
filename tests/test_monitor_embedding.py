"""Monitoring by what a model sees of its inputs: embeddings of logged and of reference rows."""

import shutil

import numpy as np
import pytest
from monitored import TILT, fill, images
from monitored import embedded_world as embedded_world
from registry_runs import ARTEFACT

from distill.files import read_json
from distill.production.monitoring.comparison import compare
from distill.production.reference import EMBEDDINGS, NUM_EMBEDDED, embeddings
from distill.runtime import OnnxModel


@pytest.fixture
def looked(cli, tmp_path):
    """Fill a log, look at it, and return exit code, what was found, and the page."""

    def call(run, **how):
        url = f"sqlite:///{tmp_path}/log.db"
        fill(url, run, days=8, labels=False, audit=None, **how)
        ran = cli("monitor", f"run={run}", f"log.url={url}", f"out={tmp_path}/out",
                  "alarm_rate=0.01", "every_days=7")  # fmt: skip
        assert ran.code in (0, 4), ran.stderr
        page = (tmp_path / "out/monitor.html").read_text()
        return ran.code, read_json(tmp_path / "out/monitor.json")["found"], page

    return call


def outstanding(found):
    return {one["name"] for one in found["changes"] if one["stands_out"]}


def test_where_there_is_an_embedding_rows_are_compared_by_it(looked, embedded_world):
    code, found, page = looked(embedded_world, tilt=TILT)
    assert (code, outstanding(found)) == (0, set())
    spaces = {(one["name"], one["statistic"]) for one in found["changes"]
              if one["group"] == "together"}  # fmt: skip
    assert spaces == {("embedding", "mmd"), ("embedding", "classifier")}
    told = f"of {NUM_EMBEDDED} logged inputs beside those of {NUM_EMBEDDED} validation rows"
    assert told in found["together"]
    assert found["together"].replace("'", "&#39;") in page


def test_what_moves_no_answer_is_seen_by_the_embedding(looked, embedded_world):
    code, found, _ = looked(embedded_world, tilt=-TILT)
    assert (code, outstanding(found)) == (4, {"embedding"})


def test_and_not_by_answers_alone(looked, embedded_world, tmp_path):
    run = shutil.copytree(embedded_world, tmp_path / "run")
    (run / EMBEDDINGS).unlink()
    code, found, page = looked(run, tilt=-TILT)
    assert (code, outstanding(found)) == (0, set())
    assert "were not kept" in found["together"]
    assert "were not kept" in page


def test_the_tilt_moves_neither_logits_nor_brightness(embedded_world):
    model = OnnxModel(embedded_world / "export" / ARTEFACT)
    one, other = (
        images(np.random.default_rng(0), 500, tilt=tilt) for tilt in (TILT, -TILT)
    )  # fmt: skip
    moved = np.abs(one.astype(float) - other).mean()
    assert moved > TILT / 2
    assert abs(one.mean() - other.mean()) < 0.5
    logits = model.predict(one)
    assert np.abs(logits - model.predict(other)).mean() < 0.02 * logits.std()  # whole gray levels


def test_without_inputs_in_the_log_it_is_answers_that_are_compared(looked, embedded_world):
    code, found, page = looked(embedded_world, tilt=TILT, inputs=False)
    assert code == 0
    assert "log.inputs=keep" in found["together"]
    assert "answers (logits) of 500 rows beside those of 500 test rows" in page


def test_an_artefact_without_one_is_told_how_to_get_it(looked, world):
    _, found, _ = looked(world)
    assert "`embedding=true`" in found["together"]


@pytest.mark.slow
def test_in_an_unchanged_world_embeddings_alarm_as_rarely_as_stated(embedded_world):
    model, rng, rate = (
        OnnxModel(embedded_world / "export" / ARTEFACT),
        np.random.default_rng(1),
        0.2,
    )
    alarms, weeks = 0, 120
    for week in range(weeks):
        before, now = (embeddings(model, images(rng, 60, tilt=TILT)) for _ in range(2))
        found = compare([], [("embedding", before, now)], rate=rate, seed=week)
        alarms += any(one.stands_out for one in found)
    assert alarms / weeks <= rate + 3 * np.sqrt(rate * (1 - rate) / weeks)
    assert alarms / weeks > rate / 4  # the two tests hang together, and see something


def test_reference_rows_are_drawn_and_each_is_run_alone(embedded_world, monkeypatch):
    model = OnnxModel(embedded_world / "export" / ARTEFACT)
    shown = images(np.random.default_rng(0), 2 * NUM_EMBEDDED)
    sizes = []
    prepared = model.prepared
    monkeypatch.setattr(model, "prepared", lambda b: sizes.append(len(b)) or prepared(b))
    found = embeddings(model, shown)
    assert sizes == [1] * NUM_EMBEDDED
    rows = {tuple(row) for row in shown.reshape(len(shown), -1).astype(np.float32)}
    assert {tuple(row) for row in found} <= rows
    assert len(found) == NUM_EMBEDDED
