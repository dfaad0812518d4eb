"""What naive delta storage breaks: each case with the value that LangGraph expects."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS

from eventstore import ConfigurationError, CorruptEventError, EventStore
from graph.langgraph import EventStoreSaver
from tests.langgraph.kit import Driver, facts

ROOT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def checkpoint(values: dict[str, Any], versions: dict[str, Any], **more: Any) -> Any:
    found: Any = empty_checkpoint()
    return found | {"channel_values": values, "channel_versions": versions, **more}


def put(driver: Driver, config: Any, values: dict[str, Any], **more: Any) -> Any:
    """A checkpoint all of whose channels are new."""
    versions = {name: driver.saver.get_next_version(None, None) for name in values}
    made = checkpoint(values, versions, **more)
    return driver.call("put", config, made, {"source": "loop", "step": 1}, versions)


def at(name: str) -> Any:
    return {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": name}}


def values_at(driver: Driver, config: Any) -> Any:
    found = driver.get(config)
    assert found is not None
    return found.checkpoint["channel_values"]


def pending(driver: Driver, config: Any) -> Any:
    found = driver.get(config)
    assert found is not None
    return found.pending_writes


def test_the_parent_is_the_one_in_the_config_and_not_the_last_one(driver: Driver) -> None:
    first = put(driver, ROOT, {"list": ["a"], "text": "x" * 500})
    put(driver, first, {"list": ["a", "b"], "text": "y" * 500})
    versions = {"list": "7", "text": _versions(driver, first)["text"]}
    made = checkpoint({"list": ["a", "c"], "text": "ignored"}, versions)
    third = driver.call("put", first, made, {"step": 2}, {"list": "7"})
    assert values_at(driver, third) == {"list": ["a", "c"], "text": "x" * 500}
    driver.reopen()
    assert values_at(driver, third) == {"list": ["a", "c"], "text": "x" * 500}
    found = driver.get(third)
    assert found is not None
    assert found.parent_config == first


def _versions(driver: Driver, config: Any) -> Any:
    found = driver.get(config)
    assert found is not None
    return found.checkpoint["channel_versions"]


def test_the_latest_is_the_greatest_id_as_text(driver: Driver) -> None:
    ids = [
        "1ef4f797-8335-6428-8001-8a1503f9b875",
        "ffffffff-0000-0001-8001-8a1503f9b875",
        "00000012-8335-6428-8001-8a1503f9b875",
        "1ef4f797-8335-6428-8002-8a1503f9b875",
    ]
    for number, name in enumerate(ids):
        put(driver, ROOT, {"number": number}, id=name)
    for _ in range(2):
        assert values_at(driver, ROOT) == {"number": 1}
        listed = [each.checkpoint["id"] for each in driver.listed(ROOT)]
        assert listed == sorted(ids, reverse=True)
        before = [each.checkpoint["id"] for each in driver.listed(ROOT, before=at(ids[3]))]
        assert before == [ids[0], ids[2]]
        driver.reopen()


def test_versions_sort_and_never_repeat(driver: Driver) -> None:
    first = driver.saver.get_next_version(None, None)
    found = {driver.saver.get_next_version(first, None) for _ in range(50)}
    assert len(found) == 50
    assert all(first < each for each in found)
    assert driver.saver.get_next_version(9, None) < driver.saver.get_next_version("10.5", None)


def test_a_channel_with_a_version_and_no_value_and_one_without_a_key(driver: Driver) -> None:
    made = checkpoint({"a": None}, {"a": "1", "empty": "1", "absent": "1"})
    config = driver.call("put", ROOT, made, {}, {"a": "1", "empty": "1"})
    assert values_at(driver, config) == {"a": None}
    assert set(_versions(driver, config)) == {"a", "empty", "absent"}
    made = checkpoint({}, {"a": "2", "empty": "1"})
    config = driver.call("put", config, made, {}, {"a": "2"})
    assert values_at(driver, config) == {}


def test_writes_come_before_their_checkpoint_after_a_later_one_and_twice(driver: Driver) -> None:
    name = "1ef4f797-8335-6428-8001-8a1503f9b875"
    driver.call("put_writes", at(name), [("ch", "early")], "task-1", "b")
    assert driver.get(at(name)) is None
    put(driver, ROOT, {"x": 1}, id=name)
    driver.call("put_writes", at(name), [("ch", "second"), ("other", 2)], "task-2", "a")
    driver.call("put_writes", at(name), [("ch", "again")], "task-1", "b")
    put(driver, at(name), {"x": 2}, id="1ef4f797-8335-6428-8002-8a1503f9b875")
    driver.call("put_writes", at(name), [("ch", "late")], "task-3", "")
    expected = [
        ("task-3", "ch", "late"),
        ("task-2", "ch", "second"),
        ("task-2", "other", 2),
        ("task-1", "ch", "early"),
    ]
    assert pending(driver, at(name)) == expected
    driver.reopen()
    assert pending(driver, at(name)) == expected
    assert pending(driver, ROOT) == []


def test_late_writes_are_read_back_wherever_their_checkpoint_is_by_then(driver: Driver) -> None:
    texts = [random.Random(number).randbytes(1000).hex() for number in range(30)]
    configs = [put(driver, ROOT, {"list": texts[:1]})]
    for number in range(1, 30):
        configs.append(put(driver, configs[-1], {"list": texts[: number + 1]}))
        task = [("list", [texts[number]]), ("note", number)]
        driver.call("put_writes", configs[-2], task, f"task {number}", "")
    driver.call("put_writes", configs[0], [("list", ["long after"])], "late", "")
    expected = [
        [
            (f"task {number + 1}", "list", [texts[number + 1]]),
            (f"task {number + 1}", "note", number + 1),
        ]
        for number in range(29)
    ]
    expected[0].insert(0, ("late", "list", ["long after"]))
    expected.append([])
    driver.call("copy_thread", "t", "copy")
    for thread in ("t", "t", "copy"):
        place: Any = {"configurable": {"thread_id": thread}}
        listed = driver.listed(place)
        assert [each.pending_writes for each in reversed(listed)] == expected
        for config, writes in zip(configs, expected, strict=True):
            asked = {"configurable": {**config["configurable"], "thread_id": thread}}
            assert pending(driver, asked) == writes
        driver.reopen()
    stats = driver.store("stats", "t")
    assert stats.stored_bytes < 50_000  # each text once: 30,000


def test_batches_of_special_writes_replace_and_others_do_not(driver: Driver) -> None:
    config = put(driver, ROOT, {"x": 1})
    for round_ in ("first", "second"):
        for channel in (ERROR, SCHEDULED, INTERRUPT, RESUME):
            driver.call("put_writes", config, [(channel, round_)], "task", "")
        driver.call("put_writes", config, [("ch", round_), (INTERRUPT, round_)], "mixed", "")
    expected = {
        ("task", ERROR): "second",
        ("task", SCHEDULED): "second",
        ("task", INTERRUPT): "second",
        ("task", RESUME): "second",
        ("mixed", "ch"): "first",
        ("mixed", INTERRUPT): "first",
    }
    for _ in range(2):
        assert {(task, name): value for task, name, value in pending(driver, config)} == expected
        indices = [name for task, name, _ in pending(driver, config) if task == "task"]
        assert indices == [RESUME, INTERRUPT, SCHEDULED, ERROR]
        driver.reopen()


def test_a_checkpoint_that_is_put_again_replaces_the_first_and_keeps_its_writes(
    driver: Driver,
) -> None:
    memory = InMemorySaver()
    name = "1ef4f797-8335-6428-8001-8a1503f9b875"
    other = "1ef4f797-8335-6428-8002-8a1503f9b875"
    for saver in (driver, memory):
        call = driver.call if saver is driver else lambda name, *args: getattr(memory, name)(*args)
        for id_, text in ((name, "one"), (other, "two"), (name, "three"), (other, "four")):
            made = checkpoint({"x": text}, {"x": text}, id=id_, ts="now")
            call("put", ROOT, made, {"step": 1}, {"x": text})
            call("put_writes", at(id_), [("ch", text)], f"task {text}", "")
    for _ in range(2):
        for id_ in (name, other):
            assert facts(driver.get(at(id_))) == facts(memory.get_tuple(at(id_)))
        assert len(driver.listed(ROOT)) == 2
        driver.reopen()


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_old_formats_find_their_tasks_among_the_writes_of_the_parent(
    driver: Driver, version: int
) -> None:
    parent = put(driver, ROOT, {"x": 1}, v=version)
    driver.call("put_writes", parent, [(TASKS, "second")], "b", "2")
    driver.call("put_writes", parent, [(TASKS, "first"), ("x", 2)], "a", "1")
    child = put(driver, parent, {"x": 2}, v=version)
    expected = {"x": 2} if version == 4 else {"x": 2, TASKS: ["first", "second"]}
    assert values_at(driver, child) == expected
    assert values_at(driver, parent) == {"x": 1}
    if version < 4:
        versions = _versions(driver, child)
        assert versions[TASKS] == versions["x"]
    assert driver.listed(ROOT)[0].checkpoint["channel_values"] == expected


def test_metadata_absorbs_the_config_and_filters_see_it(driver: Driver) -> None:
    config: Any = {
        "configurable": {"thread_id": "t", "checkpoint_ns": "", "user": "a\0b", "__secret": 1},
        "metadata": {"tenant": "x", "langgraph_step": 3},
    }
    put(driver, config, {"x": 1})
    found = driver.get(ROOT)
    assert found is not None
    assert found.metadata == {"source": "loop", "step": 1, "user": "ab", "tenant": "x"}
    put(driver, ROOT, {"x": 2})
    assert len(driver.listed(ROOT, filter={"tenant": "x"})) == 1
    assert len(driver.listed(ROOT, filter={"source": "loop"}, limit=1)) == 1
    assert driver.listed(ROOT, filter={"tenant": "y"}) == []


def test_lists_over_all_threads_see_only_those_of_langgraph(driver: Driver) -> None:
    from eventstore import Event

    driver.store("append", "ours", [Event(1, {})], 0)
    for name in ("a", "b"):
        config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
        put(driver, config, {"x": name})
        put(driver, config | {}, {"x": name})
    assert len(driver.listed(None)) == 4
    assert len(driver.listed(None, limit=3)) == 3
    assert [each.metadata["step"] for each in driver.listed(None, filter={"step": 1})] == [1] * 4
    with pytest.raises(CorruptEventError, match="kind 1 was not written by a saver for LangGraph"):
        driver.get({"configurable": {"thread_id": "ours"}})


def test_a_copy_with_an_allowlist_shares_everything_but_the_serializer(driver: Driver) -> None:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    driver.saver.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    clone = driver.saver.with_allowlist([("some.module", "Name")])
    assert clone is not driver.saver
    assert clone.store is driver.saver.store
    assert copy.copy(driver.saver)._operations is clone._operations
    put(driver, ROOT, {"x": 1})
    driver.saver = clone
    assert values_at(driver, ROOT) == {"x": 1}


def test_a_thread_that_an_equal_value_is_put_to_stores_it_once(driver: Driver) -> None:
    text = "".join(chr(97 + (number * number) % 26) for number in range(200_000))
    config = put(driver, ROOT, {"text": text})
    first = driver.store("stats", "t").stored_bytes
    for number in range(20):
        start = 10_000 * (number % 19)
        text = text[:start] + "changed" * 285 + text[start + 2_000 :]
        driver.call("put_writes", config, [("text", text)], f"task {number}", "")
        config = put(driver, config, {"text": text})
    driver.reopen()
    assert values_at(driver, config) == {"text": text}
    assert driver.store("stats", "t").stored_bytes - first < 20 * 2_000


def test_threads_live_as_long_as_their_config_says(driver: Driver) -> None:
    from datetime import timedelta

    driver.saver.ttl = timedelta(days=3)
    put(driver, ROOT, {"x": 1})
    own: Any = {"configurable": {"thread_id": "own", "checkpoint_ns": "", "ttl": 60}}
    put(driver, own, {"x": 1})
    assert driver.store("thread", "t").ttl == 3 * 86_400
    assert driver.store("thread", "own").ttl == 60
    for ttl in ("soon", -1, float("nan"), 1e30):
        with pytest.raises(ConfigurationError, match="ttl must be"):
            put(driver, {"configurable": {**own["configurable"], "ttl": ttl}}, {"x": 1})


def test_threads_are_found_by_what_their_first_config_says(driver: Driver) -> None:
    said = {"user": "ann", "count": 2, "is_new": True, "tags": ["not", "searched"]}
    internal = {"thread_id": "t", "langgraph_step": 3, "__pregel": "x", "runtime": "mine"}
    config: Any = ROOT | {"metadata": said | internal}
    first = put(driver, config, {"x": 1})
    put(driver, first | {"metadata": {"user": "bob"}}, {"x": 2})
    driver.call("copy_thread", "t", "copy")
    expected = {"runtime": "langgraph", "user": "ann", "count": 2, "is_new": True}
    for thread_id in ("t", "copy"):
        assert driver.store("thread", thread_id).metadata == expected
    early: Any = {"configurable": {**at("1ef4f797-8335-6428-8001-8a1503f9b875")["configurable"]}}
    early["configurable"]["thread_id"] = "early"
    driver.call("put_writes", early | {"metadata": said}, [("ch", 1)], "task", "")
    assert driver.store("thread", "early").metadata == expected
    long = ROOT | {"configurable": {"thread_id": "long"}, "metadata": {"note": "x" * 10**6}}
    put(driver, long, {"x": 1})
    assert driver.store("thread", "long").metadata == {"runtime": "langgraph"}


def test_what_a_config_must_say(driver: Driver) -> None:
    with pytest.raises(ConfigurationError, match="names no thread"):
        driver.get({"configurable": {}})
    with pytest.raises(ConfigurationError, match="names no checkpoint"):
        driver.call("put_writes", ROOT, [("ch", 1)], "task")
    assert driver.get({"configurable": {"thread_id": 7}}) is None


def test_a_saver_leaves_the_callers_store_open() -> None:
    with EventStore() as store:
        with EventStoreSaver(store) as saver:
            saver.setup()
            put_config: Any = ROOT
            assert saver.get_tuple(put_config) is None
        assert store.thread_counts() == {}
    with EventStoreSaver.from_conn_string("sqlite://") as saver:
        assert saver.config_specs == []
