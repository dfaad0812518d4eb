"""Describes an event in words, without the application that wrote it.

Events of a graph run are recognised by the keys of their data; any other event is shown by the
number of its kind. Anybody may store anything under any kind, so nothing here relies on a key
that was not checked. Names and values are escaped for the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import FORK, RecordedEvent
from eventstore.explain import langgraph
from eventstore.explain.values import counted, line, safe, text_of
from graph.state.events import Kind

_REQUIRED_KEYS: Final[dict[int, frozenset[str]]] = {
    Kind.INPUT: frozenset({"writes", "to"}),
    Kind.OUTPUT: frozenset({"step", "task", "node", "writes"}),
    Kind.ERROR: frozenset({"step", "task", "node", "type", "message"}),
    Kind.INTERRUPT: frozenset({"step", "tasks"}),
    Kind.RESUME: frozenset({"step", "answers"}),
}
"""The keys that the data of each kind of event always has."""

_CHARS: Final = 80


def kind_of(event: RecordedEvent) -> str:
    """The name of the event's kind if a graph wrote it, else the kind's number."""
    if event.kind == FORK:
        return "fork"
    data = event.data
    if isinstance(data, dict):
        required = _REQUIRED_KEYS.get(event.kind)
        if required is not None and required <= data.keys():
            return Kind(event.kind).name.lower()
        if langgraph.is_event(event):
            return langgraph.KINDS[event.kind]
        if event.kind == Kind.UPDATE and ("updates" in data or {"node", "writes"} <= data.keys()):
            return "update"
    return str(event.kind)


def node_of(event: RecordedEvent) -> str:
    """The node that wrote the event; several, separated by commas, for an edit as several nodes."""
    data = event.data if isinstance(event.data, dict) else {}
    nodes = [part.get("node") for part in mappings(data.get("updates", [data]))]
    return ", ".join(node for node in nodes if isinstance(node, str))


def step_of(event: RecordedEvent) -> int | None:
    """The superstep that the event belongs to, if it names one."""
    step = event.data.get("step") if isinstance(event.data, dict) else None
    return step if type(step) is int else None


def interrupts(data: Any) -> Iterator[Mapping[str, Any]]:
    """The interrupts of an ``interrupt`` event, each with its ``node``, ``id`` and ``value``."""
    for task in mappings(data.get("tasks") if isinstance(data, dict) else None):
        for each in mappings(task.get("interrupts")):
            yield {"node": task.get("node"), "id": each.get("id"), "value": each.get("value")}


def written_keys(data: Mapping[str, Any]) -> list[str]:
    """The state keys that an event writes, in order."""
    writes = data.get("writes", ())
    pairs = writes if isinstance(writes, dict) else [w[0] for w in _list(writes) if _list(w)]
    return list(dict.fromkeys(text_of(key) for key in pairs))


def next_nodes(data: Mapping[str, Any]) -> list[str]:
    """The nodes that an event schedules."""
    found = [text_of(node) for name in ("to", "later") for node in _list(data.get(name))]
    pairs = [each for name in ("sends", "joins") for each in _list(data.get(name))]
    return found + [text_of(each[0]) for each in pairs if isinstance(each, list) and each]


def sentence(event: RecordedEvent) -> str:
    """What the event records, in one line."""
    data, kind = event.data, kind_of(event)
    match kind:
        case "input":
            run = f" {_word(data['run'])}" if "run" in data else ""
            return f"run{run} begins with {_keys(data)}{_goto(data)}"
        case "output":
            return f"wrote {_keys(data)}{_goto(data)}"
        case "error":
            attempts = data.get("attempts")
            times = (
                f" after {_word(attempts)} attempts"
                if type(attempts) is int and attempts > 1
                else ""
            )
            message = line(data["message"], chars=_CHARS)
            return f"failed{times}: {_word(data['type'])}: {message}"
        case "interrupt":
            asked = [
                f"{_word(each['node'])}: {line(each['value'], chars=_CHARS)}"
                for each in interrupts(data)
            ]
            return f"asks {'; '.join(asked)}" if asked else "paused before or after a node"
        case "resume":
            values = [line(each.get("value"), chars=_CHARS) for each in mappings(data["answers"])]
            by = f" by {_word(data['by'])}" if "by" in data else ""
            return f"answered {'; '.join(values)}{by}{_goto(data)}"
        case "update":
            parts = mappings(data.get("updates", [data]))
            return "; ".join(f"edited {_keys(part)}{_goto(part)}" for part in parts)
        case "checkpoint" | "writes" if "checkpoint" in data:
            place = f" in {_word(data['ns'])}" if data.get("ns") else ""
            name = f"{_word(data['checkpoint'])}{place}"
            if kind == "writes":
                return f"wrote {_keys(data)} for {name}"
            changed = data.get("changed")
            found = list(changed) if isinstance(changed, dict) else []
            return f"{name} changes {', '.join(map(_word, found)) or 'nothing'}"
        case "fork":
            source = data.get("source") if isinstance(data, dict) else None
            if isinstance(source, list | tuple) and len(source) == 3:
                same = _word(source[0]) == str(event.thread_key)
                where = "" if same else f" of another thread ({_word(source[0])})"
                return f"continues from seq {_word(source[2])}{where}"
            return "continues from another position"
        case _:
            return line(data, chars=_CHARS)


@dataclass(slots=True)
class Summary:
    """Counts over the events of a log.

    Attributes:
        events: by kind.
        tasks: outputs by node.
        errors: by the type of the error.
        interrupts: interrupt values recorded.
        resumes: resume values recorded.
    """

    events: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    interrupts: int = 0
    resumes: int = 0

    def add(self, event: RecordedEvent) -> None:
        """Count an event."""
        kind = kind_of(event)
        self.events[kind] += 1
        if kind == "output":
            self.tasks[node_of(event)] += 1
        elif kind == "error":
            self.errors[text_of(event.data["type"])] += 1
        elif kind == "interrupt":
            self.interrupts += sum(1 for _ in interrupts(event.data))
        elif kind == "resume":
            self.resumes += len(mappings(event.data["answers"]))

    def as_json(self) -> dict[str, Any]:
        """The counts as ``--json`` prints them."""
        return {
            "events": dict(self.events),
            "runs": self.events["input"],
            "tasks": dict(self.tasks),
            "errors": dict(self.errors),
            "questions": self.interrupts,
            "answers": self.resumes,
            "edits": self.events["update"],
            "forks": self.events["fork"],
        }

    def lines(self) -> Iterator[str]:
        """The counts as people read them."""
        count = self.events
        yield (
            f"{counted(count.total(), 'event')}: {counted(count['input'], 'run')}, "
            f"{counted(self.tasks.total(), 'task')} done, {counted(self.errors.total(), 'error')}, "
            f"{counted(self.interrupts, 'question')}, {counted(self.resumes, 'answer')}, "
            f"{counted(count['update'], 'edit')}, {counted(count['fork'], 'fork')}"
        )
        for name, found in (("tasks", self.tasks), ("errors", self.errors)):
            if found:
                yield f"{name}: " + ", ".join(
                    f"{safe(each) or '?'} {times}×" for each, times in found.most_common()
                )


def _word(value: Any) -> str:
    return safe(text_of(value))[:_CHARS]


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def mappings(found: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; none if it is something else."""
    return [each for each in _list(found) if isinstance(each, dict)]


def _keys(data: Mapping[str, Any]) -> str:
    return ", ".join(map(_word, written_keys(data))) or "nothing"


def _goto(data: Mapping[str, Any]) -> str:
    nodes = next_nodes(data)
    return f" → {', '.join(map(_word, nodes))}" if nodes else ""
