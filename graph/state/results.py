"""What the result of a node or of a conditional edge says: writes, and where it leads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graph.build.foreign import TYPES, refuse_foreign, taken, taken_targets
from graph.build.topology import Branch, Topology
from graph.errors import InvalidUpdateError, UnknownResultError
from graph.state.events import Data, Goto
from graph.types import END, Command, Send


def read(
    topology: Topology, node: str, result: Any
) -> tuple[list[tuple[str, Any]], list[str | Send], Data | None]:
    """Split a node's result into its writes, its targets, and its command for the graph above."""
    writes: list[tuple[str, Any]] = []
    gotos: list[str | Send] = []
    above: Data | None = None
    if type(result) is list:
        result = [taken(each) for each in result]
    elif type(result).__module__ == TYPES:
        result = taken(result)
    parts = result if _is_parts(result) else [result]
    for part in parts:
        if isinstance(part, Command):
            if part.graph is not None:
                above = _for_above(node, part, above)
                continue
            gotos += _gotos(part)
            updates = _updates(part)
        else:
            updates = [part]
        for update in updates:
            writes += _to_writes(topology, node, update)
    return writes, gotos, above


def _updates(command: Command[Any]) -> list[Any]:
    """The updates that a command makes: one, or each of its (key, value) pairs."""
    update = command.update
    if isinstance(update, list | tuple) and all(map(_is_pair, update)):
        return [{key: value} for key, value in update]
    return [update]


def _is_pair(candidate: Any) -> bool:
    return (
        isinstance(candidate, list | tuple)
        and len(candidate) == 2
        and isinstance(candidate[0], str)
    )


def _gotos(command: Command[Any]) -> list[str | Send]:
    goto = taken_targets(command.goto)
    if isinstance(goto, str | Send):
        return [goto]
    if not isinstance(goto, Sequence):
        refuse_foreign(goto)
    return list(goto)


def _for_above(node: str, command: Command[Any], other: Data | None) -> Data:
    if command.graph != Command.PARENT:
        raise InvalidUpdateError(
            f"node {node!r} returned Command(graph={command.graph!r}); graph must be None or "
            "Command.PARENT"
        )
    if other is not None:
        raise InvalidUpdateError(
            f"node {node!r} returned two Commands for the parent graph; return one"
        )
    gotos = [[t.node, t.arg] if isinstance(t, Send) else t for t in _gotos(command)]
    return {"update": command.update, "goto": gotos}


def command_above(data: Data) -> Command[Any]:
    """A recorded command for the graph above, as a ``Command``."""
    gotos = [Send(*target) if isinstance(target, list) else target for target in data["goto"]]
    return Command(update=data["update"], goto=gotos)


def _is_parts(result: Any) -> bool:
    return isinstance(result, list | tuple) and any(isinstance(p, Command) for p in result)


def _to_writes(topology: Topology, node: str, update: Any) -> list[tuple[str, Any]]:
    try:
        return topology.to_writes(update)
    except InvalidUpdateError as error:
        raise InvalidUpdateError(f"node {node!r}: {error}") from error


def towards(
    topology: Topology, node: str, targets: Iterable[str | Send], joins: Sequence[Any] = ()
) -> Goto:
    """Targets, checked and grouped by kind."""
    nodes: dict[str, None] = {}
    later: dict[str, None] = {}
    sends: list[tuple[str, Any]] = []
    for target in targets:
        name = target.node if isinstance(target, Send) else target
        if not isinstance(name, str):
            refuse_foreign(name)
        if name == END and not isinstance(target, Send):
            continue
        if name not in topology.nodes:
            raise InvalidUpdateError(
                f"node {node!r} leads to {name!r}, which is not a node; the nodes are "
                f"{', '.join(map(repr, topology.nodes))}"
            )
        if isinstance(target, Send):
            sends.append((name, target.arg))
        elif topology.nodes[name].defer:
            later[name] = None
        else:
            nodes[name] = None
    return Goto(tuple(nodes), tuple(later), tuple(sends), tuple(joins))


def chosen(branch: Branch, result: Any) -> list[str | Send]:
    """The nodes and sends that the result of a conditional edge stands for."""
    several = isinstance(result, Sequence) and not isinstance(result, str)
    found: list[str | Send] = []
    for given in result if several else [result]:
        choice = taken(given) if type(given).__module__ == TYPES else given
        if isinstance(choice, Send) or branch.ends is None:
            found.append(choice)
        elif choice in branch.ends:
            found.append(branch.ends[choice])
        else:
            raise UnknownResultError(
                f"conditional edge {branch.name!r} returned {choice!r}; expected one of "
                f"{', '.join(map(repr, branch.ends))}"
            )
    return found
