"""A conversation from a log: who said what, which tools were called, what was asked and answered.

Pure: events in, lines out. It knows the message formats of OpenAI, Anthropic, LangChain and plain
dicts. What a node wrote besides messages is one line in brief.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import Position, RecordedEvent
from eventstore.explain import describe
from eventstore.explain.values import cut, document, line, safe, simple, text_of

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_OF_LANGGRAPH: Final = frozenset({"__interrupt__", "__error__", "__resume__"})
_BRIEF_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a transcript.

    Attributes:
        at: the event that it comes from.
        kind: ``message``, ``question``, ``answer``, ``error``, ``edit``, ``removed`` or ``wrote``.
        role: who speaks: ``user``, ``assistant``, ``system``, ``tool`` or another role; of other
            lines the node.
        text: what was said; of other values a line of JSON.
        calls: tool calls, each with ``id``, ``name`` and ``arguments``.
        answers_call: of a tool's result: the id of its call.
        node: the node that wrote it; empty for an input.
        message_id: of a message.
    """

    at: Position
    kind: str
    role: str
    text: str
    recorded_us: int
    calls: tuple[Mapping[str, Any], ...] = ()
    answers_call: str | None = None
    node: str = ""
    message_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The line as JSON."""
        found: dict[str, Any] = {
            "seq": self.at.seq,
            "kind": self.kind,
            "role": self.role,
            "text": self.text,
        }
        if self.node:
            found["node"] = self.node
        if self.message_id is not None:
            found["id"] = self.message_id
        if self.calls:
            found["tool_calls"] = [dict(call) for call in self.calls]
        if self.answers_call is not None:
            found["tool_call_id"] = self.answers_call
        return found


def transcript(events: Iterable[RecordedEvent]) -> Iterator[Line]:
    """The lines of a conversation.

    Args:
        events: along a lineage, oldest first; those of LangGraph made readable
            (``eventstore.explain.langgraph``).
    """
    for event in events:
        yield from _lines(event)


def of_values(at: Position, values: Mapping[str, Any], recorded_us: int) -> Iterator[Line]:
    """The messages in the values of a state, for a history that begins with it."""
    for line_ in _written((at, recorded_us), "", dict(values), "wrote"):
        if line_.kind == "message":
            yield line_


def brief(value: Any, chars: int) -> str:
    """A value in one line for people: what messages say, and other values as JSON."""
    items = value if isinstance(value, list | tuple) else [value]
    said = _messages((Position(0, "", 0), 0), "", items, "wrote")
    return cut("; ".join(map(_said, said)), chars) if said else line(value, chars=chars)


def in_brief(event: RecordedEvent) -> str | None:
    """What the messages of an event say, in one line; ``None``: it holds none."""
    found = list(_lines(event))
    if not any(each.kind in ("message", "removed") or each.calls for each in found):
        return None
    return "; ".join(map(_said, found))


def _said(found: Line) -> str:
    who = found.role if found.kind == "message" else f"{found.kind} {found.role}"
    name = found.extra.get("name")
    shown = [safe(f"{who} {name}" if name else who) + ":"]
    shown += [safe(" ".join(found.text.split()))] if found.text else []
    return " ".join([*shown, *(f"→ {call_text(call)}" for call in found.calls)])


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as people write one: ``refund(order="A-7", amount=20.0)``."""
    given = call["arguments"]
    if isinstance(given, str):
        with suppress(ValueError):
            given = json.loads(given)
    if isinstance(given, Mapping):
        inside = ", ".join(f"{safe(text_of(name))}={line(given[name])}" for name in given)
    else:
        inside = "" if given is None else line(given)
    return f"{safe(text_of(call['name']))}({inside})"


def _lines(event: RecordedEvent) -> Iterator[Line]:
    kind, data = describe.kind_of(event), event.data
    place = (event.position, event.recorded_us)
    match kind:
        case "input" | "output":
            node = describe.node_of(event)
            yield from _written(place, node, data.get("writes"), "wrote")
        case "update":
            for part in describe.mappings(data.get("updates", [data])):
                node = text_of(part.get("node", ""))
                yield from _written(place, node, part.get("writes"), "edit")
        case "error":
            node, text = text_of(data["node"]), f"{text_of(data['type'])}: {_text(data['message'])}"
            yield Line(place[0], "error", node, text, place[1], node=node)
        case "interrupt":
            for each in describe.interrupts(data):
                node = text_of(each["node"])
                text = _text(each["value"])
                extra = {"id": simple(each["id"])}
                yield Line(place[0], "question", node, text, place[1], node=node, extra=extra)
        case "resume":
            for each in describe.mappings(data["answers"]):
                extra = {"id": simple(each.get("id"))}
                if "by" in data:
                    extra["by"] = text_of(data["by"])
                text = _text(each.get("value"))
                yield Line(place[0], "answer", "user", text, place[1], extra=extra)
            if "writes" in data:
                yield from _written(place, "", data["writes"], "edit")
        case "checkpoint":
            changed, nodes = data.get("changed"), data.get("nodes") or {}
            by_node: dict[str, dict[str, Any]] = {}
            for name, value in changed.items() if isinstance(changed, dict) else ():
                if not str(name).startswith(("branch:", "__")):
                    is_added = isinstance(value, dict) and [*value] == ["added"]
                    writes = by_node.setdefault(nodes.get(name, ""), {})
                    writes[name] = value["added"] if is_added else value
            unnamed = "input" if "nodes" in data else "state"
            for node, writes in by_node.items():
                yield from _written(place, node, writes, "wrote", unnamed)
        case "writes":
            node = describe.node_of(event)
            for name, value in _pairs(data.get("writes")):
                if isinstance(name, str) and name in _OF_LANGGRAPH:
                    yield from _of_langgraph(place, node, name, value)


