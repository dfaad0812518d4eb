"""Names of the logs that subgraphs keep beside the root's, within their thread.

Pure. The rule of names is the event store's (:mod:`eventstore.format.namespaces`): a path of
levels, one for each graph on the way down. A level's name is a node's (or ``node/graph`` for a
graph that a node's function calls). Its mark names the task: ``node:1a.0`` is the superstep that
began at seq 0x1a of the log above, index 0 in its frontier; ``node:1a.0.2`` is the third call of
that graph there. A subgraph with ``checkpointer=True`` is marked by its branch: ``node``, and
``node:2f`` on the branch that began with the fork at seq 0x2f of the log above.

So a branch never writes to a log of the branch that it left, and anyone who knows where a
superstep began knows the names of its logs.
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
    """A call of a graph that remembers, for as long as its superstep lasts, on branches too.

    Attributes:
        home: a digest of the log in which the superstep first began.
        began: the seq there.
        task, call: which of its tasks, and which of that one's calls.
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
    """Names a log within the logs that can lead to one another."""
    return blake2b(f"{thread_key:x}|{ns}".encode(), digest_size=6).hexdigest()


def memory(parent: str, name: str, branch: int) -> str:
    """The log of a subgraph that remembers, on the branch that began with a fork at ``branch``."""
    return child(parent, name, f"{branch:x}" if branch else "")


def beside(at: Position, ns: str, seq: int) -> Position:
    """A position in another log of the thread whose log, or a fork's copy of it, holds ``at``."""
    stored = prefix_ns(origin(at.thread_key, at.ns)[0], ns) if is_prefix(at.ns) else ns
    return Position(at.thread_key, stored, seq)


def called(node: str, graph: str) -> str:
    """The name of a graph that a node's function calls; what separates names is not in it."""
    for character in (SEPARATOR, MARK, CALL):
        graph = graph.replace(character, "_")
    return f"{node}{CALL}{graph}"


def lasting(logs: Mapping[str, int], above: str) -> dict[str, int]:
    """Those of these logs that outlive the task that used them, seen from the log ``above``."""
    depth = len(split(above))
    return {ns: seq for ns, seq in logs.items() if all(level.lasts for level in split(ns)[depth:])}


def moved(ns: str, above: str, fork: int) -> str:
    """The name of a log below ``above`` on the branch that begins there with a fork at ``fork``.

    The logs further down begin with a fork, too, and so at seq 1.
    """
    levels = split(ns)
    depth = len(split(above))
    for index in range(depth, len(levels)):
        level, at = levels[index], fork if index == depth else 1
        rest = level.mark.partition(".")[2]
        levels[index] = level._replace(mark=f"{at:x}" if level.lasts else f"{at:x}.{rest}")
    return join(levels)
