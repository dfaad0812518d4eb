"""Runs the tests on every supported Python and SQLAlchemy.

`nox` runs the whole suite on each pair, `nox -- -m fast` the fast half of it, and
`nox --python 3.12` the pairs of one Python. Interpreters that are not installed are skipped.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("sqlalchemy", ["2.0", "2.1"])
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests; arguments after ``--`` are passed to pytest."""
    session.install("--editable", ".[test]")
    # After the extra, which requires the newer one because mypy checks against one version.
    session.install(f"sqlalchemy[asyncio]=={sqlalchemy}.*")
    session.run("python", "-m", "pytest", "--numprocesses", "auto", *session.posargs)
