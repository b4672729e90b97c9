"""What a client may not do: too much, too slowly, from elsewhere, without a token."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from served import make_service, running, with_run

from distill.production.serving.guard import Limits
from distill.production.serving.server import Listening

INFER = "/v2/models/pets/infer"
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}
GOOD = json.dumps({"inputs": [IMAGE]}).encode()
LIMIT = 10_000


@pytest.fixture(scope="module")
def client(pets):
    service = make_service(pets, admin_token="sesame-Ünïcode")
    hosts = (*Limits().allowed_hosts, "Box.Example")
    origins = ("https://Shop.example",)
    limits = Limits(max_body_bytes=LIMIT, allowed_hosts=hosts, allowed_origins=origins)
    with running(service, limits, Listening(port=0, read_timeout_s=1.0)) as client:
        yield client


def connect(client):
    url = urlsplit(str(client.base_url))
    connection = socket.create_connection((url.hostname, url.port))
    connection.settimeout(60)
    return connection


def until_closed(connection):
    """Read what comes until the other side hangs up."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def head(length=None, *, path=INFER, more=()):
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("path", [INFER, "/predict", "/feedback", "/nope"])
def test_a_body_that_is_announced_too_large_is_refused_unread(client, path):
    with connect(client) as connection:
        connection.sendall(head(100_000_000, path=path, more=["Expect: 100-continue"]))
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")  # and no 100 Continue
    assert b'{"error":"Expected a body of at most 10,000 bytes but got 100,000,000.' in answer
    assert b"connection: close" in answer


def test_a_body_of_many_megabytes_is_refused_and_the_client_sees_why(client):
    answer = client.post(INFER, content=b"x" * 30_000_000)
    assert answer.status_code == 413
    assert set(answer.json()) == {"error"}


def test_a_body_that_grows_too_large_is_refused_on_the_way(client):
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    with connect(client) as connection:
        connection.sendall(head(more=["Transfer-Encoding: chunked"]) + chunk * 4)
        answer = connection.recv(65536)  # though the last chunk never came
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_chunked_body_within_the_limit_is_answered(client):
    answer = client.post(INFER, content=(part for part in (GOOD[:20], GOOD[20:])))
    assert answer.status_code == 200


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_the_limit_is_exact(client, size):
    padded = GOOD + b" " * (size - len(GOOD))
    assert client.post(INFER, content=padded).status_code == (413 if size > LIMIT else 200)


def test_bodies_of_all_requests_together_are_bounded(pets):
    limits = Limits(max_body_bytes=LIMIT, max_held_bytes=3 * LIMIT)
    with running(make_service(pets), limits) as client:
        part = b"x" * (LIMIT - 1)
        held = [connect(client) for _ in range(3)]
        for connection in held:
            connection.sendall(head(LIMIT) + part)  # all but one byte
        refused, until = None, time.monotonic() + 60
        while refused is None and time.monotonic() < until:
            answer = client.post(INFER, content=GOOD)
            refused = answer if answer.status_code != 200 else None
        assert refused is not None
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        for connection in held:
            connection.close()
        while (answer := client.post(INFER, content=GOOD)).status_code != 200:
            assert time.monotonic() < until


def test_compressed_bodies_are_not_taken(client):
    answer = client.post(INFER, content=GOOD, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("sent", [b"", b"POST ", head(100)[:40], head() + b""[:0]])
def test_a_client_that_sends_nothing_more_is_hung_up_on(client, sent):
    if sent == head():  # a whole request without a body
        with connect(client) as connection:
            connection.sendall(sent)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")
        return
    with connect(client) as connection:
        connection.sendall(sent)
        answer = until_closed(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def test_a_body_that_does_not_end_is_408_and_hung_up_on(client):
    with connect(client) as connection:
        connection.sendall(head(len(GOOD)) + GOOD[:30])
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.endswith(b'{"error":"Expected the whole request within 1 s but it took longer."}')


def test_a_trickle_of_bytes_buys_no_time(client):
    with connect(client) as connection:
        connection.sendall(head(len(GOOD)))
        for at in range(200):  # ten times as long as is given
            try:
                connection.sendall(GOOD[at : at + 1])
                time.sleep(0.05)
            except OSError:
                break
        else:
            pytest.fail("it was listened to all the way")


def test_endless_headers_are_hung_up_on(client):
    with connect(client) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\n")
        num_sent = 0
        try:
            while num_sent < 100_000_000:
                num_sent += connection.send(b"X-Header: %s\r\n" % (b"y" * 1000))
        except OSError:  # reset or broken, as the kernel likes
            pass
    assert num_sent < 100_000_000


def endless(connection, head, line):
    """Send a line again and again until nobody listens, or it is enough; returns whether."""
    connection.sendall(head)
    try:
        for _ in range(0, 100_000_000, len(line)):
            connection.sendall(line)
    except OSError:  # reset or broken, as the kernel likes
        return False
    return True


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (b"0\r\n", b"X-Trailer: %s\r\n" % (b"y" * 1000)),
        (b"0\r\nX-Trailer: ", b"y" * 1000),
        (b"1;", b"y" * 1000),  # an extension of a chunk
    ],
)
def test_endless_trailers_are_hung_up_on(pets, last, line):
    start = head(more=["Transfer-Encoding: chunked"]) + b"1\r\n{\r\n" + last
    patient = Listening(port=0, read_timeout_s=600)
    with running(make_service(pets), listening=patient) as client, connect(client) as connection:
        assert not endless(connection, start, line)


def test_trailers_are_no_headers(client):
    start = head(more=["Transfer-Encoding: chunked", "Connection: close"])
    body = b"%x\r\n%s\r\n0\r\nOrigin: https://evil.example\r\n\r\n" % (len(GOOD), GOOD)
    with connect(client) as connection:
        connection.sendall(start + body)
        assert until_closed(connection).startswith(b"HTTP/1.1 200")


