"""How bytes are kept from those who have no key: encrypted, or as they are.

With an encrypting serializer differences are made before encryption, and each event's bytes are
encrypted as a whole. Promises that plain bytes are never accepted where a key is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from eventstore import ConfigurationError, CorruptEventError

BODY, CIPHER = "b", "cipher"
"""In an event's data: its body, and the name of the cipher that it is encrypted with."""


class Cipher(Protocol):
    """What LangGraph calls a ``CipherProtocol``."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """The name of the cipher, and the ciphertext."""

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """The plaintext."""


class Seal:
    """Encrypts the bodies of events, if there is a cipher."""

    def __init__(self, cipher: Cipher | None = None) -> None:
        self.cipher = cipher

    def close(self, body: bytes) -> dict[str, Any]:
        """The fields of an event that hold a body."""
        if self.cipher is None:
            return {BODY: body}
        name, sealed = self.cipher.encrypt(body)
        return {CIPHER: name, BODY: sealed}

    def open(self, data: Mapping[str, Any]) -> bytes:
        """The body that the fields of an event hold.

        Raises:
            ConfigurationError: it is encrypted, and there is no key or another one.
            CorruptEventError: it is not encrypted, and there is a key.
        """
        name, body = data.get(CIPHER), bytes(data[BODY])
        if self.cipher is None:
            if name is None:
                return body
            raise ConfigurationError(
                f"the thread is encrypted with {name!r}; open it with serde=EncryptedSerializer(…) "
                "and its key"
            )
        if name is None:
            raise CorruptEventError(
                "the event is not encrypted, and a saver with an encrypting serializer reads only "
                "what is"
            )
        try:
            return self.cipher.decrypt(name, body)
        except (AssertionError, ValueError) as error:
            raise ConfigurationError(
                f"the thread does not decrypt with this key of {name!r}: {error}; it was written "
                "with another key, or was changed"
            ) from error
