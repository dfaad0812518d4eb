"""What makes a compiled graph compose with Runnables of langchain-core.

Owns no behaviour: everything is a method of the graph's one adapter, ``graph.langchain.runnable``.
"""

from __future__ import annotations

from typing import Any, Final

from graph.langchain import runnable_of

_OF_RUNNABLES: Final = frozenset(
    "InputType OutputType abatch_as_completed as_tool assign astream_events astream_log atransform "
    "batch_as_completed bind config_schema config_specs get_config_jsonschema "
    "map pick pipe transform with_alisteners "
    "with_fallbacks with_listeners with_retry with_types".split()
)
"""Public names of Runnables that a graph does not have itself."""


class Composing:
    """``graph | f``, ``f | graph``, and the methods of Runnables: ``as_tool()``, ``pipe()``,
    ``with_retry()``, ``with_fallbacks()``, ``astream_events()``, …
    """

    def as_runnable(self) -> Any:
        """The graph as a Runnable of langchain-core, for what wants one.

        Raises:
            InvalidConfigError: langchain-core is not installed.
        """
        return runnable_of(self)

    def __or__(self, other: Any) -> Any:
        return runnable_of(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | runnable_of(self)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_RUNNABLES:
            return getattr(runnable_of(self), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
