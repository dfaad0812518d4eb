"""What to run, and what to record: pure functions from state and results to event data.

No I/O, no threads, no clock. A driver asks which tasks are due, runs each through
``arguments`` and ``outcome``, and appends what comes back. ``outcome`` also follows the
node's edges, so that every routing decision is in the event that caused it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from graph import events
from graph.builder import Branch, Topology
from graph.errors import InvalidUpdateError
from graph.events import Data, Goto, Writes, unpack
from graph.fold import State, Task
from graph.schema import MISSING, StateSchema
from graph.types import END, START, Command, Send

Call = Callable[[Branch, Any], Awaitable[Any]]
"""Calls a conditional edge with a state, adding what else it accepts (config, writer). The
coroutines here wait for that and nothing else."""


def due(state: State) -> list[tuple[int, Task]]:
    """The tasks of the frontier that have no output yet, with their indices."""
    return [(i, task) for i, task in enumerate(state.frontier) if i not in state.pending]


def argument(topology: Topology, state: State, task: Task) -> Any:
    """What the node of a task is called with: its Send's argument, or its view of the state.

    Lists, dicts and sets at the top level are the task's own copies: a node that changes
    them in place changes nothing for the others, nor what the log says.
    """
    if task.arg is not MISSING:
        return task.arg
    return view(topology.nodes[task.node].schema, state.values)


def view(schema: StateSchema, values: Mapping[str, Any]) -> Any:
    """The state as a node sees it, in the form that the schema asks for."""
    return schema.coerce({key: own(values[key]) for key in schema.keys if key in values})


def own(value: Any) -> Any:
    """A list, dict or set of its own for whoever gets it; what is in it is shared."""
    return value.copy() if type(value) in (list, dict, set) else value


async def outcome(topology: Topology, state: State, index: int, result: Any, call: Call) -> Data:
    """The output event of a task from what its node returned.

    Raises:
        InvalidUpdateError: the result does not fit the state, or leads to no node.
    """
    task = state.frontier[index]
    node = task.node
    writes, gotos = _read_result(topology, node, result)
    goto = await _follow(topology, node, state, writes, gotos, call)
    return events.output_data(state.step + 1, index, node, writes, goto)


async def begin(
    topology: Topology,
    state: State,
    given: Any,
    run: str | None,
    metadata: Mapping[str, Any],
    call: Call,
) -> Data:
    """The input event that begins a run."""
    if isinstance(given, Command):
        writes, gotos = _read_result(topology, START, given)
    else:
        writes, gotos = prepared(topology, topology.input.to_writes(given)), []
    goto = await _follow(topology, START, state, writes, gotos, call)
    return events.input_data(run, writes, goto, metadata)


async def edit(
    topology: Topology,
    state: State,
    values: Any,
    as_node: str,
    metadata: Mapping[str, Any],
    call: Call,
) -> Data:
    """The update event that edits the state as if ``as_node`` had written it.

    Raises:
        InvalidUpdateError: there is no such node, or the values do not fit.
    """
    if as_node not in topology.nodes and as_node not in (START, END):
        raise InvalidUpdateError(
            f"as_node={as_node!r} is not a node (there are {', '.join(map(repr, topology.nodes))})"
        )
    writes, gotos = _read_result(topology, as_node, values)
    goto = await _follow(topology, as_node, state, writes, gotos, call)
    return events.update_data(as_node, writes, goto, metadata)


def infer_as_node(topology: Topology, state: State) -> str:
    """Whose update an edit is taken to be, when the caller does not say.

    Raises:
        InvalidUpdateError: several nodes wrote last.
    """
    if len(topology.nodes) == 1:
        return next(iter(topology.nodes))
    if not state.last:
        return START
    if len(state.last) == 1:
        return state.last[0]
    raise InvalidUpdateError(
        f"nodes {', '.join(state.last)} wrote last, side by side; say which of them (or which "
        "other node) the update comes from: update_state(config, values, as_node=…)"
    )


def prepared(topology: Topology, writes: Writes) -> list[tuple[str, Any]]:
    """Writes as they are recorded: with whatever their reducers would else choose at random,
    and apart from what the node may go on changing.
    """
    return [
        (key, own(topology.channels[key].prepare(value) if key in topology.channels else value))
        for key, value in writes
    ]


def claim(topology: Topology, step: int, writers: dict[str, str], output: Data) -> None:
    """Note which node writes which single-valued key in a superstep; refuse the second one.

    Args:
        writers: key to node, of the outputs so far; updated.

    Raises:
        InvalidUpdateError: naming the key, both nodes and the remedy.
    """
    node: str = output["node"]
    keys = [
        key
        for key, _ in unpack(output["writes"])
        if key not in topology.channels or topology.channels[key].reducer is None
    ]
    for key in keys:
        if key in writers or keys.count(key) > 1:
            raise InvalidUpdateError(
                f"{key!r} was written twice in superstep {step}: by {writers.get(key, node)!r} "
                f"and by {node!r}. It holds one value; to merge several, give it a reducer: "
                f"{key}: Annotated[<type>, <function of (old, new)>]"
            )
    writers |= dict.fromkeys(keys, node)


def _read_result(
    topology: Topology, node: str, result: Any
) -> tuple[list[tuple[str, Any]], list[str | Send]]:
    """Split what a node returned into writes and where it wants to go."""
    writes: list[tuple[str, Any]] = []
    gotos: list[str | Send] = []
    parts = result if _is_parts(result) else [result]
    for part in parts:
        if isinstance(part, Command):
            goto = part.goto
            gotos += [goto] if isinstance(goto, str | Send) else list(goto)
            part = part.update
        if part is not None:
            writes += _to_writes(topology, node, part)
    return prepared(topology, writes), gotos


def _is_parts(result: Any) -> bool:
    return isinstance(result, list | tuple) and any(isinstance(p, Command) for p in result)


def _to_writes(topology: Topology, node: str, update: Any) -> list[tuple[str, Any]]:
    try:
        return topology.to_writes(update)
    except InvalidUpdateError as error:
        raise InvalidUpdateError(f"node {node!r}: {error}") from error


def _after(topology: Topology, state: State, writes: Writes) -> dict[str, Any]:
    """The values as this task alone leaves them: what its conditional edges decide on."""
    values = dict(state.values)
    for key, value in writes:
        channel = topology.channels.get(key)
        if channel is None or channel.reducer is None:
            values[key] = value
        else:
            values[key] = channel.reduce(values.get(key, MISSING), [value])
    return values


async def _follow(
    topology: Topology,
    node: str,
    state: State,
    writes: Writes,
    gotos: Iterable[str | Send],
    call: Call,
) -> Goto:
    """Where the edges of a node lead: its own, its conditional ones, and what it asked for."""
    targets: list[str | Send] = [*topology.edges.get(node, ()), *gotos]
    branches = topology.branches.get(node, ())
    if branches:
        spec = topology.nodes.get(node)
        default = spec.schema if spec else topology.state
        values = _after(topology, state, writes)
        for branch in branches:
            targets += _decide(branch, await call(branch, view(branch.schema or default, values)))
    nodes: dict[str, None] = {}
    later: dict[str, None] = {}
    sends: list[tuple[str, Any]] = []
    for target in targets:
        name = target.node if isinstance(target, Send) else target
        if name == END and not isinstance(target, Send):
            continue
        if name not in topology.nodes:
            raise InvalidUpdateError(
                f"node {node!r} leads to {name!r}, which the graph does not have "
                f"(it has {', '.join(map(repr, topology.nodes))})"
            )
        if isinstance(target, Send):
            sends.append((name, target.arg))
        elif topology.nodes[name].defer:
            later[name] = None
        else:
            nodes[name] = None
    joins = [
        (join.target, join.sources, topology.nodes[join.target].defer)
        for join in topology.joins
        if node in join.sources and join.target != END
    ]
    return Goto(tuple(nodes), tuple(later), tuple(sends), tuple(joins))


def _decide(branch: Branch, decision: Any) -> list[str | Send]:
    several = isinstance(decision, Sequence) and not isinstance(decision, str)
    found: list[str | Send] = []
    for choice in decision if several else [decision]:
        if isinstance(choice, Send) or branch.ends is None:
            found.append(choice)
        elif choice in branch.ends:
            found.append(branch.ends[choice])
        else:
            raise InvalidUpdateError(
                f"conditional edge {branch.name!r} returned {choice!r}, which is none of "
                f"{', '.join(map(repr, branch.ends))}"
            )
    return found
