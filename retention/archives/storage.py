"""Object storage behind one URL: a directory, S3, GCS, Azure or memory, through ``obstore``.

Reads and writes named objects, whole or in part, and knows nothing about threads. Every error of
the storage becomes an :class:`~eventstore.ArchiveUnavailableError` or
:class:`~eventstore.ArchiveNotFoundError`; passwords in URLs never appear in messages. Objects
written to a directory survive power loss. All calls block.

A request to object storage that gets no response is given up after about a minute.
Credentials and endpoints come from the environment, as each provider's tools read them, or from
``options``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from eventstore.errors import ArchiveNotFoundError, ArchiveUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

RETRIES: Final = {"max_retries": 5, "retry_timeout": timedelta(minutes=1)}
"""Of one request to object storage, which itself takes half a minute at most. ``options`` may set
others."""

_REMOTE: Final = ("s3", "gs", "az", "http", "https")


class Storage:
    """Named objects under a URL.

    Args:
        url, options: see :class:`~retention.archives.Archive`.

    Attributes:
        url: the URL without a password.

    Raises:
        ConfigurationError: ``obstore`` is not installed, or the URL is not usable.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigurationError(
                "archives need obstore: pip install 'graph-eventstore[archive]'"
            ) from error
        self._obstore = obstore
        self.url = without_password(url)
        self._directory: Path | None = None
        self._opened: ObjectStore | None = None
        try:
            if urlsplit(url).scheme == "file":
                self._directory = _directory_of(url)
            bounded = {"retry_config": RETRIES} if urlsplit(url).scheme in _REMOTE else {}
            self._open: Callable[[], ObjectStore] = partial(
                from_url, url, **{**bounded, **(options or {})}
            )
            if self._directory is None or self._directory.exists():
                self._opened = self._open()
        except Exception as error:
            reason = _first_line(error)
            raise ConfigurationError(
                f"cannot use {self.url!r} as an archive: {reason}; expected "
                "file:///directory, s3://bucket/prefix, gs://bucket/prefix, "
                "az://container/prefix or memory:///"
            ) from error

    @property
    def _objects(self) -> ObjectStore:
        if self._opened is None:
            if self._directory is not None and not self._directory.is_dir():
                raise ArchiveUnavailableError(
                    f"cannot read the archive {self.url}: no such directory; "
                    "archiving the first thread creates it"
                )
            self._opened = self._open()
        return self._opened

    def put(self, name: str, content: bytes | Iterator[bytes]) -> None:
        """Write an object; it appears whole or not at all, and survives power loss.

        Iterators are uploaded in parts. A missing directory is created.
        """
        with self.translated_errors():
            if self._directory is not None:
                self._directory.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                self._obstore.put(self._objects, name, content, use_multipart=False)
            else:
                self._obstore.put(self._objects, name, content)
        self._sync(name)

    def read(self, name: str) -> Iterator[bytes]:
        """The content of an object, in chunks.

        Read it within :meth:`translated_errors`, so that failures half-way are translated too.
        """
        return (bytes(chunk) for chunk in self._obstore.get(self._objects, name))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of an object from ``start`` up to, but not including, ``end``."""
        with self.translated_errors(name):
            return bytes(self._obstore.get_range(self._objects, name, start=start, end=end))

    def size(self, name: str) -> int:
        """The length of an object in bytes."""
        with self.translated_errors(name):
            return int(self._obstore.head(self._objects, name)["size"])

    def names(self, folder: str | None = None) -> Iterator[list[str]]:
        """The names of all objects, or of those in a folder, in batches and in no order."""
        with self.translated_errors():
            for batch in self._obstore.list(self._objects, folder):
                yield [each["path"] for each in batch]

    def delete(self, name: str) -> None:
        """Delete an object; a missing one is no error."""
        try:
            with self.translated_errors(name):
                self._obstore.delete(self._objects, name)
        except ArchiveNotFoundError:
            log.debug("%s was already deleted", name, extra={"object": name})

    @contextmanager
    def translated_errors(self, name: str = "") -> Iterator[None]:
        """Turn errors of the storage into :class:`~eventstore.ArchiveError`."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise ArchiveNotFoundError(name, "", self.url) from error
        except (BaseError, OSError, ValueError) as error:
            raise ArchiveUnavailableError(
                f"cannot use the archive {self.url}: {_first_line(error)}"
            ) from error

    def _sync(self, name: str) -> None:
        """Flush an object in a directory to disk; object storage does so by itself."""
        if self._directory is None or os.name != "posix":
            return
        path = self._directory / name
        for each in (path, *path.parents[: name.count("/") + 1]):
            handle = os.open(each, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _directory_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or not url[len("file:") :].startswith("///"):
        raise ValueError("a directory needs an absolute path after file://")
    directory = Path(unquote(parts.path))
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory")
    return directory


def _first_line(error: BaseException) -> str:
    """The first line of an obstore message, without passwords; the rest is debug output."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"[a-z0-9+.-]+://\S+", lambda found: without_password(found[0]), line)


def without_password(url: str) -> str:
    """A URL without the credentials before its host or behind its path (such as a signature)."""
    scheme, separator, rest = url.partition("://")
    if scheme == "file":
        return url  # it has neither; names of directories may look like it
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        rest = host.rpartition("@")[2] + rest[len(host) :]
    elif re.search(":[^0-9]", host):  # no port, but a password that should have been quoted
        rest = rest.rpartition("@")[2]
    return scheme + separator + re.split("[?#]", rest, maxsplit=1)[0]