def test_a_body_of_many_small_chunks_is_taken(pets):
    start = head(more=["Transfer-Encoding: chunked", "Connection: close"])
    blanks = b"1\r\n \r\n" * 50_000  # more around the body than headers may have
    with running(make_service(pets)) as client, connect(client) as connection:
        connection.sendall(start + blanks + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD))
        assert until_closed(connection).startswith(b"HTTP/1.1 200")


def test_others_are_answered_while_slow_clients_hang(client):
    slow = [connect(client) for _ in range(50)]
    for connection in slow:
        connection.sendall(head(len(GOOD)) + GOOD[:30])
    assert client.post(INFER, content=GOOD).status_code == 200
    for connection in slow:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "box.example"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "https://shop.example"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize("path", [INFER, "/feedback"])
def test_writes_come_from_here(client, headers, status, path):
    answer = client.post(path, content=GOOD, headers=headers)
    assert (answer.status_code == 403) == (status == 403)
    if status == 403:
        assert set(answer.json()) == {"error"}
        assert "`limits.allowed_" in answer.json()["error"] or "cross-site" in str(headers)


def test_reads_may_come_under_any_name_unless_they_are_guarded(client, pets):
    paths, other = ("/v2/health/ready", "/status", "/metrics", "/"), {"Host": "10.0.0.7:8000"}
    assert {client.get(path, headers=other).status_code for path in paths} == {200}
    with running(make_service(pets), Limits(guard_reads=True)) as guarded:
        assert {guarded.get(path, headers=other).status_code for path in paths} == {403}
        assert {guarded.get(path).status_code for path in paths} == {200}


def test_no_other_page_may_frame_the_dashboard(client):
    assert "frame-ancestors 'none'" in client.get("/").headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer sesame-Ünïcode", 200),
        ("bearer sesame-Ünïcode", 200),
        ("Bearer sesame", 401),
        ("Bearer", 401),
        ("Basic sesame-Ünïcode", 401),
        ("", 401),
    ],
)
def test_operators_need_the_token(client, authorization, status):
    headers = {b"Authorization": authorization.encode()}
    answer = client.post("/admin/reload", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert set(answer.json()) == {"error"}
    else:
        assert answer.json() == {"changed": False, "version": None, "problem": None}


def test_without_a_token_in_the_environment_there_are_no_operators(pets):
    with running(make_service(pets)) as client:
        for token in ("", "Bearer", "Bearer None"):
            answer = client.post("/admin/reload", headers={"Authorization": token})
            assert answer.status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404), ("POST", "/nope", 404), ("GET", INFER, 405), ("PUT", INFER, 405),
        ("GET", "/predict", 405), ("POST", "/v2", 405), ("GET", "/docs", 404),
        ("POST", "/v2/models//infer", 404), ("POST", "/v2/models/pets/infer/", 404),
        ("POST", "/v2/models/a%2Fb/infer", 404), ("GET", "/v2/models/%00", 404),
    ],
)  # fmt: skip
def test_other_paths_and_methods_are_refused_in_the_protocols_form(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_a_head_has_no_body_and_the_connection_goes_on(client):
    with connect(client) as connection:
        connection.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).endswith(b"\r\n\r\n")
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"live":true}')


def test_a_client_that_asks_first_is_told_to_go_on(client):
    with connect(client) as connection:
        connection.sendall(head(len(GOOD), more=["Expect: 100-continue"]))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_garbage_instead_of_http_ends_the_connection_alone(client, rng):
    for garbage in (b"\0" * 100, b"\x16\x03\x01\x02\x00", rng.integers(0, 256, 500, np.uint8)):
        with connect(client) as connection:
            connection.sendall(bytes(garbage))
            connection.shutdown(socket.SHUT_WR)
            until_closed(connection)
    assert client.post(INFER, content=GOOD).status_code == 200


def test_requests_may_follow_each_other_unasked_on_one_connection(client):
    whole = head(len(GOOD)) + GOOD
    with connect(client) as connection:
        connection.sendall(whole * 5)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 5 or not answers.endswith(b"}"):
            part = connection.recv(65536)
            assert part, answers
            answers += part


def test_refusals_are_counted_by_kind(pets):
    service = make_service(pets)
    listening = Listening(port=0, read_timeout_s=0.5)
    with running(service, Limits(max_body_bytes=LIMIT), listening) as client:
        client.post(INFER, content=b"x" * (LIMIT + 1))
        client.post(INFER, content=b"x")
        client.post(INFER, content=GOOD, headers={"Origin": "null"})
        client.post("/v2/models/cats/infer", content=GOOD)
        with connect(client) as connection:
            connection.sendall(head(10))
            until_closed(connection)
        assert client.get("/status").json()["errors"] == {
            "too_large": 1, "malformed": 1, "forbidden": 1, "unknown": 1, "slow_client": 1,
        }  # fmt: skip
        assert 'distill_errors_total{endpoint="infer",kind="malformed"} 1.0' in (
            client.get("/metrics").text
        )


def test_who_is_not_answered_when_the_service_ends_is_told_so(pets):
    asked, done = threading.Event(), threading.Event()

    def never(feeds):
        asked.set()
        done.wait(60)
        return []

    service = with_run(make_service(pets), never)
    with ThreadPoolExecutor(1) as pool:
        with running(service, listening=Listening(port=0, shutdown_s=1)) as client:
            job = pool.submit(httpx.post, f"{client.base_url}{INFER}", content=GOOD, timeout=60)
            assert asked.wait(60)
        answer = job.result()
        done.set()
    assert answer.status_code == 503
    assert "before the service ends" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"
