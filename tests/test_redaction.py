"""Secrets are blanked wherever they hide, and nothing else is."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from distill.contract import CONTRACT_FILE, save_contract
from distill.redaction import BLANK, is_secret, without_passwords, without_secrets
from distill.tasks import Task, TaskKind
from distill.verbs.exporting import promise
from distill.verbs.stages import verdict

HIDDEN = {
    "postgresql://me:hunter2@host/db": "postgresql://me:<redacted>@host/db",
    "postgresql://me:hun/ter2@host/db": "postgresql://me:<redacted>@host/db",
    "postgresql://me:12/hunter2@host/db": "postgresql://me:<redacted>@host/db",
    "postgresql://me:hun@ter2@host/db": "postgresql://me:<redacted>@host/db",
    "postgresql+psycopg://:hunter2@host": "postgresql+psycopg://:<redacted>@host",
    "postgresql://host/db?user=me&password=hunter2": (
        "postgresql://host/db?user=me&password=<redacted>"
    ),
    "postgresql://host/db?password=hunter2&user=me": (
        "postgresql://host/db?password=<redacted>&user=me"
    ),
    "host=h user=me password=hunter2 dbname=d": "host=h user=me password=<redacted> dbname=d",
    "host=h password='hunter 2' dbname=d": "host=h password=<redacted> dbname=d",
    "https://hunter2@host/a": "https://<redacted>@host/a",
    "git+https://hunter2@host/a": "git+https://<redacted>@host/a",
    "https://hunter2:x-oauth-basic@host/a": "https://<redacted>@host/a",
    "https://me:hunter2@host:8000/a": "https://<redacted>@host:8000/a",
    "no `https://me:hunter2@host`.": "no `https://<redacted>@host`.",
    "given `+logger.x.api_token=hunter2`.": "given `+logger.x.api_token=<redacted>`.",
    "PGPASSWORD=hunter2 psql": "PGPASSWORD=<redacted> psql",
    "got {'password': 'hunter2', 'n': 1}": "got {'password': <redacted>, 'n': 1}",
}
SHOWN = [
    "postgresql://me@host/database",
    "sqlite:////srv/log@home.db",
    "https://host:8000/a@b",
    "http://127.0.0.1:8000/v2?unit=me@host",
    "https://host/a:b@c",
    "ssh://me@host:22/folder",
    "Add `data.token=...`.",
    "num_tokens=8, key=fast, author=me",
    "if token == other:",
    "{'key': 'value'}",
]
SECRET_KEYS = [
    *("password", "db_password", "PGPASSWORD", "passwd", "pwd", "db_pass", "passphrase", "secret"),
    *("client_secret", "token", "api_token", "tokens", "apiKey", "api-key", "X-Api-Key"),
    *("access_key", "aws_secret_access_key", "private_key", "credentials", "auth", "http_auth"),
    *("Authorization", "logger.x.api_token"),
]
INNOCENT_KEYS = [
    *("num_tokens", "max_tokens", "token_dim", "tokenizer", "author", "authors", "key", "keys"),
    *("input_key", "key_dim", "allowed_hosts", "compass", "passes", "monkey", "bypass", "dsn", ""),
]


@pytest.mark.parametrize("text", HIDDEN)
def test_passwords_in_a_text_are_blanked(text):
    assert without_passwords(text) == HIDDEN[text]
    assert without_passwords(HIDDEN[text]) == HIDDEN[text]


@pytest.mark.parametrize("text", SHOWN)
def test_a_text_without_passwords_stays_as_it_is(text):
    assert without_passwords(text) == text


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_keys_of_secrets_are_known(key):
    assert is_secret(key)


@pytest.mark.parametrize("key", INNOCENT_KEYS)
def test_innocent_keys_are_no_secrets(key):
    assert not is_secret(key)


def test_what_stands_under_a_secret_key_is_blanked_however_deep():
    found = without_secrets(
        {
            "token": {"value": "hunter2"},
            "credentials": [{"user": "me", "value": "hunter2"}, "hunter2"],
            "password": 1234,
            "logger": [{"uri": "postgresql://me:hunter2@host", "pwd": "hunter2"}],
            "secret": None,
            "class_token": True,
            "num_tokens": 8,
        }
    )
    assert found == {
        "token": BLANK,
        "credentials": BLANK,
        "password": BLANK,
        "logger": [{"uri": "postgresql://me:<redacted>@host", "pwd": BLANK}],
        "secret": None,
        "class_token": True,
        "num_tokens": 8,
    }


def test_a_contract_and_a_report_hold_no_secrets(tmp_path, monkeypatch):
    secret = {"hub_token": "hunter2", "weights": "https://hunter2@host/a"}
    cfg = OmegaConf.create({"student": secret, "teacher": secret, "seed": 0})
    task = Task(kind=TaskKind.CLASSIFICATION, outputs=("no", "yes"))
    data = SimpleNamespace(
        **{"task": task, "name": "own", "fingerprint": "0", "classes": ("no", "yes")},
        **{
            "train": [],
            "validation": [],
            "test": [],
            "num_skipped": 0,
            "left_out": {},
            "is_numeric": False,
        },
    )
    losses = OmegaConf.create({"kd": secret})
    workspace: Any = SimpleNamespace(
        cfg=cfg, data=data, run_dir=tmp_path, of_task=lambda group: losses
    )
    takes = {"input": None, "normalization": None}
    monkeypatch.setattr(promise, "_input", lambda *_: takes)
    monkeypatch.setattr(promise, "further", lambda _: {"head": None, "embedding": False})
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(b"")
    save_contract(promise.make_contract(workspace, checkpoint, "0", None), tmp_path)
    text = (tmp_path / CONTRACT_FILE).read_text()
    evaluation = {"old_test": None, "metric": "accuracy"}
    text += str(verdict.facts(workspace, {"quantized": None}, evaluation))
    assert text.count("hub_token") == 2  # of the contract; the report tells what matters of each
    assert "hunter2" not in text
