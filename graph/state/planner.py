"""Plans what to run and what to record: pure functions from states and results to event data.

No I/O, no threads, no clock. The driver asks which tasks are due, calls each node with its
``argument``, and appends its ``outcome``. ``outcome`` also follows the node's edges, so that every
routing decision is in the event that caused it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from graph.build.channels import MISSING
from graph.build.foreign import taken
from graph.build.schema import StateSchema, own
from graph.build.topology import Branch, Graph, Topology
from graph.errors import AmbiguousResumeError, InvalidUpdateError
from graph.state import events, results
from graph.state.events import Data, Goto, Writes, unpack
from graph.state.state import Asked, State, Task
from graph.types import END, INPUT, START, Command, Overwrite, Send, StateUpdate

NOTHING_ASKED: Final = (
    "no interrupt of this thread waits for a resume value; continue with invoke(None, config), or, "
    "to resume an earlier interrupt with another value, pass the config of its checkpoint (see "
    "get_state_history(config))"
)

EvaluateEdge = Callable[[Branch, Any], Awaitable[Any]]
"""Calls the function of a conditional edge with a state, and with the ``config``, ``writer`` or
``runtime`` that it takes. The coroutines here await nothing else."""


def due(state: State) -> list[tuple[int, Task]]:
    """The tasks of the frontier that have no output yet, with their indices."""
    return [(i, task) for i, task in enumerate(state.frontier) if i not in state.pending]


def shown_argument(topology: Topology, state: State, task: Task) -> Any:
    """The argument of a task's node as streams show it: of a graph, with messages as objects."""
    found = argument(topology, state, task)
    return dict(as_shown(topology, found)) if topology.showing and type(found) is dict else found


def argument(topology: Topology, state: State, task: Task) -> Any:
    """The argument that a task's node is called with: that of its ``Send``, or the state.

    Lists, dicts and sets at the top level are copies of the task's own. A node that changes them in
    place changes neither the state of other tasks nor the log. A graph that is a node gets values
    as they are recorded, so that its log holds the same.
    """
    if task.arg is not MISSING:
        return task.arg
    spec = topology.nodes[task.node]
    if isinstance(spec.action, Graph) and issubclass(spec.schema.cls, dict):
        return spec.schema.coerce({key: own(value) for key, value in state.values.items()})
    return view(topology, spec.schema, state.values)


def view(topology: Topology, schema: StateSchema, values: Mapping[str, Any]) -> Any:
    """The state in the form that a node's schema declares."""
    known: Mapping[str, Any] = {key: values[key] for key in schema.keys if key in values}
    if topology.showing:
        known = as_shown(topology, known)
    return schema.coerce({key: own(each) for key, each in known.items()})


