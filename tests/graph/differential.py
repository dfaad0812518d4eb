"""The same graphs and the same inputs, run with LangGraph and with this library.

Hypothesis builds small graphs and short lives of a thread; both libraries must give equal
results or the same kind of error, equal sequences of (values, next), and equal edits.

What is different on purpose, and so is not compared, or is undone before comparing:

- LangGraph records an input as a checkpoint of its own before the one that it leads to; here
  they are one, because the input event holds both. Its extra checkpoints are left out.
- What an edit of the past is: here a checkpoint of source ``fork`` that repeats the one gone back
  to, and then the edit. In LangGraph only going back to run on makes a ``fork``. All of source
  ``fork`` are left out.
- A key that the state does not have is an ``InvalidUpdateError`` here; LangGraph drops the
  value silently, and what was written is lost.
- The order of names in ``next``: here the order in which tasks are merged (edges by name, then
  Sends), in LangGraph Sends come first. Compared as sorted.
- Of a superstep that failed, LangGraph may throw away siblings that were still running; here
  whatever has begun is waited for and kept. How often nodes ran is not compared, only what
  came of it.
- A second input while a superstep is unfinished: here it begins afresh, and joins that were
  half-way are forgotten with the run that began them; LangGraph keeps who had arrived.
- A key written twice in a superstep without a reducer is refused by both; here the first
  writer's output is kept and the second task is the failed one, LangGraph fails them all.
- Deferred nodes wait for Sends too; LangGraph runs them beside the Sends that are due. Graphs with
  both are not generated.
- In LangGraph's history a node whose join is half full may be among ``next``, though it is not run
  then. Of graphs with joins only values are compared.
- Who arrives at a join that is complete already, but whose deferred target has not run yet, counts
  for the next round here; in LangGraph for none. Joins with deferred targets are not generated.
- A run that ends with its last allowed superstep has ended, and going on with it counts anew;
  LangGraph raises GraphRecursionError for the first, and allows two more in the second case.
- An edit in the name of a deferred node that is due takes its place; LangGraph still runs it. Edits
  of graphs with deferred nodes are not generated.
- An edit of the head keeps what a ``Command`` has updated in the superstep; LangGraph forgets it.
- An edit of the head keeps what the finished tasks of an unfinished superstep had written, counts
  them among those who wrote last, and decides alone what is next. LangGraph forgets what they had
  written (1.2), or also runs what they led to (before).
- A stop at which something is asked is a checkpoint of its own here, of source ``interrupt``. All
  of these are left out.
- An answer to nothing is an ``InvalidUpdateError`` here; LangGraph ignores it silently. One answer
  to several questions is refused by both, by different names.
- After an answer without an id, LangGraph's ``invoke(None, …)`` gives that answer again, to the
  next question. Where a talk goes on so, its answers are given by id.
- After an edit in a node's name, an edit that names none is taken to be that node's, too. LangGraph
  takes it to be that of the node that ran last.
- A ``Command`` as input may update a key that one before it has updated in the same superstep;
  LangGraph refuses the second one.
- What such a command has led to is shown at once; LangGraph's ``get_state`` does not know of it
  until all questions of the superstep are answered.
- What a ``Command`` as input updates is shown by LangGraph's history as if it had been there when
  the superstep began. Histories are compared where there was no such update.
- Tasks that a ``Command`` as input adds to a superstep are merged behind those that are there;
  LangGraph sorts them all by name. Only names that come last are gone to.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Final, TypedDict

import langgraph.errors
import langgraph.graph
import langgraph.types
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver

import graph as ours

NAMES: Final = ("a", "b", "c", "d", "e")


class Seen(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    names: Annotated[set[str], operator.or_]
    a: str
    b: str
    c: str
    d: str
    e: str
    shared: str


THEIRS: Final = SimpleNamespace(
    name="LangGraph",
    StateGraph=langgraph.graph.StateGraph,
    START=langgraph.graph.START,
    END=langgraph.graph.END,
    Send=langgraph.types.Send,
    Command=langgraph.types.Command,
    interrupt=langgraph.types.interrupt,
    saver=InMemorySaver,
)
OURS: Final = SimpleNamespace(
    name="ours",
    StateGraph=ours.StateGraph,
    START=ours.START,
    END=ours.END,
    Send=ours.Send,
    Command=ours.Command,
    interrupt=ours.interrupt,
    saver=ours.MemorySaver,
)


@dataclass(frozen=True)
class Input:
    text: str
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Resume:
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Update:
    node: str | None
    back: int = 0


@dataclass(frozen=True)
class Travel:
    back: int


failing_sets = st.frozensets(st.sampled_from(NAMES), max_size=1)
actions = st.lists(
    st.one_of(
        st.builds(Input, st.sampled_from(["x", "y"]), failing_sets),
        st.builds(Resume, failing_sets),
        st.builds(Update, st.sampled_from([*NAMES, None]), st.integers(0, 3)),
        st.builds(Travel, st.integers(1, 6)),
    ),
    max_size=4,
)
