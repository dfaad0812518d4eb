"""A digest of documents that survives ``kill -9``, goes back, branches and forks.

Splits text files into sections, measures how readable each one is (a fan-out), drafts a report,
waits for approval and publishes it. A worker process is killed half-way and another one resumes.
The demo checks every promise; the exit code is 1 if one is broken.

    python docs/examples/operations/demo.py [FILE …] [--db PATH] [--out PATH] [--keep] [--quick]
"""

# long example: starts three processes and kills one

from __future__ import annotations

import argparse
import json
import operator
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import msgpack
from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from eventstore import EventStore
from graph import END, START, Command, CompiledGraph, RunnableConfig, Send, StateGraph

ROOT: Final = Path(__file__).resolve().parents[3]
WORKERS: Final = 4
PARAGRAPHS: Final = 3
SECTIONS: Final = range(8, 2_001)
WAIT_S_MAX: Final = 60.0
STOP_WORDS: Final = frozenset(
    "a an and are as at be been but by can do does each for from has have if in into is it its "
    "may more no not of on one or so such than that the their them then there these they this to "
    "was were what when where which who will with without you your".split()
)

console = Console()


# --- the job: its state and its nodes -----------------------------------------------------


class Section(TypedDict):
    number: int
    file: str
    title: str
    text: str


class Score(TypedDict):
    number: int
    words: int
    sentence_words: float
    links: int
    ease: float


class Job(TypedDict, total=False):
    files: list[str]
    out: str
    threshold: float
    sections: list[Section]
    scores: Annotated[list[Score], operator.add]
    totals: dict[str, float]
    draft: str
    approved_by: str
    published: str


