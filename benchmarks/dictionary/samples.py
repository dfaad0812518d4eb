"""Generated events of the shapes that graphs write, for zstd's statistics.

All choices come from one seed: equal seeds give equal samples.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgpack

from benchmarks.dictionary.content import COMMON, NODES, OPENINGS, PHRASES, RARE, STATUS, TOOLS

SAMPLES: Final = 4_000

NAMES = "Alice Bob Carol David Emma Frank Grace Henry Maria Thomas Sarah Anna".split()
CITIES = "London Paris Berlin Madrid Vienna Boston Chicago Toronto Sydney Tokyo".split()
ERRORS = (
    "TimeoutError|ValueError|KeyError|ConnectionError|HTTPError|PermissionError|RuntimeError"
).split("|")


def _followers(words: Iterable[str]) -> dict[str, list[str]]:
    """Map each pair of letters to the letters that follow it; an empty string ends a word."""
    after: dict[str, list[str]] = {}
    for word in words:
        for at in range(len(word) - 1):
            after.setdefault(word[at : at + 2], []).append(word[at + 2 : at + 3])
    return after


_NEXT = _followers(RARE)


class Maker:
    """Makes values of the shapes that graphs write."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(digits * 4):0{digits}x}"

    def uuid(self) -> str:
        text = self.hex(32)
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def moment(self) -> str:
        moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(
            seconds=self.random.randrange(4 * 365 * 86400), microseconds=self.pick([0, 123456])
        )
        return moment.isoformat().replace("+00:00", self.pick(["Z", "+00:00"]))

    def url(self) -> str:
        place = self.pick(["www.example.com", "api.example.com/v1", "docs.example.org/en"])
        return f"https://{place}/{self.pick(NODES)}/{self.random.randrange(10**6)}"

    def unknown_word(self) -> str:
        """A word that is not in the dictionary but is spelt like English."""
        word = self.pick(RARE)[:2]
        while len(word) < 12 and (letter := self.pick(_NEXT[word[-2:]])):
            word += letter
        return word

    def sentence(self) -> str:
        words = [self.pick(OPENINGS)] if self.random.random() < 0.5 else []
        for _ in range(self.random.randrange(4, 16)):
            kind = self.random.random()
            if kind < 0.92:
                words.append(self.pick(PHRASES if kind < 0.4 else COMMON if kind < 0.8 else RARE))
            else:
                words.append(self.unknown_word())
            if self.random.random() < 0.08:
                words[-1] += ","
        text = " ".join(words)
        text = text[0].upper() + text[1:] + self.pick([".", ".", ".", "?", ":", "!"])
        # A capital, line end or punctuation mark that no sample holds would cost 12 bits.
        look = self.random.random()
        if look < 0.06:
            return text.upper()
        if look < 0.2:
            return text.title()
        if look < 0.4:
            return text.replace(" ", "\n", 1)
        if look < 0.5:
            mark = self.pick(['"', "`", "-", "_"])
            return text.replace(", ", f" ({mark}").replace(" ", "  ", 1)
        return text

    def text(self, sentences: int = 6) -> str:
        joint = self.pick([" ", " ", "\n", "\n\n", "\n- "])
        return joint.join(self.sentence() for _ in range(self.random.randrange(1, sentences)))

    def arguments(self) -> dict[str, Any]:
        all_of = {
            "query": self.sentence().lower().rstrip(".?!:"),
            "location": self.pick(CITIES),
            "limit": self.random.randrange(1, 50),
            "path": f"/home/user/{self.pick(NODES)}.md",
            "url": self.url(),
            "customer_id": self.random.randrange(10**5),
            "date": self.moment()[:10],
            "language": self.pick(["en", "de", "fr"]),
            "amount": round(self.random.uniform(1, 1000), 2),
            "email": f"{self.pick(NAMES).lower()}@example.com",
            "unit": self.pick(["celsius", "EUR", "USD", "km"]),
        }
        return {key: all_of[key] for key in self.random.sample(sorted(all_of), 3)}

    def result(self) -> dict[str, Any]:
        return {
            "status": self.pick(["ok", "success", "error"]),
            "results": [
                {
                    "title": self.sentence(),
                    "url": self.url(),
                    "snippet": self.sentence(),
                    "score": round(self.random.random(), 3),
                }
                for _ in range(self.random.randrange(1, 3))
            ],
            "total": self.random.randrange(500),
        }

    def call(self) -> dict[str, Any]:
        return {
            "name": self.pick(TOOLS),
            "args": self.arguments(),
            "id": f"call_{self.hex(24)}",
            "type": "tool_call",
        }

    def message(self) -> dict[str, Any]:
        kind = self.random.randrange(6)
        if kind == 0:
            return {"role": "user", "content": self.text(3)}
        if kind == 1:
            return {"role": "assistant", "content": self.text(), "id": self.uuid()}
        if kind == 2:
            call = {
                "id": f"call_{self.hex(24)}",
                "type": "function",
                "function": {"name": self.pick(TOOLS), "arguments": json.dumps(self.arguments())},
            }
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        if kind == 3:
            content = json.dumps(self.result())
            return {"role": "tool", "content": content, "tool_call_id": f"call_{self.hex(24)}"}
        if kind == 4:
            return {"type": self.pick(["human", "ai"]), "content": self.text(), "id": self.uuid()}
        return {"role": "system", "content": f"You are a helpful assistant. {self.text(4)}"}

    def typed_message(self) -> msgpack.ExtType:
        """A registered message class in the codec's layout: name, version, fields."""
        kind = self.pick(["human", "ai", "ai", "tool"])
        fields: dict[str, Any] = {
            "content": self.text(),
            "additional_kwargs": {},
            "response_metadata": {},
            "type": kind,
            "name": None,
            "id": self.uuid(),
        }
        if kind == "ai":
            calls = [self.call()] if self.random.random() < 0.4 else []
            fields |= {"tool_calls": calls, "invalid_tool_calls": [], "usage_metadata": None}
        if kind == "tool":
            fields |= {
                "tool_call_id": f"call_{self.hex(24)}",
                "artifact": None,
                "status": "success",
            }
        name = {"human": "HumanMessage", "ai": "AIMessage", "tool": "ToolMessage"}[kind]
        return msgpack.ExtType(32, msgpack.packb([name, 1, fields, ["content", "id"], None]))

    def writes(self) -> dict[str, Any]:
        kind = self.random.randrange(12)
        if kind < 4:
            return {"messages": [self.message() for _ in range(self.random.randrange(1, 3))]}
        if kind == 4:
            return {"messages": [self.typed_message()]}
        if kind == 5:
            return {"plan": [self.sentence() for _ in range(3)], "current_step": 0}
        if kind == 6:
            return {"approved": self.pick([True, False]), "reviewer": self.pick(NAMES)}
        if kind == 7:
            return {"score": round(self.random.random(), 4), "feedback": self.text(3)}
        if kind == 8:
            return {"documents": [self.document()], "question": self.sentence()}
        if kind == 9:
            return {"draft": self.text(), "title": self.sentence(), "revision": 2}
        if kind == 10:
            return {"count": self.random.randrange(100), "status": self.pick(STATUS), "done": False}
        return {"results": self.result(), "summary": self.text(3), "updated_at": self.moment()}

    def document(self) -> dict[str, Any]:
        return {
            "id": self.uuid(),
            "page_content": self.text(),
            "metadata": {"source": self.url(), "page": self.random.randrange(90), "lang": "en"},
        }

    def targets(self) -> list[Any]:
        return self.random.sample(NODES, 1) if self.random.random() < 0.8 else ["__end__"]

    def event(self) -> Any:
        kind = self.random.randrange(14)
        step = {"step": self.random.randrange(60), "task": self.random.randrange(3)}
        node = {"node": self.pick(NODES)}
        if kind < 7:
            return {**step, **node, "writes": self.writes(), "to": self.targets()}
        if kind < 9:
            return {"run": self.uuid(), "writes": self.writes(), "to": self.targets()}
        if kind == 9:
            message = f"{self.sentence()} (status {self.pick([400, 404, 429, 500, 503])})"
            return {**step, **node, "error": {"type": self.pick(ERRORS), "message": message}}
        if kind == 10:
            value = {
                "question": "Do you approve this?",
                "draft": self.text(3),
                "options": STATUS[:2],
            }
            return {**step, **node, "interrupts": [{"id": self.hex(32), "value": value}]}
        if kind == 11:
            answer = self.pick([True, "yes", "approved", {"approved": True, "comment": ""}])
            return {"resume": {self.hex(32): answer}, "at": self.moment()}
        if kind == 12:
            return {"as_node": self.pick(NODES), "writes": self.writes(), "goto": self.targets()}
        return {
            "order_id": self.random.randrange(10**6),
            "customer": {"name": self.pick(NAMES), "email": "user@example.com", "city": CITIES[0]},
            "items": [{"sku": self.hex(8), "quantity": 1, "price": 19.99, "currency": "EUR"}],
            "status": self.pick(STATUS),
            "created_at": self.moment(),
        }


def samples(seed: int, count: int = SAMPLES) -> list[bytes | bytearray | memoryview]:
    """Encoded events."""
    maker = Maker(seed)
    return [msgpack.packb(maker.event()) for _ in range(count)]
