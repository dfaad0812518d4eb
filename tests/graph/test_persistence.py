"""The configuration of a deployment: where it is read from, what it refuses, and what it hides."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
import sqlite3
import tomllib
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool
from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import URL, create_engine, make_url

from eventstore import ConfigurationError, EventStore
from graph import GraphError
from graph.config import MASK, ConnectionString, PersistenceConfig, target_of
from graph.production import PersistenceConfigError
from retention import RetentionPolicy
from tests.graph.kit import logged_at_debug

URL_OF: Final = "postgresql://app:{}@db.example.org:5432/runs"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PersistenceConfig.model_fields:
        monkeypatch.delenv(f"GRAPH_EVENTSTORE_{name.upper()}", raising=False)


def config(**values: Any) -> PersistenceConfig:
    return PersistenceConfig(**values)


def problems(**values: Any) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(PersistenceConfigError) as caught:
        config(**values)
    assert isinstance(caught.value, GraphError)
    return caught.value.problems


# --- where it comes from ----------------------------------------------------------------


def test_the_chapters_defaults_and_names() -> None:
    found = PersistenceConfig(connection_string=URL_OF.format("x"))
    assert (found.backend, found.pool_min_size, found.pool_max_size) == ("postgres", 5, 20)
    assert (found.checkpoint_ttl_days, found.enable_compression) == (30, True)
    assert found.connection_string == URL_OF.format("x")
    assert found == config(connection_string=SecretStr(URL_OF.format("x")))
    assert hash(found) == hash(config(connection_string=URL_OF.format("x")))


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given_values = {
        "BACKEND": "sqlite",
        "CONNECTION_STRING": "runs.db",
        "POOL_MIN_SIZE": "1",
        "pool_max_size": "2",
        "POOL_TIMEOUT_S": "0.5",
        "CHECKPOINT_TTL_DAYS": "None",
        "ENABLE_COMPRESSION": "false",
        "TENANT": "",  # empty counts as not set
        "DURABILITY": "normal",
        "DB_SCHEMA": "graphs",
        "SOMETHING_ELSE": "of another program",
    }
    for name, value in given_values.items():
        monkeypatch.setenv(f"GRAPH_EVENTSTORE_{name}", value)
    assert config() == PersistenceConfig.model_construct(
        backend="sqlite",
        connection_string="runs.db",
        pool_min_size=1,
        pool_max_size=2,
        pool_timeout_s=0.5,
        checkpoint_ttl_days=None,
        enable_compression=False,
        tenant="default",
        durability="normal",
        db_schema="graphs",
    )
    assert config(backend="memory").backend == "memory"


@pytest.mark.parametrize("header", ["[persistence]", ""])
def test_a_file_then_the_environment_then_arguments(
    header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "service.toml"
    path.write_text(
        f'{header}\nbackend = "sqlite"\nconnection_string = "file.db"\npool_min_size = 1\n'
        'pool_max_size = 2\ncheckpoint_ttl_days = "none"\n'
        + ("[another.program]\nbackend = 3\n" if header else ""),
        encoding="utf-8",
    )
    monkeypatch.setenv("GRAPH_EVENTSTORE_CONNECTION_STRING", "environment.db")
    monkeypatch.setenv("GRAPH_EVENTSTORE_POOL_MAX_SIZE", "3")
    for found in (
        PersistenceConfig.from_toml(path, pool_max_size=4),
        PersistenceConfig.from_toml(str(path), pool_max_size=4),
    ):
        assert found.backend == "sqlite"
        assert found.connection_string == "environment.db"
        assert (found.pool_min_size, found.pool_max_size) == (1, 4)
        assert found.checkpoint_ttl_days is None
        assert found.tenant == "default"


def test_a_secret_from_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "graph_eventstore_connection_string"
    secret.write_text(URL_OF.format("from-a-file"), encoding="utf-8")
    assert config(_secrets_dir=tmp_path).connection_string == URL_OF.format("from-a-file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[persistence]\npool_max = 3\nbakend = "x"', r"unknown keys 'bakend', 'pool_max'; known"),
        ('tenant = "a"\n[database]\nurl = "x"', r"unknown keys 'database'"),
        ("persistence = 3", r"'persistence' must be a table"),
        ("tenant = se^cret", r"is not valid TOML in UTF-8 \(at line 1, column 10\)"),
        ("[persistence]\npool_min_size = 'se^cret'\nbackend = 'memory'", r"pool_min_size: "),
        (b"tenant = 'se^cret\xff'", r"is not valid TOML in UTF-8"),
        (None, r"cannot read .*service\.toml: No such file"),
    ],
)
def test_a_file_that_cannot_be_used(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PersistenceConfigError, match=message) as caught:
        PersistenceConfig.from_toml(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert "se^cret" not in shown
    assert text is None or caught.value.__context__ is None


def test_the_policy_of_its_ttl() -> None:
    days = config(backend="memory", checkpoint_ttl_days=7)
    assert days.retention_policy() == RetentionPolicy(ttl=timedelta(days=7))
    forever = config(backend="memory", checkpoint_ttl_days=None)
    assert forever.retention_policy() == RetentionPolicy(ttl=None)
    careless = config(backend="memory", respect_pending_interrupts=False)
    assert careless.retention_policies() == (
        RetentionPolicy(timedelta(days=30), respect_pending_interrupts=False),
    )


def test_policies_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.toml"
    path.write_text('[[policy]]\nname = "chat"\nttl = "7d"\n', encoding="utf-8")
    monkeypatch.setenv("GRAPH_EVENTSTORE_RETENTION_POLICY_FILE", str(path))
    found = config(backend="memory").retention_policies()
    assert found == (RetentionPolicy(timedelta(days=7), "chat"),)
    path.write_text('[[policy]]\ntll = "7d"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="unknown key 'tll'"):
        config(backend="memory").retention_policies()


# --- what it refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["connection_string: backend 'postgres' requires a PostgreSQL URL; pass it, or"]),
        (
            {"connection_string": " "},
            ["connection_string: backend 'postgres' requires a PostgreSQL URL"],
        ),
        ({"backend": "sqlite"}, ["connection_string: backend 'sqlite' requires a file path"]),
        (
            {"backend": "memory", "pool_min_size": 6, "pool_max_size": 5},
            ["pool_min_size (6) must not exceed pool_max_size (5)"],
        ),
        (
            {"pool_min_size": 21},
            [
                "pool_min_size (21) must not exceed",
                "connection_string: backend 'postgres' requires",
            ],
        ),
        ({"connection_string": "runs.db"}, ["connection_string: expected a PostgreSQL URL"]),
        (
            {"connection_string": "mysql://h/d"},
            ["connection_string: expected a PostgreSQL URL, which begins with postgresql://"],
        ),
        (
            {"connection_string": "postgresql+asyncpg://h"},
            ["connection_string: expected a PostgreSQL URL"],
        ),
        (
            {"backend": "sqlite", "connection_string": URL_OF},
            ["connection_string: backend 'sqlite' expects a path or a URL that begins with sqlite"],
        ),
        (
            {"backend": "sqlite", "connection_string": "host=h password=p"},
            ["connection_string: backend 'sqlite' expects a path"],
        ),
        ({"backend": "oracle"}, ["backend: Input should be 'postgres', 'sqlite' or 'memory'"]),
        ({"backend": "memory", "pool_max_size": 0}, ["pool_max_size: Input should be greater"]),
        ({"backend": "memory", "pool_min_size": -1}, ["pool_min_size: Input should be greater"]),
        ({"backend": "memory", "pool_timeout_s": 0}, ["pool_timeout_s: Input should be greater"]),
        ({"backend": "memory", "checkpoint_ttl_days": 0}, ["checkpoint_ttl_days: Input should"]),
        ({"backend": "memory", "checkpoint_ttl_days": 10**9}, ["checkpoint_ttl_days: Input sh"]),
        ({"backend": "memory", "tenant": ""}, ["tenant: String should have at least 1"]),
        ({"backend": "memory", "durability": "none"}, ["durability: Input should be 'full' or"]),
        ({"backend": "memory", "ttl": 3}, ["ttl: Extra inputs are not permitted"]),
    ],
)
def test_what_makes_no_sense(values: dict[str, Any], expected: list[str]) -> None:
    found = problems(**values)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


def test_the_error_survives_pickling() -> None:
    error = PersistenceConfigError(["one: is wrong", "two: is too"])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)
    assert str(error) == "invalid persistence configuration: one: is wrong; two: is too"


def test_what_the_backend_does_not_need_is_ignored() -> None:
    unused = config(backend="memory", connection_string="what is left of production")
    assert target_of(unused) == ":memory:"
    schema = config(backend="sqlite", connection_string="a.db", db_schema="x")
    assert target_of(schema) == "a.db"


# --- what it says to those who connect --------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("postgresql://u:p%40%2F@h:5/db", ("u", "p@/", "h", 5, "db", {})),
        ("postgres://u:p@h/db", ("u", "p", "h", None, "db", {})),
        (" postgres://u:p@h/db\n", ("u", "p", "h", None, "db", {})),
        ("postgresql+psycopg://u:p/?#@h/db", ("u", "p/?#", "h", None, "db", {})),
        ("postgresql://h?password=p/w&user=u", (None, "p/w", "h", None, None, "user")),
        ("postgresql://[::1]/db?sslmode=require", (None, None, "::1", None, "db", "sslmode")),
        ("postgresql:///db?user=me@org&host=/run/pg", (None, None, None, None, "db", "user host")),
        (
            "postgresql://u:p@a:1,b:2/db",
            ("u", "p", None, None, "db", {"host": "a,b", "port": "1,2"}),
        ),
        (
            "host=h user='u' password='a b://@ \\' c' dbname=db",
            ("u", "a b://@ ' c", None, None, "db", {"host": "h"}),
        ),
        ("service=main", (None, None, None, None, None, {"service": "main"})),
    ],
)
def test_the_forms_of_a_connection_string(text: str, parts: tuple[Any, ...]) -> None:
    url = target_of(config(connection_string=text))
    assert isinstance(url, URL)
    *found, query = url.username, url.password, url.host, url.port, url.database, url.query
    *expected, wanted = parts
    assert found == expected
    assert (dict(query) == wanted) if isinstance(wanted, dict) else (list(query) == wanted.split())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:se@cret@h/db",  # an @ that is not escaped ends the password too early
        "postgresql://u:se/cr@et@h/db",
        "postgresql://us/er:secret@h/db",
        "postgresql://u:cret",  # what was meant for a password stands where a port does
        "postgresql://u:p@h:cret/db",
        "postgresql://u:70000",
        "postgresql://u:123,",
        "postgresql://a:1,b:70000/db",
        "postgresql://a:1,b:cret/db",
        "postgresql://u:p@a:1,b:2/db?cret=1",
        "postgresql://h/db?password=cret&password=cret",
        "host=h password=se cret",
        "host=h port=cret",
        "host='cret",
        "cret",
    ],
)
def test_what_could_be_misread_is_refused_unseen(text: str) -> None:
    for values in ({"connection_string": text}, {"connection_string": SecretStr(text)}):
        (problem,) = problems(**values)
        assert problem.startswith("connection_string: ")
        assert "cret" not in problem.replace("secret", "")


def test_it_works_wherever_the_chapter_passes_it(tmp_path: Path) -> None:
    text = URL_OF.format("p%40w")
    given_string = config(connection_string=text).connection_string
    assert isinstance(given_string, str)
    assert conninfo_to_dict(given_string)["password"] == "p@w"
    assert conninfo_to_dict(make_conninfo(given_string, connect_timeout=3))["password"] == "p@w"
    assert make_url(given_string).password == "p@w"
    engine = create_engine(given_string.replace("postgresql", "postgresql+psycopg"))
    assert engine.url.password == "p@w"
    pool: Any = ConnectionPool(conninfo=given_string, min_size=1, open=False)
    assert conninfo_to_dict(pool.conninfo)["password"] == "p@w"
    path = config(backend="sqlite", connection_string=str(tmp_path / "a.db")).connection_string
    sqlite3.connect(path).close()
    assert (tmp_path / "a.db").exists()


# --- what it hides ----------------------------------------------------------------------

# "postgresql://app:5432" may well be meant so; nothing tells that it is a password.
PORTS: Final = re.compile(r"[\d,]+")
PASSWORDS: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=6, max_size=30
).filter(lambda text: text.strip() and text not in MASK and not PORTS.fullmatch(text))
FORMS: Final[dict[str, Callable[[str], str]]] = {
    "as it is": lambda p: f"postgresql://app:{p}@db.example.org/runs",
    "escaped": lambda p: f"postgresql://app:{quote(p, safe='')}@db.example.org/runs",
    "in the query": lambda p: f"postgresql://db.example.org/runs?user=a&password={quote(p)}",
    "of a key": lambda p: f"postgresql://db.example.org/runs?sslpassword={quote(p)}",
    "in pairs": lambda p: make_conninfo(host="db.example.org", user="app", password=p),
    "in bad pairs": lambda p: f"host=db.example.org password={p}",
    "nothing else": lambda p: p,
    "another database's": lambda p: f"mysql://app:{p}@db.example.org/runs",
    "without a host": lambda p: f"postgresql://app:{p}",
    "on a socket": lambda p: f"postgresql+psycopg://app:{quote(p, safe='')}@/runs?host=/run",
}


class Service(BaseModel):
    """Somebody's settings, of which ours are a part."""

    store: PersistenceConfig


