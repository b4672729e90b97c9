"""The verb: a process that serves, without torch, and ends in order."""

import json
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_process import ENTRY, INFER, process

from distill.errors import UserError
from distill.verbs import serve


def test_it_serves_without_torch_and_ends_with_one_document(pets, tmp_path):
    given = (f"artefact={pets}", "name=pets", "port=0")
    with process(*given, cwd=tmp_path) as (running, client):
        assert client.get("/").status_code == 200
        assert client.post(INFER, json={"inputs": [ENTRY]}).status_code == 200
        assert client.post("/predict", content=b"no picture").status_code == 400
        assert client.post("/admin/reload").status_code == 403
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate()
    assert running.returncode == 0, err
    document = json.loads(out.splitlines()[-1])
    assert document["num_answered"] == 1
    assert document["errors"] == {"malformed": 1, "forbidden": 1}
    assert document["model"] == "pets"
    assert err.splitlines()[-1] == "heavy:"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.db"]  # no run folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered_before_it_ends(pets, tmp_path, number):
    given = (f"artefact={pets}", "name=pets", "port=0")
    with process(*given, cwd=tmp_path) as (running, client), ThreadPoolExecutor(4) as pool:
        wide = ENTRY | {"shape": [5_000, 2, 2, 1], "data": [1] * 20_000}
        body = json.dumps({"inputs": [wide]})
        jobs = [pool.submit(client.post, INFER, content=body) for _ in range(4)]
        while client.get("/status").json()["waiting"] == 0 and not all(j.done() for j in jobs):
            pass
        running.send_signal(number)
        codes = [job.result().status_code for job in jobs]
        running.communicate()
    assert running.returncode == 0
    assert set(codes) <= {200, 503, 504}  # where the machine is too slow for its deadlines
    assert 200 in codes


def test_it_listens_on_this_machine_alone_unless_told(pets, tmp_path):
    with process(f"artefact={pets}", "port=0", cwd=tmp_path) as (_, client):
        assert client.base_url.host == "127.0.0.1"


def test_operators_use_the_token_of_the_environment(pets, tmp_path):
    given = (f"artefact={pets}", "port=0")
    with process(*given, cwd=tmp_path, DISTILL_ADMIN_TOKEN="abc") as (_, client):
        headers = {"Authorization": "Bearer abc"}
        assert client.post("/admin/reload", headers=headers).status_code == 200
        for path in ("/status", "/metrics", "/v2/health", "/openapi.json", "/"):
            assert "abc" not in client.get(path).text


def test_a_form_of_the_standard_library_and_plain_urllib_are_enough(pets, tmp_path):
    with process(f"artefact={pets}", "name=pets", "port=0", cwd=tmp_path) as (_, client):
        body = json.dumps({"inputs": [ENTRY]}).encode()
        with urllib.request.urlopen(f"{client.base_url}{INFER}", body) as answer:
            assert json.load(answer)["outputs"][0]["shape"] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("artefact=nope.onnx",), 1, "nope.onnx"),
        ((), 1, "registry"),
        (("artefact=PETS", "deadline_ms=0"), 2, "deadline_ms"),
        (("artefact=PETS", "batch.max_size=-1"), 2, "batch.max_size"),
        (("artefact=PETS", "batch.max_delay=1"), 2, "max_delay_ms"),
        (("artefact=PETS", "port=99999"), 2, "`port` to be a whole number >= 0 and <= 65535"),
        (("artefact=PETS", "port=abc"), 2, "but got 'abc'"),
        (("artefact=PETS", "port=true"), 2, "but got True"),
        (("artefact=PETS", "workers=0"), 2, "`workers` to be a whole number > 0"),
        (("artefact=PETS", "workers=1.5"), 2, "`workers`"),
        (("artefact=PETS", "host=127"), 2, "`host` to be a text"),
        (("artefact=[5]",), 2, "`artefact` to be a text"),
        (("artefact=5",), 1, "`artefact=5` but there is none"),
        (("artefact=PETS", "log.flush_ms=soon"), 2, "`log.flush_ms` to be a number > 0"),
        (("artefact=PETS", "log.retention_days=month"), 2, "`log.retention_days`"),
        (("artefact=PETS", "log.sync=maybe"), 2, "`log.sync`"),
        (("artefact=PETS", "trial.slow_ms=x"), 2, "`trial.slow_ms`"),
        (("artefact=PETS", "trial.holdout=1"), 2, "`trial.holdout` to be a number >= 0 and < 1"),
        (("artefact=PETS", "trial.limits.niceness=20"), 2, "`trial.limits.niceness`"),
        (("artefact=PETS", "rollout.margin=abc"), 2, "`rollout.margin`"),
        (("artefact=PETS", "log.url=sqlit:///x.db"), 2, "`sqlite:///path/log.db`"),
        (("artefact=PETS", "log.url=sqlite:///nope/x.db"), 1, "nope for the log but there is none"),
        (("artefact=PETS", "host=203.0.113.1"), 1, "203.0.113.1"),
        (("artefact=PETS", "challenger=nope.onnx"), 1, "`challenger=nope.onnx`"),
    ],
)
def test_what_cannot_be_served_is_one_message(cli, pets, tmp_path, arguments, code, message):
    ran = cli("serve", "port=0", *(given.replace("PETS", str(pets)) for given in arguments))
    assert ran.code == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(tmp_path.iterdir())  # no log of a service that never was


@pytest.mark.parametrize("wrong", ["port=abc", "artefact=nope.onnx", "log.url=sqlit:///x.db"])
def test_a_mistake_that_is_cheap_to_see_loads_no_library(wrong, tmp_path):
    code = (
        "import sys\nfrom distill.cli import main\n"
        f"try: main(['serve', 'artefact=x.onnx', {wrong!r}])\n"
        "except SystemExit as end: assert end.code in (1, 2)\n"
        "print({'onnxruntime', 'scipy', 'uvicorn', 'sqlalchemy'} & set(sys.modules))"
    )
    (tmp_path / "x.onnx").touch()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n", done.stderr


def test_a_new_log_and_a_rollout_without_a_challenger_are_told(pets, tmp_path):
    given = (f"artefact={pets}", "port=0", "rollout=canary")
    with process(*given, cwd=tmp_path) as (running, _):
        assert f"A new prediction log is made: sqlite:///{tmp_path}/predictions.db" in running.said
        assert "Nobody is tried" in running.said
        assert "`challenger=new.onnx`" in running.said
    with process(f"artefact={pets}", "port=0", cwd=tmp_path) as (running, _):
        assert len(running.said.splitlines()) == 1


def test_a_port_that_is_taken_is_one_message(cli, pets, tmp_path):
    with process(f"artefact={pets}", "port=0", cwd=tmp_path) as (_, client):
        ran = cli("serve", f"artefact={pets}", f"port={client.base_url.port}")
    assert ran.code == 1
    assert "port" in ran.stderr


@pytest.mark.parametrize(
    ("host", "num_warnings"),
    [("127.0.0.1", 0), ("localhost", 0), ("::1", 0), ("0.0.0.0", 1), ("::", 1), ("own.example", 1)],
)
def test_a_service_that_others_reach_says_so(cli, pets, monkeypatch, host, num_warnings):
    def stopped(_):
        raise UserError("stopped here")

    monkeypatch.setattr(serve, "open_socket", stopped)
    ran = cli("serve", f"host='{host}'", f"artefact={pets}")
    assert "stopped here" in ran.stderr
    assert ran.stderr.count("whoever reaches") == num_warnings
