"""What an event says, in words, without the application that wrote it.

Events of a graph's run are known by their form; of others only the number of their kind is known.
Nothing here trusts the form further than it looks: anybody may store anything under any kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import FORK, RecordedEvent
from eventstore.cli.values import counted, line, safe
from graph.state.events import Kind

_MARKS: Final[dict[int, frozenset[str]]] = {
    Kind.INPUT: frozenset({"writes", "to"}),
    Kind.OUTPUT: frozenset({"step", "task", "node", "writes"}),
    Kind.ERROR: frozenset({"step", "task", "node", "type", "message"}),
    Kind.INTERRUPT: frozenset({"step", "tasks"}),
    Kind.RESUME: frozenset({"step", "answers"}),
}
"""What the data of each kind of event has at least."""

_CHARS: Final = 80


def kind_of(event: RecordedEvent) -> str:
    """The name of an event's kind, if it is one of a graph's; else its number."""
    if event.kind == FORK:
        return "fork"
    data = event.data
    if isinstance(data, dict):
        marks = _MARKS.get(event.kind)
        if marks is not None and marks <= data.keys():
            return Kind(event.kind).name.lower()
        if event.kind == Kind.UPDATE and ("updates" in data or {"node", "writes"} <= data.keys()):
            return "update"
    return str(event.kind)


def node_of(event: RecordedEvent) -> str:
    """The node that an event is about; the nodes, for an edit by several."""
    data = event.data if isinstance(event.data, dict) else {}
    found = [part.get("node") for part in _maps(data.get("updates", [data]))]
    return ", ".join(node for node in found if isinstance(node, str))


def step_of(event: RecordedEvent) -> int | None:
    """The superstep that it belongs to, if it says so."""
    step = event.data.get("step") if isinstance(event.data, dict) else None
    return step if type(step) is int else None


@dataclass(slots=True)
class Told:
    """What a log tells, added up.

    Attributes:
        events: by kind.
        tasks: outputs by node.
        errors: by the type of the error.
        asked, answered: questions to people.
    """

    events: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    answered: int = 0

    def add(self, event: RecordedEvent) -> None:
        """Count an event."""
        kind = kind_of(event)
        self.events[kind] += 1
        if kind == "output":
            self.tasks[node_of(event)] += 1
        elif kind == "error":
            self.errors[str(event.data["type"])] += 1
        elif kind == "interrupt":
            self.asked += sum(1 for _ in questions(event.data))
        elif kind == "resume":
            self.answered += len(_maps(event.data["answers"]))

    def plain(self) -> dict[str, Any]:
        """The same as JSON shows it."""
        return {
            "events": dict(self.events),
            "runs": self.events["input"],
            "tasks": dict(self.tasks),
            "errors": dict(self.errors),
            "questions": self.asked,
            "answers": self.answered,
            "edits": self.events["update"],
            "forks": self.events["fork"],
        }

    def lines(self) -> Iterator[str]:
        """The same as people read it."""
        count = self.events
        yield (
            f"{counted(count.total(), 'event')}: {counted(count['input'], 'run')}, "
            f"{counted(self.tasks.total(), 'task')} done, {counted(self.errors.total(), 'error')}, "
            f"{counted(self.asked, 'question')}, {counted(self.answered, 'answer')}, "
            f"{counted(count['update'], 'edit')}, {counted(count['fork'], 'fork')}"
        )
        for name, found in (("tasks", self.tasks), ("errors", self.errors)):
            if found:
                yield f"{name}: " + ", ".join(
                    f"{safe(each) or '?'} {times}×" for each, times in found.most_common()
                )


def questions(data: Any) -> Iterator[Mapping[str, Any]]:
    """What an ``interrupt`` event asks: each with its ``node``, ``id`` and ``value``."""
    for task in _maps(data.get("tasks") if isinstance(data, dict) else None):
        for each in _maps(task.get("interrupts")):
            yield {"node": task.get("node"), "id": each.get("id"), "value": each.get("value")}


def sentence(event: RecordedEvent) -> str:
    """What an event says, in one line."""
    data, kind = event.data, kind_of(event)
    match kind:
        case "input":
            run = f" {_word(data['run'])}" if "run" in data else ""
            return f"run{run} begins with {_keys(data)}{_goto(data)}"
        case "output":
            return f"wrote {_keys(data)}{_goto(data)}"
        case "error":
            attempts = data.get("attempts")
            times = f" after {attempts} attempts" if type(attempts) is int and attempts > 1 else ""
            said = line(data["message"], chars=_CHARS)
            return f"failed{times}: {_word(data['type'])}: {said}"
        case "interrupt":
            asked = [
                f"{_word(q['node'])}: {line(q['value'], chars=_CHARS)}" for q in questions(data)
            ]
            return "asks " + ("; ".join(asked) or "nothing: it stopped before or after a node")
        case "resume":
            answers = [line(each.get("value"), chars=_CHARS) for each in _maps(data["answers"])]
            return f"answered {'; '.join(answers)}{_goto(data)}"
        case "update":
            parts = _maps(data.get("updates", [data]))
            return "; ".join(f"edited {_keys(part)}{_goto(part)}" for part in parts)
        case "fork":
            source = data.get("source") if isinstance(data, dict) else None
            if isinstance(source, list | tuple) and len(source) == 3:
                same = source[0] == event.thread_key
                where = "" if same else f" of another thread ({_word(source[0])})"
                return f"goes on from seq {_word(source[2])}{where}"
            return "goes on from another position"
        case _:
            return line(data, chars=_CHARS)


def _word(value: Any) -> str:
    return safe(str(value))[:_CHARS]


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _maps(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in _list(found) if isinstance(each, dict)]


def written(data: Mapping[str, Any]) -> list[str]:
    """The keys that an event writes, in order."""
    writes = data.get("writes", ())
    pairs = writes if isinstance(writes, dict) else [w[0] for w in _list(writes) if _list(w)]
    return list(dict.fromkeys(str(key) for key in pairs))


def _keys(data: Mapping[str, Any]) -> str:
    return ", ".join(map(_word, written(data))) or "nothing"


def led_to(data: Mapping[str, Any]) -> list[str]:
    """The nodes to which an event leads."""
    found = [str(node) for name in ("to", "later") for node in _list(data.get(name))]
    pairs = [each for name in ("sends", "joins") for each in _list(data.get(name))]
    return found + [str(each[0]) for each in pairs if isinstance(each, list) and each]


def _goto(data: Mapping[str, Any]) -> str:
    nodes = led_to(data)
    return f" → {', '.join(map(_word, nodes))}" if nodes else ""
