"""The text of the built-in dictionary: plain English, JSON, and the structure of events.

Written by hand, because training on generated sentences picks whole sentences that no real text
repeats: 3 % worse. The most useful pieces come last, because zstd needs fewer bits for near
matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from benchmarks.dictionary import english

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
STATUS = "pending running waiting done failed approved rejected completed cancelled open".split()


def _thinned(words: Iterable[str]) -> list[str]:
    """Sort the words, and drop each one that is a prefix of the next."""
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
    # Most values are strings, so each field includes the quotation mark that opens its value.
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
    """Pieces of events in msgpack; those that every event holds come last."""
    text = b"\xd9"  # the header of a string of up to 255 bytes
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
    """The whole text of the dictionary, the most useful part last."""
    fragments = "".join(FRAGMENTS.split("|")).encode()
    return _prose() + fragments + _json() + _structure()
