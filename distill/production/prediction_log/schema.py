"""The tables of the log and their indices, the same in sqlite and PostgreSQL.

Knows nothing of connections, and of what is asked of the tables.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

SCHEMA_VERSION = 2

_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_METADATA = sa.MetaData()
# Bytes are compared, not words of a language, so that both databases sort alike.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _column(name: str, kind: sa.types.TypeEngine, *, null: bool = False) -> sa.Column:
    return sa.Column(name, kind, nullable=null)


META = sa.Table(
    "distill_meta",
    _METADATA,
    sa.Column("name", _TEXT, primary_key=True),
    _column("value", _TEXT),
)

PREDICTIONS = sa.Table(
    "distill_predictions",
    _METADATA,
    sa.Column("id", _TEXT, primary_key=True),
    _column("request", _TEXT),
    _column("time", sa.Double()),
    _column("model", _TEXT),
    _column("version", sa.BigInteger(), null=True),
    _column("artefact_sha256", _TEXT),
    _column("role", _TEXT),
    _column("experiment", _TEXT, null=True),
    _column("stage", _TEXT, null=True),
    _column("unit", _TEXT, null=True),
    _column("input", sa.LargeBinary(), null=True),
    _column("input_sha256", _TEXT, null=True),
    _column("output", sa.LargeBinary()),
    _column("label", sa.BigInteger(), null=True),
    _column("confidence", sa.Double(), null=True),
    _column("odd", _TEXT, null=True),
    _column("latency_ms", sa.Double()),
    _column("outcome", _TEXT),
    _column("detail", _TEXT, null=True),
)


def _of_prediction() -> sa.Column:
    """What is said of a prediction goes with it."""
    of = sa.ForeignKey(PREDICTIONS.c.id, ondelete="CASCADE")
    return sa.Column("prediction", _TEXT, of, primary_key=True)


FEEDBACK = sa.Table(
    "distill_feedback",
    _METADATA,
    _of_prediction(),
    sa.Column("name", _TEXT, primary_key=True),
    _column("label", sa.BigInteger(), null=True),
    _column("value", sa.Double(), null=True),
    _column("source", _TEXT),
    _column("time", sa.Double()),
)

MOVES = sa.Table(
    "distill_moves",
    _METADATA,
    sa.Column("experiment", _TEXT, primary_key=True),
    sa.Column("number", sa.BigInteger(), primary_key=True),  # two who move at once: one is refused
    _column("time", sa.Double()),
    _column("state", _TEXT),
    _column("evidence", _TEXT),
)

QUEUE = sa.Table(
    "distill_queue",
    _METADATA,
    _of_prediction(),
    _column("split", _TEXT),
    _column("reason", _TEXT),
    _column("tier", _TEXT, null=True),
    _column("score", sa.Double(), null=True),
    _column("priority", sa.Double()),
    _column("inclusion_probability", sa.Double(), null=True),
    _column("num_wanted", sa.BigInteger()),
    _column("num_extra", sa.BigInteger()),
    _column("classes_sha256", _TEXT),
    _column("teacher_label", sa.BigInteger(), null=True),
    _column("teacher_confidence", sa.Double(), null=True),
    _column("label", sa.BigInteger(), null=True),
    _column("time", sa.Double()),
)

ANNOTATIONS = sa.Table(
    "distill_annotations",
    _METADATA,
    _of_prediction(),
    sa.Column("annotator", _TEXT, primary_key=True),  # who says a thing twice has said it once
    _column("label", sa.BigInteger(), null=True),
    _column("lead_time_s", sa.Double(), null=True),
    _column("time", sa.Double()),
)

HOLDS = sa.Table(
    "distill_holds",
    _METADATA,
    _of_prediction(),
    sa.Column("annotator", _TEXT, primary_key=True),
    _column("until", sa.Double()),
)

AUDITS = sa.Table(
    "distill_audits",
    _METADATA,
    sa.Column("since", sa.Double(), primary_key=True),
    _column("share", sa.Double()),
)

SKEW = sa.Table(
    "distill_skew",
    _METADATA,
    sa.Column("id", _TEXT, primary_key=True),
    _column("time", sa.Double()),
    _column("model", _TEXT),
    _column("version", sa.BigInteger(), null=True),
    _column("kind", _TEXT),
    _column("column", _TEXT),
    _column("count", sa.BigInteger()),
)


def _index(name: str, *columns: sa.Column, of_experiments: bool = False) -> None:
    # Most rows belong to no experiment; they pay nothing for these.
    only = PREDICTIONS.c.experiment.is_not(None) if of_experiments else None
    sa.Index(f"distill_{name}", *columns, sqlite_where=only, postgresql_where=only)


_of = PREDICTIONS.c
_index("predictions_by_time", _of.time, _of.id)
_index("predictions_by_unit", _of.experiment, _of.unit, _of.role, of_experiments=True)
_index("predictions_by_request", _of.experiment, _of.request, _of.role, of_experiments=True)
_index("skew_by_time", SKEW.c.time)
sa.Index("distill_queue_by_priority", QUEUE.c.classes_sha256, QUEUE.c.priority)
sa.Index("distill_holds_by_annotator", HOLDS.c.annotator)


def create(connection: sa.Connection, **meta: str) -> None:
    """Make the tables, and note what holds for the whole log.

    Args:
        connection: within a transaction that no other process can enter.
        meta: name to value.
    """
    _METADATA.create_all(connection, checkfirst=False)
    connection.execute(sa.insert(META), [{"name": n, "value": v} for n, v in meta.items()])


def upgrade(connection: sa.Connection, found: str) -> str:
    """Bring a log of an older version to this one, in no time whatever it holds.

    Args:
        connection: within a transaction that no other process can enter.
        found: its version.

    Returns:
        Its version from now on; the one that was found, where this distill cannot read it.
    """
    if found != "1":
        return found
    connection.exec_driver_sql("ALTER TABLE distill_predictions ADD COLUMN odd TEXT")
    _METADATA.create_all(connection, checkfirst=True)  # the queue's tables
    version = str(SCHEMA_VERSION)
    connection.execute(sa.update(META).where(META.c.name == "schema_version").values(value=version))
    return version


def tables_of_ours(connection: sa.Connection) -> set[str]:
    """Names of our tables that are there."""
    return set(sa.inspect(connection).get_table_names()) & set(_METADATA.tables)


def read_meta(connection: sa.Connection) -> dict[str, str]:
    """What holds for the whole log: `schema_version` and `salt`."""
    return {row.name: row.value for row in connection.execute(sa.select(META))}


def insert_new(table: sa.Table, dialect: sa.Dialect) -> str:
    """Write the statement that inserts rows and passes over those that are there.

    Repeating it after a doubt does no harm. As text, it takes plain tuples: half the work of a row.

    Args:
        table: of ours.
        dialect: of an engine, with parameters by position.
    """
    statement = _INSERTS[dialect.name](table).on_conflict_do_nothing()
    return str(statement.compile(dialect=dialect))
