"""Policies from a TOML file or from the environment.

A file has one table ``[[policy]]`` per policy, in the order in which they are matched; the keys are
the fields of :class:`~retention.policies.RetentionPolicy`, and durations are strings such as
``"30d"``. Environment variables name such a file, or set the fields of one policy. Errors name the
key and what was expected.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from eventstore import ConfigurationError
from retention.policies import DURATIONS, NUMBERS, Match, RetentionPolicy, policies_of

PREFIX: Final = "RETENTION_"
"""Prefix of the environment variables."""

FILE: Final = f"{PREFIX}POLICY_FILE"

_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_FIELDS: Final = tuple(field.name for field in fields(RetentionPolicy))
_SETTINGS: Final = tuple(name for name in _FIELDS if name not in ("match", "name"))
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def duration(text: str) -> timedelta:
    """The duration in a text such as ``30d``: a number with ``w``, ``d``, ``h``, ``m`` or ``s``.

    Raises:
        ValueError: the text is not of this form, or the duration is zero.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([wdhms])", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a duration such as 30d, 12h or 90s")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def policies_from_file(path: str | Path) -> tuple[RetentionPolicy, ...]:
    """The policies of a TOML file, in their order.

    Raises:
        ConfigurationError: the file cannot be read, or is not valid.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the policies in {str(path)!r}: {error}") from error
    return policies_from_toml(text, str(path))


def policies_from_toml(text: str, source: str = "the policies") -> tuple[RetentionPolicy, ...]:
    """The policies of a TOML text, in their order.

    Args:
        source: the name of the text in errors.

    Raises:
        ConfigurationError: the text is not valid.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not valid TOML: {error}") from error
    _only(tables, ("policy",), source)
    listed = tables.get("policy")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ConfigurationError(f"{source}: expected at least one [[policy]] table")
    return _together(
        [_policy(each, f"{source}: policy {number}") for number, each in enumerate(listed, 1)],
        source,
    )


def policies_from_env(
    environ: Mapping[str, str] = os.environ, others: Collection[str] = ()
) -> tuple[RetentionPolicy, ...] | None:
    """The policies in the environment; ``None`` if no variable is set.

    ``RETENTION_POLICY_FILE`` names a file; otherwise ``RETENTION_TTL``, ``RETENTION_MAX_AGE`` and
    so on set the fields of one policy for all threads. Empty variables are ignored.

    Args:
        others: variables with the prefix ``RETENTION_`` that the caller itself reads.

    Raises:
        ConfigurationError: a name or value is not valid, or both kinds are set.
    """
    names = {f"{PREFIX}{name.upper()}": name for name in _SETTINGS}
    known = (FILE, *names, *others)
    ours = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
    _only(ours, known, "the environment")  # a mistyped name would silently keep everything
    given = {name: value for name in names if (value := ours.get(name, "").strip())}
    path = ours.get(FILE, "").strip()
    if path and given:
        raise ConfigurationError(
            f"{FILE} and {', '.join(sorted(given))} are both set; unset one of the two kinds"
        )
    if path:
        return policies_from_file(path)
    if not given:
        return None
    values = {names[name]: _from_text(name, names[name], text) for name, text in given.items()}
    return (_made(values, "the environment"),)


def _from_text(variable: str, field: str, text: str) -> Any:
    """The value of a variable, parsed for its field."""
    if field in NUMBERS:
        return _read(int, text, variable, "a whole number")
    if field == "respect_pending_interrupts":
        return _read(lambda word: _WORDS[word.lower()], text, variable, "true or false")
    return _value(field, text, variable)


def _policy(table: Mapping[str, Any], where: str) -> RetentionPolicy:
    _only(table, _FIELDS, where)
    return _made(
        {name: _value(name, value, f"{where}: {name}") for name, value in table.items()}, where
    )


def _value(name: str, value: Any, where: str) -> Any:
    """A field's value, from its value in TOML."""
    if name in DURATIONS:
        if not isinstance(value, str):
            raise ConfigurationError(f'{where} must be a duration such as "30d", not {value!r}')
        return _read(duration, value, where, "a duration such as 30d, 12h or 90s")
    if name == "match":
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where} must be a table, not {value!r}")
        _only(value, tuple(field.name for field in fields(Match)), where)
        try:
            return Match(**value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{where}: {error}") from error
    return value


def _read(read: Callable[[str], Any], text: str, where: str, expected: str) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{where} must be {expected}, not {text!r}") from error


def _made(values: Mapping[str, Any], where: str) -> RetentionPolicy:
    try:
        return RetentionPolicy(**values)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _together(found: list[RetentionPolicy], source: str) -> tuple[RetentionPolicy, ...]:
    try:
        return policies_of(found)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(table.keys() - set(known))
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(known)}"
        )
