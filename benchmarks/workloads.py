"""The jobs that are measured: seeded data, and graphs written once for any peer.

Owns the shape of the work: a chat, a three-node pipeline, a large document with small edits,
a fan-out. A graph is declared against ``GraphApi`` (``StateGraph``, ``START``, ``END``), so
every peer runs the same nodes, reducers and edges over the same bytes. The text is English-like:
real words, Zipf weights, sentence patterns, names, numbers, dates; equal seeds give equal data.
"""

from __future__ import annotations

import json
import operator
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol, TypedDict

from benchmarks.vocabulary import ADJECTIVES, ADVERBS, NAMES, NOUNS, VERBS

SEED: Final = 20240607
QUESTION_BYTES: Final = 600
ANSWER_BYTES: Final = 1200
PIPELINE_THREADS: Final = 200
DOCUMENT_BYTES: Final = 200_000
DOCUMENT_STEPS: Final = 100
DOCUMENT_RUNS: Final = 5
FANOUT_WIDTH: Final = 20
FANOUT_RUNS: Final = 50

Message = dict[str, Any]


class GraphApi(Protocol):
    """What a workload needs of a peer to declare its graph."""

    @property
    def state_graph(self) -> Callable[[Any], Any]: ...
    @property
    def start(self) -> str: ...
    @property
    def end(self) -> str: ...


# --- text -----------------------------------------------------------------------------------


