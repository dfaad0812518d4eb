"""Makes the built-in zstd dictionary: plain English and the structure of events and JSON.

    python benchmarks/train_dictionary.py [--out FILE] [--seed 1]

The content is written by hand (``english.py``, and the structures below), because training on
invented sentences picks whole sentences that no real text repeats: 3 % worse. zstd's trainer
supplies the statistics (how long literals and matches are, how far away), from seeded events.
The same seed and the same version of zstandard write identical bytes. The released file is
part of the stored format: making it again must produce a *new* id, never replace it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgpack
import zstandard

sys.path.insert(0, str(Path(__file__).parent.parent))  # as a script, too

from benchmarks import english

DICT_ID: Final = 1
DICT_BYTES_MAX: Final = 64 * 1024
SAMPLES: Final = 4_000
# The codec's own level: the statistics are those of the matches that it finds.
LEVEL: Final = 5
OUT: Final = (
    Path(__file__).parent.parent / "eventstore" / "dictionaries" / f"builtin-{DICT_ID}.zdict"
)
# The statistics of a zstd dictionary end with its three recent offsets, then content follows.
_RECENT_OFFSETS: Final = b"\1\0\0\0\4\0\0\0\10\0\0\0"

NODES = (
    "human supervisor research generate classify extract notify retrieve summarize route write "
    "respond execute validate search publish approve review draft plan start finish call_model "
    "tools agent"
).split()
FIELDS = (
    "page_content metadata source lang documents snippet currency unit price quantity sku items "
    "customer_id order_id customer email phone city country address latitude longitude location "
    "language latest history path file_name filename size line column code exit_code stdout stderr "
    "traceback exception error_type retryable attempt attempts max_retries timeout duration "
    "duration_ms latency_ms started_at finished_at created_at updated_at expires_at timestamp "
    "time start end date amount total_count total count limit offset page page_size next_page "
    "has_more cursor sort order fields rows columns values key keys labels tags "
    "category priority level kind state status success ok message messages reason explanation "
    "comment feedback rating confidence probability label score scores relevance rank index "
    "position version revision author created_by owner assignee reviewer user user_id session_id "
    "thread_id run_id request_id parent_id trace_id method headers params body response request "
    "endpoint href link url image_url text title subject summary description details result "
    "results output outputs input inputs data value options option default required properties "
    "parameters schema enum minimum maximum format items additional_kwargs response_metadata "
    "usage_metadata input_tokens output_tokens total_tokens prompt_tokens completion_tokens "
    "token_usage finish_reason stop_reason model_name model temperature max_tokens usage "
    "invalid_tool_calls artifact example tool_call tool_calls tool_call_id arguments function "
    "args name query question answer plan steps current_step next_step done approved action "
    "id type role content"
).split()
FRAGMENTS = (
    "HTTP/1.1 200 OK|Content-Type: application/json; charset=utf-8|Authorization: Bearer |"
    '<div class="|</div>|</a>|<a href="|<br>|&nbsp;|&quot;|SELECT * FROM | WHERE | ORDER BY |'
    " DESC LIMIT | GROUP BY |INSERT INTO | VALUES (| LEFT JOIN | ON | AND | IS NOT NULL|"
    " COUNT(*) |UPDATE | SET |const |function |() => {|await |async def |def __init__(self, |"
    "    return |    if |        self.|self, |for i in range(|print(f|len(|import |"
    "from typing import |class |(self) -> None:|: str = |: int = |Optional[|list[str]|"
    "dict[str, Any]|lambda |raise ValueError(|assert |isinstance(| is None| not None:| == |"
    " != | >= | <= | += 1| -> | && |if __name__ == '__main__':|```python\n|\n```\n|"
    "```json\n{\n  |```bash\n|\n\n## |\n\n### |\n\n1. **|\n2. **|\n3. **|\n   - |\n\n- **|"
    "**: |\n- |\n* |\n> |\n    |\n        |\n\n|.\n\nThe |.\n\nIf |.\nThis |\nthe |\nof |"
    "\nand |\nto |\nin |, e.g. | (i.e. | etc.|"
    'Traceback (most recent call last):\n  File "/usr/lib/python3/site-packages/|", line 1|'
    ", in <module>\n|Error code: 429 - rate limit exceeded, please try again in |"
    "TimeoutError: |Request timed out.|ConnectionError: |ValueError: |invalid literal for |"
    "KeyError: |TypeError: |RuntimeError: |HTTPError: 404 Client Error: Not Found for url: |"
    "503 Service Unavailable|500 Internal Server Error|PermissionError: |"
    "FileNotFoundError: [Errno 2] No such file or directory: |January |February |March |"
    "April |May |June |July |August |September |October |November |December |Monday, |"
    "Tuesday, |Wednesday, |Thursday, |Friday, |New York|London|Paris|Berlin|San Francisco|"
    "United States|European Union|United Kingdom|Germany|France|China|India|Japan|"
    "/home/user/|/usr/local/|/tmp/|.json|.html|.txt|.pdf|.png|.csv|.py|.md|@example.com|"
    "@gmail.com|.com/|.org/|/api/v1/|/en/|https://en.wikipedia.org/wiki/|https://api.|"
    "https://docs.|https://github.com/|https://www.|http://localhost:8000|T00:00:00Z|"
    "T12:30:00+00:00|:00.000Z|.123456+00:00|2022-|2023-|2024-01-|2024-12-|2026-|2025-01-1|"
    "2025-10-|1000|0000|100%|0.95|0.5| 10 | 20 | 2024 | 2025 |'s |'t |n't |'re |'ll |'ve |"
    "I'm |\"I |. It's |. I'"
)
TOOLS = (
    "calculator send_email read_file write_file query_database fetch_url web_search get_weather "
    "create_ticket list_orders get_customer search"
).split()


def _thinned(words: Iterable[str]) -> list[str]:
    """The words in order, without those that the next one begins with."""
    ordered = sorted(set(words))
    return [
        word
        for word, after in zip(ordered, [*ordered[1:], ""], strict=True)
        if not after.startswith(word)
    ]


COMMON = _thinned(english.COMMON.split())
RARE = _thinned(set(english.RARE.split()) - set(english.COMMON.split()))
PHRASES = english.PHRASES.strip().replace("\n", "|").split("|")
OPENINGS = english.OPENINGS.strip().replace("\n", "|").split("|")
PASSAGES = english.PASSAGES.strip().replace("\n", " ")


def _prose() -> bytes:
    return " ".join(
        ["", *RARE, *COMMON, *PHRASES, *(f". {opening}" for opening in OPENINGS), PASSAGES]
    ).encode()


def _json() -> bytes:
    # Most values are texts, so a field is kept with the quotation mark that opens its value.
    fields = [f'", "{field}": "' for field in FIELDS]
    escaped = [f'{{\\"{field}\\": \\"' for field in FIELDS[-24:]]
    compact = '"},{"id":"|":{"type":"string","description":"|"object","properties":{"|","name":"'
    plain = (
        '"}, {"title": "|"}], "total": 1|, "status": "ok", "results": [{|"}}, {"id": "|": null, "'
        '|}, {"type": "text", "text": "|": true, "|": false, "|": [], "|": {}, "|": 0.'
        '|"]}|": [{"name": "'
    )
    return "".join([*fields, *compact.split("|"), *escaped, *plain.split("|")]).encode()


def _pack(*values: Any) -> bytes:
    return b"".join(map(msgpack.packb, values))


def _structure() -> bytes:
    """Pieces of events as msgpack writes them; what every event holds comes last."""
    text = b"\xd9"  # the start of a text of up to 255 bytes
    call = {"id": "call_", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    fields: dict[str, Any] = {"additional_kwargs": {}, "response_metadata": {}}
    calls: dict[str, Any] = {"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None}
    parts: list[bytes] = [_pack(*FIELDS)]
    for name, kind, rest in (
        ("HumanMessage", "human", {}),
        ("ToolMessage", "tool", {"artifact": None, "status": "success", "tool_call_id": "call_"}),
        ("AIMessage", "ai", calls),
    ):
        parts += [_pack(name, 1), _pack("content"), text, _pack(fields)[1:]]
        parts += [_pack("type", kind, "name", None, "id"), b"\xd9\x24", _pack(rest)[1:]]
        parts += [_pack(["content", "id"], None)]
    parts += [_pack("type", name, "id", "content") for name in ("human", "ai")]
    parts += [b"\x84", _pack("name", "search", "args", {"query": ""}), _pack("type", "tool_call")]
    parts += [_pack("later", "sends", "joins", "metadata")]
    parts += [_pack("type", "ValueError", "message"), text, _pack("attempts", 1)]
    parts += [_pack({"role": "tool", "tool_call_id": "call_"}), _pack("content"), b"\xda\x01"]
    parts += [_pack(name) for name in TOOLS]
    parts += [_pack({"role": "assistant", "content": "", "tool_calls": [call]}), b'{"query": "']
    for key in ("count", "total", "current_step", "step_count", "retries", "revision"):
        parts += [_pack(key, 1), _pack("to", ["agent"])]
    parts += [_pack("status", word) + _pack("to") for word in (*STATUS, "ok", "yes", "no")]
    for key in ("done", "success", "valid", "approved"):
        parts += [b"\x81", _pack(key, True, "to"), b"\x81", _pack(key, False, "to")]
    parts += [b"\x81" + _pack(key) + b"\xcb\x3f" for key in ("confidence", "rating", "score")]
    for role in ("system", "user", "assistant"):
        parts += [_pack("messages") + b"\x91\x82" + _pack("role", role, "content") + b"\xda\x01"]
    parts += [b"\x83", _pack("run") + b"\xd9\x24", _pack("writes") + b"\x81" + _pack("messages")]
    parts += [_pack("to", [node]) for node in NODES]
    parts += [b"\xc3" + _pack("to", []), b"\xc2" + _pack("to", [])]
    parts += [_pack("writes", {}, "to", []), _pack("to", ["__end__"])]
    parts += [_pack("task", 0, "node", node, "writes") + b"\x81" for node in NODES[:-2]]
    for task in (2, 1, 0):
        for node in NODES[-2:]:
            parts += [b"\x85", _pack("step", 1, "task", task, "node", node, "writes") + b"\x81"]
    return b"".join(parts)


def content() -> bytes:
    """The dictionary's text, the most useful last: near matches take fewer bits."""
    fragments = "".join(FRAGMENTS.split("|")).encode()
    return _prose() + fragments + _json() + _structure()


