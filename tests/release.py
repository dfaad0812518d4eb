"""Checks a release before it is tagged: ``make release-check``.

Builds the wheel and the sdist, looks at what is in them, and installs each into an environment of
its own. There, far from this tree, the README and the examples run from what was installed. Needs
the extra ``release`` and a package index; leaves the two files in ``dist/``.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DIST: Final = ROOT / "dist"
EXTRAS: Final = "cli,langgraph"
"""What the README and the examples need."""

IN_WHEEL: Final = (
    "eventstore/py.typed",
    "graph/py.typed",
    "retention/py.typed",
    "eventstore/codec/dictionaries/builtin-1.zdict",
    "eventstore/ui/static/style.css",
    "eventstore/ui/templates/base.html",
)
IN_SDIST: Final = (
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "docs/index.md",
    "mkdocs.yml",
    "pyproject.toml",
    "tests/release.py",
)
COPIED: Final = (
    "CHANGELOG.md",
    "README.md",
    "tests/__init__.py",
    "tests/processes.py",
    "tests/test_docs.py",
)
"""What the pages are run with, besides the documentation."""

PAGES: Final = "the_code_of_a_page and README or example_runs or commands_of_a_page"


def main() -> int:
    """Run every check; raises at the first one that fails."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    files = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    (sdist,) = DIST.glob("*.tar.gz")
    (wheel,) = DIST.glob("*.whl")
    version = declared_version()
    assert sdist.name == f"graph_eventstore-{version}.tar.gz", sdist.name
    assert wheel.name == f"graph_eventstore-{version}-py3-none-any.whl", wheel.name
    inspect_wheel(wheel, version)
    inspect_sdist(sdist, version)
    for built in (wheel, sdist):
        try_out(built)
        print(f"{built.name}: installs, and the README and the examples run")
    return 0


def declared_version() -> str:
    """The version in the one place that states it."""
    for node in ast.parse((ROOT / "eventstore" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise AssertionError("eventstore/__init__.py states no __version__")


def inspect_wheel(wheel: Path, version: str) -> None:
    """Nothing is missing, and nothing that belongs to the tree is installed."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"graph_eventstore-{version}.dist-info"
        missing = {*IN_WHEEL, f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} - names
        assert not missing, f"not in the wheel: {sorted(missing)}"
        tops = {name.partition("/")[0] for name in names}
        assert tops == {"eventstore", "graph", "retention", info}, tops
        assert f"Version: {version}\n" in archive.read(f"{info}/METADATA").decode()


def inspect_sdist(sdist: Path, version: str) -> None:
    """It holds the tree, and nothing that a build or an experiment left behind."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = set(IN_SDIST) - names
    assert not missing, f"not in the sdist: {sorted(missing)}"
    strays = [name for name in names if name.endswith((".db", ".pyc")) or name.startswith("build/")]
    assert not strays, f"strays in the sdist: {strays}"


def try_out(built: Path) -> None:
    """Install it into a new environment, and run pages and examples from a copy of the docs."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = place / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        run(python, "-m", "pip", "install", "--quiet", f"{built}[{EXTRAS}]", "pytest>=9")
        tree = place / "tree"  # has no packages: what runs is what was installed
        shutil.copytree(ROOT / "docs", tree / "docs")
        (tree / "tests").mkdir()
        for name in COPIED:
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, tree / name)
        (tree / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
        run(python, "-m", "pytest", "-q", "tests/test_docs.py", "-k", PAGES, where=tree)


def run(*command: str | Path, where: Path = ROOT) -> None:
    """Run a command with no search path of ours; raises if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(list(map(str, command)), cwd=where, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
