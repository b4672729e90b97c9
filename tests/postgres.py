"""A real PostgreSQL on this machine, for logs that are kept there, and logs of both kinds."""

import glob
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sshd import free_port, until

from distill.production.prediction_log.connection import open_log

_PATH = os.pathsep.join([os.environ["PATH"], *sorted(glob.glob("/usr/lib/postgresql/*/bin"))])
INITDB, POSTGRES = (shutil.which(name, path=_PATH) or name for name in ("initdb", "postgres"))

_numbers = itertools.count()


@dataclass(frozen=True)
class Server:
    """A server of its own: its process, which one may freeze, and where it listens."""

    process: subprocess.Popen
    port: int
    user: str

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"

    def run(self, statement: str) -> None:
        engine = sa.create_engine(self.url.replace("://", "+psycopg://"), poolclass=sa.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Start a server as somebody who is not root, which it refuses to be."""
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="distill-postgres-"))
    data, port = folder / "data", free_port()
    try:
        as_user = {}
        if user.pw_uid != os.geteuid():
            os.chown(folder, user.pw_uid, user.pw_gid)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
        make = [INITDB, "-D", data, "-U", user.pw_name, "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(make, cwd=folder, check=True, capture_output=True, **as_user)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        start = [POSTGRES, "-D", data, "-p", str(port)]
        start += [word for option in options for word in ("-c", option)]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(start, cwd=folder, stdout=log, stderr=log, **as_user)
        server = Server(process, port, user.pw_name)
        try:
            until(lambda: _answers(server))
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: its data goes with it
            process.wait()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(require: Callable, request: pytest.FixtureRequest) -> str:
    """Make an empty schema of a database: a new database takes a second."""
    require("postgres", INITDB)
    pytest.importorskip("psycopg")
    server = request.getfixturevalue("postgres_server")
    name = f"log{next(_numbers)}"
    server.run(f"CREATE SCHEMA {name}")
    return f"{server.url}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a log may be kept, each kind in its turn."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    (tmp_path / "logs").mkdir(exist_ok=True)
    return f"sqlite:///{tmp_path}/logs/log.db"


@pytest.fixture
def opened(log_url: str) -> Iterator[Callable[..., sa.Engine]]:
    """Open logs that are closed in the end; the one at `log_url` where none is named."""
    engines = []

    def open_one(url: str = log_url, *, sync: bool = False) -> sa.Engine:
        engines.append(open_log(url, sync=sync))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(opened: Callable[..., sa.Engine]) -> sa.Engine:
    """An open log of each kind in its turn."""
    return opened()


def _answers(server: Server) -> bool:
    assert server.process.poll() is None, "the server ended"
    try:
        server.run("SELECT 1")
    except exc.OperationalError:
        return False
    return True


def _unprivileged() -> pwd.struct_passwd:
    if os.geteuid():
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")