def _of_langgraph(place: tuple[Position, int], node: str, name: str, value: Any) -> Iterator[Line]:
    if name == "__error__":
        yield Line(place[0], "error", node, _text(value), place[1], node=node)
        return
    for each in value if isinstance(value, list | tuple) else [value]:
        text = _text(getattr(each, "value", each))
        if name == "__interrupt__":
            yield Line(place[0], "question", node, text, place[1], node=node)
        else:
            yield Line(place[0], "answer", "user", text, place[1])


def _written(
    place: tuple[Position, int], node: str, writes: Any, kind: str, unnamed: str = "input"
) -> Iterator[Line]:
    rest: dict[str, Any] = {}
    for name, value in _pairs(writes):
        items = value if isinstance(value, list | tuple) else [value]
        messages = _messages(place, node, items, kind)
        yield from messages
        if not messages:
            rest[text_of(name)] = value
    if rest:
        shown = line(rest, chars=_BRIEF_CHARS)
        yield Line(place[0], kind, node or unnamed, shown, place[1], node=node)


def _messages(
    place: tuple[Position, int], node: str, items: Sequence[Any], kind: str
) -> list[Line]:
    """The items as messages; none, if one of them is something else."""
    found = []
    for item in items:
        message = _message(place, node, item, kind)
        if message is None:
            return []
        found.append(message)
    return found


def _pairs(writes: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(writes, dict):
        yield from writes.items()
    elif isinstance(writes, list):
        yield from ((pair[0], pair[1]) for pair in writes if isinstance(pair, list) and pair[1:])


# --- messages ---------------------------------------------------------------------------


def _message(place: tuple[Position, int], node: str, item: Any, kind: str) -> Line | None:
    """A message in any of the known formats; ``None`` if it is something else."""
    plain = item if isinstance(item, dict) else simple(item)
    if not isinstance(plain, dict):
        return None
    if isinstance(plain.get("value"), dict) and "$type" in plain:  # a class that was not loaded
        plain = plain["value"]
    role = plain.get("role") or plain.get("type")
    if not isinstance(role, str) or not ("content" in plain or "tool_calls" in plain):
        if role == "remove" and isinstance(plain.get("id"), str):
            return Line(place[0], "removed", "remove", plain["id"], place[1], node=node)
        return None
    if role == "remove":
        return Line(place[0], "removed", "remove", text_of(plain.get("id")), place[1], node=node)
    text, calls = _content(plain.get("content"))
    calls += [_call(each) for each in describe.mappings(plain.get("tool_calls"))]
    calls = list({document(call): call for call in calls}.values())
    name = plain.get("name")
    return Line(
        place[0],
        "edit" if kind == "edit" else "message",
        _ROLES.get(role, role),
        text,
        place[1],
        tuple(calls),
        text_of(plain["tool_call_id"]) if plain.get("tool_call_id") else None,
        node,
        plain["id"] if isinstance(plain.get("id"), str) else None,
        {"name": name} if isinstance(name, str) and name else {},
    )


def _content(content: Any) -> tuple[str, list[dict[str, Any]]]:
    """The text of a message's content, and the tool calls in it."""
    if content is None:
        return "", []
    if not isinstance(content, list):
        return _text(content), []
    texts, calls = [], list[dict[str, Any]]()
    for block in content:
        if isinstance(block, dict) and block.get("type") in ("tool_use", "tool_call"):
            calls.append(_call(block))
        elif isinstance(block, dict) and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif isinstance(block, dict) and block.get("type") == "tool_result":
            texts.append(_content(block.get("content"))[0])
        else:
            texts.append(_text(block))
    return "\n".join(texts), calls


def _call(found: Mapping[str, Any]) -> dict[str, Any]:
    function = found.get("function")
    inner = function if isinstance(function, dict) else found
    arguments = next((inner[n] for n in ("arguments", "args", "input") if n in inner), None)
    return {
        "id": found.get("id"),
        "name": text_of(inner.get("name", "?")),
        "arguments": simple(arguments),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else line(value, chars=2_000)
