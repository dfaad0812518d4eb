"""Runs the tests on every supported Python and SQLAlchemy.

`nox` runs the whole suite on each pair, `nox -- -m fast` the fast half of it, and
`nox --python 3.12` the pairs of one Python. `nox --session extras` installs each extra alone and
lets it do its job (tests/extras.py). Interpreters that are not installed are skipped.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]


EXTRAS = (
    *("none", "archive", "cli", "demo", "langgraph", "messages", "metrics", "numpy", "postgres"),
    *("production", "pydantic", "telemetry", "ui"),
)


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("sqlalchemy", ["2.0", "2.1"])
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests; arguments after ``--`` are passed to pytest."""
    session.install("--editable", ".[test]")
    # After the extra, which requires the newer one because mypy checks against one version.
    session.install(f"sqlalchemy[asyncio]=={sqlalchemy}.*")
    session.run("python", "-m", "pytest", "--numprocesses", "auto", *session.posargs)


@nox.session(reuse_venv=False)
@nox.parametrize("extra", EXTRAS)
def extras(session: nox.Session, extra: str) -> None:
    """Install one extra and nothing else, and use it."""
    session.install("." if extra == "none" else f".[{extra}]")
    session.chdir(session.create_tmp())
    session.run("python", str(Path(__file__).parent / "tests" / "extras.py"), extra)
