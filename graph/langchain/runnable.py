"""A compiled graph as a Runnable of langchain-core.

Owns the one adapter: what composes (``graph | f``, ``as_tool``, ``with_retry``, …) composes this,
and every call ends in the graph's own methods.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config


class GraphRunnable(Runnable[Any, Any]):
    """Calls a graph.

    Attributes:
        graph: the compiled graph.
    """

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.name = graph.name

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.graph.invoke(input, _given(config), **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self.graph.ainvoke(input, _given(config), **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[Any]:
        return iter(self.graph.stream(input, _given(config), **kwargs))

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        async for chunk in self.graph.astream(input, _given(config), **kwargs):
            yield chunk

    def get_input_jsonschema(
        self, config: RunnableConfig | None = None, **_: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = self.graph.get_input_jsonschema()
        return found

    def get_output_jsonschema(
        self, config: RunnableConfig | None = None, **_: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = self.graph.get_output_jsonschema()
        return found


def _given(config: RunnableConfig | None) -> Any:
    """The config of a call, without the defaults that langchain-core fills in."""
    if config is None:
        return None
    default = ensure_config({})["recursion_limit"]
    return {
        name: value
        for name, value in config.items()
        if value is not None and not (name == "recursion_limit" and value == default)
    }
