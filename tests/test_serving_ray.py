"""Ray Serve as the engine: two replicas, one log in a real PostgreSQL."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from prediction_logs import ids_at
from serving_process import ENTRY, INFER
from sshd import free_port


@pytest.mark.slow
@pytest.mark.postgres
def test_two_replicas_answer_keep_one_log_and_end_in_order(pets, tmp_path, postgres_url):
    pytest.importorskip("ray")
    settings = [f"artefact={pets}", "name=pets", f"port={free_port()}"]
    settings += [f"log.url='{postgres_url}'", "engine=ray", "workers=2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "distill", "serve", *settings],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DISTILL_ADMIN_TOKEN": "abc"},
    )
    try:
        said = []
        for line in running.stderr:
            said.append(line)
            if "2 replicas answer at" in line:
                break
        assert running.poll() is None, "".join(said)
        with httpx.Client(base_url=re.search(r"http://\S+", line)[0], timeout=60) as client:
            given = []
            while len(processes := client.get("/status").json()["processes"]) < 2 or not all(
                one["num_answered"] for one in processes
            ):
                answer = client.post(INFER, json={"inputs": [ENTRY]})
                assert answer.status_code == 200
                given.append(answer.json()["parameters"]["prediction_id"])
                time.sleep(0.01)
            assert {one["process"] for one in processes} == {"replica-1", "replica-2"}
            told = client.post("/feedback", json={"prediction_id": given[0], "label": "cat"})
            assert told.status_code == 200, told.text
            assert client.post("/predict", content=b"no picture").status_code == 400
            assert 'process="replica-2"' in client.get("/metrics").text
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0, err
    document = json.loads(out.splitlines()[-1])
    assert document["num_answered"] == len(given)
    assert document["errors"] == {"malformed": 1}
    assert ids_at(postgres_url) == set(given)


@pytest.mark.parametrize("given", ["log.url=sqlite:///l.db", "log.url=null", "port=0"])
def test_replicas_want_a_server_for_their_log_and_a_port(cli, pets, given):
    settings = {"port": "port=8000", "log.url": "log.url=postgresql://nobody@127.0.0.1:1/x"}
    settings[given.split("=")[0]] = given
    ran = cli("serve", f"artefact={pets}", "engine=ray", *settings.values())
    assert ran.code == 2
    assert "postgresql" in ran.stderr


def test_an_unknown_engine_is_one_message(cli, pets):
    ran = cli("serve", f"artefact={pets}", "engine=rya")
    assert ran.code == 2
    assert "local, ray" in ran.stderr
