"""The door to MLflow: nothing else opens a server or a database of it.

Whatever the server or its database has to complain about becomes one message without its password.
Knows nothing of what is stored there.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distill.errors import UserError
from distill.redaction import without_passwords

MANNERS = {  # an unreachable server is told in seconds; MLflow's own defaults wait minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nobody asked for that network
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for one JSON document
}
_CAUSE = re.compile(r"\[Errno [^)\"']+")  # the end of a long chain of nested messages


class UnreachableError(UserError):
    """The server does not answer, or refuses; what is kept here is as it was."""


def be_quick() -> None:
    """Set MLflow's manners by the environment, where the user has not."""
    for name, value in MANNERS.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> Any:
    """Open a client of a tracking and registry server; a local database is made if it is new.

    Raises:
        UserError: MLflow is not installed.
        UnreachableError: the URI is none that MLflow knows, or its database cannot be opened.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(
            "Expected MLflow for the registry but it is not installed. "
            "Run `pip install 'distill[mlflow]'`."
        )
    be_quick()
    with talking_to(uri):
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def talking_to(uri: str) -> Iterator[None]:
    """Turn what goes wrong with a server into one message.

    Raises:
        UnreachableError: names the server and the reason.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, MlflowException | RequestException | SQLAlchemyError | OSError):
            raise
        raise UnreachableError(
            f"Expected an MLflow server at {without_passwords(uri)} but found: {_reason(error)}. "
            "Nothing is lost: run folders and ledger are as they were. Start the server or mend "
            "`registry.tracking_uri`, and repeat the command."
        ) from None


def missing(error: Exception) -> bool:
    """Whether MLflow says that what was asked for is not there."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _reason(error: Exception) -> str:
    text = without_passwords(str(error).strip())
    cause = _CAUSE.search(text)
    return cause.group() if cause else text.splitlines()[0][:400].rstrip(".")