def sections_of(path: Path) -> list[tuple[str, str]]:
    """(title, text) of each part under a heading, or of each few paragraphs if there is none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not re.search(r"^#{1,6} ", text, re.MULTILINE):
        found = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
        starts = range(0, len(found), PARAGRAPHS)
        return [(f"§ {n + 1}", "\n\n".join(found[n : n + PARAGRAPHS])) for n in starts]
    parts = [(path.name, "")]
    in_code = False
    for line in text.splitlines(keepends=True):
        in_code ^= line.lstrip().startswith("```")
        if not in_code and (heading := re.match(r"#{1,6}\s+(.*\S)", line)):
            parts.append((heading[1], ""))
        else:
            parts[-1] = (parts[-1][0], parts[-1][1] + line)
    return [(title, text) for title, text in parts if text.strip()]


def prose(text: str) -> str:
    """Without code, tables and the marks of Markdown."""
    text = re.sub(r"```.*?(```|\Z)|<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*\|.*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(?:[-*>+]|\d+\.)\s+", ". ", text, flags=re.MULTILINE)
    return re.sub(r"[`*_#]+", "", text)


def sentences_of(text: str) -> list[str]:
    found = re.split(r"(?<=[.!?:])\s+|\n\s*\n", prose(text))
    tidy = (" ".join(sentence.split()) for sentence in found)
    return [sentence for sentence in tidy if len(words_of(sentence)) > 1]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)


def syllables(word: str) -> int:
    vowels = re.findall(r"[aeiouyäöü]+", word.lower())
    silent = word.lower().endswith("e") and not word.lower().endswith("le")
    return max(1, len(vowels) - silent)


def measure(section: Section) -> Score:
    """How readable a section is: the Flesch reading ease, 0 (hard) to 100 (easy)."""
    sentences = sentences_of(section["text"])
    words = [word for sentence in sentences for word in words_of(sentence)]
    length = len(words) / max(1, len(sentences))
    per_word = sum(map(syllables, words)) / max(1, len(words))
    ease = 206.835 - 1.015 * length - 84.6 * per_word if words else 100.0
    return {
        "number": section["number"],
        "words": len(words),
        "sentence_words": round(length, 1),
        "links": len(re.findall(r"\[[^\]]*\]\([^)]+\)|https?://", section["text"])),
        "ease": round(min(100.0, max(0.0, ease)), 1),
    }


def summary(sections: list[Section], count: int = 5) -> list[str]:
    """The sentences whose words are the most frequent ones, in the order of the text."""
    sentences = [s for section in sections for s in sentences_of(section["text"])]
    frequency = Counter(
        word
        for sentence in sentences
        for word in map(str.lower, words_of(sentence))
        if word not in STOP_WORDS
    )

    def weight(sentence: str) -> float:
        words = set(map(str.lower, words_of(sentence))) - STOP_WORDS
        return sum(frequency[word] for word in words) / (len(words) + 3)

    fit = dict.fromkeys(s for s in sentences if re.fullmatch(r"[A-Z][^/_=…]{40,250}[.!?]", s))
    chosen = set(sorted(fit, key=weight, reverse=True)[:count])
    return [sentence for sentence in fit if sentence in chosen]


def report(job: Job) -> str:
    """The draft, in Markdown."""
    sections = {section["number"]: section for section in job["sections"]}
    prose_only = [score for score in job["scores"] if score["words"] >= 25]
    by_ease = sorted(prose_only, key=lambda score: (score["ease"], score["number"]))
    hard = [score for score in by_ease if score["ease"] < job["threshold"]]

    def rows(scores: list[Score]) -> list[str]:
        return [
            f"| {sections[s['number']]['file']} | {sections[s['number']]['title']} "
            f"| {s['ease']} | {s['words']} | {s['sentence_words']} |"
            for s in scores
        ]

    head = ["", "| file | section | ease | words | per sentence |", "|---|---|--:|--:|--:|"]
    totals = job["totals"]
    lines = [
        f"# Digest of {len(job['files'])} documents",
        "",
        f"{totals['sections']:.0f} sections, {totals['words']:.0f} words, "
        f"{totals['links']:.0f} links; mean reading ease {totals['ease']:.1f}.",
        "",
        *(f"> {sentence}" for sentence in summary(job["sections"])),
        "",
        f"## {len(hard)} sections below {job['threshold']:.0f}, hardest first",
        *head,
        *rows(hard[:8]),
        "",
        "## The easiest",
        *head,
        *rows(by_ease[::-1][:4]),
    ]
    return "\n".join(lines) + "\n"


def build(store: EventStore, trail: Path, pace_s: float) -> CompiledGraph:
    """The graph; every execution of a node leaves a line in the file ``trail``."""

    def ran(task: str) -> None:
        file = os.open(trail, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{task}\n".encode())
        os.close(file)

    def split(job: Job) -> Command[Any]:
        ran("split")
        found = [
            (path.name, title, text)
            for path in map(Path, job["files"])
            for title, text in sections_of(path)
        ]
        sections: list[Section] = [
            {"number": number, "file": file, "title": title, "text": text}
            for number, (file, title, text) in enumerate(found)
        ]
        fan_out = [Send("score", section) for section in sections]
        return Command(update={"sections": sections}, goto=fan_out)

    def score(section: Section) -> dict[str, Any]:
        ran(f"score {section['number']}")
        time.sleep(pace_s)  # so that there is a half-way to be killed at
        return {"scores": [measure(section)]}

    def join(job: Job) -> dict[str, Any]:
        ran("join")
        scores = job["scores"]
        words = sum(score["words"] for score in scores)
        ease = sum(score["ease"] * score["words"] for score in scores) / max(1, words)
        links = sum(score["links"] for score in scores)
        return {"totals": {"sections": len(scores), "words": words, "links": links, "ease": ease}}

    def draft(job: Job) -> dict[str, Any]:
        ran("draft")
        return {"draft": report(job)}

    def approve(job: Job) -> dict[str, Any]:
        ran("approve")
        return {"draft": f"{job['draft']}\nApproved by {job['approved_by']}.\n"}

    def publish(job: Job) -> dict[str, Any]:
        ran("publish")
        target = Path(job["out"])
        unfinished = target.with_name(target.name + ".part")
        unfinished.write_text(job["draft"], encoding="utf-8")
        unfinished.replace(target)  # whole or not at all, and harmless when done again
        return {"published": str(target)}

    graph = StateGraph(Job)
    graph.add_node("split", split, destinations=["score"])
    graph.add_node("score", score)
    graph.add_sequence(
        [("join", join), ("draft", draft), ("approve", approve), ("publish", publish)]
    )
    graph.add_edge(START, "split")
    graph.add_edge("score", "join")
    graph.add_edge("publish", END)
    return graph.compile(checkpointer=store, interrupt_before=["approve"])


# --- the demonstration --------------------------------------------------------------------


class BrokenPromiseError(Exception):
    """Something that this library promises did not hold."""


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise BrokenPromiseError(what)
    console.print(f"  [green]✓[/] {what}")


def say(number: int, what: str) -> None:
    console.print(f"\n[bold]{number}. {what}[/]")


def at(thread: str, **more: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, **more}, "max_concurrency": WORKERS}


def scored(app: CompiledGraph, thread: str) -> tuple[int, int]:
    """How many tasks of the fan-out the log holds, and how many there are."""
    snapshot = app.get_state(at(thread))
    tasks = [task for task in snapshot.tasks if task.name == "score"]
    if not tasks:
        return len(snapshot.values.get("scores", ())), len(snapshot.values.get("sections", ()))
    return sum(task.result is not None for task in tasks), len(tasks)


def work(app: CompiledGraph, options: dict[str, Any], step: str, kill: bool = False) -> int:
    """Let a new process run the job, watch the log, and kill it half-way if asked to."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    deadline = time.monotonic() + WAIT_S_MAX
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", json.dumps({**options, "step": step})]
    )
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(f"process {child.pid}", total=None)
            done, total = 0, 0
            while child.poll() is None and time.monotonic() < deadline:
                done, total = scored(app, options["thread"])
                progress.update(bar, completed=done, total=total or None)
                if kill and total and done * 2 >= total:
                    break
                time.sleep(0.02)
    finally:
        child.kill()  # SIGKILL: no handler runs, nothing is flushed; nothing if it has ended
    return child.wait()


