"""Writes English-like text: real words, Zipf weights, sentence patterns, names, numbers, dates.

Equal seeds give equal text, so that every peer and every run stores the same bytes.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from typing import Final

from benchmarks.workloads.vocabulary import ADJECTIVES, ADVERBS, NAMES, NOUNS, VERBS

SEED: Final = 20240607


class Writer:
    """Writes English-like text, deterministically for a seed.

    A word's weight is 1 / (rank + 2.7), Zipf's law with Mandelbrot's correction. The most common
    words (articles, prepositions) come from the patterns.
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
