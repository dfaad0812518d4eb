"""The style of messages and names, held mechanically.

Reads the source of the three packages and checks what a parser can check: error and log messages
start in lower case and end without a full stop, help texts are sentences, and neither uses a word
that the vocabulary has replaced.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = sorted(
    path
    for package in ("eventstore", "graph", "retention")
    for path in (ROOT / package).rglob("*.py")
)

WORDS: Final = re.compile(
    r"\b(condemn\w*|graves?|bury|buried|wip(e|es|ed|ing)|rehom(e|es|ed|ing)|hopeful|transactors?)\b",
    re.IGNORECASE,
)
"""Words that the vocabulary has replaced, in messages and in names."""

PHRASES: Final = re.compile(
    r"\b(whoever|whosoever|is said|was said|event loops|by blocking|afresh|at least nothing|"
    r"makes? no sense|to be had|of lists that|is no [a-z]+ such|is not there|whatever)\b",
    re.IGNORECASE,
)
"""Phrases that have a plainer form, in messages only."""

PUBLIC: Final = frozenset({"wiped"})
"""Attributes that callers and readers of ``--json`` rely on."""

NAMES: Final = frozenset("SQLite PostgreSQL Python TOML WAL JSON UTF-8 URL I/O".split())
"""Names that may begin a message in upper case, besides those that look like code."""

COMMENTS: Final = re.compile(
    r"\b(whoever|whosoever|by blocking|for event loops|begins? afresh|graphs? that remembers?)\b",
    re.IGNORECASE,
)
"""Phrases that no docstring or comment uses either."""

LOG_METHODS: Final = frozenset("debug info warning error exception critical".split())


class Message(NamedTuple):
    """A message in the source, with ``{}`` where a value is formatted into it."""

    where: str
    text: str


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path: Path, node: ast.expr | ast.stmt | ast.arg) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may evaluate to, as far as they are literals."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts
            )
        case ast.IfExp(body=one, orelse=other):
            yield from texts(one)
            yield from texts(other)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for before in texts(left) or ["{}"]:
                for after in texts(right) or ["{}"]:
                    yield before + after


def called(node: ast.Call) -> str:
    """The last name of what a call calls."""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def is_error_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and bool(
        re.search("(Error|Interrupt|Failed)$", node.name)
    )


def error_messages(path: Path) -> Iterator[Message]:
    """The literal messages of errors: arguments of ``…Error(…)``, also in their ``__init__``."""
    tree = parsed(path)
    own = {
        id(call)
        for error in ast.walk(tree)
        if is_error_class(error)
        for call in ast.walk(error)
        if isinstance(call, ast.Call) and called(call) == "__init__"
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if re.search("(Error|Failed|BadParameter)$", name) or id(node) in own:
            for argument in node.args:
                for text in texts(argument):
                    if " " in text.strip():  # else it is a name or a value, not a message
                        yield Message(place(path, node), text)


def log_messages(path: Path) -> Iterator[Message]:
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=owner), attr=method), args=[first, *_]
            ) if method in LOG_METHODS and owner in ("log", "logger"):
                for text in texts(first):
                    yield Message(place(path, node), text)


def help_texts(path: Path) -> Iterator[Message]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.keyword) and node.arg == "help":
            for text in texts(node.value):
                yield Message(place(path, node.value), text)


def names(path: Path) -> Iterator[Message]:
    """Every name that the source gives or uses, as separate words."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case ast.ClassDef(name=name):
                pass
            case _:
                continue
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ")
        yield Message(f"{place(path, node)} {name}", words)


def starts_in_upper_case(text: str) -> bool:
    first = text.lstrip("`'\"([").split(maxsplit=1)[0].rstrip(",;:'\")`]")
    is_code = re.search(r"[_.(={}]|[a-z][A-Z]|^[A-Z]+$", first) is not None
    return first[:1].isupper() and not is_code and first not in NAMES


def in_all(find: Callable[[Path], Iterator[Message]]) -> Iterator[Message]:
    return (message for path in SOURCES for message in find(path))


def problems(
    found: Iterator[Message], *wrong: re.Pattern[str], sentence: bool = False
) -> list[str]:
    faults = []
    for where, text in found:
        bad = [match[0] for pattern in wrong for match in [pattern.search(text)] if match]
        if sentence:
            if text[:1].islower() and "://" not in text.split()[0]:
                bad.append("must start in upper case")
            if not text.endswith((".", '".', "{}")):
                bad.append("must end with a full stop")
        else:
            if starts_in_upper_case(text):
                bad.append("must start in lower case")
            if re.search(r"[.!]$", text) and not text.endswith("…"):
                bad.append("must end without a full stop")
        if bad:
            faults.append(f"{where}: {', '.join(bad)}: {text}")
    return faults


def test_error_messages() -> None:
    assert problems(in_all(error_messages), WORDS, PHRASES) == []


def test_log_messages() -> None:
    assert problems(in_all(log_messages), WORDS, PHRASES) == []


def test_help_texts() -> None:
    assert problems(in_all(help_texts), WORDS, PHRASES, sentence=True) == []


def test_names() -> None:
    found = (each for each in in_all(names) if each.text not in PUBLIC)
    assert [where for where, words in found if WORDS.search(words)] == []


def test_docstrings_and_comments() -> None:
    found = {
        str(path.relative_to(ROOT)): COMMENTS.findall(path.read_text(encoding="utf-8"))
        for path in SOURCES
    }
    assert {path: phrases for path, phrases in found.items() if phrases} == {}
