"""`eventstore ui` as a process: it says where it is, answers there alone, and ends when asked."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import processes
from tests.cli.support import process, run, unchanged
from tests.ui.support import fill

pytestmark = pytest.mark.slow


@contextmanager
def explorer(*arguments: str) -> Iterator[tuple[str, processes.Popen]]:
    """A running explorer, and the address that it printed."""
    running = process("ui", "--port", "0", *arguments)
    try:
        assert running.stdout is not None
        yield running.stdout.readline().strip(), running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.communicate(timeout=20)
        finally:
            running.kill()


def test_it_answers_at_the_address_that_it_prints(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url)
    with (
        unchanged(url),
        explorer("--db", url, "--app", "tests.ui.support:graph") as (address, running),
        httpx.Client(follow_redirects=True) as client,
    ):
        assert address.startswith("http://127.0.0.1:")
        page = client.get(address)
        assert page.status_code == 200 and "with the application" in page.text
        assert "token" not in str(page.url)
        assert "server" not in page.headers
        there = str(page.url.copy_with(path="/thread.json", query=b"id=done"))
        assert client.get(there).json()["thread_id"] == "done"
        assert httpx.get(there).status_code == 401
        assert client.get(there, headers={"host": "evil.example"}).status_code == 421
    assert running.returncode in (0, 130, -signal.SIGINT)


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run("ui", "--db", url, "--port", str(port))
    assert found.code == 3
    assert f"cannot listen on 127.0.0.1:{port}" in found.err and "--port" in found.err
    assert run("ui", "--db", f"{tmp_path}/none.db").code == 3
    assert run("ui", "--db", url, "--redact", "a[").code == 3
    assert run("ui", "--db", url, "--redact-hook", "nothing:here").code == 2
