"""A state class says which keys there are, how each takes updates, and what fits."""

from __future__ import annotations

import collections.abc
import functools
import operator
import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, NotRequired, Required, TypedDict, TypeVar

import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from graph.build.callables import fingerprint
from graph.build.channels import MISSING, Channel, channel_of, initial_values
from graph.build.schema import StateSchema, to_writes
from graph.errors import InvalidGraphError, InvalidUpdateError
from graph.messages import add_messages


def later(left: Any, right: Any) -> Any:
    return max(left, right)


class Base(TypedDict):
    log: Annotated[list[str], operator.add]
    name: str


class Derived(Base, total=False):
    best: Annotated[int, max]
    note: NotRequired[str]
    seen: Required[Annotated[set[str], operator.or_]]
    tags: Annotated[NotRequired[list[str]], operator.add]


class Extended(typing_extensions.TypedDict):
    log: Annotated[list[str], operator.add]
    frozen: typing_extensions.ReadOnly[str]


T = TypeVar("T")


class Boxed(TypedDict, Generic[T]):
    item: T
    items: Annotated[list[T], operator.add]


@dataclass
class Record:
    topic: str
    log: Annotated[list[str], operator.add] = field(default_factory=list)
    limit: int = 3
    derived: str = field(init=False, default="made")


class Model(pydantic.BaseModel):
    topic: str
    log: Annotated[list[str], operator.add, pydantic.Field(description="what happened")] = []
    limit: Annotated[int, pydantic.Field(ge=1)] = 3
    extra: list[int] = pydantic.Field(default_factory=list)


class Aliased(pydantic.BaseModel):
    topic: str = pydantic.Field(alias="Topic")
    count: int = 0


class Wrong(TypedDict):
    log: Annotated[list[str], len]


class Broken(TypedDict):
    log: list[Nowhere]  # type: ignore[name-defined]  # noqa: F821


def reducers(schema: Any) -> dict[str, Any]:
    return {name: channel.reducer for name, channel in StateSchema.of(schema).channels.items()}


def test_typed_dict_keys_include_inherited_and_optional_ones() -> None:
    schema = StateSchema.of(Derived)
    assert schema.keys == ("log", "name", "best", "note", "seen", "tags")
    assert reducers(Derived) == {
        "log": operator.add,
        "name": None,
        "best": max,
        "note": None,
        "seen": operator.or_,
        "tags": operator.add,
    }
    assert schema.channels["tags"].initial is list


def test_typed_dict_of_typing_extensions() -> None:
    assert reducers(Extended) == {"log": operator.add, "frozen": None}


def test_generic_typed_dict_may_be_given_with_its_argument() -> None:
    assert StateSchema.of(Boxed[int]).keys == ("item", "items")


def test_dataclass_keys_are_the_fields_of_its_constructor() -> None:
    assert StateSchema.of(Record).keys == ("topic", "log", "limit")


def test_pydantic_keys_and_a_reducer_before_a_field() -> None:
    assert reducers(Model) == {"topic": None, "log": operator.add, "limit": None, "extra": None}


@pytest.mark.parametrize("declared", ["State", None, 5, {"log": int}])
def test_what_is_no_state_class_is_refused(declared: Any) -> None:
    with pytest.raises(InvalidGraphError, match="TypedDict, a dataclass, a pydantic"):
        StateSchema.of(declared)


def test_a_reducer_that_does_not_take_two_arguments_is_refused() -> None:
    with pytest.raises(InvalidGraphError, match=r"'log' in .*Wrong cannot be called with two"):
        StateSchema.of(Wrong)


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    with pytest.raises(InvalidGraphError, match="Nowhere"):
        StateSchema.of(Broken)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (list[str], []),
        (set[str], set()),
        (dict[str, int], {}),
        (int, 0),
        (str, ""),
        (tuple[int, ...], ()),
        (deque[int], deque()),
        (collections.abc.Sequence[int], []),
        (collections.abc.MutableSet[int], set()),
        (collections.abc.Mapping[str, int], {}),
        (list[str] | None, MISSING),
        (int | None, MISSING),
        (Any, MISSING),
        (collections.abc.Iterable[int], MISSING),
    ],
)
def test_reducers_start_from_what_langgraph_starts_from(annotation: Any, expected: Any) -> None:
    from langgraph.channels import BinaryOperatorAggregate

    channel = channel_of("State", "key", Annotated[annotation, later])
    ours = MISSING if channel.initial is None else channel.initial()
    theirs = BinaryOperatorAggregate(Annotated[annotation, later], later)  # type: ignore[arg-type]
    assert ours == expected
    assert theirs.is_available() == (ours is not MISSING)
    if ours is not MISSING:
        assert theirs.get() == ours
        assert type(theirs.get()) is type(ours)


