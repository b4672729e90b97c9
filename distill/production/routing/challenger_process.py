"""The challenger's own process: it reads arrays from a socket, answers them, and may die of it.

`python -m distill.production.routing.challenger_process DESCRIPTOR MODEL THREADS NICENESS`, started
by `challenger`. Requests are run one by one, so that none suffers from another. Knows nothing of
champions, of experiments or of the log.
"""

import contextlib
import os
import socket
import sys
from pathlib import Path

import numpy as np

from distill.production.routing.frames import PREFIX_BYTES, Prefix, pack, unpack
from distill.runtime import answers_among, open_session


def main() -> None:
    """Answer until the other side hangs up."""
    descriptor, path, num_threads, niceness = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.nice(int(niceness))
    with socket.socket(fileno=int(descriptor)) as connection:
        try:
            session = open_session(Path(path), num_threads=int(num_threads), spin=False)
        except Exception as error:  # whatever it is, the other side must hear of it
            connection.sendall(pack(0, {"error": str(error)}))
            return
        names = answers_among([one.name for one in session.get_outputs()])
        connection.sendall(pack(0, {"ready": True}))
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                prefix = Prefix.parse(_exactly(connection, PREFIX_BYTES))
                header = _exactly(connection, prefix.header_bytes)
                _, feeds = unpack(header, _exactly(connection, prefix.body_bytes))
                try:
                    outputs = map(np.asarray, session.run(names, feeds))
                    answer = pack(prefix.number, {}, dict(zip(names, outputs, strict=True)))
                except Exception as error:
                    answer = pack(prefix.number, {"error": str(error).splitlines()[0]})
                connection.sendall(answer)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        received = connection.recv(min(count - len(data), 1 << 20))
        if not received:
            raise EOFError
        data += received
    return bytes(data)


if __name__ == "__main__":
    main()
