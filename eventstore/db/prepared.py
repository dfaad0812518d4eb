"""Statements that run often: compiled once for each dialect, and executed by the driver itself.

SQLAlchemy writes their text, and lends the connection. What it would do anew at each execution
(look for the compiled form, make a context and a result) costs half as much as a small append. A
driver's error takes the way of SQLAlchemy's own executions: one translation, one decision whether a
connection is lost. With listeners on the engine, SQLAlchemy executes, so that they see everything.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import ClauseElement, Connection, Engine

_TRANSLATED: Final = "schema_translate_map"


class Result(NamedTuple):
    """What a statement gave: its rows as named tuples, and how many it inserted or changed."""

    rows: list[Any]
    changed: int

    @property
    def first(self) -> Any:
        """The first row; ``None`` if there is none."""
        return self.rows[0] if self.rows else None


class Prepared:
    """A statement without parameters that expand; its values are passed by name."""

    __slots__ = ("_forms", "_statement")

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._forms: dict[tuple[object, ...], _Form] = {}

    def __call__(self, conn: Connection, values: Mapping[str, Any]) -> Result:
        """Execute it with these values."""
        engine = conn.engine
        form = self._form(engine)
        given = form.values(values)
        if engine._has_events or conn._has_events:
            result = conn.exec_driver_sql(form.text, given)
            rows = result.fetchall() if result.returns_rows else ()
            return Result([form.row(row) for row in rows], result.rowcount)
        cursor: Any = None
        try:
            cursor = conn.connection.cursor()
            cursor.execute(form.text, given)
            rows = cursor.fetchall() if cursor.description else ()
        except Exception as error:
            conn._handle_dbapi_exception(error, form.text, given, cursor, None)
        found = Result(list(map(form.row, rows)), cursor.rowcount)
        cursor.close()
        return found

    def many(self, conn: Connection, values: Sequence[Mapping[str, Any]]) -> None:
        """Execute it with each of these values; they are sent together."""
        engine = conn.engine
        form = self._form(engine)
        given = [form.values(each) for each in values]
        if engine._has_events or conn._has_events:
            conn.exec_driver_sql(form.text, given)
            return
        cursor: Any = None
        try:
            cursor = conn.connection.cursor()
            cursor.executemany(form.text, given)
        except Exception as error:
            conn._handle_dbapi_exception(error, form.text, given, cursor, None)
        cursor.close()

    def _form(self, engine: Engine) -> _Form:
        schema = engine.get_execution_options().get(_TRANSLATED)
        place = (engine.dialect.name, None if schema is None else schema[None])
        form = self._forms.get(place)
        if form is None:
            form = self._forms[place] = _compile(self._statement, engine)
        return form


class _Form(NamedTuple):
    """A statement for one dialect.

    Attributes:
        values: puts values into the form that the driver takes.
        row: makes a named tuple of a row.
    """

    text: str
    values: Callable[[Mapping[str, Any]], Any]
    row: Callable[[Sequence[Any]], Any]


def _compile(statement: ClauseElement, engine: Engine) -> _Form:
    dialect = engine.dialect
    schema = engine.get_execution_options().get(_TRANSLATED)
    options = {_TRANSLATED: schema, "render_schema_translate": True} if schema else {}
    compiled: Any = statement.compile(dialect=dialect, **options)
    constants = {name: each for name, each in compiled.params.items() if each is not None}
    values: Callable[[Mapping[str, Any]], Any]
    if compiled.positional:
        names = compiled.positiontup
        in_order = itemgetter(*names) if len(names) > 1 else partial(_only, names[0])
        values = partial(_in_order, in_order, constants) if constants else in_order
    else:
        values = partial(_by_name, constants) if constants else _as_they_are
    return _Form(str(compiled), values, _row_maker(statement, dialect))


def _only(name: str, values: Mapping[str, Any]) -> Any:
    return (values[name],)


def _in_order(
    in_order: Callable[[Mapping[str, Any]], Any],
    constants: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Any:
    return in_order({**constants, **values})


def _by_name(constants: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**constants, **values}


def _as_they_are(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values


def _row_maker(statement: Any, dialect: Any) -> Callable[[Sequence[Any]], Any]:
    """What makes a named tuple of a row, its values processed as their types demand."""
    columns = getattr(statement, "selected_columns", ())
    names = [column.key or "" for column in columns]
    named = partial(tuple.__new__, namedtuple("Row", names, rename=True))
    found = [each.type.dialect_impl(dialect).result_processor(dialect, None) for each in columns]
    processors = {at: process for at, process in enumerate(found) if process is not None}
    if not processors:
        return named

    def processed(row: Sequence[Any]) -> Any:
        values = list(row)
        for at, process in processors.items():
            values[at] = process(values[at])
        return named(values)

    return processed
