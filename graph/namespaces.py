"""Names of the logs that subgraphs keep beside the root's, within their thread.

Pure. A name is a path of segments joined with ``|``, one for each graph on the way down. A
segment is a node's name (or ``node/graph`` for a graph that a node's function calls) and, behind
a colon, what tells its logs apart:

- ``node:1a.0``: the log of one task, which began at seq 0x1a of the log above and has index 0 in
  its frontier; ``node:1a.0.2`` is its third call of that graph.
- ``node``: the log of a graph that remembers (``checkpointer=True``); ``node:2f`` the same on the
  branch that began with the fork at seq 0x2f of the log above.

So a branch never writes to a log of the branch that it left, and whoever knows where a superstep
began knows the names of its logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from eventstore import Position
from eventstore.chain import is_prefix, origin, prefix_ns

SEPARATOR: Final = "|"
MARK: Final = ":"
CALL: Final = "/"


class Segment(NamedTuple):
    """One step on the way down.

    Attributes:
        name: the node, or ``node/graph``.
        mark: what tells the logs of that name apart.
    """

    name: str
    mark: str

    @property
    def lasts(self) -> bool:
        """Whether it is the log of a graph that remembers, not that of one task."""
        return "." not in self.mark

    @property
    def began(self) -> int | None:
        """Of the log of a task: where its superstep began in the log above."""
        return None if self.lasts else int(self.mark.partition(".")[0], 16)

    def __str__(self) -> str:
        return f"{self.name}{MARK}{self.mark}" if self.mark else self.name


def token(began: int, task: int, call: int = 0) -> str:
    """Names a task's nth call of a graph, within the log above."""
    return f"{began:x}.{task}.{call}" if call else f"{began:x}.{task}"


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


def child(parent: str, name: str, mark: str) -> str:
    """The log of a subgraph of the graph whose log is ``parent``."""
    segment = str(Segment(name, mark))
    return f"{parent}{SEPARATOR}{segment}" if parent else segment


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


def split(ns: str) -> list[Segment]:
    """The way down to a log; empty for the root's."""
    parts = [part.partition(MARK) for part in ns.split(SEPARATOR)] if ns else []
    return [Segment(name, mark) for name, _, mark in parts]


def join(segments: list[Segment]) -> str:
    """The inverse of :func:`split`."""
    return SEPARATOR.join(map(str, segments))


def lasting(logs: Mapping[str, int], above: str) -> dict[str, int]:
    """Those of these logs that outlive the task that used them, seen from the log ``above``."""
    depth = len(split(above))
    return {
        ns: seq for ns, seq in logs.items() if all(segment.lasts for segment in split(ns)[depth:])
    }


def moved(ns: str, above: str, fork: int) -> str:
    """The name of a log below ``above`` on the branch that begins there with a fork at ``fork``.

    The logs further down begin with a fork, too, and so at seq 1.
    """
    segments = split(ns)
    depth = len(split(above))
    for index in range(depth, len(segments)):
        segment, at = segments[index], fork if index == depth else 1
        rest = segment.mark.partition(".")[2]
        segments[index] = segment._replace(mark=f"{at:x}" if segment.lasts else f"{at:x}.{rest}")
    return join(segments)
