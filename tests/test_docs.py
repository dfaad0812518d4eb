"""The documentation is true: its code runs, its links lead somewhere, its examples stay short.

The ```python blocks of one page run in order, in one namespace, in an empty directory. What
they print is compared where a ```text block whose first line begins with ``# prints`` directly
follows the code (or the code's own first or last line begins so); ``…`` there stands for
anything. ``<!-- no-test -->`` before a block, or ``no-test`` behind its language, leaves it out.
A page with ``<!-- own process -->`` sets something up for the whole process: it runs in its own.
Code that begins with ``# file: name.py`` is put into that file, too. In a ```console block each
line that begins with ``$ eventstore``, ``$ python -m retention`` or ``$ python name.py`` is run,
and what follows it is what it prints; ``$ export NAME=value``, ``$ mkdir name``, ``$ echo $?`` and
``*`` work as in a shell.
What an example prints is compared with ``examples/output/<its name>.txt``, if there is one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Final
from unittest import mock

import pytest

from tests import processes

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE_SECONDS_MAX: Final = 300
EXAMPLE_LINES_MAX: Final = 75
LONG_EXAMPLE: Final = re.compile(r"^# long example: \S", re.MULTILINE)
PRINTS: Final = "# prints"
FILE: Final = re.compile(r"# file: (\w+\.py)$", re.MULTILINE)
OWN_PROCESS: Final = "<!-- own process -->"

RUN: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED: Final = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES: Final = sorted(
    path
    for path in (ROOT / "docs" / "examples").rglob("*.py")
    # These serve, or talk to people, until they are stopped; they have tests of their own.
    if path.parent.name not in {"services", "support"}
)
OUTPUTS: Final = sorted((ROOT / "docs" / "examples" / "output").glob("*.txt"))


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where its first line of content stands in the page."""

    info: str
    text: str
    line: int
    end: int
    skip: bool

    @property
    def language(self) -> str:
        return self.info.split(maxsplit=1)[0].lower() if self.info else ""


class DocsError(AssertionError):
    """A page says something that is not so; the message begins with file:line."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order, also those that are indented in a list."""
    found = []
    lines = page.splitlines()
    at = 0
    before = ""
    while at < len(lines):
        fence = re.match(r"^(\s*)(`{3,}|~{3,})\s*([^`]*)$", lines[at])
        if fence is None:
            before = lines[at].strip() or before
            at += 1
            continue
        indent, marks, info = fence.groups()
        start = at + 1
        closing = re.compile(rf"^\s*{re.escape(marks)}{re.escape(marks[0])}*\s*$")
        end = next((n for n in range(start, len(lines)) if closing.match(lines[n])), len(lines))
        text = "\n".join(line.removeprefix(indent) for line in lines[start:end])
        skip = before == "<!-- no-test -->" or "no-test" in info.split()[1:]
        found.append(Block(info.strip(), text, start + 1, end + 1, skip))
        before = ""
        at = end + 1
    return found


def expectation(code: Block, following: Block | None, page: str) -> Block | None:
    """The block that says what the code prints, if the one that follows does."""
    if following is None or following.language != "text":
        return None
    if "".join(page.splitlines()[code.end : following.line - 2]).strip():
        return None
    if following.text.startswith(PRINTS):
        _, _, rest = following.text.partition("\n")
        return Block("text", rest, following.line + 1, following.end, following.skip)
    code_lines = code.text.strip().splitlines() or [""]
    announced = any(line.startswith(PRINTS) for line in (code_lines[0], code_lines[-1]))
    return following if announced else None


