"""Builds the documentation site from the pages as they stand in the tree: ``make docs``.

The pages are copied, and what only the site has is filled in: links to files outside ``docs/`` lead
to the repository if ``repo_url`` is set in mkdocs.yml, and are plain text otherwise;
``<!-- commands -->`` stands for the help of every command, ``<!-- names of MODULE -->`` for the
documentation of every name in its ``__all__``. A warning of any tool is an error.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = ROOT / "build" / "docs"
LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
REPO_URL: Final = re.compile(r"^repo_url: *(\S+)", re.MULTILINE)
WARNING: Final = re.compile(r"^(griffe: |WARNING)", re.MULTILINE)
EXIT_WARNED: Final = 1


def main() -> int:
    """Copy the pages, build the site, and return 1 if anything warned."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(
        DOCS,
        PAGES,
        ignore=shutil.ignore_patterns(
            "*.pyc", "build_site.py", "pictures.py", "roles.py", "output"
        ),
    )
    url = REPO_URL.search((ROOT / "mkdocs.yml").read_text("utf-8"))
    for path in PAGES.rglob("*.md"):
        source = DOCS / path.relative_to(PAGES)
        path.write_text(page(source, url and url[1].rstrip("/")), encoding="utf-8")
    # A cached page would not repeat its warnings.
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    print(built.stdout, end="")
    return built.returncode or (EXIT_WARNED if WARNING.search(built.stdout) else 0)


def page(source: Path, repo_url: str | None) -> str:
    """A page as the site shows it."""
    text = source.read_text("utf-8")
    text = re.sub(r"<!-- names of (\S+) -->", lambda found: "\n".join(names(found[1])), text)
    if "<!-- commands -->" in text:
        text = text.replace("<!-- commands -->", "\n".join(commands()))

    def outward(found: re.Match[str]) -> str:
        label, target, anchor = found.groups()
        path = (source.parent / target).resolve()
        if path.is_relative_to(DOCS) or not path.exists():
            return found[0]  # inside the site, or broken: the strict build reports that
        if repo_url is None:
            return label
        kind = "tree" if path.is_dir() else "blob"
        place = path.relative_to(ROOT).as_posix()
        return f"[{label}]({repo_url}/{kind}/main/{place}{anchor or ''})"

    return LINK.sub(outward, text)


def names(module: str) -> Iterator[str]:
    """Directives for all that a module exports."""
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            for name in sorted(ast.literal_eval(node.value), key=str.lower):
                yield f"::: {module}.{name}\n"


def commands() -> Iterator[str]:
    """A section for each command: what it does, its arguments and options."""
    import click
    import typer

    from eventstore.cli.commands import app

    def walk(command: Any, name: str, above: Any) -> Iterator[str]:
        context = click.Context(command, info_name=name.split()[-1], parent=above)
        yield f"## {name}\n\n{command.help or ''}\n"
        for child in sorted(getattr(command, "commands", {})):
            yield from walk(command.commands[child], f"{name} {child}", context)

    yield from walk(typer.main.get_command(app), "eventstore", None)


if __name__ == "__main__":
    sys.exit(main())