class Writer:
    """Writes English-like text, deterministically for a seed.

    Word choice follows rank with the weight 1 / (rank + 2.7), Zipf's law as Mandelbrot
    corrected it; the most common words of all (articles, prepositions) come from the patterns.
    """

    PATTERNS: Final = (
        "{the} {adj} {noun} {past} {prep} {the} {noun}, {conj} {the} {noun} {past} {adv}.",
        "{pron} {past} {the} {noun} {prep} {the} {adj} {noun} {conj} {past} {a} {noun}.",
        "{name} {past} {a} {adj} {noun} {prep} {date}, {conj} {pron} {modal} {verb} {the} {noun}.",
        "{adv}, {the} {nouns} of {the} {noun} {modal} {verb} {adv}.",
        "Could you {verb} {the} {noun} that {name} {past} {prep} {the} {noun}?",
        "There were {number} {adj} {nouns} {prep} {the} {noun}, {conj} {number} of them {past}.",
        "If {the} {noun} {modal} {verb}, {pron} {modal} {adv} {verb} {the} {adj} {nouns}.",
        "{pron} {modal} not {verb} {a} {noun} until {the} {noun} has {past} {the} {nouns}.",
        "What {name} {past} was {adv} {adj}: {nouns}, {nouns} and {a} {adj} {noun}.",
        "According to {the} {noun}, {number} per cent of {the} {nouns} {past} {prep} {date}.",
        "{the} {noun} is {adj}, {conj} {the} {nouns} that {pron} {past} are {adv} {adj}.",
        "Please {verb} {the} {adj} {noun} {conj} {verb} {the} {nouns} {prep} {the} {noun}.",
    )
    SMALL: Final[dict[str, tuple[str, ...]]] = {
        "the": ("the",) * 6 + ("this", "that", "our", "their", "every", "another", "its"),
        "a": ("a",) * 5 + ("some", "one", "no"),
        "prep": (
            *("of", "in", "to", "for", "with", "on", "at", "from", "by", "about", "before"),
            *("after", "under", "between", "through", "without", "near", "against", "during"),
        ),
        "conj": ("and", "and", "and", "but", "because", "while", "so", "although", "or"),
        "pron": ("we", "they", "I", "she", "he", "it", "you", "nobody", "everyone"),
        "modal": ("will", "can", "could", "should", "would", "must", "may", "did", "might"),
    }

    def __init__(self, seed: int = SEED) -> None:
        self.random = random.Random(seed)
        self._ranked = {
            kind: self._zipf(words)
            for kind, words in {
                "noun": NOUNS,
                "verb": VERBS,
                "adj": ADJECTIVES,
                "adv": ADVERBS,
                "name": NAMES,
            }.items()
        }

    def _zipf(self, words: Sequence[str]) -> tuple[list[str], list[float]]:
        unique = list(dict.fromkeys(words))
        total, cumulative = 0.0, []
        for rank in range(len(unique)):
            total += 1 / (rank + 2.7)
            cumulative.append(total)
        return unique, cumulative

    def word(self, kind: str) -> str:
        """One word or phrase for a slot of a pattern."""
        match kind:
            case "nouns":
                return _plural(self.word("noun"))
            case "past":
                return _past(self.word("verb"))
            case "number":
                return str(int(self.random.paretovariate(0.6)) + 1)
            case "date":
                return f"{self.random.randint(1, 28)} {self.random.choice(_MONTHS)}"
            case kind if kind in self.SMALL:
                return self.random.choice(self.SMALL[kind])
        words, cumulative = self._ranked[kind]
        return self.random.choices(words, cum_weights=cumulative)[0]

    def sentence(self) -> str:
        """A sentence, with a capital and a full stop."""
        parts = self.random.choice(self.PATTERNS).split("{")
        text = parts[0] + "".join(
            self.word(slot) + rest for slot, _, rest in (part.partition("}") for part in parts[1:])
        )
        return text[0].upper() + text[1:]

    def text(self, size: int) -> str:
        """Whole sentences of about ``size`` bytes, never fewer."""
        sentences, length = [], 0
        while length < size:
            sentences.append(self.sentence())
            length += len(sentences[-1]) + 1
        return " ".join(sentences)

    def uuid(self) -> str:
        """A random (version 4) uuid as text."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


_MONTHS: Final = tuple(
    "January February March April May June July August September October November December".split()
)


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


# --- chat -----------------------------------------------------------------------------------


class ChatState(TypedDict):
    """A conversation that only grows."""

    messages: Annotated[list[Message], operator.add]


@dataclass(frozen=True)
class Turn:
    """What a person asks, and what the assistant answers after a call of a tool."""

    question: Message
    answer: Message


def chat_turns(count: int, seed: int = SEED) -> list[Turn]:
    """Turns of ~600 bytes of question and ~1,200 bytes of answer, tool call included."""
    writer = Writer(seed)
    return [_turn(writer) for _ in range(count)]


_TOOLS: Final = ("search_documents", "look_up_order", "read_calendar", "run_query", "get_forecast")


def _turn(writer: Writer) -> Turn:
    pick = writer.random
    arguments = {
        "query": writer.sentence(),
        "customer": writer.word("name"),
        "limit": pick.choice((5, 10, 20, 50)),
        "filters": {
            "status": writer.word("adj"),
            "topics": [writer.word("noun") for _ in range(3)],
            "since": f"2024-{pick.randint(1, 12):02}-{pick.randint(1, 28):02}",
        },
    }
    call = {
        "id": f"call_{pick.getrandbits(96):024x}",
        "type": "function",
        "function": {"name": pick.choice(_TOOLS), "arguments": json.dumps(arguments)},
    }
    spent = len(json.dumps(call))
    # Sentences are never cut, so aim low by half a sentence: the mean then meets the size.
    return Turn(
        question={
            "role": "user",
            "content": writer.text(QUESTION_BYTES - 110),
            "id": writer.uuid(),
        },
        answer={
            "role": "assistant",
            "content": writer.text(ANSWER_BYTES - spent - 110),
            "id": writer.uuid(),
            "tool_calls": [call],
        },
    )


def chat_graph(api: GraphApi, turns: Sequence[Turn]) -> Any:
    """One node that answers the nth question with the nth answer."""

    def chat(state: ChatState) -> dict[str, Any]:
        return {"messages": [turns[len(state["messages"]) // 2].answer]}

    graph = api.state_graph(ChatState)
    graph.add_node("chat", chat)
    graph.add_edge(api.start, "chat")
    graph.add_edge("chat", api.end)
    return graph


# --- pipeline -------------------------------------------------------------------------------


class PipelineState(TypedDict):
    """A short text on its way through three nodes."""

    text: str
    words: int
    label: str
    summary: str


def pipeline_inputs(count: int = PIPELINE_THREADS, seed: int = SEED + 1) -> list[dict[str, Any]]:
    """Inputs of about 250 bytes, one per thread."""
    writer = Writer(seed)
    return [{"text": writer.text(200)} for _ in range(count)]


PIPELINE_SUPERSTEPS: Final = 3


def pipeline_graph(api: GraphApi) -> Any:
    """measure -> classify -> summarise."""

    def measure(state: PipelineState) -> dict[str, Any]:
        return {"words": len(state["text"].split())}

    def classify(state: PipelineState) -> dict[str, Any]:
        return {"label": "long" if state["words"] > 40 else "short"}

    def summarise(state: PipelineState) -> dict[str, Any]:
        return {"summary": f"{state['label']}: {state['text'][:60]}"}

    graph = api.state_graph(PipelineState)
    graph.add_node("measure", measure)
    graph.add_node("classify", classify)
    graph.add_node("summarise", summarise)
    graph.add_edge(api.start, "measure")
    graph.add_edge("measure", "classify")
    graph.add_edge("classify", "summarise")
    graph.add_edge("summarise", api.end)
    return graph


# --- document -------------------------------------------------------------------------------


def replace_paragraphs(document: dict[str, str], edits: dict[str, str]) -> dict[str, str]:
    """The reducer of a document that is kept by paragraph."""
    return {**document, **edits}


class DocumentState(TypedDict):
    """A document by paragraph, and how often it was edited."""

    paragraphs: Annotated[dict[str, str], replace_paragraphs]
    revision: int


@dataclass(frozen=True)
class Document:
    """The first version of a document, and the edits that follow, one per superstep."""

    paragraphs: dict[str, str]
    edits: list[dict[str, str]] = field(repr=False)


def document(steps: int = DOCUMENT_STEPS, seed: int = SEED + 2) -> Document:
    """200 KB in paragraphs of about 500 bytes; each edit rewrites one paragraph."""
    writer = Writer(seed)
    paragraphs: dict[str, str] = {}
    size = 0
    while size < DOCUMENT_BYTES:
        text = writer.text(400)
        paragraphs[f"p{len(paragraphs):04}"] = text
        size += len(text)
    keys = list(paragraphs)
    return Document(
        paragraphs, [{writer.random.choice(keys): writer.text(400)} for _ in range(steps)]
    )


def document_graph(api: GraphApi, doc: Document) -> Any:
    """A node that edits, and an edge that leads back to it until every edit is made."""

    def edit(state: DocumentState) -> dict[str, Any]:
        revision = state["revision"]
        return {"paragraphs": doc.edits[revision], "revision": revision + 1}

    def more(state: DocumentState) -> str:
        return "edit" if state["revision"] < len(doc.edits) else api.end

    graph = api.state_graph(DocumentState)
    graph.add_node("edit", edit)
    graph.add_edge(api.start, "edit")
    graph.add_conditional_edges("edit", more, ["edit", api.end])
    return graph


# --- fan-out --------------------------------------------------------------------------------


class FanoutState(TypedDict):
    """What many workers found about one topic."""

    topic: str
    findings: Annotated[list[dict[str, Any]], operator.add]


def fanout_findings(width: int = FANOUT_WIDTH, seed: int = SEED + 3) -> list[dict[str, Any]]:
    """One finding of about 150 bytes per worker."""
    writer = Writer(seed)
    return [
        {"worker": number, "score": round(writer.random.random(), 3), "text": writer.text(60)}
        for number in range(width)
    ]


def fanout_graph(api: GraphApi, findings: Sequence[dict[str, Any]]) -> Any:
    """All workers run in one superstep, side by side."""

    def worker(number: int) -> Callable[[FanoutState], dict[str, Any]]:
        return lambda state: {"findings": [findings[number]]}

    graph = api.state_graph(FanoutState)
    for number in range(len(findings)):
        graph.add_node(f"worker{number:02}", worker(number))
        graph.add_edge(api.start, f"worker{number:02}")
        graph.add_edge(f"worker{number:02}", api.end)
    return graph
