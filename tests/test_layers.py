"""The layers of docs/architecture.md hold: who may import whom, read from the syntax tree.

The tables below are the rule, each row a layer that may import its own row and those before
it. A module that is in no table fails the test: placing it is a decision, not an accident.
Imports under `if TYPE_CHECKING:` do not run and are not bound by the order of the layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]

LAYERS: Final[dict[str, tuple[frozenset[str], ...]]] = {
    "eventstore": (
        frozenset({"errors", "events", "forgetting"}),
        frozenset({"telemetry"}),
        frozenset(
            "chain codec dictionaries nesting packing postgresql registry schema types".split()
        ),
        frozenset({"dialects", "migrations", "segments"}),
        frozenset({"archive_file"}),
        frozenset(
            "ancestry archive_rows cutting graves inserting listing operations pruning records "
            "rehoming segmenting sharing".split()
        ),
        frozenset({"driving", "tails"}),
        frozenset({"transactor"}),
        frozenset({"reading"}),
        frozenset("appending archiving inspection removal sealing sweeping trimming".split()),
        frozenset({"retaining", "wiping"}),
        frozenset({"core"}),
        frozenset({"async_database", "database"}),
        frozenset({"async_store", "store"}),
        frozenset({""}),  # the package itself: what it exports
    ),
    "graph": (
        frozenset({"errors", "types"}),
        frozenset({"callables", "messages", "schema", "topology"}),
        frozenset({"builder", "drawing", "registration"}),
        frozenset({"events", "namespaces"}),
        frozenset({"fold"}),
        frozenset({"planner"}),
        frozenset({"snapshots", "workers"}),
        frozenset({"journal", "runners", "scope"}),
        frozenset({"log"}),
        frozenset({"driver", "subgraphs"}),
        frozenset({"calls", "history", "replaying", "travel"}),
        frozenset({"streaming"}),
        frozenset({"app"}),
        frozenset({"savers"}),
        frozenset({""}),
    ),
    "retention": (
        frozenset({"archives", "policy"}),
        frozenset({"erasing"}),
        frozenset({"access", "loading"}),
        frozenset({"plan"}),
        frozenset({"sweep"}),
        frozenset({""}),
    ),
}

FRIENDS: Final[dict[str, frozenset[str]]] = {
    "eventstore": frozenset(),
    "graph": frozenset({"eventstore"}),
    "retention": frozenset({"eventstore"}),
}
"""Which other packages of ours each may import."""

EDGES: Final = frozenset(
    "__main__ cli daemon metrics persistence production saver testing viewer".split()
)
"""Ways into the library for people and other programs. They import anything; only an edge may
import an edge."""

SPEAK_SQL: Final = frozenset(
    f"eventstore.{name}"
    for name in "schema dialects postgresql migrations ancestry cutting graves inserting "
    "operations archive_rows listing pruning rehoming segmenting sharing database "
    "async_database".split()
)
"""The only modules that may import SQLAlchemy; others may name its types in annotations."""

SPEAKS_TELEMETRY: Final = "eventstore.telemetry"
"""The only module that may import OpenTelemetry, which need not be installed."""

PURE: Final = frozenset({"graph.fold", "graph.planner"})

IMPURE_IMPORTS: Final = frozenset(
    "asyncio concurrent glob http io logging multiprocessing os pathlib pysqlite3 queue random "
    "sched secrets select selectors shutil signal socket sqlalchemy sqlite3 ssl subprocess "
    "tempfile threading time urllib".split()
)
"""What no pure module imports: threads, clocks, chance and the outside world."""

DEFERRED: Final = frozenset({("graph.builder", "graph.app"), ("graph.subgraphs", "graph.app")})
"""Imports that point outwards, allowed inside a function only: `StateGraph.compile` makes the
application out of the declaration, and the application is what knows how to run it."""


class Import(NamedTuple):
    """One imported module, by its full name."""

    target: str
    line: int
    in_function: bool
    for_types: bool


def imports(module: str, source: str, known: frozenset[str]) -> Iterator[Import]:
    """Every import in a module, resolved: `from graph import fold` is `graph.fold`."""
    is_package = any(other.startswith(f"{module}.") for other in known)

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, node.lineno, in_function, for_types)
            case ast.ImportFrom():
                origin = node.module or ""
                if node.level:
                    parents = module.split(".")
                    kept = len(parents) - node.level + is_package
                    origin = ".".join([*parents[:kept], *filter(None, [origin])])
                for name in dict.fromkeys(alias.name for alias in node.names):
                    target = f"{origin}.{name}" if f"{origin}.{name}" in known else origin
                    yield Import(target, node.lineno, in_function, for_types)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                for stmt in node.body:
                    yield from walk(stmt, in_function, True)
                for stmt in node.orelse:
                    yield from walk(stmt, in_function, for_types)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, True, for_types)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, in_function, for_types)

    yield from walk(ast.parse(source), False, False)


def violations(module: str, source: str, known: frozenset[str]) -> list[str]:
    """What a module's imports break, as `module:line: reason`; empty when nothing."""
    package, name = unit(module)
    if name in EDGES:
        return []
    found = [] if layer(module) is not None else [f"{module}:1: is in no layer; place it in LAYERS"]
    for each in imports(module, source, known):
        reason = forbidden(module, package, each)
        if reason:
            found.append(f"{module}:{each.line}: {reason}")
    return list(dict.fromkeys(found))