def child(options: dict[str, Any]) -> None:
    """What the killed process and the resuming process do."""
    app = build(EventStore(options["db"]), Path(options["trail"]), options["pace"])
    fresh = {"files": options["files"], "out": options["out"], "threshold": 60.0}
    app.invoke(fresh if options["step"] == "start" else None, at(options["thread"]))


def recorded(app: CompiledGraph, thread: str) -> set[str]:
    """The tasks whose output the log holds, by the names they have in the trail."""
    names = set()
    for entry in app.events(at(thread)):
        if entry.kind == "output":
            numbers = [score["number"] for score in entry.writes.get("scores", ())]
            names.add(" ".join([str(entry.node), *map(str, numbers)]))
    return names


def trail_of(options: dict[str, Any]) -> Counter[str]:
    """How often each task was run."""
    return Counter(Path(options["trail"]).read_text().splitlines())


def show_history(app: CompiledGraph, thread: str, limit: int) -> None:
    table = Table("step", "source", "next", "scores", "threshold", "checkpoint", title=thread)
    for shot in app.get_state_history(at(thread), limit=limit, every=True):
        coming = Counter(shot.next).items()
        table.add_row(
            str((shot.metadata or {})["step"]),
            str((shot.metadata or {})["source"]),
            ", ".join(f"{name} × {n}" if n > 1 else name for name, n in coming) or "—",
            str(len(shot.values["scores"])),
            f"{shot.values['threshold']:.0f}",
            "…" + shot.config["configurable"]["checkpoint_id"][-6:],
        )
    console.print(table)


def whole_states(app: CompiledGraph, thread: str) -> tuple[int, int]:
    """Checkpoints of a thread's own log, and the bytes of all their values in msgpack."""
    own = takewhile(
        lambda shot: shot.config["configurable"]["thread_id"] == thread,
        app.get_state_history(at(thread), every=True),
    )
    sizes = [len(msgpack.packb(shot.values)) for shot in own]
    return len(sizes), sum(sizes)


