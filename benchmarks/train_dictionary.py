"""Trains the built-in zstd dictionary from seeded, generic, agent- and workflow-shaped data.

    python benchmarks/train_dictionary.py [--out FILE] [--seed 1]

The same seed and the same version of zstandard write identical bytes. The released file is
part of the stored format: training again must produce a *new* id, never replace it.
The sentences are ordinary English, so that the dictionary suits text it has not seen.
"""

from __future__ import annotations

import argparse
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import zstandard

DICT_ID = 1
DICT_BYTES = 16 * 1024
SAMPLES = 12_000
OUT = Path(__file__).parent.parent / "eventstore" / "dictionaries" / f"builtin-{DICT_ID}.zdict"

NAMES = "Alice Bob Carol David Emma Frank Grace Henry Maria Thomas Sarah Anna".split()
CITIES = "London Paris Berlin Madrid Vienna Boston Chicago Toronto Sydney Tokyo".split()
SUBJECTS = (
    "the customer|the invoice|the report|your order|the request|our team|the document|the server"
    "|the contract|this section|the analysis|the new version|the database|the project|the result"
    "|the meeting|the payment|the user|the system|the summary|the proposal|the test|the data"
    "|the first paragraph|the question|the answer|the schedule|the price|the delivery|the draft"
).split("|")
VERBS = (
    "should be reviewed|has been approved|was rejected|is not available|needs more information"
    "|will be sent|can be found|was updated|is ready|has changed|looks good|must be completed"
    "|could not be found|was created|is described|has been completed|is required|will be returned"
    "|does not include|depends on|was processed|is being prepared|would be better|needs to be fixed"
).split("|")
TAILS = (
    "before the end of the week|because the deadline is close|in the following steps|for example"
    "|by the support team|with the latest information|according to the document|at this time"
    "|as soon as possible|in order to continue|after the payment|without any changes|on the website"
    "|and there are several reasons for that|so that everyone can see it|from the original source"
    "|which is the most important part|if you would like to know more|during the last month"
    "|between these two options|since the beginning of the year|when the process is finished"
).split("|")
OPENERS = (
    "Could you please|Thank you for|I would like to|Here is|Please let me know if|Based on the"
    "|I have checked|Let me|You can|We need to|What is the|How do I|I am sorry, but|To summarize,"
    "|First of all,|In addition,|However,|There are|It seems that|Can you|Sure!|Of course,|Then"
).split("|")
ACTIONS = (
    "find|write|explain|compare|translate|check|summarize|update|search for|calculate|review"
    "|describe|improve|send|collect|plan|create|delete|open|schedule|verify|analyze|prepare"
).split("|")
NODES = (
    "agent chat tools plan draft review approve publish search retrieve summarize route notify "
    "validate extract classify generate respond supervisor research write human execute finish"
).split()
TOOLS = (
    "search get_weather calculator send_email read_file write_file query_database fetch_url "
    "create_ticket list_orders get_customer book_meeting translate run_code lookup"
).split()
ERRORS = (
    "TimeoutError|ValueError|KeyError|ConnectionError|HTTPError|PermissionError|RuntimeError"
).split("|")
STATUS = "pending running waiting done failed approved rejected completed cancelled open".split()


class Maker:
    """Makes values of the shapes that graphs write; all choices come from one seed."""

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

    def sentence(self) -> str:
        subject, verb, tail = self.pick(SUBJECTS), self.pick(VERBS), self.pick(TAILS)
        start = self.pick(OPENERS)
        form = self.random.randrange(4)
        if form == 0:
            text = f"{start} {self.pick(ACTIONS)} {subject} {tail}"
        elif form == 1:
            text = f"{subject} {verb} {tail}, and {self.pick(SUBJECTS)} {self.pick(VERBS)}"
        elif form == 2:
            text = f"{start} {subject} that {verb} {tail}"
        else:
            text = f"{subject} {verb} {tail}"
        return text[0].upper() + text[1:] + self.pick([".", ".", ".", "?", ":", "!"])

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
        """A registered message class, as the codec lays it out: name, version, fields."""
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
    maker = Maker(seed)
    return [msgpack.packb(maker.event()) for _ in range(count)]


def train(seed: int) -> bytes:
    # Fixed k and d, one thread: the search for them would depend on the machine.
    return zstandard.train_dictionary(
        DICT_BYTES, samples(seed), k=256, d=8, dict_id=DICT_ID, level=3
    ).as_bytes()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    data = train(given.seed)
    given.out.write_bytes(data)

    unseen = samples(given.seed + 1, 2000)
    plain = zstandard.ZstdCompressor(level=3)
    trained = zstandard.ZstdCompressor(level=3, dict_data=zstandard.ZstdCompressionDict(data))
    raw = sum(map(len, unseen))
    print(f"{given.out.name}: {len(data)} bytes, zstandard {zstandard.__version__}")
    print(f"unseen samples: mean {raw / len(unseen):.0f} bytes")
    print(f"  zstd alone           {raw / sum(len(plain.compress(s)) for s in unseen):.2f} x")
    print(f"  with the dictionary  {raw / sum(len(trained.compress(s)) for s in unseen):.2f} x")


if __name__ == "__main__":
    main()
