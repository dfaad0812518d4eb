"""The chat service of the examples: a real server, real connections, a real kill."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from eventstore.cli import exits, main
from tests import processes

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[1]
SERVICES: Final = ROOT / "docs" / "examples" / "services"
START_S_MAX: Final = 60
ANSWER_S_MAX: Final = 60
get = partial(httpx.get, verify=False)  # to make a TLS context takes longer than a request


@contextmanager
def service(database: str, seconds_per_token: float = 0.02) -> Iterator[tuple[str, Any]]:
    """The service in a process of its own; its address and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "EVENTSTORE_DB": database,
        "PYTHONPATH": str(ROOT),
        "RUN_LEASE_S": "2",
        "SECONDS_PER_TOKEN": str(seconds_per_token),
    }
    command = [sys.executable, "-m", "uvicorn", "chat_service:api", "--port", str(port)]
    process = processes.Popen(command, cwd=SERVICES, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if get(f"{address}/healthz").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        else:
            pytest.fail("the service did not start")
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=START_S_MAX)


def ask(address: str, chat: str, text: str, **query: float) -> tuple[int, str]:
    """The status of the response and, joined, the tokens in it."""
    url = f"{address}/chats/{chat}/messages"
    with httpx.stream(
        "POST", url, json={"text": text}, params=query, timeout=ANSWER_S_MAX, verify=False
    ) as response:
        lines = list(response.iter_lines())
    tokens = [json.loads(line[6:]) for line in lines if line.startswith('data: "')]
    return response.status_code, " ".join(tokens)


def settled(address: str, chat: str) -> list[str]:
    """What was said, once no run is in progress."""
    deadline = time.monotonic() + ANSWER_S_MAX
    while time.monotonic() < deadline:
        shown = get(f"{address}/chats/{chat}").json()
        if shown["status"] == "idle" and len(shown["messages"]) % 2 == 0:
            return [message["content"] for message in shown["messages"]]
        time.sleep(0.1)
    pytest.fail(f"the chat was not answered: {shown}")


def test_an_answer_is_streamed_and_kept(postgresql_url: str) -> None:
    with service(postgresql_url) as (address, _):
        assert get(f"{address}/chats/ann").status_code == httpx.codes.NOT_FOUND
        assert ask(address, "ann", "hello") == (200, "You said 'hello' and that is message 1")
        assert ask(address, "ann", "again") == (200, "You said 'again' and that is message 3")
        assert len(settled(address, "ann")) == 4


def test_a_second_message_is_refused_or_waits(tmp_path: Path) -> None:
    with service(str(tmp_path / "chats.db"), seconds_per_token=0.2) as (address, _):
        answers: list[tuple[int, str]] = []
        first = threading.Thread(target=lambda: answers.append(ask(address, "ann", "one")))
        first.start()
        deadline = time.monotonic() + ANSWER_S_MAX
        while get(f"{address}/chats/ann").status_code != httpx.codes.OK:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ask(address, "ann", "refused")[0] == httpx.codes.CONFLICT
        assert ask(address, "bob", "elsewhere")[0] == httpx.codes.OK
        second = ask(address, "ann", "two", wait_s=30)
        first.join()
        assert answers == [(200, "You said 'one' and that is message 1")]
        assert second == (200, "You said 'two' and that is message 3")
        assert "refused" not in settled(address, "ann")


def test_an_answer_is_finished_without_its_reader(tmp_path: Path) -> None:
    with service(str(tmp_path / "chats.db"), seconds_per_token=0.1) as (address, _):
        url = f"{address}/chats/ann/messages"
        with httpx.stream("POST", url, json={"text": "hello"}) as response:
            assert next(response.iter_lines()) == "event: token"
        assert settled(address, "ann")[1] == "You said 'hello' and that is message 1"


def test_an_answer_that_a_crash_cut_short_is_finished_by_the_next_process(tmp_path: Path) -> None:
    database = str(tmp_path / "chats.db")
    with service(database, seconds_per_token=30) as (address, process):
        url = f"{address}/chats/ann/messages"
        with httpx.stream("POST", url, json={"text": "hello"}, timeout=ANSWER_S_MAX) as response:
            assert next(response.iter_lines()) == "event: token"
            process.kill()
            process.wait()
    with service(database) as (address, _):
        assert settled(address, "ann") == ["hello", "You said 'hello' and that is message 1"]


def test_the_compose_file_names_files_and_options_that_exist() -> None:
    composed = yaml.safe_load((SERVICES / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(composed) == {"database", "service", "retention"}
    for name in ("service", "retention"):
        build = composed[name]["build"]
        container = (SERVICES / build["context"] / build["dockerfile"]).resolve()
        assert container.is_relative_to(ROOT) and container.is_file()
        copied = re.findall(r"^COPY (.+) \S+$", container.read_text(encoding="utf-8"), re.MULTILINE)
        assert all((ROOT / source).exists() for line in copied for source in line.split())
        assert "/healthz" in composed[name]["healthcheck"]["test"][-1]
    # The daemon takes its options: it only finds no database.
    volume, _, inside = composed["retention"]["volumes"][0].removesuffix(":ro").partition(":")
    command = [
        str(SERVICES / volume) if word == inside else word
        for word in composed["retention"]["command"]
    ]
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        code = main(["retention", "run", *command, "--json", "--yes", "--db", "no-such.db"])
    assert code == exits.DATABASE and "there is no" in printed.getvalue()
