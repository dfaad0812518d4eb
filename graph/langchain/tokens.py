"""The tokens of chat models that nodes call: the chunks of the stream mode ``messages``.

Owns the callback handler that collects them. A chunk is a pair: a message, or a part of one while
the model writes it; and the metadata of the call (node, superstep, namespace, tags). Messages that
a node returns and no model streamed are chunks, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from eventstore.format.namespaces import SEPARATOR
from graph.types import TAG_HIDDEN, TAG_NOSTREAM, Command

_SILENT: Final = frozenset({TAG_NOSTREAM, "langsmith:nostream"})
_INTERNAL_TAGS: Final = ("seq:step", "graph:step", "langsmith:")

_Meta = tuple[str, dict[str, Any]]


class TokenHandler(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """Collects tokens; it is among the handlers of a run whose caller asked for them.

    Its second base makes chat models stream, also where a node calls ``invoke``.

    Args:
        emit: gets a namespace and a chunk; called on any thread.
        subgraphs: also the tokens of graphs inside it.

    Attributes:
        run_id: of the run, whose nodes are children of it.
    """

    run_inline = True

    def __init__(self, emit: Callable[[str, Any], None], subgraphs: bool) -> None:
        self.run_id: UUID | None = None
        self._emit_chunk = emit
        self._ns = ""
        self._subgraphs = subgraphs
        self._calls: dict[UUID, _Meta] = {}
        self._seen: set[Any] = set()

    def tap_output_aiter(self, run_id: UUID, output: Any) -> Any:
        """Part of the second base: not needed here."""
        return output

    def tap_output_iter(self, run_id: UUID, output: Any) -> Any:
        """Part of the second base: not needed here."""
        return output

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if metadata and not _SILENT.intersection(tags or ()):
            own = [tag for tag in tags or () if not tag.startswith(_INTERNAL_TAGS)]
            self._begin(run_id, {**metadata, **({"tags": own} if own else {})})

    def on_llm_new_token(
        self,
        token: Any,
        *,
        chunk: Any = None,
        run_id: UUID,
        **_: Any,
    ) -> None:
        meta = self._calls.get(run_id)
        if meta is not None and isinstance(chunk, ChatGenerationChunk):
            self._emit(meta, chunk.message)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        meta = self._calls.pop(run_id, None)
        if meta is not None and response.generations and response.generations[0]:
            made = response.generations[0][0]
            if isinstance(made, ChatGeneration):
                self._emit_new(meta, made.message)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._calls.pop(run_id, None)

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        is_node = metadata is not None and name == metadata.get("langgraph_node")
        if is_node and metadata is not None and TAG_HIDDEN not in (tags or ()):
            if parent_run_id == self.run_id:
                self._ns = _ns_of(metadata)
            self._begin(run_id, metadata)
            self._seen.update(each.id for each in _messages(inputs) if each.id is not None)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        meta = self._calls.pop(run_id, None)
        if meta is None:
            return
        parts = outputs if isinstance(outputs, list) else [outputs]
        for part in parts:
            for message in _messages(part.update if isinstance(part, Command) else part):
                self._emit_new(meta, message)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._calls.pop(run_id, None)

    def _begin(self, run_id: UUID, metadata: dict[str, Any]) -> None:
        """Collect the tokens of a call, if its graph is one that the caller asked for."""
        ns = _ns_of(metadata)
        if self._subgraphs or ns == self._ns:
            self._calls[run_id] = (ns, metadata)

    def _emit(self, meta: _Meta, message: BaseMessage) -> None:
        if message.id is None:
            message.id = str(uuid4())
        self._seen.add(message.id)
        self._emit_chunk(meta[0], (message, meta[1]))

    def _emit_new(self, meta: _Meta, message: BaseMessage) -> None:
        if message.id is None or message.id not in self._seen:
            self._emit(meta, message)


def _ns_of(metadata: Mapping[str, Any]) -> str:
    """The namespace of the graph whose node made a call."""
    return str(metadata.get("langgraph_checkpoint_ns") or "").rpartition(SEPARATOR)[0]


def _messages(value: Any) -> Iterator[BaseMessage]:
    """The messages in a node's argument or result: itself, in a list, or in the values of keys."""
    if isinstance(value, BaseMessage):
        yield value
        return
    if isinstance(value, Mapping):
        parts: Sequence[Any] = [*value.values()]
    elif isinstance(value, list | tuple):
        parts = value
    elif hasattr(value, "model_fields_set"):
        parts = [getattr(value, name) for name in type(value).model_fields]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, each.name) for each in fields(value)]
    else:
        return
    for part in parts:
        if isinstance(part, BaseMessage):
            yield part
        elif isinstance(part, list | tuple):
            yield from (each for each in part if isinstance(each, BaseMessage))
