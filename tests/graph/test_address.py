"""What a config says is read in one place, and the layers below never see a config."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import FunctionType
from typing import Any, Final

import pytest

import graph.read
import graph.run
import graph.state
from eventstore import Position
from eventstore.format.digests import prefix_ns
from graph.errors import InvalidConfigError
from graph.run import address
from graph.run.address import Address
from graph.state.state import checkpoint_id

AT: Final = Position(2**63 - 1, "", 17)


def config(**place: Any) -> dict[str, Any]:
    return {"configurable": place}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (config(thread_id="t"), Address("t")),
        (config(thread_id=7), Address("7")),
        (config(thread_id="t", checkpoint_ns=""), Address("t")),
        (config(thread_id="t", checkpoint_ns=None, checkpoint_id=None), Address("t")),
        (config(thread_id="t", checkpoint_ns="a:1"), Address("t", "a:1")),
        (config(thread_id="t", checkpoint_id=checkpoint_id(AT)), Address("t", "", AT)),
        (
            config(thread_id="t", checkpoint_ns="a:1", checkpoint_id=checkpoint_id(AT)),
            Address("t", "a:1", AT._replace(ns="a:1")),
        ),
        (  # what a fork holds of another log is read as that log
            config(thread_id="t", checkpoint_ns=prefix_ns(5, "a:1")),
            Address("t", "a:1"),
        ),
    ],
)
def test_a_config_points_to_an_address(given: dict[str, Any], found: Address) -> None:
    assert Address.of(given) == found


@pytest.mark.parametrize(
    "given",
    [{}, {"configurable": None}, config(), config(thread_id=None), config(thread_id="")],
    ids=repr,
)
def test_a_config_without_a_thread_is_refused(given: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidConfigError, match="needs a thread_id; pass config="):
        Address.of(given)


@pytest.mark.parametrize("text", ["latest", "1ef", f"{checkpoint_id(AT)} ", 7])
def test_a_checkpoint_id_of_another_library_is_refused(text: Any) -> None:
    with pytest.raises(InvalidConfigError, match="is not a checkpoint_id of this library"):
        Address.of(config(thread_id="t", checkpoint_id=text))


def functions_below_the_edge() -> Iterator[Callable[..., Any]]:
    for package in (graph.read, graph.run, graph.state):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for member in vars(import_module(module.name)).values():
                if getattr(member, "__module__", "") != module.name:
                    continue
                found = vars(member).values() if inspect.isclass(member) else [member]
                yield from (each for each in found if isinstance(each, FunctionType))


def test_no_function_below_the_public_methods_takes_a_config() -> None:
    taking = {
        f"{each.__module__}.{each.__qualname__}"
        for each in functions_below_the_edge()
        if each.__module__ != address.__name__ and "config" in inspect.signature(each).parameters
    }
    # These hold the config for nodes that take it; langchain-core adds its callbacks to it.
    assert taking == {
        "graph.run.scope.Scope.__init__",
        "graph.run.scope.Scope.use_config",
        "graph.run.tasks.Options.__init__",
    }