def forbidden(module: str, package: str, each: Import) -> str | None:
    """Why a module may not import this, or None if it may."""
    other, name = unit(each.target)
    speaks_sql = module_of_layer(module) in SPEAK_SQL or each.for_types
    if other == "sqlalchemy" and not speaks_sql:
        return "imports sqlalchemy, which only modules that take a connection know"
    if other == "opentelemetry" and module != SPEAKS_TELEMETRY:
        return f"imports opentelemetry, of which only {SPEAKS_TELEMETRY} knows"
    if module in PURE and other in IMPURE_IMPORTS:
        return f"is pure, and imports {each.target}"
    if other not in LAYERS:
        return None
    if name in EDGES:
        return f"imports the edge {each.target}"
    if other != package:
        return None if other in FRIENDS[package] else f"imports {each.target} of another package"
    if each.for_types or (each.in_function and (module, each.target) in DEFERRED):
        return None
    mine, theirs = layer(module), layer(each.target)
    if mine is not None and theirs is not None and theirs > mine:
        return f"imports {each.target}, which is further out"
    return None


def unit(module: str) -> tuple[str, str]:
    """`eventstore.codec.zstd` → (`eventstore`, `codec`); a package itself has the name ``""``."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def module_of_layer(module: str) -> str:
    return ".".join(unit(module))


def layer(module: str) -> int | None:
    package, name = unit(module)
    for depth, names in enumerate(LAYERS.get(package, ())):
        if name in names:
            return depth
    return None


def modules() -> dict[str, Path]:
    """Every module of the packages, by its full name."""
    found = {}
    for package in LAYERS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES: Final = modules()
KNOWN: Final = frozenset(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert violations(module, source, KNOWN) == []


def test_the_tables_name_no_module_that_does_not_exist() -> None:
    named = {
        f"{package}.{name}".rstrip(".")
        for package, layers in LAYERS.items()
        for names in layers
        for name in names
    }
    on_disk = {module_of_layer(module).rstrip(".") for module in MODULES}
    # Dictionaries are data; the directory need not hold a module.
    on_disk |= {f"{p}.{d.name}" for p in LAYERS for d in (ROOT / p).iterdir() if d.is_dir()}
    assert sorted(named - on_disk) == []


SYNTHETIC: Final = frozenset(
    "eventstore eventstore.errors eventstore.events eventstore.codec eventstore.schema "
    "eventstore.operations eventstore.store graph graph.errors graph.fold graph.planner "
    "graph.builder graph.app graph.savers graph.cli retention retention.daemon".split()
)


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("eventstore.codec", "import eventstore.store", "further out"),
        ("eventstore.codec", "from eventstore import store", "further out"),
        ("eventstore.codec", "from . import errors, operations", "further out"),
        ("eventstore.codec", "from .store import EventStore", "further out"),
        ("eventstore.codec", "from eventstore import EventStore", "further out"),
        ("eventstore.codec", "def f():\n    import eventstore.store", "further out"),
        ("eventstore", "from .store import EventStore\nimport graph", "another package"),
        ("eventstore.store", "import retention", "another package"),
        ("eventstore.codec", "import sqlalchemy as sa", "imports sqlalchemy"),
        ("graph.app", "from sqlalchemy.engine import Engine", "imports sqlalchemy"),
        ("graph.app", "from opentelemetry import trace", "imports opentelemetry"),
        ("eventstore", "import opentelemetry.trace", "imports opentelemetry"),
        ("graph.app", "try:\n    import retention\nexcept ImportError: ...", "another package"),
        (
            "graph.app",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import retention",
            "another package",
        ),
        ("retention", "from graph.app import CompiledGraph", "another package"),
        ("graph.app", "from graph import cli", "imports the edge"),
        ("graph.app", "from retention.daemon import main", "imports the edge"),
        ("graph.fold", "import threading", "is pure"),
        ("graph.fold", "from time import time", "is pure"),
        ("graph.planner", "class P:\n    from concurrent.futures import Future", "is pure"),
        ("graph.fold", "from graph.planner import plan", "further out"),
        ("graph.builder", "from graph.app import CompiledGraph", "further out"),
        ("graph.novelty", "import json", "is in no layer"),
    ],
)
def test_the_check_finds_a_violation(module: str, source: str, reason: str) -> None:
    (found,) = violations(module, source, SYNTHETIC)
    assert reason in found
    line = int(found.split(":")[1])
    assert reason == "is in no layer" or "import" in source.splitlines()[line - 1]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventstore.codec", "import zstandard\nfrom eventstore.errors import SerializationError"),
        ("eventstore.codec", "from . import errors, schema"),
        ("eventstore.operations", "import sqlalchemy as sa\nfrom .codec import Codec"),
        ("eventstore.telemetry", "from opentelemetry import trace"),
        ("eventstore", "from .store import EventStore"),
        ("graph.app", "from eventstore import EventStore\nfrom graph import planner"),
        ("graph.builder", "def compile():\n    from graph.app import CompiledGraph"),
        ("graph.fold", "import dataclasses\nfrom eventstore.events import RecordedEvent"),
        (
            "graph.savers",
            "import typing\nif typing.TYPE_CHECKING:\n    from sqlalchemy import Engine",
        ),
        ("graph.cli", "import sqlalchemy, retention.daemon, graph.app"),
        ("retention", "import eventstore"),
        (
            "graph.fold",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import graph.planner",
        ),
    ],
)
def test_the_check_accepts_what_is_allowed(module: str, source: str) -> None:
    assert violations(module, source, SYNTHETIC) == []