def demonstrate(options: dict[str, Any]) -> None:
    thread, out = options["thread"], Path(options["out"])
    store = EventStore(options["db"])
    app = build(store, Path(options["trail"]), 0)

    say(1, f"A process scores {len(options['files'])} documents and is killed half-way")
    code = work(app, options, "start", kill=True)
    promise(code == -9 or os.name == "nt", f"kill -9 ended the process (exit code {code})")
    before, started = recorded(app, thread), trail_of(options)
    done, total = scored(app, thread)
    promise(0 < done < total, f"the log holds {done} of {total} scores")

    say(2, "A new process resumes")
    promise(work(app, options, "resume") == 0, "it ran until it had to wait for approval")
    runs, finished = trail_of(options), recorded(app, thread)
    twice = sorted(task for task in before if runs[task] != 1)
    promise(not twice, f"of the {len(before)} finished tasks {len(twice)} ran again")
    again = [task for task, count in runs.items() if count > 1]
    promise(
        finished == set(runs) and all(started[task] == 1 and runs[task] == 2 for task in again),
        f"all {len(finished)} tasks are done; {len(again)} that had died unfinished ran again",
    )
    numbers = [score["number"] for score in app.get_state(at(thread)).values["scores"]]
    promise(numbers == list(range(total)), f"{total} scores, each once, in the order of the text")

    say(3, "A person approves, and the report is published")
    waiting = app.get_state(at(thread))
    promise(waiting.next == ("approve",), "the thread waits before 'approve'")
    app.update_state(at(thread), {"approved_by": "a reader"})
    app.invoke(None, at(thread))
    first = out.read_text(encoding="utf-8")
    promise("Approved by a reader." in first, f"published {out.name}")
    console.print(Panel(Markdown(first), title=out.name, height=24))

    say(4, "Back to the checkpoint before approval, with another threshold")
    second = out.with_name(f"{out.stem}-branch{out.suffix}")
    change = {"threshold": 75.0, "out": str(second), "approved_by": "a stricter reader"}
    branch = app.update_state(waiting.config, change, as_node="join")
    app.invoke(None, branch)  # drafts again and stops before 'approve'
    final = app.invoke(None, at(thread))
    promise(final["threshold"] == 75.0 and second.exists(), f"published {second.name}")
    promise(trail_of(options)["split"] == 1, "nothing before the branch ran again")
    promise(out.read_text(encoding="utf-8") == first, "the first report is as it was")
    old = app.get_state(waiting.config).values
    promise(old == waiting.values, "and so is the checkpoint; the history has both branches:")
    show_history(app, thread, limit=20)

    say(5, "The same checkpoint, forked into a second thread")
    fork, length = f"{thread}-fork", store.head(thread).seq
    third = out.with_name(f"{out.stem}-fork{out.suffix}")
    origin = at(fork, checkpoint_id=waiting.config["configurable"]["checkpoint_id"])
    app.update_state(origin, {**change, "threshold": 45.0, "out": str(third)}, as_node="join")
    app.invoke(None, at(fork))
    forked = app.invoke(None, at(fork))
    promise(third.exists(), f"published {third.name}")
    promise(forked["sections"] == final["sections"], "the fork reads what came before it")
    promise(store.head(thread).seq == length, "the first thread is as it was")
    show_history(app, fork, limit=7)

    say(6, "The log")
    for name in (thread, fork):
        checked = app.verify(at(name))
        faults = "; ".join(checked.problems) or "no problem"
        promise(checked.ok, f"{name}: {checked.events} events verified, {faults}")
    console.print(cost_table(app, store, [thread, fork]))
    store.close()


def cost_table(app: CompiledGraph, store: EventStore, threads: list[str]) -> Table:
    """What is stored, next to what storing the whole state at every step would take."""
    table = Table("", *threads, "together", title="What it costs")
    figures: list[list[int]] = []
    for name in threads:
        of, (steps, whole) = store.stats(name), whole_states(app, name)
        events = [of.events, of.raw_bytes, of.stored_bytes]
        figures.append([*events, of.snapshots, of.snapshot_bytes, steps, whole])
    figures.append([sum(column) for column in zip(*figures, strict=True)])
    labels = ["events", "their bytes, raw", "their bytes, stored", "snapshots", "their bytes"]
    labels += ["checkpoints", "bytes of the whole state at every one"]
    for label, row in zip(labels, zip(*figures, strict=True), strict=True):
        table.add_row(label, *(f"{figure:,}" for figure in row))
    table.add_section()
    raw = (row[1] / row[2] for row in figures)
    table.add_row("raw / stored", *(f"{ratio:.1f}" for ratio in raw))
    entire = (row[6] / (row[2] + row[4]) for row in figures)
    table.add_row("whole states / all stored", *(f"{ratio:.1f}" for ratio in entire))
    return table


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="text files, best in Markdown")
    parser.add_argument("--db", help="file for the log; may hold earlier runs")
    parser.add_argument("--out", help="where to publish the report")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    parser.add_argument("--quick", action="store_true", help="score faster")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    own = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    options.files = options.files or sorted(map(str, own))
    missing = [name for name in options.files if not Path(name).is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    count = sum(len(sections_of(Path(name))) for name in options.files)
    if count not in SECTIONS:
        parser.error(f"{count} sections; give {SECTIONS[0]} to {SECTIONS[-1]} in all")
    options.pace = (2.0 if options.quick else 3.0) * WORKERS / count
    return options


def main() -> int:
    options = options_of(sys.argv[1:])
    if options.child:
        child(options.child)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="graph-demo-"))
    begun = time.monotonic()
    try:
        demonstrate(
            {
                "files": options.files,
                "db": options.db or str(folder / "log.db"),
                "out": options.out or str(folder / "report.md"),
                "trail": str(folder / "trail"),
                "thread": f"digest-{uuid.uuid4().hex[:6]}",
                "pace": options.pace,
            }
        )
    except BrokenPromiseError as broken:
        console.print(f"  [bold red]✗ broken promise: {broken}[/]")
        return 1
    finally:
        if options.keep:
            console.print(f"\nkept in {folder}")
        else:
            shutil.rmtree(folder)
    console.print(f"\nAll promises kept, in {time.monotonic() - begun:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