def test_only_reducers_have_a_value_before_any_write() -> None:
    channels = StateSchema.of(Derived).channels.values()
    assert initial_values(channels) == {"log": [], "best": 0, "seen": set(), "tags": []}


def test_defaults_of_fields_are_no_initial_values() -> None:
    # As in LangGraph: a default is what a node sees, not what the state holds.
    assert initial_values(StateSchema.of(Record).channels.values()) == {"log": []}
    assert StateSchema.of(Record).coerce({"topic": "a"}) == Record("a")


# --- reducing -----------------------------------------------------------------------------


def in_turn(reducer: Any, value: Any, updates: list[Any]) -> Any:
    return functools.reduce(reducer, updates, value)


@pytest.mark.slow
@given(st.lists(st.integers()), st.lists(st.lists(st.integers())))
@pytest.mark.parametrize("reducer", [operator.add, operator.concat, operator.iadd, later])
def test_reducing_lists_equals_one_by_one_and_leaves_everything_alone(
    reducer: Any, value: list[int], updates: list[list[int]]
) -> None:
    before = (list(value), [list(update) for update in updates])
    reduced = Channel("key", reducer, list).reduce(value, updates)
    assert (value, updates) == before
    assert reduced == in_turn(reducer, list(value), updates)


@given(st.integers(), st.lists(st.integers()))
@pytest.mark.parametrize("reducer", [operator.add, max, operator.mul, lambda a, b: a - b])
def test_reducing_numbers_equals_one_by_one(reducer: Any, value: int, updates: list[int]) -> None:
    assert Channel("key", reducer, int).reduce(value, updates) == in_turn(reducer, value, updates)


def test_in_place_addition_of_another_kind_does_not_change_the_value() -> None:
    value = [1]
    assert Channel("key", operator.iadd, list).reduce(value, [(2, 3)]) == [1, 2, 3]
    assert value == [1]


def test_lists_of_another_class_keep_their_own_addition() -> None:
    class Loud(list[int]):
        def __add__(self, other: Any) -> Loud:  # type: ignore[override]
            return Loud([*self, *other, 0])

    assert Channel("key", operator.add, list).reduce(Loud([1]), [[2], [3]]) == [1, 2, 0, 3, 0]


def test_the_first_update_is_the_value_when_there_is_none() -> None:
    channel = Channel("key", later)
    assert channel.reduce(MISSING, [3]) == 3
    assert channel.reduce(MISSING, [3, 9, 4]) == 9
    assert channel.reduce(MISSING, []) is MISSING


def test_without_reducer_the_last_update_is_the_value() -> None:
    assert Channel("key").reduce(1, [2, 3]) == 3
    assert Channel("key").reduce(1, []) == 1


def test_a_reducer_with_fold_folds_all_updates_at_once() -> None:
    class Counting:
        def __call__(self, left: int, right: int) -> int:
            raise AssertionError("one by one")

        def fold(self, left: int, updates: list[int]) -> int:
            return sum(updates, start=left)

    assert Channel("key", Counting(), int).reduce(1, [2, 3]) == 6


def test_an_error_of_a_reducer_says_which_key() -> None:
    with pytest.raises(TypeError) as caught:
        Channel("log", operator.add, list).reduce([], [None])
    assert "'log'" in caught.value.__notes__[0]


def test_prepare_is_the_reducers() -> None:
    assert Channel("key", later).prepare(3) == 3
    assert Channel("key").prepare(3) == 3
    (message,) = Channel("messages", add_messages, list).prepare("hi")
    assert message["id"]


# --- what a node is given -----------------------------------------------------------------


def test_a_typed_dict_node_is_given_the_keys_present() -> None:
    values = {"log": ["a"], "elsewhere": 1}
    given_to_node = StateSchema.of(Base).coerce(values)
    assert given_to_node == {"log": ["a"]}
    assert given_to_node is not values


def test_a_dataclass_without_a_needed_value_names_the_key() -> None:
    with pytest.raises(InvalidUpdateError, match=r"no value for 'topic', which Record requires"):
        StateSchema.of(Record).coerce({"limit": 1})


