"""The door to the log's database: opened, made or refused; what goes wrong becomes one message.

sqlite in WAL mode, which several processes of one machine may write at once, or PostgreSQL. Knows
nothing of what rows mean.
"""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine as Engine
from sqlalchemy import event, exc

from distill.errors import UsageError, UserError
from distill.production.prediction_log.schema import (
    SCHEMA_VERSION,
    create,
    read_meta,
    tables_of_ours,
    upgrade,
)
from distill.redaction import without_passwords

log = logging.getLogger(__name__)

BUSY_MS = 5_000  # how long a writer waits for another one
_ADVISORY_LOCK = 0x6469_7374_696C_6C  # PostgreSQL's key for making the tables; any number does
_WRITES = "distill_writes"
_SMALLEST_BYTES = 512  # of a page of sqlite
_POSTGRES = {  # a server that is gone is told in seconds, also when it just falls silent
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class LogUnavailableError(UserError):
    """The database cannot be opened, reached, read or written."""


def open_log(url: str, *, sync: bool = False, new: bool = True) -> sa.Engine:
    """Open a log; a new one is made, in a folder that is there.

    Args:
        url: `sqlite:///path/log.db` or `postgresql://user@host/database`; a password is better
            left to the environment (`PGPASSWORD`).
        sync: every commit reaches the disk before it counts as done. Without, a commit outlives
            this process but not a power cut, which may take what the operating system had not
            written yet.
        new: whether one may be made; whoever reads wants one that is there.

    Raises:
        UsageError: the URL is none of these.
        UserError: a driver is missing.
        LogUnavailableError: the database cannot be opened, is none, or is of a newer distill.
    """
    parsed = _parsed(url)
    path = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if not new and path is not None and not Path(path).is_file():
        raise LogUnavailableError(
            f"Expected a prediction log at {shown(parsed)} but there is none. Name the one that "
            "`serve` writes: `log.url=sqlite:///path/log.db`."
        )
    engine = _MAKERS[parsed.get_backend_name()](parsed, sync)
    try:
        prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def look_at(url: str) -> str:
    """Say what there is at a log's URL; makes and changes nothing.

    Raises:
        UsageError: the URL is of no log.
        UserError: a driver is missing.
        LogUnavailableError: the database cannot be reached or read, or is of something else.
    """
    parsed = _parsed(url)
    engine = _MAKERS[parsed.get_backend_name()](parsed, False)
    try:
        with talking_to(engine), engine.connect() as connection:
            if not tables_of_ours(connection):
                return "a database without a log, in which `serve` makes one"
            return f"a log of version {read_meta(connection).get('schema_version', 'none')}"
    finally:
        engine.dispose()


def prepare(engine: sa.Engine) -> None:
    """Make the tables where there are none, and see that those there are ours, and up to date.

    Raises:
        LogUnavailableError: they are not, or cannot be read.
    """
    with talking_to(engine):
        if engine.dialect.name == "sqlite":
            _keep_private(engine)
            _write_ahead(engine)
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            if not tables_of_ours(connection):
                version, salt = str(SCHEMA_VERSION), secrets.token_hex(32)
                create(connection, schema_version=version, salt=salt)
                log.info("A new prediction log is made: %s.", shown(engine.url))
                return
            found = upgrade(connection, read_meta(connection).get("schema_version", "none"))
    if found != str(SCHEMA_VERSION):
        raise LogUnavailableError(
            f"Expected a prediction log of version {SCHEMA_VERSION} at {shown(engine.url)} but "
            f"found version {found}. Use the distill that wrote it, or start another log."
        )


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction that will write: it waits for its turn at the start, not in the middle."""
    with engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


@contextmanager
def talking_to(engine: sa.Engine) -> Iterator[None]:
    """Turn what goes wrong with the database into one message.

    Raises:
        LogUnavailableError: names the database and the reason.
    """
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, engine.dialect.loaded_dbapi.Error, OSError) as error:
        raise LogUnavailableError(
            f"Expected a prediction log at {shown(engine.url)} but found: {reason(error)}. "
            "See that the folder can be written, or that the server runs and lets you in."
        ) from None


def salt_of(engine: sa.Engine) -> bytes:
    """The secret with which this log hashes what it must not keep."""
    with talking_to(engine), engine.connect() as connection:
        return bytes.fromhex(read_meta(connection)["salt"])


def file_of(engine: sa.Engine) -> tuple[int, int] | None:
    """Which file an sqlite log is now, whatever its name; None where it is gone or has none."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        found = os.stat(str(engine.url.database))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def reason(error: Exception) -> str:
    """Say in one line what a driver complains about, without passwords."""
    cause = getattr(error, "orig", None) or error
    text = without_passwords(str(cause).strip()) or type(cause).__name__
    return text.splitlines()[0][:400].rstrip(".")


def shown(url: sa.URL) -> str:
    """A URL without its password, nor options, which may hold one."""
    plain = url.set(drivername=url.get_backend_name(), query={})
    return plain.render_as_string(hide_password=True)


def _parsed(url: str) -> sa.URL:
    known = "Write `sqlite:///path/log.db` or `postgresql://user@host/database`."
    if not isinstance(url, str):
        raise UsageError(f"Expected `log.url=` to name a database but got {url}. {known}")
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        scheme, separator, _ = url.partition("://")  # the rest may hold a password
        found = f"`{scheme}://...`" if separator else repr(url)
        raise UsageError(f"Expected a database URL but got {found}. {known}") from error
    if parsed.drivername not in _DRIVERS:
        raise UsageError(
            f"Expected a log in sqlite or PostgreSQL but got `{parsed.drivername}`. {known}"
        )
    return parsed.set(drivername=_DRIVERS[parsed.drivername])


def _sqlite(url: sa.URL, sync: bool) -> sa.Engine:
    name = url.database or ":memory:"
    if name == ":memory:" or name.startswith("file:") or url.query:
        raise UsageError(
            f"Expected a file for the log, which several processes open, but got "
            f"`{shown(url)}`. Write `sqlite:///path/log.db`, without options."
        )
    path = Path(name).resolve()  # whoever works in another folder means the same file
    if not path.parent.is_dir():
        raise LogUnavailableError(
            f"Expected a folder {path.parent} for the log but there is none. Make it, or name "
            "another: `log.url=sqlite:///path/log.db`."
        )
    size_bytes = path.stat().st_size if path.is_file() else 0
    if 0 < size_bytes < _SMALLEST_BYTES:  # sqlite takes it for a new file and writes over it
        raise LogUnavailableError(
            f"Expected a prediction log in {path} but found: file is not a database. Name another."
        )
    timeout = {"timeout": BUSY_MS / 1000}
    engine = sa.create_engine(url.set(database=str(path)), connect_args=timeout)

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32768")  # KiB; the default is 2 MB
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is gone, not just unlisted
        connection.execute(f"PRAGMA journal_size_limit={64 * 2**20}")

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        # A transaction that turns to writing halfway is refused at once when another wrote since.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _keep_private(engine: sa.Engine) -> None:
    """Make a file that is not there yet, for its owner alone; sqlite's other files follow it."""
    with suppress(FileExistsError):
        os.close(os.open(str(engine.url.database), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _write_ahead(engine: sa.Engine) -> None:
    """Set what a file keeps for good: readers never wait for a writer, and it can shrink."""
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before there is anything in the file
        mode = _patient(lambda: raw.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    if mode != "wal":
        raise LogUnavailableError(
            f"Expected {engine.url.database} on a disk where sqlite can write ahead but it stays "
            f"in `{mode}` mode. Put it on a local disk, or take PostgreSQL."
        )


def _patient(change: Callable[[], str]) -> str:
    """Repeat what sqlite refuses at once, without waiting, while another process opens the file."""
    for _ in range(BUSY_MS // 20):
        try:
            return change()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.02)
    return change()


def _postgres(url: sa.URL, sync: bool) -> sa.Engine:
    asked = {name: value for name, value in _POSTGRES.items() if name not in url.query}
    try:
        engine = sa.create_engine(url, connect_args=asked, pool_pre_ping=True, paramstyle="format")
    except ModuleNotFoundError as error:
        raise UserError(
            "Expected psycopg for a log in PostgreSQL but it is not installed. "
            "Run `pip install 'distill[postgres]'`."
        ) from error

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        if sync:  # a server may be set up to answer before its disk has
            with connection.cursor() as cursor:
                cursor.execute("SET synchronous_commit = on")
            connection.commit()

    return engine


_MAKERS: dict[str, Callable[[sa.URL, bool], sa.Engine]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
}
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