def as_shown(topology: Topology, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Recorded values as nodes and callers get them."""
    shows = topology.showing
    found = {key: show(values[key]) for key, show in shows.items() if key in values}
    return {**values, **found} if found else values


async def outcome(
    topology: Topology,
    state: State,
    index: int,
    result: Any,
    evaluate: EvaluateEdge,
    handler: str | None = None,
) -> tuple[Data, Writes | None]:
    """The output event of a task, made from the result of its node.

    Args:
        handler: the name of the error handler whose result it is; the node's edges lead nowhere.

    Returns:
        Its data; and its writes as they are streamed, if they are not as recorded.

    Raises:
        InvalidUpdateError: the result does not fit the state, or names an unknown node.
    """
    task = state.frontier[index]
    node = task.node
    given, gotos, above = results.read(topology, node, result)
    writes = prepared(topology, given)
    if handler is None:
        goto = await _follow(topology, node, state, writes, gotos, evaluate)
    else:
        goto = results.towards(topology, node, gotos)
    data = events.output_data(state.step + 1, index, node, writes, goto, above)
    if handler is not None:
        data["handler"] = handler
    is_graph = isinstance(topology.nodes[node].action, Graph)
    return data, _streamed(topology, given, writes, is_graph) if topology.showing else None


async def begin(
    topology: Topology,
    state: State,
    given: Any,
    run: str | None,
    metadata: Mapping[str, Any],
    evaluate: EvaluateEdge,
    token: str = "",
) -> Data:
    """The input event that begins a run.

    A ``Command`` to a thread that has run before goes only to its own targets, not along START's
    edges.
    """
    if isinstance(given, Command):
        writes, gotos = _commanded(topology, state, given)
    else:
        writes, gotos = prepared(topology, topology.input.to_writes(given, defaults=True)), []
    if isinstance(given, Command) and state.started:
        goto = results.towards(topology, START, gotos)
    else:
        goto = await _follow(topology, START, state, writes, gotos, evaluate)
    data = events.input_data(run, writes, goto, metadata, token)
    if isinstance(given, Command):
        return {**data, "command": True}
    # As in LangGraph the input has a step of its own, before the one in which it is applied.
    return {**data, "step": state.step + 2} if state.started else data


def resume(topology: Topology, state: State, given: Command[Any], by: Any = None) -> Data:
    """The resume event of a ``Command``: its resume values, writes and targets, and who gave it.

    Raises:
        InvalidUpdateError: a resume value for an interrupt that is not pending, one value for
            several interrupts, or an update that does not fit.
    """
    resumed = [] if given.resume is None else _match_resume_values(state, given.resume)
    writes, gotos = _commanded(topology, state, given)
    goto = results.towards(topology, START, gotos)
    return events.resume_data(state.step + 1, resumed, writes, goto, by)


def pending_interrupts(state: State) -> dict[str, Data]:
    """The pending interrupts by id: each as recorded, and the index of its task."""
    found: dict[str, Data] = {}
    for task in sorted(state.interrupts):
        for each in state.interrupts[task]["interrupts"]:
            found[each["id"]] = {**each, "task": task}
    return found


def known(state: State, task: int) -> dict[int | str, Asked]:
    """The interrupts of a task so far: its own by ``nth``, those of its subgraphs by id."""
    found = {
        key: each._replace(answer=own(each.answer))
        for key, each in state.resume_values.get(task, {}).items()
    }
    for each in state.interrupts.get(task, {}).get("interrupts", ()):
        found[each.get("nth", each["id"])] = Asked(each["value"])
    return found


def resume_subgraph(state: State, given: Mapping[int | str, Asked]) -> Data | None:
    """The resume event of a subgraph: those resume values of the task above that are for it."""
    pending = pending_interrupts(state)
    resumed = [
        _resumed(pending[name], given[name].answer)
        for name in pending
        if name in given and given[name].answer is not MISSING
    ]
    return events.resume_data(state.step + 1, resumed, [], Goto()) if resumed else None


def _match_resume_values(state: State, given: Any) -> list[Data]:
    pending = pending_interrupts(state)
    # Interrupt values are not quoted: texts of errors end up in logs and trackers.
    listed = ", ".join(
        f"{name} (node {state.frontier[each['task']].node!r})" for name, each in pending.items()
    )
    if isinstance(given, Mapping) and given and pending.keys() >= given.keys():
        return [_resumed(pending[name], value) for name, value in given.items()]
    if not pending:
        raise InvalidUpdateError(NOTHING_ASKED)
    if isinstance(given, Mapping) and any(_is_id(name) for name in given):
        unknown = ", ".join(str(name) for name in given if name not in pending)
        raise InvalidUpdateError(
            f"this thread has no pending interrupt {unknown}; it has: {listed}"
        )
    if len(pending) > 1:
        raise AmbiguousResumeError(
            f"{len(pending)} interrupts are pending, so name those to resume: "
            f"Command(resume={{id: value}}) with one or more of {listed}"
        )
    (interrupt,) = pending.values()
    return [_resumed(interrupt, given)]


def _resumed(interrupt: Data, value: Any) -> Data:
    """The entry of a resume event for one interrupt."""
    found: Data = {name: interrupt[name] for name in ("task", "id", "nth") if name in interrupt}
    return {**found, "value": value}


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and len(name) == 32 and set(name) <= set("0123456789abcdef")


def _commanded(
    topology: Topology, state: State, command: Command[Any]
) -> tuple[list[tuple[str, Any]], list[str | Send]]:
    """The writes and targets of a command that is an input."""
    if command.graph is not None:
        raise InvalidUpdateError("Command(graph=…) is for nodes of subgraphs, not for inputs")
    given, gotos, _ = results.read(topology, START, command)
    writes = prepared(topology, given)
    claim(topology, state.step + 1, {}, START, writes)
    return writes, gotos


async def edit(
    topology: Topology,
    state: State,
    updates: Sequence[StateUpdate],
    metadata: Mapping[str, Any],
    evaluate: EvaluateEdge,
) -> Data:
    """The update event that edits the state as if nodes had written it, side by side.

    Raises:
        InvalidUpdateError: an unknown node, values that do not fit, or no node given where it
            cannot be inferred.
    """
    parts: list[tuple[str, Writes, Goto]] = []
    writers: dict[str, str] = {}
    for values, as_node in updates:
        values = taken(values)
        if as_node is None and len(updates) > 1:
            raise InvalidUpdateError(
                "several updates in one superstep each need their node: StateUpdate(values, "
                "as_node)"
            )
        node = START if as_node == INPUT else as_node or infer_as_node(state)
        if node not in topology.nodes and node not in (START, END):
            raise InvalidUpdateError(
                f"as_node={node!r} is not a node; the nodes are "
                f"{', '.join(map(repr, topology.nodes))}"
            )
        if isinstance(values, Command) and values.resume is not None:
            raise InvalidUpdateError(
                "an edit cannot resume an interrupt; call invoke(Command(resume=…), config)"
            )
        if as_node == INPUT and not isinstance(values, Command):
            values = dict(topology.input.to_writes(values, defaults=True)) or None
        given, gotos, above = results.read(topology, node, values)
        writes = prepared(topology, given)
        if above is not None:
            raise InvalidUpdateError("Command(graph=…) is for nodes of subgraphs, not for edits")
        parts.append((node, writes, await _follow(topology, node, state, writes, gotos, evaluate)))
        claim(topology, state.step + 1, writers, node, writes)
    return events.update_data(parts, metadata)


def infer_as_node(state: State) -> str:
    """The node that an edit is attributed to by default: the one that wrote last.

    So what was due stays due: tasks that wait or failed run again, and ask again.

    Raises:
        InvalidUpdateError: several nodes wrote last, or some tasks of a superstep have finished and
            others have not: no node's edges lead to what is left.
    """
    if state.pending:
        left = ", ".join(repr(task.node) for _, task in due(state))
        condition = "interrupts are pending" if state.interrupts else f"{left} did not finish"
        raise InvalidUpdateError(
            f"{condition} in a superstep in which other tasks have finished; name the node whose "
            "edges the edit follows, which drops the unfinished tasks: "
            "update_state(config, values, as_node=…); or write and continue with "
            "invoke(Command(update=…), config)"
        )
    if not state.last:
        return START
    if len(state.last) == 1:
        return state.last[0]
    raise InvalidUpdateError(
        f"nodes {', '.join(state.last)} wrote last, in one superstep; name the node that the "
        "update is attributed to: update_state(config, values, as_node=…)"
    )


def shown(topology: Topology, state: State, live: bool = False) -> Mapping[str, Any]:
    """The values that readers get: with the finished tasks of an interrupted superstep.

    Args:
        live: also with those of a superstep that runs or failed, for the current end of a thread.

    Raises:
        ReducerError: a reducer cannot merge what was written, in a superstep without a failure.
    """
    values = recorded(topology, state, live)
    return as_shown(topology, values) if topology.showing else values


def recorded(topology: Topology, state: State, live: bool = False) -> Mapping[str, Any]:
    """The same as they are recorded, for a graph around this one."""
    if not (state.pending and (live or state.interrupts)):
        return state.values
    values = state.values
    for task in sorted(state.pending):
        for write in unpack(state.pending[task]):
            try:
                values = _after(topology, values, [write])
            except Exception as error:
                if state.errors:  # a failed superstep stays readable; the task's error says why
                    continue
                key, update = write
                failure = topology.channels[key].failure(values.get(key, MISSING), [update])
                failure.node = state.pending[task]["node"]
                raise failure from error
    return values


def prepared(topology: Topology, writes: Writes) -> list[tuple[str, Any]]:
    """Writes as they are recorded: prepared by their reducers, and copied, because the node may
    still change its own lists, dicts and sets.
    """
    return [
        (key, own(topology.channels[key].prepare(value) if key in topology.channels else value))
        for key, value in writes
    ]


def _streamed(
    topology: Topology, given: Writes, recorded: Writes, is_graph: bool
) -> list[tuple[str, Any]]:
    """Writes as streams show them: a node's as it returned them, a graph's as callers get them."""
    if is_graph:
        return list(as_shown(topology, dict(recorded)).items())
    return [
        (key, topology.channels[key].streamed(update, value) if key in topology.showing else value)
        for (key, update), (_, value) in zip(given, recorded, strict=True)
    ]


def claim(
    topology: Topology,
    step: int,
    writers: dict[str, str],
    node: str,
    writes: Iterable[tuple[str, Any]],
) -> None:
    """Note which node writes a key without a reducer in a superstep, or overwrites one; refuse a
    second one.

    Args:
        writers: key → node, of the outputs so far; updated.

    Raises:
        InvalidUpdateError: names the key, the writers and the remedy.
    """
    keys = [
        key
        for key, value in writes
        if key not in topology.channels
        or topology.channels[key].reducer is None
        or type(value) is Overwrite
    ]
    for key in keys:
        if key in writers or keys.count(key) > 1:
            first = writers.get(key, node)
            by = f"by {node!r}" if first == node else f"by {first!r} and by {node!r}"
            raise InvalidUpdateError(
                f"{key!r} was written twice in superstep {step}: {by}; it takes one value; "
                f"to merge several, give it a reducer: "
                f"{key}: Annotated[<type>, <function of (old, new)>]"
            )
    writers |= dict.fromkeys(keys, node)


def _after(topology: Topology, before: Mapping[str, Any], writes: Writes) -> dict[str, Any]:
    """The values after this task's writes alone, which its conditional edges receive."""
    values = dict(before)
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
    evaluate: EvaluateEdge,
) -> Goto:
    """The targets of a node: of its edges, its conditional edges and its own ``goto``."""
    targets: list[str | Send] = [*topology.edges.get(node, ()), *gotos]
    branches = topology.branches.get(node, ())
    if branches:
        spec = topology.nodes.get(node)
        default = spec.schema if spec else topology.state
        values = _after(topology, state.values, writes)
        for branch in branches:
            argument = view(topology, branch.schema or default, values)
            targets += results.chosen(branch, await evaluate(branch, argument))
    joins = [
        (join.target, join.sources, topology.nodes[join.target].defer)
        for join in topology.joins
        if node in join.sources and join.target != END
    ]
    return results.towards(topology, node, targets, joins)
