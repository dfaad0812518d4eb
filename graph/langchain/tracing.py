"""Reports a graph's run, its nodes and its conditional edges to langchain-core's callbacks.

Owns the runs that tracers see, as LangGraph has them: one for the graph, in it one for each node,
in that one for each conditional edge. What a node calls finds callbacks, tags and metadata in
langchain-core's context variable, so nodes need not pass their config on. A callback that fails is
langchain-core's matter: it logs the error, or raises it where a handler asks for that.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from eventstore.workers import discard
from graph.langchain.tokens import TokenHandler
from graph.run.scope import Scope, current

_FIRST_EDGE_STEP = 3
"""LangGraph counts a node's function, its writes, and then its edges."""


class RunTrace:
    """One run of a graph, as callbacks see it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        name: str,
        *,
        is_async: bool,
        run_id: Any,
        tokens: Callable[[str, Any], None] | None,
        subgraphs: bool,
    ) -> None:
        around = var_child_runnable_config.get() or {}
        self._is_plain = not around and not _OF_RUN.intersection(config)
        self._name = str(config.get("run_name") or name)
        self._run_id = run_id
        self._manager_type = AsyncCallbackManager if is_async else CallbackManager
        self._tags = [*dict.fromkeys([*(around.get("tags") or ()), *(config.get("tags") or ())])]
        self._metadata = _with_configurable(
            {**(around.get("metadata") or {}), **(config.get("metadata") or {})},
            {**(config.get("configurable") or {}), **(around.get("configurable") or {})},
        )
        self._manager = self._configured(
            config.get("callbacks") or around.get("callbacks"), self._metadata
        )
        self._tokens = None if tokens is None else TokenHandler(tokens, subgraphs)
        if self._tokens is not None:
            self._manager.add_handler(self._tokens, inherit=True)
        self._run: Any = None

    def _configured(self, callbacks: Any, metadata: Mapping[str, Any]) -> Any:
        return self._manager_type.configure(
            inheritable_callbacks=callbacks,
            inheritable_tags=self._tags,
            inheritable_metadata=dict(metadata),
        )

    async def begin(self, given: Any) -> None:
        """The run begins."""
        if self._manager.handlers:
            self._run = await _done(
                self._manager.on_chain_start(None, given, name=self._name, run_id=self._run_id)
            )
        if self._tokens is not None:
            self._tokens.run_id = self._run.run_id

    async def end(self, output: Any) -> None:
        """The run has ended, or is interrupted, with this output."""
        if self._run is not None:
            await _done(self._run.on_chain_end(output))

    async def fail(self, error: BaseException) -> None:
        """The run has failed."""
        if self._run is not None:
            await _done(self._run.on_chain_error(error))

    async def over_node(
        self, scope: Scope, given: Callable[[], Any], work: Awaitable[tuple[Any, Any]]
    ) -> Any:
        """Wait for a node and its edges, as a run in this one.

        Args:
            scope: the running task; its config gets the callbacks of its run.
            given: makes a copy of the node's argument.
            work: returns the result of the node, and what this returns.
        """
        try:
            config, run = await self._begun(scope, given)
        except BaseException:  # a handler that raises its errors
            discard(work)
            raise
        before = var_child_runnable_config.set(cast(RunnableConfig, config))
        try:
            result, found = await work
        except BaseException as error:
            if run is not None:
                await _done(run.on_chain_error(error))
            raise
        finally:
            var_child_runnable_config.reset(before)
        if run is not None:
            await _streamed(run, result)
            await _done(run.on_chain_end(result))
        return found

    async def _begun(self, scope: Scope, given: Callable[[], Any]) -> tuple[Any, Any]:
        """The config of a node, and its run, which begins; no run where nobody is told of it."""
        if self._run is None and self._is_plain and not scope.watched:
            return scope.node_config, None
        config = {each: value for each, value in scope.node_config.items() if each not in _OF_RUN}
        if self._tags:
            config["tags"] = self._tags
        config["callbacks"] = self._manager
        config["metadata"] = {**self._metadata, **(config.get("metadata") or {})}
        run: Any = None
        if self._run is not None:
            manager = self._configured(
                self._run.get_child(f"graph:step:{scope.step}"), config["metadata"]
            )
            run = await _done(manager.on_chain_start(None, given(), name=scope.node))
            config["callbacks"] = run.get_child("seq:step:1")
        if scope.watched:
            config["callbacks"] = config["callbacks"].copy()
            config["callbacks"].add_handler(_Progress(scope), inherit=True)
        scope.use_config(config)
        scope.traced = run
        return config, run

    async def over_edge(
        self, name: str, nth: Callable[[], int], given: Any, work: Awaitable[Any]
    ) -> Any:
        """Wait for the function of a conditional edge, as a run in that of its node."""
        scope = current()
        above = self._run if scope is None else scope.traced
        if above is None:
            return await work
        manager = self._configured(
            above.get_child(f"seq:step:{_FIRST_EDGE_STEP + nth()}"),
            self._metadata if scope is None else scope.node_config["metadata"],
        )
        try:
            run = await _done(manager.on_chain_start(None, given, name=name))
        except BaseException:  # a handler that raises its errors
            discard(work)
            raise
        config = cast(
            RunnableConfig,
            {**(var_child_runnable_config.get() or {}), "callbacks": run.get_child()},
        )
        before = var_child_runnable_config.set(config)
        try:
            result = await work
        except BaseException as error:
            await _done(run.on_chain_error(error))
            raise
        finally:
            var_child_runnable_config.reset(before)
        await _done(run.on_chain_end(result))
        return result


class _Progress(BaseCallbackHandler):
    """Notes whatever a node's models, tools and chains report as progress of the node."""

    run_inline = True

    def __init__(self, scope: Scope) -> None:
        def note(*_: Any, **__: Any) -> None:
            scope.progress()

        for name in _EVENTS:
            setattr(self, name, note)


_EVENTS = tuple(name for name in dir(BaseCallbackHandler) if name.startswith("on_"))

_SHOWN = ("thread_id", "checkpoint_id", "checkpoint_ns")
"""What metadata shows of ``configurable``."""

_OF_RUN = frozenset({"run_name", "run_id", "callbacks"})
"""What a config says of its own run alone."""


def _with_configurable(metadata: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with where the run is, as LangGraph adds it."""
    return {**{name: given[name] for name in _SHOWN if given.get(name)}, **metadata}


async def _streamed(run: Any, result: Any) -> None:
    """Show a node's result to handlers of async runs that look at what streams: one chunk."""
    if not isinstance(run, AsyncCallbackManagerForChainRun):
        return
    for handler in run.handlers:
        if isinstance(handler, _StreamingCallbackHandler):
            async for _ in handler.tap_output_aiter(run.run_id, _only(result)):
                pass


async def _only(result: Any) -> AsyncIterator[Any]:
    yield result


async def _done(result: Any) -> Any:
    """The result of a callback manager, which is awaitable in async runs alone."""
    return await result if inspect.isawaitable(result) else result