def matches(expected: str, printed: str) -> bool:
    """Equal line by line but for trailing space; ``…`` stands for anything."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).rstrip()

    pattern = ".*".join(re.escape(part) for part in tidy(expected).split("…"))
    return re.fullmatch(pattern, tidy(printed), re.DOTALL) is not None


def run_page(path: Path, page: str) -> int:
    """Run the code of a page; returns how many blocks ran. DocsError names the failing line."""
    # A real module: classes defined in a page look their annotations up in sys.modules.
    module = ModuleType(re.sub(r"\W", "_", f"page_{relative(path)}"))
    sys.modules[module.__name__] = module
    every = blocks(page)
    ran = 0
    shell = Shell()
    try:
        for block, following in itertools.zip_longest(every, every[1:]):
            if block.language == "console" and not block.skip:
                shell.run(path, block)
                ran += 1
            if block.language != "python" or block.skip:
                continue
            if name := FILE.match(block.text):
                Path(name[1]).write_text(block.text, encoding="utf-8")
            printed = run_block(path, block, module)
            expected = expectation(block, following, page)
            if expected is not None and not matches(expected.text, printed):
                raise DocsError(
                    f"{relative(path)}:{expected.line}: the block before it printed\n\n{printed}\n"
                    f"but the page says\n\n{expected.text}"
                )
            ran += 1
    finally:
        del sys.modules[module.__name__]
    return ran


def run_block(path: Path, block: Block, module: ModuleType) -> str:
    """Run one block and return what it printed."""
    printed = io.StringIO()
    # The empty lines in front make every traceback name the line of the page.
    source = "\n" * (block.line - 1) + block.text
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        raise DocsError(f"{relative(path)}:{error.lineno or block.line}: {error.msg}") from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            raise
        here = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        line = (here or [block.line])[0]
        raise DocsError(f"{relative(path)}:{line}: {type(error).__name__}: {error}") from error
    return printed.getvalue()


class Shell:
    """Runs the commands of a page, in this process."""

    def __init__(self) -> None:
        self._environment: dict[str, str] = {}
        self._code = 0

    def run(self, path: Path, block: Block) -> None:
        """Run a block; DocsError names the command that printed something else."""
        parts = re.split(r"^\$ (.*)\n?", block.text + "\n", flags=re.MULTILINE)
        line = block.line + parts[0].count("\n")
        for command, expected in zip(parts[1::2], parts[2::2], strict=True):
            printed = self._printed(command)
            if not matches(expected, printed):
                raise DocsError(
                    f"{relative(path)}:{line}: {command}\nprinted\n\n{printed}\nbut the page says"
                    f"\n\n{expected}"
                )
            line += 1 + expected.count("\n")

    @staticmethod
    def _expanded(word: str) -> list[str]:
        return sorted(map(str, Path().glob(word))) if "*" in word else [word]

    def _printed(self, command: str) -> str:
        from eventstore.cli import main
        from retention.__main__ import main as retention

        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            mock.patch.dict(os.environ, self._environment),
        ):
            names = Template(command).safe_substitute({**os.environ, "PWD": Path.cwd()})
            words = shlex.split(names, comments=True)
            match [found for word in words for found in self._expanded(word)]:
                case ["export", setting]:
                    name, _, value = setting.partition("=")
                    self._environment[name] = value
                case ["mkdir", name]:
                    Path(name).mkdir()
                case ["echo", "$?"]:
                    print(self._code)
                case ["eventstore", *arguments]:
                    self._code = main(arguments)
                case ["python", name, *arguments] if name.endswith(".py"):
                    done = run_python(Path.cwd(), name, *arguments)
                    print(done.stdout + done.stderr, end="")
                    self._code = done.returncode if done.returncode >= 0 else 128 - done.returncode
                case ["python", "-m", "retention", *arguments]:
                    self._code = retention(arguments)
                case _:
                    raise DocsError(f"this shell does not know {command!r}")
        return printed.getvalue()


@pytest.mark.parametrize("path", RUN, ids=relative)
def test_the_code_of_a_page_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    page = path.read_text(encoding="utf-8")
    if "DATABASE_URL" in page:
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgresql_url"))
    if OWN_PROCESS not in page:
        run_page(path, page)
        return
    code = "from tests import test_docs; test_docs.run_alone()"
    done = run_python(tmp_path, "-c", code, str(path))
    assert done.returncode == 0, f"{relative(path)}:1: failed\n{done.stdout}\n{done.stderr}"


def run_alone() -> None:
    """Run the page that this process was started for."""
    path = Path(sys.argv[1])
    run_page(path, path.read_text(encoding="utf-8"))


def run_python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an interpreter of its own in a directory, with this project on its path."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return processes.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": search,
            "PYTHONIOENCODING": "utf-8",
            "PYTHONUNBUFFERED": "1",  # as at a terminal, where a line is seen before a crash
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=EXAMPLE_SECONDS_MAX,
        check=False,
    )


def test_the_first_screen_of_the_readme_is_an_example_that_runs() -> None:
    python = [b for b in blocks(RUN[0].read_text(encoding="utf-8")) if b.language == "python"]
    assert python
    assert not python[0].skip
    assert python[0].line <= 40, f"the first example begins only at line {python[0].line}"


@pytest.mark.parametrize("path", EXAMPLES, ids=relative)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    is_long = LONG_EXAMPLE.search(path.read_text(encoding="utf-8"))
    done = run_python(tmp_path, str(path), *(["--quick"] if is_long else []))
    assert done.returncode == 0, f"{relative(path)}:1: failed\n{done.stdout}\n{done.stderr}"
    output = ROOT / "docs" / "examples" / "output" / f"{path.stem}.txt"
    if output.exists():
        expected = output.read_text(encoding="utf-8")
        assert matches(expected, done.stdout), f"{relative(path)}:1: printed\n{done.stdout}"


def test_every_output_is_that_of_an_example() -> None:
    assert {output.stem for output in OUTPUTS} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=relative)
def test_an_example_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert path.name == "demo.py" or lines < EXAMPLE_LINES_MAX


@pytest.mark.parametrize("path", LINKED, ids=relative)
def test_the_links_of_a_page_lead_to_files(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def broken_links(path: Path, page: str) -> list[str]:
    """Relative links and pictures whose target is not there, as `file:line: target`."""
    prose = page.splitlines()
    for block in blocks(page):
        prose[block.line - 1 : block.end - 1] = [""] * (block.end - block.line)
    broken = []
    for number, line in enumerate(prose, start=1):
        without_code = re.sub(r"`[^`]*`(?!\])", "", line)
        inline = re.findall(r"\]\(<?([^)>\s]+)>?(?:\s+[\"'][^)]*)?\)", without_code)
        defined = re.findall(r"^\s{0,3}\[[^\]]+\]:\s*<?([^>\s]+)>?", without_code)
        for link in inline + defined:
            target = link.partition("#")[0]
            if not target or re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
                continue
            base = ROOT if target.startswith("/") else path.parent
            if not (base / target.lstrip("/")).exists():
                broken.append(f"{relative(path)}:{number}: {link}")
    return broken


@pytest.mark.parametrize("path", LINKED, ids=relative)
def test_the_names_in_links_are_defined_in_their_files(path: Path) -> None:
    assert undefined_names(path, path.read_text(encoding="utf-8")) == []


def undefined_names(path: Path, page: str) -> list[str]:
    """Links such as [`Class.method`](module.py) whose file defines no such name."""
    undefined = []
    for name, target in re.findall(r"\[`([A-Za-z_][\w.]*)`\]\(([^)#]+\.py)\)", page):
        source = path.parent / target
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        for part in name.split("."):
            if not re.search(rf"^\s*(?:(?:async )?def|class) {part}\b|^{part}\b.*=", text, re.M):
                undefined.append(f"{relative(path)}: {name} in {target}")
                break
    return undefined


def test_every_page_that_the_code_names_is_there() -> None:
    named = {
        (relative(source), name)
        for package in ("eventstore", "graph", "retention", "tests", "benchmarks")
        for source in (ROOT / package).rglob("*.py")
        if source != Path(__file__)
        for name in re.findall(r"\bdocs/[\w/-]+\.\w+", source.read_text(encoding="utf-8"))
    }
    assert {name for _, name in named}
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/compared.md"])
def test_figures_of_pages_stand_in_the_results_of_the_benchmarks(page: str) -> None:
    results = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    text = (ROOT / page).read_text(encoding="utf-8")
    for figure in re.findall(r"([\d,]+)× less\b", text) + re.findall(r"\| ([\d,]+ KiB) \|", text):
        assert re.search(rf"\| {figure}\b", results), figure


def test_the_picture_of_the_costs_shows_the_results_of_the_benchmarks() -> None:
    from docs.pictures import costs

    shown = (ROOT / "docs" / "images" / "costs.svg").read_text(encoding="utf-8")
    assert shown == costs(), "run python docs/pictures.py"


def test_every_page_is_on_the_map_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    mapped = re.findall(r"([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in RUN[1:]]
    assert sorted(mapped) == sorted(pages)


# ── the checks themselves ──

PAGE: Final = """\
# Title