NAMES = "Alice Bob Carol David Emma Frank Grace Henry Maria Thomas Sarah Anna".split()
CITIES = "London Paris Berlin Madrid Vienna Boston Chicago Toronto Sydney Tokyo".split()
ERRORS = (
    "TimeoutError|ValueError|KeyError|ConnectionError|HTTPError|PermissionError|RuntimeError"
).split("|")
STATUS = "pending running waiting done failed approved rejected completed cancelled open".split()


def _followers(words: Iterable[str]) -> dict[str, list[str]]:
    """For each two letters, those that follow them; an empty one where a word ends."""
    after: dict[str, list[str]] = {}
    for word in words:
        for at in range(len(word) - 1):
            after.setdefault(word[at : at + 2], []).append(word[at + 2 : at + 3])
    return after


_NEXT = _followers(RARE)


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

    def unknown_word(self) -> str:
        """A word that is not in the dictionary, but is spelt like English."""
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
        # Without capitals, line ends and marks in the samples, they would cost 12 bits each.
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
    trained = zstandard.train_dictionary(
        DICT_BYTES_MAX, samples(seed), k=256, d=8, dict_id=DICT_ID, level=LEVEL
    ).as_bytes()
    end = trained.index(_RECENT_OFFSETS) + len(_RECENT_OFFSETS)
    return trained[:end] + content()[end - DICT_BYTES_MAX :]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    data = train(given.seed)
    given.out.write_bytes(data)

    unseen = samples(given.seed + 1, 2000)
    plain = zstandard.ZstdCompressor(level=LEVEL)
    trained = zstandard.ZstdCompressor(level=LEVEL, dict_data=zstandard.ZstdCompressionDict(data))
    raw = sum(map(len, unseen))
    print(f"{given.out.name}: {len(data)} bytes, zstandard {zstandard.__version__}")
    print(f"unseen samples: mean {raw / len(unseen):.0f} bytes")
    print(f"  zstd alone           {raw / sum(len(plain.compress(s)) for s in unseen):.2f} x")
    print(f"  with the dictionary  {raw / sum(len(trained.compress(s)) for s in unseen):.2f} x")


if __name__ == "__main__":
    main()
