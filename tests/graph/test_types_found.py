"""Which classes a graph stores without being told: all that its annotations lead to."""

from __future__ import annotations

import collections
import operator
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
    Union,
)

import pytest
from pydantic import BaseModel, PrivateAttr

from eventstore import Codec, EventStore
from graph import START, MemorySaver, Send, StateGraph

if TYPE_CHECKING:
    from nowhere import Unheard  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


class Status(Enum):
    OPEN = 1


class Colour(Enum):
    RED = 1


class Level(Enum):
    LOW = 1


@dataclass
class Inner:
    n: int


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Partly:
    """One hint names what only type checkers know; the others count all the same."""

    inner: Inner | None = None
    unheard: Unheard | None = None
    either: Union[Colour, Unheard, None] = None  # noqa: UP007 - the older spelling


@dataclass
class Job:
    n: int


@dataclass
class Renamed:
    n: int


@dataclass
class Ahead:
    n: int


class Cell(BaseModel, Generic[T]):
    item: T


class Private(BaseModel):
    n: int = 1
    _inner: Inner = PrivateAttr(default_factory=lambda: Inner(7))


class Order(TypedDict):
    status: NotRequired[Status]


Alias = Annotated[list[Partly], "many of them"]
NewName = NewType("NewName", Renamed)


class State(TypedDict, total=False):
    orders: list[Order]
    box: Box[int]
    alias: Alias
    new_name: NewName
    level: Literal[Level.LOW]
    ahead: list[Ahead]
    cell: Cell[int]
    private: Private
    any: Any


VALUES: dict[str, Any] = {
    "a TypedDict inside": {"orders": [{"status": Status.OPEN}]},
    "a generic dataclass": {"box": Box(1)},
    "an alias, with a name that only type checkers know": {
        "alias": [Partly(Inner(1), None, Colour.RED)]
    },
    "a NewType": {"new_name": NewName(Renamed(1))},
    "a Literal of an Enum": {"level": Level.LOW},
    "a forward reference": {"ahead": [Ahead(1)]},
    "a generic model": {"cell": Cell[int](item=1)},
    "a generic model without its argument": {"cell": Cell(item=1)},
    "a private attribute": {"private": Private()},
}


def compiled(values: dict[str, Any], store: EventStore) -> Any:
    graph = StateGraph(State)
    graph.add_node("n", lambda state: values)
    graph.add_edge(START, "n")
    return graph.compile(store)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_annotations_are_enough(blocking_store: EventStore, values: dict[str, Any]) -> None:
    app = compiled(values, blocking_store)
    config = {"configurable": {"thread_id": "t"}}
    app.invoke({}, config)
    found = app.get_state(config).values
    assert found == values
    assert app.verify(config).ok


def test_the_argument_of_a_send_is_known(blocking_store: EventStore) -> None:
    def work(job: Job) -> State:
        return {"any": job.n}

    graph = StateGraph(State)
    graph.add_node(work)
    graph.add_conditional_edges(START, lambda state: [Send("work", Job(3))], ["work"])
    app = graph.compile(blocking_store)
    assert app.invoke({}, {"configurable": {"thread_id": "t"}})["any"] == 3


def test_a_subclass_defined_after_compile_is_known(blocking_store: EventStore) -> None:
    app = compiled({}, blocking_store)
    config = {"configurable": {"thread_id": "t"}}

    @dataclass
    class Later(Inner):
        more: str = ""

    app.update_state(config, {"any": Later(1, "x")}, as_node="n")
    assert app.get_state(config).values["any"] == Later(1, "x")


def test_a_class_defined_anew_replaces_the_former_one() -> None:
    """As a notebook's cell, a rerun of Streamlit or `importlib.reload` does; subclasses too."""
    saver = MemorySaver()

    def run_script() -> tuple[type, type, Any]:
        @dataclass
        class Guest:
            name: str

        @dataclass
        class Host(Guest):
            house: str = ""

        class Party(TypedDict, total=False):
            guests: Annotated[list[Any], operator.add]
            kind: Guest

        Party.__annotations__["kind"] = Guest  # what it names is local
        graph = StateGraph(Party)
        graph.add_node("n", lambda state: {"guests": [Guest("Ann"), Host("Bo", "here")]})
        graph.add_edge(START, "n")
        app = graph.compile(saver)
        app.invoke({}, {"configurable": {"thread_id": "t"}})
        return Guest, Host, app.get_state({"configurable": {"thread_id": "t"}}).values["guests"]

    for count in (1, 2, 3):
        guest, host, found = run_script()
        assert [type(each) for each in found] == [guest, host] * count


def test_two_classes_of_one_name_are_still_refused() -> None:
    codec = Codec()
    codec.register(Job)
    other = type("Job", (), {"__module__": "elsewhere", "__annotations__": {"n": int}})
    with pytest.raises(Exception, match="the name 'Job'"):
        codec.register(dataclass(other))


ANNOTATIONS: Final = ["list", "Any", "Annotated[list, operator.add]"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("annotations", "when"),
    [(ANNOTATIONS, "before"), *(([each], "after") for each in ANNOTATIONS)],
    ids=str,
)
def test_langchains_messages_and_documents_are_known(annotations: list[str], when: str) -> None:
    """Also when it is loaded after `compile`, which it is once in a process."""
    program = f"""
import operator
from typing import Annotated, Any, TypedDict
from graph import MemorySaver, START, StateGraph
if {when == "before"}: from langchain_core.messages import AIMessage
def node(state):
    from langchain_core.documents import Document
    from langchain_core.messages import AIMessage
    return {{"x": [AIMessage("hi"), Document(page_content="text")]}}
for annotation in ({", ".join(annotations)},):
    class S(TypedDict, total=False): x: annotation
    app = StateGraph(S).add_node("n", node).add_edge(START, "n").compile(MemorySaver())
    c = {{"configurable": {{"thread_id": "t"}}}}
    app.invoke({{}}, c)
    print([type(each).__name__ for each in app.get_state(c).values["x"]], app.verify(c).ok)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    expected = ["['AIMessage', 'Document'] True"] * len(annotations)
    assert done.stdout.splitlines() == expected, done.stderr


class Text(str):
    def __str__(self) -> str:
        return "not what it holds"


class Number(int):
    pass


class Half(float):
    pass


class Several(list[Any]):
    pass


class Table(dict[str, Any]):
    pass


def test_subclasses_of_built_in_types_are_stored_as_what_they_hold(codec: Codec) -> None:
    value = [Text("a"), Number(2), Half(0.5), Several([Text("b")]), Table(k=Number(2**70))]
    found = codec.decode(codec.encode(value))
    assert found == ["a", 2, 0.5, ["b"], {"k": 2**70}]
    assert [type(each) for each in found] == [str, int, float, list, dict]
    assert type(found[4]["k"]) is int


def test_a_registered_subclass_keeps_its_type(codec: Codec) -> None:
    codec.register(Text, pack=lambda value: str.__str__(value), unpack=Text)
    assert type(codec.decode(codec.encode(Text("a")))) is Text


@pytest.fixture
def codec() -> Codec:
    return Codec()


@pytest.mark.parametrize(
    "value",
    [
        Counter("hello"),
        OrderedDict(b=1, a=2),
        defaultdict(list, {"a": [1]}),
        deque([1, 2], 5),
        collections.Counter({(1, "a"): -2}),
    ],
    ids=repr,
)
def test_built_in_containers_keep_their_type(codec: Codec, value: Any) -> None:
    found = codec.decode(codec.encode(value))
    assert (type(found), found) == (type(value), value)