def test_a_model_is_validated_and_the_error_names_the_path() -> None:
    class Inner(pydantic.BaseModel):
        size: int

    class Outer(pydantic.BaseModel):
        inners: list[Inner]

    schema = StateSchema.of(Outer)
    assert schema.coerce({"inners": [{"size": "3"}]}) == Outer(inners=[Inner(size=3)])
    with pytest.raises(pydantic.ValidationError, match=r"inners\.1\.size\n.*integer"):
        schema.coerce({"inners": [{"size": 1}, {"size": "x"}]})
    with pytest.raises(pydantic.ValidationError, match=r"inners\n.*Field required") as raised:
        schema.coerce({})
    assert "Outer" in raised.value.__notes__[0]


def test_pydantic_dataclasses_are_validated_too() -> None:
    @pydantic.dataclasses.dataclass
    class Checked:
        size: int

    assert StateSchema.of(Checked).coerce({"size": "3"}).size == 3
    with pytest.raises(pydantic.ValidationError, match="size"):
        StateSchema.of(Checked).coerce({"size": "x"})


def test_the_keys_of_a_model_with_aliases_are_its_field_names() -> None:
    schema = StateSchema.of(Aliased)
    assert schema.keys == ("topic", "count")
    assert schema.coerce({"topic": "a", "count": 2}) == Aliased(Topic="a", count=2)


# --- what a node returns ------------------------------------------------------------------


def test_updates_in_every_form() -> None:
    schema = StateSchema.of(Record)
    assert schema.to_writes(None) == []
    assert schema.to_writes({"topic": "a"}) == [("topic", "a")]
    assert schema.to_writes(Record("a")) == [("topic", "a"), ("log", []), ("limit", 3)]


def test_a_model_writes_what_was_set_or_changed_in_place() -> None:
    schema = StateSchema.of(Model)
    assert schema.to_writes(Model(topic="a")) == [("topic", "a")]
    assert schema.to_writes(Model(topic="a", limit=3)) == [("topic", "a"), ("limit", 3)]
    changed = Model(topic="a")
    changed.extra.append(1)
    changed.limit = 5
    assert schema.to_writes(changed) == [("topic", "a"), ("limit", 5), ("extra", [1])]


@pytest.mark.parametrize(
    "update", [{"topic": "a", "unknown": 1}, pydantic.create_model("M", unknown=(int, ...))]
)
def test_an_unknown_key_is_an_error_that_lists_the_known_ones(update: Any) -> None:
    value = update(unknown=1) if isinstance(update, type) else update
    with pytest.raises(InvalidUpdateError, match=r"'unknown' is not a key.*topic, log, limit"):
        StateSchema.of(Record).to_writes(value)


@pytest.mark.parametrize("update", [3, "text", [("topic", "a")], Record])
def test_what_is_no_update_is_refused(update: Any) -> None:
    with pytest.raises(InvalidUpdateError, match="an update must be a dict"):
        to_writes(update, ["topic"])


# --- fingerprints -------------------------------------------------------------------------

PROGRAM = """
import functools, operator
from dataclasses import dataclass
from graph.build.callables import fingerprint
from graph.messages import add_messages

def merge(left, right, *, keep={"a", "b", "c"}):
    return [x for x in left if x in {"alpha", "beta", "gamma"}] + right

def scaled(factor):
    return lambda left, right: left + factor * right

@dataclass
class Window:
    size: int
    def __call__(self, left, right):
        return (left + right)[-self.size:]

for reducer in (merge, scaled(2), scaled(3), functools.partial(merge, keep=1), Window(3),
                Window(4), Window(3).__call__, operator.add, max, list.__add__, add_messages,
                lambda a, b: b, lambda a, b: a):
    print(fingerprint(reducer))
"""


def run(seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_fingerprints_are_the_same_in_every_process_and_differ_with_the_code() -> None:
    first = run("1")
    assert first == run("2")
    assert len(set(first)) == len(first) == 13


def test_a_fingerprint_names_the_reducer_and_where_it_starts() -> None:
    assert Channel("key").fingerprint == "last"
    assert Channel("key", operator.add, list).fingerprint == "_operator.add from builtins.list"
    assert Channel("key", later).fingerprint.startswith(f"{__name__}.later#")
    assert Channel("key", add_messages, list).fingerprint == "add_messages/1 from builtins.list"


def test_a_function_that_refers_to_itself_has_a_fingerprint() -> None:
    def outer() -> Any:
        def inner(left: Any, right: Any) -> Any:
            return inner if left else right

        return inner

    assert fingerprint(outer()) == fingerprint(outer())


def test_merging_alike() -> None:
    one, other = (Channel("key", eval("lambda a, b: a + b"), list) for _ in range(2))
    assert one.merges_like(other)
    assert not one.merges_like(Channel("key", operator.add, list))
    assert not one.merges_like(Channel("key"))
    assert Channel("key").merges_like(Channel("key"))