class Environment(BaseSettings):
    store: PersistenceConfig


def shown_by_a_config(found: PersistenceConfig) -> Iterator[str]:
    """Everything that prints a configuration without meaning to print its secret."""
    text = found.connection_string
    yield from (repr(found), str(found), f"{found}", repr(vars(found)), repr(found.model_dump()))
    yield found.model_dump_json()
    yield json.dumps(found.model_dump(mode="json"))
    yield json.dumps(found.model_dump(), default=str)
    yield from (repr(text), str(text), f"{text} {text!r} {text:>40}")
    yield from ("%s %r" % (text, text), "{} {!r}".format(text, text))  # noqa: UP031, UP032
    yield from (repr(Service(store=found)), Service(store=found).model_dump_json())
    with EventStore(target_of(found)) as store:
        yield from (repr(store), repr(store.engine), repr(store.engine.url))
    unchecked = found.model_copy(update={"connection_string": _plain(text)})
    yield from (repr(unchecked), repr(unchecked.model_dump()), unchecked.model_dump_json())
    with pytest.raises(AttributeError) as caught:
        found.connection_string = _plain(text)
    yield str(caught.value)


def _plain(text: str) -> str:
    return cast(ConnectionString, text).get_secret_value()


def shown_by_an_error(text: str, **values: Any) -> Iterator[str]:
    """Every way of making a configuration, each of which fails."""
    values = {"connection_string": text, **values}
    for make in (
        lambda: PersistenceConfig(**values),
        lambda: PersistenceConfig.model_validate(values),
        lambda: PersistenceConfig.model_validate_json(json.dumps(values)),
        lambda: Service.model_validate({"store": values}),
        lambda: Environment.model_validate({"store": values}),
    ):
        with pytest.raises(PersistenceConfigError) as caught:
            make()
        error: BaseException | None = caught.value
        while error is not None:  # whatever a tracker of errors would find
            yield from (str(error), repr(error), repr(vars(error)))
            error = error.__cause__ or error.__context__


