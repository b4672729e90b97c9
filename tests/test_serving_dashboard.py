"""The dashboard, in a real browser, and what it is fed."""

import re
import subprocess

import pytest
from browsing import browsing
from served import make_service, running

INFER = "/v2/models/pets/infer"
ENTRY = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}


@pytest.fixture
def busy(pets):
    """A service that has answered three requests and refused two."""
    service = make_service(pets)
    with running(service) as client:
        for _ in range(3):
            assert client.post(INFER, json={"inputs": [ENTRY]}).status_code == 200
        for bad in ({}, {"inputs": [ENTRY | {"shape": [4]}]}):
            assert client.post(INFER, json=bad).status_code == 400
        yield service, client


def test_status_sums_up_what_was_asked(busy):
    _, client = busy
    status = client.get("/status").json()
    assert (status["num_answered"], status["num_refused"]) == (3, 2)
    assert status["errors"] == {"malformed": 1, "input": 1}
    assert status["skew"] == []  # what is refused is an error, and no skew
    assert status["latency"].keys() == {"p50_ms", "p95_ms", "p99_ms"}
    assert status["roles"] == {"champion": 3}


def test_status_says_how_often_each_role_was_right_and_who_answers(busy):
    _, client = busy
    told = client.post(INFER, json={"inputs": [ENTRY]}).json()["parameters"]["prediction_id"]
    for _ in range(2):  # the second one is no news
        said = {"prediction_id": told, "label": "cat", "outcome": {"click": 1}}
        assert client.post("/feedback", json=said).status_code == 200
    status = client.get("/status").json()
    own = status["feedback"]["champion"]
    assert (own["right"] + own["wrong"], own["other"]) == (1, 1)
    assert status["num_restarts"] == 0
    (process,) = status["processes"]
    assert process["num_answered"] == 4
    metrics = client.get("/metrics").text
    assert 'distill_feedback_total{role="champion",told="other"} 1.0' in metrics
    assert "distill_experiment_problem 0.0" in metrics
    assert "distill_experiment_info" not in metrics


def test_metrics_are_in_prometheus_text_with_what_answers_now(busy):
    service, client = busy
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'distill_requests_total{endpoint="infer",version=""} 3.0' in lines
    assert 'distill_request_latency_seconds_count{endpoint="infer"} 3.0' in lines
    assert 'distill_errors_total{endpoint="infer",kind="input"} 1.0' in lines
    assert "distill_queue_depth 0.0" in lines
    sha256 = service.catalogue.current.artefact_sha256
    assert f'distill_model_info{{artefact_sha256="{sha256}",model="pets",version=""}} 1.0' in lines


def test_the_page_needs_nothing_from_elsewhere(busy):
    _, client = busy
    answer = client.get("/")
    elsewhere = r"(src|href)\s*=(?!\"/review\")|https?://(?!www\.w3\.org/2000/svg)"
    assert not re.search(elsewhere, answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.browser
def test_the_page_says_how_much_a_challenger_answers_and_where_to_label(
    busy, require, tmp_path, monkeypatch
):
    service, client = busy
    own = {"stage": "canary 5%", "weight": 0.05, "is_paused": True, "is_over": False,
           "difference": -0.0123, "verdict": "inconclusive", "standing": "ready", "num_starts": 1,
           "challenger": "pets version 2", "why": "so", "next": None, "watched_s": 0,
           "problem": None}  # fmt: skip
    monkeypatch.setattr(service.router, "status", lambda: own)
    done = subprocess.run(
        [
            require("browser", "chromium"), "--headless", "--no-sandbox", "--disable-gpu",
            "--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={tmp_path / 'page.png'}", "--window-size=1000,1100",
            "--dump-dom", str(client.base_url),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "The challenger answers 5 % of the units; -0.012 against the champion" in done.stdout
    assert '<a href="/review">' in done.stdout


@pytest.mark.browser
def test_the_page_shows_traffic_and_trouble_in_a_browser(busy, require, tmp_path):
    chromium = require("browser", "chromium")
    service, client = busy
    service.catalogue.problem = "Expected </p><b>version 2</b> to load."
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom", str(client.base_url),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    page = done.stdout

    def shown(name):
        return re.search(rf'id="{name}"[^>]*>(.*?)</', page, re.DOTALL).group(1)

    assert shown("answered") == "3"
    assert shown("refused") == "2"
    assert shown("state") == "in trouble"
    assert "Expected &lt;/p&gt;&lt;b&gt;version 2" in page
    assert float(shown("p50")) > 0
    assert "<td>input</td><td>1</td>" in page
    assert page.count('class="ok"') == 60
    assert re.search(r"<td>one \(\d+\)</td><td>in trouble</td>", page)
    assert "nobody has said yet" in page
    with browsing(chromium, tmp_path / "another") as browser:
        browser.open(str(client.base_url))
        assert client.post(INFER, json={"inputs": [ENTRY]}).status_code == 200
        bars = "[...document.querySelectorAll('rect.ok')]"
        browser.until(f"{bars}.some(bar => bar.getAttribute('height') > 0)")
