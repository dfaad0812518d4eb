"""With an encrypting serializer nothing of a state is stored in plain text."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from eventstore import ConfigurationError, CorruptEventError
from tests.langgraph.graphs import chat, nested, question
from tests.langgraph.kit import CONFIG, Driver, driving, facts


class Cipher:
    """A keyed stream; not secure, but without the key unreadable, and it notices changes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def _stream(self, nonce: bytes, size: int) -> bytes:
        blocks = range(size // 64 + 1)
        found = (
            hashlib.blake2b(nonce + block.to_bytes(4, "big"), key=self._key).digest()
            for block in blocks
        )
        return b"".join(found)[:size]

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        self._count += 1
        nonce = hashlib.blake2b(self._count.to_bytes(8, "big") + plaintext).digest()[:16]
        tag = hashlib.blake2b(nonce + plaintext, key=self._key, digest_size=16).digest()
        stream = self._stream(nonce, len(plaintext))
        body = bytes(one ^ other for one, other in zip(plaintext, stream, strict=True))
        return "toy", nonce + tag + body

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "toy"
        nonce, tag, body = ciphertext[:16], ciphertext[16:32], ciphertext[32:]
        stream = self._stream(nonce, len(body))
        plaintext = bytes(one ^ other for one, other in zip(body, stream, strict=True))
        if hashlib.blake2b(nonce + plaintext, key=self._key, digest_size=16).digest() != tag:
            raise ValueError("MAC check failed")
        return plaintext


def encrypted(key: bytes = b"k") -> EncryptedSerializer:
    return EncryptedSerializer(Cipher(key))


@pytest.fixture
def driver(store: str, store_url: str, tmp_path: Path) -> Iterator[Driver]:
    url = f"sqlite:///{tmp_path}/keyed.db" if store_url == "sqlite://" else store_url
    with driving(url, store == "async", serde=encrypted()) as opened:
        yield opened


@pytest.mark.slow
def test_nothing_is_stored_in_plain_text(driver: Driver) -> None:
    app = driver.app(chat())
    for number in range(40):  # past a snapshot
        app.invoke(question(number), {**CONFIG, "metadata": {"patient": "Jane Doe"}})
    events = (
        driver._collected(driver.saver.store.read("t"))
        if driver.is_async
        else list(driver.saver.store.read("t"))
    )
    stored = b"".join(repr(each.data).encode() for each in events)
    with driver.store("dump", "t") as dump:
        stored += b"".join(bytes(chunk) for chunk in dump)
    for secret in (b"question", b"answer", b"Jane", b"patient", b"loop"):
        assert secret not in stored
    before = [facts(each) for each in driver.listed()]
    driver.reopen(serde=encrypted())
    assert [facts(each) for each in driver.listed()] == before
    assert driver.store("verify", "t").ok


@pytest.mark.slow
def test_differences_are_made_before_encryption(driver: Driver) -> None:
    app = driver.app(chat())
    sizes = []
    for number in range(60):
        app.invoke(question(number), CONFIG)
        sizes.append(driver.store("stats", "t").stored_bytes)
    assert sizes[59] - sizes[39] < 2 * (sizes[29] - sizes[9])


def test_another_key_and_no_key_are_refused(driver: Driver) -> None:
    driver.app(chat()).invoke(question(1), CONFIG)
    driver.reopen(serde=encrypted(b"other"))
    with pytest.raises(ConfigurationError, match="does not decrypt with this key"):
        driver.get()
    with pytest.raises(ConfigurationError, match="does not decrypt with this key"):
        driver.app(chat()).invoke(question(2), CONFIG)
    driver.reopen(serde=None)
    with pytest.raises(ConfigurationError, match="is encrypted with 'toy'"):
        driver.get()
    driver.reopen(serde=encrypted())
    assert len(driver.listed()) == 3


def test_plain_text_is_not_accepted_where_a_key_is_used(driver: Driver) -> None:
    driver.reopen(serde=None)
    driver.app(nested()).invoke({"items": ["x"]}, CONFIG)
    driver.reopen(serde=encrypted())
    with pytest.raises(CorruptEventError, match="is not encrypted"):
        driver.get()


@pytest.mark.slow
def test_retention_works_without_the_key(driver: Driver) -> None:
    app = driver.app(chat())
    for number in range(60):
        app.invoke(question(number), CONFIG)
    latest = driver.get()
    driver.reopen(serde=None)
    point = driver.store("trim_points", "t")[-1]
    driver.store("trim", "t", point.seq)
    driver.reopen(serde=encrypted())
    assert facts(driver.get()) == facts(latest)
    app.invoke(question(99), CONFIG)


def test_another_serializer_is_used_as_it_is(driver: Driver) -> None:
    class Own:
        """Serializes without types, and hides what it wrote."""

        def dumps(self, value: Any) -> bytes:
            return pickle.dumps(value)[::-1]

        def loads(self, data: bytes) -> Any:
            return pickle.loads(data[::-1])

    driver.reopen(serde=Own())
    app = driver.app(nested())
    app.invoke({"items": ["x"]}, CONFIG)
    driver.reopen()
    assert app.state().values["items"] == ["x"]


def test_threads_with_a_key_cannot_be_searched_for_what_configs_say(driver: Driver) -> None:
    app = driver.app(chat())
    app.invoke(question(1), CONFIG | {"metadata": {"user": "ann"}})
    assert driver.store("thread", "t").metadata == {"runtime": "langgraph"}