def shown_with(text: str) -> str:
    """All that is shown of a connection string, whether it is a good one or not."""
    shown: list[str] = []
    with logged_at_debug() as lines:
        try:
            found = config(connection_string=text)
        except PersistenceConfigError:
            shown += shown_by_an_error(text)
        else:
            shown += shown_by_a_config(found)
            logging.getLogger("a.service").debug("with %s, %s", found, found.connection_string)
        shown += shown_by_an_error(text, pool_max_size="many")
        shown += shown_by_an_error(text, backend="sqlite", pool_max_size=1)
        shown += shown_by_an_error(text, backend="memory", pool_max_size=1)
    return "\n".join([*shown, lines.getvalue()])


@cache
def shown_anyway() -> str:
    """What every form shows, with another password."""
    return "\n".join(shown_with(form("Correct-Horse")) for form in FORMS.values())


@pytest.mark.slow
@given(PASSWORDS, st.sampled_from(sorted(FORMS)))
def test_a_secret_never_shows(password: str, form: str) -> None:
    assume(password not in shown_anyway())  # such as the name of a setting
    # "postgresql://app:@00000" has no password, and a host.
    assume(form != "without a host" or not password.startswith("@"))
    text = FORMS[form](password)
    shown = shown_with(text)
    for secret in (text, password, quote(password), quote(password, safe="")):
        assert secret not in shown


@given(PASSWORDS)
def test_a_secret_is_there_for_those_who_need_it(password: str) -> None:
    found = config(connection_string=FORMS["escaped"](password))
    url = target_of(found)
    assert isinstance(url, URL) and url.password == password
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert again == found and repr(again) == repr(found)
        assert again.connection_string == found.connection_string
    assert config(**found.model_dump()) == found


def test_an_ordinary_string_is_to_be_had() -> None:
    text = ConnectionString("a.db")
    assert text.get_secret_value() == "a.db"
    assert type(text.get_secret_value()) is str
    assert str(ConnectionString("")) == ""


def test_a_password_in_a_file_with_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text('connection_string = "postgresql://u:hunter2@h"\nx = \n', encoding="utf-8")
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(PersistenceConfigError, match="line 2") as caught:
        PersistenceConfig.from_toml(path)
    assert "hunter2" not in repr(vars(caught.value)) + str(caught.value)
    assert caught.value.__context__ is None
