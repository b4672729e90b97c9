"""The page on which people label: blind, guarded, and in a real browser."""

import os
import re
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from browsing import browsing
from feedback_logs import fill, pictures
from prediction_logs import prediction, write
from registry_runs import CLASSES
from served import make_service, running, table_task

from distill.files import sha256, sha256_json
from distill.production.feedback.opinions import agreement
from distill.production.logged_inputs import row_bytes
from distill.production.prediction_log.annotations import answers
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.queue import add_items, find_item
from distill.production.prediction_log.reader import find
from distill.production.prediction_log.records import Feedback, QueueItem
from distill.production.prediction_log.retention import purge
from distill.production.serving.review import review

CLASSES_SHA256 = sha256_json(list(CLASSES))


@pytest.fixture
def log(tmp_path):
    engine = open_log(f"sqlite:///{tmp_path}/predictions.db")
    yield engine
    engine.dispose()


def queue(log, records, **facts):
    """Put predictions into the queue, the first one first."""
    items = [
        QueueItem(
            **{
                "prediction": record.id,
                "split": "active",
                "reason": "margin",
                "classes_sha256": CLASSES_SHA256,
                "priority": 1 - i / 100,
                "tier": "unsure",
                "teacher_label": 2,
                "teacher_confidence": 0.875,
            }
            | facts
        )
        for i, record in enumerate(records)
    ]
    assert add_items(log, items) == len(items)
    return [record.id for record in records]


@pytest.fixture
def desk(pets, log):
    """A service of the pets with a queue; gives a client."""
    service = make_service(pets)
    with running(service, more=review(log, service)) as client:
        yield client


@pytest.fixture
def ask(desk):
    """Ask the page's own way; gives what comes back."""

    def call(step, who="ann", **facts):
        return desk.post(f"/review/{step}", json={"annotator": who, **facts})

    return call


@pytest.fixture
def items(log, pets):
    return queue(log, fill(log, pets / "model.onnx", pictures(3), confidence=0.625))


def test_an_item_says_nothing_of_any_answer_before_it_is_answered(ask, items):
    found = ask("next").json()
    assert found["item"].keys() == {"prediction_id", "picture"}
    assert found["item"]["prediction_id"] == items[0]
    assert not re.search(r"teacher|model|0\.875|0\.625|margin|tier", ask("next").text)


def test_the_first_page_says_how_many_wait_for_whoever_comes(ask, items):
    assert ask("waiting").json() == {"waiting": len(items)}
    ask("answer", prediction_id=items[0], label=CLASSES[0])
    assert ask("waiting").json() == {"waiting": len(items) - 1}


def test_an_answer_is_kept_and_then_all_is_told(ask, items, log):
    found = ask("answer", prediction_id=items[0], label="dog", seconds=1.25).json()
    assert (found["said"], found["is_settled"], found["is_contested"]) == ("dog", True, False)
    model = find(log, items[0]).prediction
    assert found["model"] == {"label": CLASSES[model.label], "confidence": 0.625}
    assert found["teacher"] == {"label": "owl", "confidence": 0.875}
    assert found["progress"]["settled"] == 1
    assert [(f.label, f.source) for f in find(log, items[0]).feedback] == [(1, "human")]
    (kept,) = answers(log, CLASSES_SHA256)
    assert (kept.annotator, kept.lead_time_s) == ("ann", 1.25)
    assert ask("next").json()["item"]["prediction_id"] == items[1]


def test_the_same_answer_sent_twice_is_one(ask, items, log):
    for is_new in (True, False):
        found = ask("answer", prediction_id=items[0], label="dog").json()
        assert found["is_new"] is is_new
    assert len(answers(log, CLASSES_SHA256)) == 1
    other = ask("answer", prediction_id=items[0], label="cat")
    assert (other.status_code, "Take that back first" in other.text) == (409, True)


def test_what_turned_out_otherwise_is_told_and_not_refused(ask, items, log):
    for one in items[:2]:
        ask("answer", prediction_id=one, label="dog")
    assert add_feedback(log, Feedback(prediction=items[0], label=CLASSES.index("owl")))
    assert add_feedback(log, Feedback(prediction=items[1], label=CLASSES.index("dog")))
    progress = ask("next").json()["progress"]
    assert (progress["contradicted"], progress["judged"], progress["upheld"]) == (1, 2, 1)


