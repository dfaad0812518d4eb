"""Log records have a constant text and fields of their own, and go only where one wants them."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("eventstore", "graph", "retention")
LEVELS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}
TAKEN: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the packages, and where it stands."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(found, ast.Call) and isinstance(found.func, ast.Attribute):
                    owner = found.func.value
                    if isinstance(owner, ast.Name) and owner.id in ("log", "log_"):
                        if found.func.attr in LEVELS:
                            yield f"{path.relative_to(ROOT)}:{found.lineno}", found


def faults(call: ast.Call) -> list[str]:
    """What is wrong with a call of a logger."""
    found = []
    text = call.args[0] if call.args else None
    if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
        found.append("its text is not constant")
    extra = next((each.value for each in call.keywords if each.arg == "extra"), None)
    if not isinstance(extra, ast.Dict):
        return [*found, "it has no fields: give extra={…}"]
    names = [key.value if isinstance(key, ast.Constant) else None for key in extra.keys]
    return found + [f"the field {name!r} is a log record's own" for name in names if name in TAKEN]


@pytest.mark.slow
def test_every_log_record_has_a_constant_text_and_fields_of_its_own() -> None:
    calls = dict(log_calls())
    assert len(calls) >= 10
    assert {where: faults(call) for where, call in calls.items() if faults(call)} == {}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("log.info(f'{x}', extra={})", "not constant"),
        ("log.info(text, extra={'a': 1})", "not constant"),
        ("log.info('text')", "no fields"),
        ("log.info('text', extra={'module': 1})", "'module'"),
        ("log.info('text', extra={'taskName': 1})", "'taskName'"),
    ],
)
def test_the_check_finds_a_fault(code: str, fault: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    (found,) = faults(call)
    assert fault in found


@pytest.mark.slow
def test_nothing_is_printed_unless_the_application_asks() -> None:
    loud = "; ".join(f"logging.getLogger('{name}.part').warning('loud')" for name in PACKAGES)
    done = subprocess.run(
        [sys.executable, "-c", f"import logging, {', '.join(PACKAGES)}; {loud}"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    assert done.stdout + done.stderr == ""
