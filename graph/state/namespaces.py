"""Names of the logs of subgraphs, beside the root's log in the same thread.

Pure. The syntax is the event store's (:mod:`eventstore.format.namespaces`): a path of levels, one
for each graph on the way down. The name of a level is that of a node (or ``node/graph`` for a graph
that a node's function calls). Its mark identifies the task: ``node:1a.0`` is task 0 of the
superstep that began at seq 0x1a of the log above; ``node:1a.0.2`` is the third call of that graph
in the task. A subgraph with ``checkpointer=True`` is marked by its branch: ``node``, or ``node:2f``
on the branch that began with the fork at seq 0x2f of the log above.

So a branch never writes to a log of the branch that it left, and the position at which a superstep
began gives the names of its logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from eventstore import Position
from eventstore.format.digests import is_prefix, origin, prefix_ns
from eventstore.format.namespaces import MARK, SEPARATOR, child, join, split

CALL: Final = "/"


class Caller(NamedTuple):
    """Identifies a call of a subgraph with ``checkpointer=True`` while its superstep lasts, also on
    branches.

    Attributes:
        home: a digest of the log in which the superstep originally began.
        began: the seq there.
        task, call: the index of the task in the superstep, and of the call in the task.
    """

    home: str
    began: int
    task: int
    call: int

    def __str__(self) -> str:
        return f"{self.home}.{self.began:x}.{self.task}.{self.call}"

    @classmethod
    def read(cls, text: str) -> Caller:
        """The inverse of ``str``."""
        home, began, task, call = text.split(".")
        return cls(home, int(began, 16), int(task), int(call))


def same_task(one: str, other: str) -> bool:
    """Whether two callers are calls of one task."""
    return one.rpartition(".")[0] == other.rpartition(".")[0]


def home_of(thread_key: int, ns: str) -> str:
    """A short digest of a log, which tells it from its forks and their parents."""
    return blake2b(f"{thread_key:x}|{ns}".encode(), digest_size=6).hexdigest()


def memory(parent: str, name: str, branch: int) -> str:
    """The log of a subgraph with ``checkpointer=True``, on the branch with a fork at ``branch``."""
    return child(parent, name, f"{branch:x}" if branch else "")


def beside(at: Position, ns: str, seq: int) -> Position:
    """A position in another log of the thread that ``at`` belongs to, or of a fork's copy of it."""
    stored = prefix_ns(origin(at.thread_key, at.ns)[0], ns) if is_prefix(at.ns) else ns
    return Position(at.thread_key, stored, seq)


UNNAMED: Final = "LangGraph"
"""The default name of a graph, by which programs find its run among the events of a stream."""


def called(node: str, graph: str) -> str:
    """The name of a graph that a node's function calls, with separators replaced.

    The logs of graphs without a name are called ``graph`` in every database.
    """
    if graph == UNNAMED:
        graph = "graph"
    for character in (SEPARATOR, MARK, CALL):
        graph = graph.replace(character, "_")
    return f"{node}{CALL}{graph}"


def lasting(logs: Mapping[str, int], above: str) -> dict[str, int]:
    """Those of these logs, below the log ``above``, that outlive the task that used them."""
    depth = len(split(above))
    return {ns: seq for ns, seq in logs.items() if all(level.lasts for level in split(ns)[depth:])}


def moved(ns: str, above: str, fork: int) -> str:
    """The name of a log below ``above`` on the branch that begins there with a fork at ``fork``.

    The logs further down begin with a fork, too: at seq 1.
    """
    levels = split(ns)
    depth = len(split(above))
    for index in range(depth, len(levels)):
        level, at = levels[index], fork if index == depth else 1
        rest = level.mark.partition(".")[2]
        levels[index] = level._replace(mark=f"{at:x}" if level.lasts else f"{at:x}.{rest}")
    return join(levels)
