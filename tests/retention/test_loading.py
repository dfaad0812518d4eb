"""Policies from TOML and from the environment; errors name the key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from eventstore import ConfigurationError
from retention import (
    Match,
    RetentionPolicy,
    policies_from_env,
    policies_from_file,
    policies_from_toml,
)
from retention.config import duration
from tests.retention.support import DAY

TOML = """
[[policy]]
name = "held"
match = { metadata = { case = "open" } }

[[policy]]
name = "chat"
ttl = "30d"
seal_after = "6h"
keep_history_for = "1w"
keep_last_checkpoints = 50
archive = "file:///var/archive"
respect_pending_interrupts = false

[policy.match]
tenant = "acme"
thread_id = "chat-*"
status = "idle"

[[policy]]
name = "rest"
max_age = "365d"
max_events = 10_000
max_bytes = 1_000_000
"""

POLICIES = (
    RetentionPolicy(name="held", match=Match(metadata={"case": "open"})),
    RetentionPolicy(
        30 * DAY,
        "chat",
        Match("acme", "chat-*", status="idle"),
        seal_after=timedelta(hours=6),
        keep_history_for=timedelta(days=7),
        keep_last_checkpoints=50,
        archive="file:///var/archive",
        respect_pending_interrupts=False,
    ),
    RetentionPolicy(name="rest", max_age=365 * DAY, max_events=10_000, max_bytes=1_000_000),
)


def test_policies_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(TOML, encoding="utf-8")
    assert policies_from_file(path) == policies_from_toml(TOML) == POLICIES
    assert policies_from_env({"RETENTION_POLICY_FILE": str(path), "PATH": "/bin"}) == POLICIES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"p\.toml: expected at least one \[\[policy\]\] table"),
        ("[policy]\nttl = '1d'", r"p\.toml: expected at least one \[\[policy\]\] table"),
        ("ttl = '1d'", r"p\.toml: unknown key 'ttl'; known keys are policy"),
        ("[[policy]]\nttl = = 1", r"p\.toml is not valid TOML: .*line 2"),
        (
            "[[policy]]\nttk = '1d'",
            r"p\.toml: policy 1: unknown key 'ttk'; known keys are ttl, name",
        ),
        ("[[policy]]\nttl = 30", r"policy 1: ttl must be a duration such as \"30d\", not 30"),
        ("[[policy]]\nttl = '30'", r"policy 1: ttl must be a duration such as 30d, .* not '30'"),
        ("[[policy]]\nttl = '0d'", r"policy 1: ttl must be a duration"),
        ("[[policy]]\n[[policy]]\nname = 'b'\nmax_events = '9'", r"policy 2: max_events must be"),
        ("[[policy]]\nmax_events = true", r"policy 1: max_events must be a whole number"),
        ("[[policy]]\nmatch = 'a*'", r"policy 1: match must be a table, not 'a\*'"),
        (
            "[[policy]]\nmatch = {id = 'a'}",
            r"policy 1: match: unknown key 'id'; known keys are tenant",
        ),
        ("[[policy]]\nmatch = {status = 'x'}", r"policy 1: match: match.status must be one of"),
        ("[[policy]]\n[[policy]]", r"p\.toml: two policies are named 'default'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_by_its_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        policies_from_toml(text, "p.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the policies in '.*none\.toml'"):
        policies_from_file(tmp_path / "none.toml")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="garbage"):
        policies_from_env({"RETENTION_POLICY_FILE": str(tmp_path / "garbage")})


def test_the_environment_names_the_fields_of_one_policy() -> None:
    environ = {
        "RETENTION_TTL": "30d",
        "RETENTION_MAX_EVENTS": " 1000 ",
        "RETENTION_ARCHIVE": "s3://bucket/threads",
        "RETENTION_RESPECT_PENDING_INTERRUPTS": "No",
        "RETENTION_MAX_AGE": "",
        "HOME": "/root",
    }
    assert policies_from_env(environ) == (
        RetentionPolicy(
            30 * DAY,
            max_events=1_000,
            archive="s3://bucket/threads",
            respect_pending_interrupts=False,
        ),
    )
    assert policies_from_env({"HOME": "/root", "RETENTION_TTL": " "}) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RETENTION_TTL": "soon"}, "RETENTION_TTL must be a duration .*, not 'soon'"),
        ({"RETENTION_MAX_EVENTS": "many"}, "RETENTION_MAX_EVENTS must be a whole number"),
        ({"RETENTION_MAX_EVENTS": "0"}, "the environment: max_events must be at least 1"),
        (
            {"RETENTION_RESPECT_PENDING_INTERRUPTS": "maybe"},
            "INTERRUPTS must be true or false, not 'maybe'",
        ),
        (
            {"RETENTION_POLICY_FILE": "p.toml", "RETENTION_TTL": "1d"},
            "RETENTION_POLICY_FILE and RETENTION_TTL are both set",
        ),
        ({"RETENTION_TLL": "1d"}, "the environment: unknown key 'RETENTION_TLL'; known keys are"),
    ],
)
def test_what_is_wrong_in_the_environment_is_said_by_its_name(
    environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        policies_from_env(environ)


def test_variables_of_others_are_theirs() -> None:
    assert policies_from_env({"RETENTION_DB": "x"}, others=["RETENTION_DB"]) is None


def test_durations() -> None:
    assert duration("2w") == timedelta(weeks=2)
    assert duration("90s") == timedelta(seconds=90)
    for wrong in ("", "1", "d", "-1d", "1.5h", "1y", "1d2h", "99999999d"):
        with pytest.raises(ValueError, match="is not a duration such as 30d, 12h or 90s"):
            duration(wrong)