```python
from dataclasses import dataclass

@dataclass
class Item:
    size: int

print(Item(size=3))
```

```text
# prints
Item(size=…)
```

- in a list:

  ~~~python
  print(Item(4).size)
  ~~~

```bash
exit 1
```
"""


def test_the_blocks_of_a_page_share_a_namespace() -> None:
    assert run_page(ROOT / "docs" / "page.md", PAGE) == 2


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("```python\nx = 1\nprint(\n```", r"docs/page\.md:30: .*never closed"),
        ("```python\nx = 1\n1 / 0\n```", r"docs/page\.md:30: ZeroDivisionError"),
        ("```python\nraise SystemExit(3)\n```", r"docs/page\.md:29: SystemExit: 3"),
        ("```python\nprint(1)\n```\n\n```text\n# prints\n2\n```", r"docs/page\.md:34: .*printed"),
        ("```python\n# prints\nprint(1)\n```\n```text\n2\n```", r"docs/page\.md:33: .*printed"),
    ],
)
def test_a_false_page_fails_with_its_line(added: str, message: str) -> None:
    page = f"{PAGE}\n{added}\n"
    first = page.splitlines().index(added.splitlines()[0], len(PAGE.splitlines()))
    assert first == 27
    with pytest.raises(DocsError, match=message):
        run_page(ROOT / "docs" / "page.md", page)


@pytest.mark.parametrize(
    "skipped",
    [
        "```python no-test\n1 / 0\n```",
        "<!-- no-test -->\n\n```python\n1 / 0\n```",
        "```python\nprint(1)\n```\nwhich is not\n\n```text\n# prints\n2\n```",
        "```python\nprint(1)\n```\n\n```text\nsome other text\n```",
    ],
)
def test_what_is_left_out(skipped: str) -> None:
    assert run_page(ROOT / "docs" / "page.md", f"{PAGE}\n{skipped}\n") in {2, 3}


CONSOLE: Final = """\
```console
$ export EVENTSTORE_DB=no-such.db
$ eventstore threads  # a comment
eventstore: there is no … 'no-such.db'
$ echo $?
3
```
"""


def test_the_commands_of_a_page_are_run() -> None:
    assert run_page(ROOT / "docs" / "page.md", CONSOLE) == 1
    with pytest.raises(DocsError, match=r"docs/page\.md:5: echo \$\?\nprinted\n\n3\n"):
        run_page(ROOT / "docs" / "page.md", CONSOLE.replace("\n3\n", "\n0\n"))
    with pytest.raises(DocsError, match="does not know 'ls'"):
        run_page(ROOT / "docs" / "page.md", "```console\n$ ls\n```\n")


def test_an_undefined_name_is_found() -> None:
    page = (
        "[`Block.language`](tests/test_docs.py) [`ROOT`](tests/test_docs.py)\n"
        "[`Block.missing`](tests/test_docs.py) [`missing.py`](tests/missing.py)\n"
    )
    assert undefined_names(ROOT / "page.md", page) == [
        "page.md: Block.missing in tests/test_docs.py",
        "page.md: missing.py in tests/missing.py",
    ]


def test_a_broken_link_is_found() -> None:
    page = (
        "[good](pyproject.toml) ![bad](no/such.png 'title') [web](https://example.org) [here](#x)\n"
        "`[code](no.md)` [`code`](gone.md#part)\n"
        "```text\n[code](no.md)\n```\n"
        "[ref]: <missing.md>\n"
    )
    assert broken_links(ROOT / "page.md", page) == [
        "page.md:1: no/such.png",
        "page.md:2: gone.md#part",
        "page.md:6: missing.md",
    ]
