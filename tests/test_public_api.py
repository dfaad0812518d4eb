"""What the packages export is there, is explained, and carries the version of the project."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = [importlib.import_module(name) for name in ("eventstore", "graph", "retention")]
EXPORTS: Final = [(package, name) for package in PACKAGES for name in package.__all__]

each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


@each_package
def test_a_package_lists_each_name_once(package: ModuleType) -> None:
    assert [name for name, times in Counter(package.__all__).items() if times > 1] == []


@each_package
def test_a_package_explains_itself_and_is_typed(package: ModuleType) -> None:
    assert package.__doc__
    assert package.__file__ is not None
    assert Path(package.__file__).with_name("py.typed").is_file()


@each_package
def test_a_star_import_gives_what_is_listed(package: ModuleType) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", namespace)
    assert set(package.__all__) <= namespace.keys()


@pytest.mark.parametrize(
    ("package", "name"), EXPORTS, ids=[f"{package.__name__}.{name}" for package, name in EXPORTS]
)
def test_an_exported_name_exists_and_is_documented(package: ModuleType, name: str) -> None:
    exported = getattr(package, name)
    if inspect.isclass(exported) or inspect.isroutine(exported):
        assert own_docstring(exported), f"{package.__name__}.{name} has no docstring of its own"


def own_docstring(exported: Any) -> str | None:
    """The docstring someone wrote: neither inherited nor made by `dataclass` or `NamedTuple`."""
    text: str | None = vars(exported).get("__doc__") if inspect.isclass(exported) else None
    text = text if inspect.isclass(exported) else exported.__doc__
    made = text is not None and text.startswith(f"{exported.__name__}(")
    return None if made else text


def test_a_generated_docstring_does_not_count() -> None:
    from dataclasses import dataclass

    @dataclass
    class Bare:
        field: int

    class Heir(ValueError):
        pass

    assert own_docstring(Bare) is None
    assert own_docstring(Heir) is None
    assert own_docstring(own_docstring)


def test_every_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {p.__name__: p.__version__ for p in PACKAGES if hasattr(p, "__version__")}
    assert set(versions) == {"eventstore"}
    assert "version" not in project and "version" in project["dynamic"]
    source = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    assert source["version"] == {"path": "eventstore/__init__.py"}
    assert f"## [{versions['eventstore']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


WITHOUT_EXTRAS: Final = """
import asyncio, sys
for name in ("greenlet", "psycopg", "psycopg_pool", "aiosqlite", "pydantic", "opentelemetry"):
    sys.modules[name] = None
from eventstore import AsyncEventStore, ConfigurationError, Event, EventStore
from graph import MemorySaver, StateGraph
from retention import RetentionPolicy

EventStore().append("t", [Event(1, 1)], 0)
async def main():
    async with AsyncEventStore() as store:
        await store.append("t", [Event(1, 1)], 0)
asyncio.run(main())
for kind in (EventStore, AsyncEventStore):
    try:
        kind("postgresql://user:secret@host/database")
    except ConfigurationError as error:
        assert "graph-eventstore[postgres]" in str(error) and "secret" not in str(error), error
    else:
        raise AssertionError("opened without a driver")
"""


@pytest.mark.slow
def test_sqlite_needs_none_of_the_extras() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], check=True, cwd=ROOT)
