"""What an erasure says about vacuuming PostgreSQL is true; the roles that the guide grants do."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import make_url

from eventstore import AsyncEventStore, Event, EventStore
from retention import RetentionPolicy, plan, sweep
from retention.erasing import aerase, erase
from tests.cli.support import run
from tests.eventstore.support import fill
from tests.retention.support import DAY

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "operations.md"
WHY: Any = {"reason": "asked to be forgotten", "by": "dpo"}


@pytest.fixture
def roles(postgresql_url: str) -> Iterator[dict[str, str]]:
    """A URL for each role of the guide, on a database with a schema as it says."""
    section = GUIDE.read_text().split("## Roles of PostgreSQL")[1]
    found = re.search("```sql\n(.*?)```", section, re.DOTALL)
    assert found
    prefix = f"g{uuid.uuid4().hex[:8]}"
    names = [f"{prefix}_{name}" for name in ("owner", "app", "retention", "reader")]
    script = re.sub("graph_", f"{prefix}_", found[1])
    with psycopg.connect(postgresql_url, autocommit=True) as admin:
        admin.execute(script.encode())
        url = make_url(postgresql_url)
        urls = {
            name.partition("_")[2]: url.set(username=name).render_as_string(hide_password=False)
            for name in names
        }
        urls["owner"] = url.update_query_dict({"options": f"-crole={names[0]}"}).render_as_string(
            hide_password=False
        )
        try:
            yield urls
        finally:
            for name in names:
                admin.execute(f"DROP OWNED BY {name} CASCADE".encode())
            for name in names:
                admin.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def granted(roles: dict[str, str]) -> dict[str, str]:
    with EventStore(roles["owner"], schema="graph") as store:
        store.setup()
    return roles


def test_each_role_can_do_its_work_and_no_more(granted: dict[str, str]) -> None:
    with EventStore(granted["app"], schema="graph") as app:
        for name in ("a", "b", "c"):
            fill(app, name, 3)
        app.delete_thread("c", "not needed")
        refused = erase(app, **WHY, thread_id="a", vacuum=True)
        assert refused.wiped is not None and not refused.wiped.vacuumed
        assert 'permission denied to vacuum "events"' in (refused.wiped.problem or "")
        assert refused.threads == 1, "the rows are gone all the same"
    with EventStore(granted["reader"], schema="graph", read_only=True) as reader:
        assert [thread.thread_id for thread in reader.threads()] == ["b"]
        assert reader.verify("b").ok
        assert plan(reader, RetentionPolicy(DAY)).counts == {"prune": 0, "active": 1}
    with EventStore(granted["retention"], schema="graph") as retention:
        retention.set_ttl("b", DAY / 86_400)
        report = erase(retention, **WHY, thread_id="b", vacuum=True)
        assert report.wiped is not None
        assert (report.wiped.vacuumed, report.wiped.problem) == (True, None)
        assert sweep(retention, RetentionPolicy(DAY), shared=DAY).failed == 0


def test_the_command_says_so_and_fails(granted: dict[str, str]) -> None:
    with EventStore(granted["app"], schema="graph") as app:
        fill(app, "a", 3)
        fill(app, "b", 3)
    erasing = ("--schema", "graph", "--reason", "asked", "--yes", "--vacuum")
    done = run("retention", "erase", "a", "--db", granted["app"], *erasing)
    assert done.code == 1 and "1 thread and 0 files erased" in done.out
    (line,) = done.err.splitlines()
    assert "bytes of it may remain" in line and "permission denied" in line
    done = run("retention", "erase", "b", "--db", granted["retention"], *erasing)
    assert (done.code, done.err) == (0, "")


def test_an_open_snapshot_is_noticed(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.core.erase.OLDER_S_MAX", 0.3)
    with (
        EventStore(postgresql_url, tenant="test") as store,
        psycopg.connect(postgresql_url) as other,
    ):
        fill(store, "a", 3)
        fill(store, "b", 3)
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM events")
        report = erase(store, **WHY, thread_id="a", vacuum=True)
        assert report.wiped is not None and not report.wiped.vacuumed
        pid = other.info.backend_pid
        assert f"process {pid} began before the end of the erasure" in (report.wiped.problem or "")
        other.commit()
        other.execute("SELECT 1")  # an open transaction, which keeps no snapshot
        report = erase(store, **WHY, thread_id="b", vacuum=True)
        assert report.wiped is not None
        assert (report.wiped.vacuumed, report.wiped.problem) == (True, None)


def test_a_short_transaction_is_waited_for(postgresql_url: str) -> None:
    async def main() -> None:
        async with AsyncEventStore(postgresql_url, tenant="test") as store:
            await store.append("a", [Event(1, "x")], 0)
            other = await psycopg.AsyncConnection.connect(postgresql_url)
            async with other:
                await other.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await other.execute("SELECT count(*) FROM events")
                erasing = asyncio.create_task(aerase(store, **WHY, thread_id="a", vacuum=True))
                await asyncio.sleep(0.5)
                assert not erasing.done()
                await other.rollback()
                report = await asyncio.wait_for(erasing, 30)
            assert report.wiped is not None
            assert (report.wiped.vacuumed, report.wiped.problem) == (True, None)

    asyncio.run(main())
