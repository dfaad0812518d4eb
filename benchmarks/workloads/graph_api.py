"""What a workload needs of a library to declare its graph there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class GraphApi(Protocol):
    """The three names that a state graph is declared with."""

    @property
    def state_graph(self) -> Callable[[Any], Any]: ...
    @property
    def start(self) -> str: ...
    @property
    def end(self) -> str: ...
