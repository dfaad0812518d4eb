"""Messages are appended, replaced by id and removed, and nobody's messages are changed."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.build.schema import StateSchema
from graph.errors import InvalidUpdateError
from graph.messages import REMOVE_ALL_MESSAGES, MessagesState, RemoveMessage, add_messages

pytestmark = pytest.mark.usefixtures("without_langchain")

HI = {"role": "user", "content": "hi", "id": "1"}
HELLO = {"role": "assistant", "content": "hello", "id": "2"}


def said(*messages: Any) -> list[Any]:
    return [message["content"] for message in messages]


def test_new_messages_are_appended() -> None:
    assert add_messages([HI], [HELLO]) == [HI, HELLO]
    assert add_messages([HI], HELLO) == [HI, HELLO]
    assert add_messages(left=HI, right=HELLO) == [HI, HELLO]


def test_a_message_with_a_known_id_replaces_it() -> None:
    again = {"role": "user", "content": "hi again", "id": "1"}
    assert add_messages([HI, HELLO], [again]) == [again, HELLO]


def test_of_two_new_messages_with_one_id_the_later_stays() -> None:
    again = {"role": "user", "content": "hi again", "id": "1"}
    assert add_messages([], [HI, HELLO, again]) == [again, HELLO]


def test_a_message_is_removed_by_id() -> None:
    assert add_messages([HI, HELLO], RemoveMessage(id="1")) == [HELLO]
    assert add_messages([HI, HELLO], [RemoveMessage("1"), RemoveMessage("2")]) == []


def test_a_message_removed_and_written_in_one_update_keeps_its_place() -> None:
    again = {"role": "user", "content": "hi again", "id": "1"}
    assert add_messages([HI, HELLO], [RemoveMessage("1"), again]) == [again, HELLO]
    assert add_messages([HI, HELLO], [again, RemoveMessage("1")]) == [HELLO]


def test_removing_an_unknown_id_is_an_error() -> None:
    with pytest.raises(InvalidUpdateError, match="no message with the id '9'"):
        add_messages([HI], RemoveMessage("9"))
    with pytest.raises(InvalidUpdateError, match="no message with the id '1'"):
        add_messages.fold([HI], [RemoveMessage("1"), RemoveMessage("1")])


def test_removing_all_starts_again_with_what_follows() -> None:
    everything = RemoveMessage(REMOVE_ALL_MESSAGES)
    assert add_messages([HI], [everything]) == []
    assert add_messages([HI], [RemoveMessage("9"), HELLO, everything, HI, everything, HELLO]) == [
        HELLO
    ]


def test_texts_and_pairs_are_messages() -> None:
    first, second = add_messages(["hi"], [("assistant", "hello")])
    assert {**first, "id": ""} == {"role": "user", "content": "hi", "id": ""}
    assert {**second, "id": ""} == {"role": "assistant", "content": "hello", "id": ""}
    assert said(*add_messages([], "hi")) == ["hi"]
    assert said(*add_messages([], ("user", "hi"))) == ["hi"]


@pytest.mark.parametrize("nonsense", [3, ["a", 3], [("user",)], [[HI]], None, [None]])
def test_what_is_no_message_is_refused(nonsense: Any) -> None:
    with pytest.raises(InvalidUpdateError):
        add_messages([], nonsense)


# --- ids ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    content: str
    id: str | None = None


class Model(pydantic.BaseModel):
    content: str
    id: str | None = None


class Pair(NamedTuple):
    content: str
    id: str | None = None


@pytest.mark.parametrize("make", [Note, Model, Pair, SimpleNamespace])
def test_objects_get_ids_as_copies(make: Any) -> None:
    message = make(content="hi", id=None)
    (prepared,) = add_messages.prepare([message])
    assert message.id is None
    assert (prepared.content, type(prepared)) == ("hi", make)
    replaced = make(content="again", id=prepared.id)
    assert add_messages([prepared], replaced) == [replaced]
    assert add_messages([prepared], RemoveMessage(prepared.id)) == []


@pytest.mark.parametrize("message", [{"content": "hi"}, {"content": "hi", "id": None}])
def test_dicts_get_ids_as_copies(message: dict[str, Any]) -> None:
    before = copy.deepcopy(message)
    (prepared,) = add_messages.prepare([message])
    assert prepared["id"]
    assert message == before


def test_preparing_twice_changes_nothing() -> None:
    once = add_messages.prepare(["a", HI, Note("b"), RemoveMessage("1")])
    twice = add_messages.prepare(once)
    assert twice == once
    assert all(one is other for one, other in zip(once, twice, strict=True))


def test_removals_are_recorded_as_plain_messages() -> None:
    assert add_messages.prepare(RemoveMessage("1")) == [{"role": "remove", "id": "1"}]


def test_messages_of_langchain() -> None:
    messages = pytest.importorskip("langchain_core.messages")
    human = messages.HumanMessage("hi")
    (prepared,) = add_messages.prepare([human])
    assert human.id is None
    answer = messages.AIMessage("hello", id="2")
    assert add_messages([prepared], answer) == [prepared, answer]
    assert add_messages([prepared, answer], messages.RemoveMessage(id="2")) == [prepared]


@pytest.mark.slow
def test_langchain_is_not_imported() -> None:
    program = (
        "import sys, graph.messages; assert not {'langchain_core', 'pydantic'} & {*sys.modules}"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


# --- many updates -------------------------------------------------------------------------

ids = st.sampled_from("abcdef")
message_dicts = st.builds(lambda key, text: {"id": key, "content": text}, ids, st.text(max_size=2))
updates = st.lists(
    st.one_of(
        message_dicts,
        st.builds(RemoveMessage, ids),
        st.just(RemoveMessage(REMOVE_ALL_MESSAGES)),
    ),
    max_size=4,
)


def plainly(left: list[Any], right: list[Any]) -> list[Any]:
    """What the words say, message by message, with no thought for cost."""
    starts = [n for n, m in enumerate(right) if m == RemoveMessage(REMOVE_ALL_MESSAGES)]
    if starts:
        left, right = [], right[starts[-1] + 1 :]
    merged, gone = list(left), set()
    for message in right:
        key = message.id if isinstance(message, RemoveMessage) else message["id"]
        places = [n for n, m in enumerate(merged) if m["id"] == key]
        if isinstance(message, RemoveMessage):
            if not places:
                raise InvalidUpdateError(key)
            gone.add(key)
        elif places:
            merged[places[-1]] = message
            gone.discard(key)
        else:
            merged.append(message)
    return [m for m in merged if m["id"] not in gone]


def outcome(call: Any) -> Any:
    try:
        return call()
    except InvalidUpdateError:
        return InvalidUpdateError


@given(st.lists(message_dicts, max_size=6), st.lists(updates, max_size=6))
def test_folding_many_updates_equals_applying_them_one_by_one(
    left: list[Any], many: list[list[Any]]
) -> None:
    before = copy.deepcopy((left, many))
    folded = outcome(lambda: add_messages.fold(left, many))
    assert folded == outcome(lambda: functools.reduce(add_messages, many, left))
    assert folded == outcome(lambda: functools.reduce(plainly, many, left))
    assert (left, many) == before


@given(st.lists(message_dicts, unique_by=lambda m: str(m["id"])), st.lists(updates, max_size=3))
def test_the_same_as_langgraph(left: list[Any], many: list[list[Any]]) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_core.messages import RemoveMessage as Removal
    from langgraph.graph.message import add_messages as theirs

    def of_langchain(message: Any) -> Any:
        if isinstance(message, RemoveMessage):
            return Removal(id=message.id)
        return HumanMessage(message["content"], id=message["id"])

    def by_them() -> list[Any]:
        merged: Any = list(map(of_langchain, left))
        for update in many:
            after_last_clearing = _after_clearing(update)
            if after_last_clearing is not None:  # they do not merge what follows it
                merged, update = [], after_last_clearing
            merged = theirs(merged, list(map(of_langchain, update)))
        return [(message.id, message.content) for message in merged]

    def by_us() -> list[Any]:
        return [(message["id"], message["content"]) for message in add_messages.fold(left, many)]

    try:
        expected: Any = by_them()
    except ValueError:
        expected = InvalidUpdateError
    assert outcome(by_us) == expected


def _after_clearing(update: list[Any]) -> list[Any] | None:
    for index in range(len(update) - 1, -1, -1):
        if update[index] == RemoveMessage(REMOVE_ALL_MESSAGES):
            return update[index + 1 :]
    return None


def test_messages_state_uses_the_reducer() -> None:
    channel = StateSchema.of(MessagesState).channels["messages"]
    assert channel.reducer is add_messages
    assert channel.reduce([HI], [[HELLO], [RemoveMessage("1")]]) == [HELLO]