def test_undo_brings_the_item_back_and_takes_its_feedback_away(ask, items, log):
    ask("answer", prediction_id=items[0], label="dog")
    found = ask("undo", prediction_id=items[0]).json()
    assert (found["taken_back"], found["item"]["prediction_id"]) == (True, items[0])
    assert find(log, items[0]).feedback == ()
    assert ask("next", who="bob").json()["item"]["prediction_id"] == items[1]  # ann has it


def test_skipped_items_go_to_others(ask, items):
    for one in items:
        assert ask("answer", prediction_id=one, label=None).json()["said"] is None
    assert ask("next").json()["item"] is None
    assert ask("next", who="bob").json()["item"]["prediction_id"] == items[0]


def test_two_people_at_once_lose_and_double_nothing(desk, log, pets):
    ids = queue(log, fill(log, pets / "model.onnx", pictures(30)), num_wanted=2)
    given = []

    def work(who, label):
        with httpx.Client(base_url=desk.base_url, timeout=60) as own:
            while True:
                item = own.post("/review/next", json={"annotator": who}).json()["item"]
                if item is None:
                    return
                facts = {"annotator": who, "prediction_id": item["prediction_id"], "label": label}
                for _ in range(2):
                    assert own.post("/review/answer", json=facts).status_code == 200
                given.append((item["prediction_id"], who))

    threads = [
        threading.Thread(target=work, args=pair) for pair in (("ann", "dog"), ("bob", "dog"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    kept = sorted((own.prediction, own.annotator) for own in answers(log, CLASSES_SHA256))
    assert kept == sorted(given) == sorted((one, who) for one in ids for who in ("ann", "bob"))
    assert all(find(log, one).feedback[0].label == 1 for one in ids)


def test_kappa_of_two_people_is_told(ask, log, pets):
    ids = queue(log, fill(log, pets / "model.onnx", pictures(4)), num_wanted=2)
    for one, (ann, bob) in zip(ids, ["cc", "cd", "dd", "dd"], strict=True):
        names = {"c": "cat", "d": "dog"}
        ask("answer", prediction_id=one, label=names[ann])
        found = ask("answer", who="bob", prediction_id=one, label=names[bob]).json()
    (pair,) = found["pairs"]
    # p_o = 3/4, p_e = 2/4 * 1/4 + 2/4 * 3/4
    assert (pair["num_both"], pair["num_same"]) == (4, 3)
    assert pair["cohen_kappa"] == pytest.approx((0.75 - 0.5) / 0.5)
    assert agreement(answers(log, CLASSES_SHA256), 3).pairs[0].cohen_kappa == pair["cohen_kappa"]
    assert found["progress"]["adjudicate"] == 1
    assert ask("next", who="cy").json()["item"]["prediction_id"] == ids[1]


@pytest.mark.parametrize(
    ("step", "facts", "status", "says"),
    [
        ("answer", {"label": "dgo"}, 400, "Did you mean `dog`?"),
        ("answer", {"label": 1}, 400, "'int'"),
        ("answer", {}, 400, "Expected `label`"),
        ("answer", {"label": "dog", "prediction_id": "0" * 30}, 404, "Go on with the next"),
        ("answer", {"label": "dog", "prediction_id": 7}, 400, "`prediction_id` to be a text"),
        ("answer", {"label": "dog", "annotator": " "}, 400, "annotator's name"),
        ("undo", {"prediction_id": None}, 400, "Expected `prediction_id`"),
        ("next", {"annotator": "x" * 70}, 400, "annotator's name"),
        ("nxt", {}, 404, "no such page"),
    ],
)
def test_what_is_wrong_is_one_message(ask, items, log, step, facts, status, says):
    facts = {"prediction_id": items[0], **facts}
    answer = ask(step, **{"who": facts.pop("annotator", "ann"), **facts})
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
    assert answers(log, CLASSES_SHA256) == []


def test_writes_and_inputs_are_for_the_services_own_pages_alone(desk, items, log):
    body = {"annotator": "eve", "prediction_id": items[0], "label": "dog"}
    foreign = [
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ]
    for headers in foreign:
        for step in ("next", "answer", "undo"):
            answer = desk.post(f"/review/{step}", json=body, headers=headers)
            assert answer.status_code == 403, (headers, step)
    assert desk.get("/review/next").status_code == 405
    assert answers(log, CLASSES_SHA256) == []
    own = str(desk.base_url).rstrip("/")
    assert desk.post("/review/next", json=body, headers={"Origin": own}).status_code == 200


def test_the_page_needs_nothing_from_elsewhere_and_may_load_nothing(desk):
    answer = desk.get("/review")
    assert not re.search(r"(src|href)\s*=\s*[\"']|https?://", answer.text)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "frame-ancestors 'none'" in policy


def test_items_of_other_classes_are_not_asked_about(ask, log, pets):
    ids = queue(log, fill(log, pets / "model.onnx", pictures(1)), classes_sha256="d" * 64)
    assert ask("next").json()["item"] is None
    assert ask("answer", prediction_id=ids[0], label="dog").status_code == 404


def test_an_input_that_cannot_be_shown_is_said_and_can_be_skipped(ask, log):
    record = prediction(input=b"\x00 no input", label=1, confidence=0.5)
    write(log, record)
    queue(log, [record])
    item = ask("next").json()["item"]
    assert "Expected a logged input" in item["problem"]
    assert ask("answer", prediction_id=record.id, label=None).status_code == 200


def test_an_item_that_goes_for_its_age_meanwhile_is_one_message(ask, log, items):
    assert ask("next").json()["item"]["prediction_id"] == items[0]
    purge(log, 0, now=9e9)
    assert ask("answer", prediction_id=items[0], label="dog").status_code == 404
    assert ask("next").json()["item"] is None


def test_a_model_of_no_classes_says_so(echo, log):
    service = make_service(echo)
    with running(service, more=review(log, service)) as client:
        answer = client.post("/review/next", json={"annotator": "ann"})
    assert (answer.status_code, "Send what turned out" in answer.text) == (404, True)


def test_turned_off_it_says_why(pets):
    service = make_service(pets)
    with running(service, more=review(None, service, "nobody keeps a log.")) as client:
        for answer in (client.get("/review"), client.post("/review/next", json={})):
            assert (answer.status_code, "nobody keeps a log" in answer.text) == (403, True)


def test_the_log_that_is_away_is_one_message(ask, log, items, tmp_path):
    with log.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE distill_queue RENAME TO elsewhere")
    answer = ask("next")
    assert (answer.status_code, "Expected a prediction log" in answer.text) == (503, True)


FIRST = "document.getElementById('picture').src"
SHOWN = "!document.getElementById('item').hidden"


def text(browser, name):
    return browser.js(f"document.getElementById('{name}').innerText")


def started(browser, desk, name="Ann"):
    browser.open(f"{desk.base_url}/review")
    browser.write(name)
    browser.press("Enter")
    browser.js("document.querySelector('#start').requestSubmit()")
    browser.until(SHOWN)


def press(browser, key):
    """Press a key once the page listens: what is pressed before an item is shown is not for it."""
    browser.until("!busy")
    browser.press(key)


def keep(browser, name, **size):
    """Leave a screenshot where `DISTILL_PICTURES` says, for people to look at."""
    if folder := os.environ.get("DISTILL_PICTURES"):
        browser.picture(Path(folder) / name, **{"width": 900, "height": 860, **size})


@pytest.mark.browser
def test_pictures_are_labelled_by_keys_in_a_browser(desk, log, items, require, tmp_path):
    with browsing(require("browser", "chromium"), tmp_path / "profile") as browser:
        started(browser, desk)
        assert browser.js("document.activeElement === document.body")  # keys are for the item
        assert "0 of 3 items are settled" in text(browser, "status")
        assert browser.js(f"{FIRST}.startsWith('data:image/png')")
        keep(browser, "review_picture.png")
        page = browser.js("document.body.innerText")
        assert "%" not in page
        assert "teacher" not in page
        press(browser, "2")
        browser.until("!document.getElementById('last').hidden")
        browser.until("document.getElementById('status').innerText.startsWith('1 of 3')")
        assert re.search(r"you\s+dog\s+the model\s+\w+, 63 % sure\s+the teacher\s+owl, 88 % sure",
                         text(browser, "opinions"))  # fmt: skip
        keep(browser, "review_answered.png")
        keep(browser, "review_dark.png", dark=True)
        press(browser, "z")
        browser.until("document.getElementById('status').innerText.startsWith('0 of 3')")
        press(browser, " ")
        browser.until("document.getElementById('opinions').innerText.includes('skipped it')")
        browser.until("!busy")
        browser.js("document.querySelectorAll('#classes button')[0].click()")
        browser.until("document.getElementById('opinions').innerText.includes('cat')")
        browser.until("document.getElementById('status').innerText.includes('1 for you now')")
        press(browser, "3")
        browser.until("document.getElementById('item').innerText.includes('nothing for you now')")
        keep(browser, "review_done.png")
        assert browser.problems == []
        browser.open(f"{desk.base_url}/review")  # the name is asked once
        browser.until(SHOWN)
        assert text(browser, "who") == "Ann"
    found = {own.prediction: own.label for own in answers(log, CLASSES_SHA256)}
    assert found == {items[1]: 0, items[2]: 2}
    assert [own.label for own in find_item(log, items[0]).annotations] == [None]


@pytest.mark.browser
def test_an_answer_that_is_not_heard_is_given_again_by_the_same_key(
    desk, log, items, require, tmp_path
):
    with browsing(require("browser", "chromium"), tmp_path / "profile") as browser:
        started(browser, desk)
        browser.js("window.real = window.fetch")
        for broken in (
            "() => Promise.reject(new TypeError('offline'))",  # it never arrives
            "async (...a) => { await window.real(...a); throw new TypeError('cut'); }",  # it does
        ):
            browser.js(f"window.fetch = {broken}; 0")
            browser.js("document.getElementById('problem').textContent = ''")
            press(browser, "2")
            browser.until("document.getElementById('problem').innerText.includes('is lost')")
        browser.js("window.fetch = window.real; 0")
        press(browser, "2")
        browser.until("document.getElementById('status').innerText.startsWith('1 of 3')")
        assert browser.js("document.getElementById('problem').hidden")
    assert [(own.prediction, own.label) for own in answers(log, CLASSES_SHA256)] == [(items[0], 1)]


@pytest.mark.slow
@pytest.mark.browser
def test_rows_of_a_table_are_labelled_in_a_browser(people_table, log, require, tmp_path):
    feeds = {
        "age": np.array([[40.5]]),
        "member": np.array([[1.0]]),
        "city": np.array([["</td><b>Oslo"]], object),
        "since": np.array([[86_400_000]]),
    }
    gaps = {**feeds, "age": np.array([[np.nan]])}
    records = [
        prediction(
            artefact_sha256=sha256(people_table / "model.onnx"),
            input=row_bytes(own, 0, has_rows=True),
            label=1,
            confidence=0.75,
        )
        for own in (feeds, gaps)
    ]
    write(log, *records)
    key = sha256_json(list(table_task().outputs))
    queue(log, records, classes_sha256=key, teacher_label=None)
    service = make_service(people_table)
    with (
        running(service, more=review(log, service)) as desk,
        browsing(require("browser", "chromium"), tmp_path / "profile") as browser,
    ):
        started(browser, desk)
        cells = "[...document.querySelectorAll('#row tr')].map(r => r.innerText)"
        assert browser.js(cells) == [
            "age\t40.5", "member\tyes", "city\t</td><b>Oslo", "since\t1970-01-02",
        ]  # fmt: skip
        keep(browser, "review_row.png")
        press(browser, "2")
        browser.until("document.getElementById('opinions').innerText.includes('yes, 75 % sure')")
        assert "teacher" not in text(browser, "opinions")
        browser.until("document.querySelector('#row').innerText.includes('not given')")
        assert browser.problems == []
    assert [own.label for own in answers(log, key)] == [1]
