"""A client that asks as fast as a service answers, or at a given rate; in a process of its own.

python benchmarks/serving_load.py URL --body FILE --count 10000 --connections 8 [--rate 500]

Requests go over kept connections; of several files one is drawn for each, and `{unit}` in a header
is replaced by a number that is drawn. The last line of stdout is one JSON document.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


class Connection:
    """One kept connection, with one request under way at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Send a request; return status and body, or 0 where there was no answer."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._writer is None:
                    self._reader, self._writer = await asyncio.open_connection(*self._where)
                assert self._reader is not None
                self._writer.write(request)
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
                body = await self._reader.readexactly(int(length))
                return int(head.split(b" ", 2)[1]), body
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError, ValueError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def request_of(url: str, body: bytes, *, headers: str = "") -> bytes:
    """Write a POST."""
    where = urlsplit(url)
    head = (
        f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Content-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(
    url: str,
    requests: Sequence[bytes],
    count: int,
    *,
    connections: int,
    rate: float | None = None,
    timeout_s: float = 10.0,
    num_units: int = 100_000,
) -> dict:
    """Ask many times.

    Args:
        url: that is asked.
        requests: see `request_of`; one is drawn each time, and `{unit}` in it is replaced.
        count: of requests.
        connections: at a time.
        rate: a second, at random moments (Poisson); None asks again once it is answered. Latency
            is then that from the moment at which a request was due, also while no connection is
            free.
        timeout_s: after which an answer does not count.
        num_units: that are drawn from.

    Returns:
        Statuses, latencies in milliseconds [count] and seconds in all.
    """
    where = urlsplit(url)
    pool = [Connection(str(where.hostname), where.port or 80) for _ in range(connections)]
    rng = random.Random(0)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    start = time.perf_counter()
    due = iter(_moments(rng, count, rate))

    async def work(connection: Connection) -> None:
        for moment in due:
            if moment is not None:
                wait = start + moment - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                    moment = None  # timers wake up to a millisecond late, which is ours
            since = time.perf_counter() if moment is None else start + moment
            unit = b"%06d" % rng.randrange(num_units)  # as long as what it replaces
            asked = rng.choice(requests).replace(b"{unit}", unit)
            status, _ = await connection.ask(asked, timeout_s)
            latencies.append((time.perf_counter() - since) * 1000)
            statuses[status] += 1

    await asyncio.gather(*map(work, pool))
    seconds = time.perf_counter() - start
    for connection in pool:
        connection.close()
    return {"statuses": dict(statuses), "latencies_ms": latencies, "seconds": seconds}


def _moments(rng: random.Random, count: int, rate: float | None) -> Iterator[float | None]:
    moment = 0.0
    for _ in range(count):
        if rate is None:
            yield None
        else:
            moment += rng.expovariate(rate)
            yield moment


def summary(found: dict) -> dict:
    """Reduce what `load` found to figures."""
    latencies = np.array(found["latencies_ms"])
    levels = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
    return {
        "statuses": {str(status): count for status, count in found["statuses"].items()},
        "per_second": len(latencies) / found["seconds"],
        **{name: float(np.percentile(latencies, level)) for name, level in levels.items()},
    }


def main() -> None:
    """Load one URL."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True, action="append")
    parser.add_argument("--header", action="append", default=[], help="such as 'X-Unit: {unit}'")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    headers = "".join(f"{header}\r\n" for header in options.header)
    bodies = [path.read_bytes() for path in options.body]
    requests = [request_of(options.url, body, headers=headers) for body in bodies]
    found = asyncio.run(
        load(
            options.url,
            requests,
            options.count,
            connections=options.connections,
            rate=options.rate,
        )
    )
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
