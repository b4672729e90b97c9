"""Several workers at one address: one service, whoever of them ends."""

import json
import os
import signal
import threading
import time
from functools import partial

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_logs import ids_at
from serving_process import ENTRY, INFER, process
from sshd import until

from distill.production.fleet.hub import NUM_ENDED, Hub
from distill.production.fleet.workers import Line, Workers
from distill.production.serving.overview import latest

pytestmark = pytest.mark.slow


def processes(client):
    return client.get("/status").json()["processes"]


def ask(client, number=1):
    """Ask over connections of their own, which land at one worker or the other."""
    found = []
    for _ in range(number):
        with httpx.Client(base_url=client.base_url, timeout=60) as fresh:
            answer = fresh.post(INFER, json={"inputs": [ENTRY]})
        assert answer.status_code == 200
        found.append(answer.json()["parameters"]["prediction_id"])
    return found


@pytest.fixture
def arguments(pets, tmp_path):
    return f"artefact={pets}", "name=pets", "port=0", "workers=2", f"log.url=sqlite:///{tmp_path}/l"


def test_all_share_an_address_a_log_and_what_they_count(arguments, tmp_path):
    with process(*arguments, cwd=tmp_path, DISTILL_ADMIN_TOKEN="abc") as (running, client):
        assert "), by 2 workers, answers at http://" in running.said
        assert "pets" in running.said.splitlines()[-1]
        answered = []
        while len(found := processes(client)) < 2 or not all(o["num_answered"] for o in found):
            answered += ask(client)
        time.sleep(2)  # both have heard of each other
        status = client.get("/status").json()
        assert status["num_answered"] == sum(status["answered_by_second"]) == len(answered)
        counted = client.get("/metrics").text
        for name in ("worker-1", "worker-2"):
            assert f'distill_answers_total{{process="{name}",role="champion"}}' in counted
        assert counted.count("# TYPE distill_answers_total") == 1
        for prediction in answered[:6]:  # each at whichever worker accepts
            told = {"prediction_id": prediction, "label": "cat"}
            assert httpx.post(f"{client.base_url}/feedback", json=told).status_code == 200
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate()
    assert running.returncode == 0, err
    document = json.loads(out.splitlines()[-1])
    assert (document["num_answered"], document["workers"]) == (len(answered), 2)
    assert document["num_restarts"] == 0
    assert ids_at(f"sqlite:///{tmp_path}/l") == set(answered)


def test_one_that_is_killed_is_replaced_and_the_other_goes_on(arguments, tmp_path):
    with process(*arguments, cwd=tmp_path) as (running, client):
        until(lambda: len(processes(client)) == 2)
        ask(client, 4)
        victim = processes(client)[0]
        os.kill(victim["pid"], signal.SIGKILL)
        with httpx.Client(base_url=client.base_url, timeout=60) as fresh:
            until(
                lambda: (
                    len(pids := {one["pid"] for one in processes(fresh)}) == 2
                    and victim["pid"] not in pids
                )
            )
            ask(fresh, 4)
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate()
    assert running.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["num_restarts"] == 1
    assert "worker-1 ended (exit status -9); another one is started." in err


def test_all_end_when_the_one_that_started_them_is_killed(arguments, tmp_path):
    with process(*arguments, cwd=tmp_path) as (running, client):
        until(lambda: len(processes(client)) == 2)
        pids = [one["pid"] for one in processes(client)]
        running.kill()
        running.wait()
        until(lambda: not any(_is_alive(pid) for pid in pids))


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_that_does_not_load_is_one_message(cli, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    ran = cli("serve", f"artefact={broken}", "port=0", "workers=3")
    assert ran.code == 1
    assert ran.stderr.count("Expected an ONNX model at") == 1
    assert "Traceback" not in ran.stderr


def test_without_a_log_on_disk_there_is_one_worker(cli, pets):
    ran = cli("serve", f"artefact={pets}", "port=0", "workers=2", "log.url=null")
    assert ran.code == 2
    assert "log.url" in ran.stderr


def frozen(started, name, end):
    """Be a worker that reports, and then does nothing more."""
    with open(started, "a") as file:
        file.write(f"{name} {os.getpid()}\n")
    Line(end).ready("pets")
    time.sleep(600)


def failing(name, end):
    """Be a worker that does not start."""
    Line(end).failed(ValueError(f"{name} has no model"))


def test_one_that_hangs_is_replaced(tmp_path):
    started = tmp_path / "started"
    workers = Workers(target=partial(frozen, started), num=1, shutdown_s=1, hang_s=1)

    def end():
        until(lambda: len(started.read_text().split("\n")) > 2)
        os.kill(os.getpid(), signal.SIGTERM)

    workers.run(lambda: threading.Thread(target=end).start())
    assert workers.num_restarts == 1
    pids = {line.split()[1] for line in started.read_text().splitlines()}
    assert len(pids) == 2
    assert not any(_is_alive(int(pid)) for pid in pids)


def test_what_one_fails_of_is_raised_and_none_is_left():
    before = signal.getsignal(signal.SIGTERM)
    workers = Workers(target=failing, num=2, shutdown_s=5)
    with pytest.raises(Exception, match=r"worker-\d has no model"):
        workers.run(lambda: pytest.fail("nobody answers"))
    assert signal.getsignal(signal.SIGTERM) is before


words = st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 5))


@given(st.lists(words))
def test_a_hub_hands_out_what_all_others_said_last(said):
    hub, last = Hub(), {}
    for name, pid, num_calls in said:
        own = {"process": name, "pid": pid, "said": num_calls}
        last[name, pid] = own
        notices = hub.exchange(own, num_calls)
        others = [one for key, one in last.items() if key != (name, pid)]
        assert sorted(notices.others, key=str) == sorted(others, key=str)
        assert notices.num_calls == sum(one["said"] for one in last.values())


def test_a_hub_forgets_the_oldest():
    hub = Hub()
    for pid in range(NUM_ENDED + 5):
        hub.exchange({"process": "a", "pid": pid}, 0)
    assert [one["pid"] for one in hub.said()] == list(range(5, NUM_ENDED + 5))


def test_of_a_place_the_latest_process_counts():
    old, new = {"process": "a", "since": 1}, {"process": "a", "since": 2}
    other = {"process": "b", "since": 0}
    assert latest([new, old, other]) == [other, new]
