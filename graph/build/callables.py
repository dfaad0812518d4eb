"""Inspects functions of the application without calling them.

Owns the reading of signatures, type hints and bytecode: which extra arguments a node takes, which
state class it expects, which destinations its return annotation lists, whether it could route by
``Command``, and a fingerprint that is the same in every process that runs the same code. Nothing
here calls application code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from graph.errors import InvalidGraphError
from graph.types import Command, Send

INJECTED: Final = frozenset({"config", "runtime", "writer"})

# Enough for most nodes, and a bound: a node that leads into a huge library must not stall
# compile(). Past it, the cautious result is returned.
_VISITED_MAX = 2_000


def underlying(action: Any) -> Any:
    """The Python function that carries the annotations and the code of a callable."""
    while isinstance(action, functools.partial):
        action = action.func
    if inspect.isfunction(action) or inspect.ismethod(action) or isinstance(action, type):
        return action
    method = getattr(action, "__call__", None)  # noqa: B004 - the method itself is wanted
    return method if inspect.ismethod(method) else action


def is_async(action: Any) -> bool:
    """Whether calling it gives an awaitable."""
    return inspect.iscoroutinefunction(action) or inspect.iscoroutinefunction(underlying(action))


def hints(action: Any) -> dict[str, Any]:
    """The resolved annotations; empty if one of them cannot be resolved."""
    try:
        return get_type_hints(underlying(action))
    except (NameError, TypeError, AttributeError):
        return {}


def _parameters(action: Any) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(action).parameters.values())
    except (ValueError, TypeError):  # builtins publish no signature
        return None


def first_hint(action: Any) -> Any:
    """The annotation of the parameter that takes the state."""
    parameters = _parameters(action)
    return hints(action).get(parameters[0].name) if parameters else None


def accepted(action: Any, what: str, *also: str) -> frozenset[str]:
    """Which of ``config``, ``runtime`` and ``writer`` a callable takes besides the state.

    Args:
        what: names the callable in errors.
        also: further names of arguments that it may take.

    Raises:
        InvalidGraphError: it cannot be called with the state and these.
    """
    parameters = _parameters(action)
    if parameters is None:
        return frozenset()
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    if not parameters or parameters[0].kind not in positional:
        raise InvalidGraphError(
            f"{what} takes no argument; its first parameter must take the state"
        )
    bound = action.keywords if isinstance(action, functools.partial) else {}
    wanted = set()
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        by_name = parameter.kind is not parameter.POSITIONAL_ONLY
        if by_name and parameter.name in (*INJECTED, *also) and parameter.name not in bound:
            wanted.add(parameter.name)
        elif parameter.default is parameter.empty:
            raise InvalidGraphError(
                f"{what} has a parameter '{parameter.name}' that gets no value; it is called with "
                "the state, and with 'config', 'runtime' and 'writer' if it names them; give other "
                "parameters a default, or bind them with functools.partial"
            )
    return frozenset(wanted)


def literal_return(action: Any) -> tuple[str, ...] | None:
    """The values of a ``-> Literal[…]`` annotation."""
    returned = hints(action).get("return")
    return get_args(returned) if get_origin(returned) is Literal else None


def command_ends(action: Any) -> tuple[str, ...]:
    """The destinations of a ``-> Command[Literal[…]]`` annotation, alone or in a union."""
    returned = hints(action).get("return")
    is_union = get_origin(returned) in (Union, types.UnionType)
    for part in get_args(returned) if is_union else (returned,):
        if get_origin(part) is Command and get_origin(get_args(part)[0]) is Literal:
            return get_args(get_args(part)[0])
    return ()


def may_route(action: Any) -> bool:
    """Whether a callable could return a ``Command`` or ``Send``, judged by its code.

    It could if its annotation or its code mentions one of them, if a function that its code
    mentions does (followed through modules, closures, objects and containers), or if it has no
    Python code to read. A function that is not found by name (a handler passed in the state, say)
    is not followed.
    """
    if not _has_code(action):
        return True
    return next(_reached(action, _is_word), None) is not None


def leading_to(action: Any, kind: type[Any]) -> list[Any]:
    """The objects of a class that the code of a callable mentions, directly or not, each once."""
    found = _reached(action, lambda item: isinstance(item, kind), _is_ours)
    return [item for item in found if item is not TOO_MUCH]


def _is_ours(item: Any) -> bool:
    """Whether it is a function of this library, which mentions no object of the application."""
    is_function = inspect.isfunction(item) or inspect.ismethod(item)
    return is_function and (item.__module__ or "").startswith(f"{__package__}.")


TOO_MUCH: Final = object()
"""Stands for everything beyond ``_VISITED_MAX``."""


def _is_word(item: Any) -> bool:
    return item is Command or item is Send


def _reached(
    action: Any, wanted: Callable[[Any], bool], passed: Callable[[Any], bool] = lambda _: False
) -> Iterator[Any]:
    """The wanted objects among all that a callable's code mentions, directly or not.

    Neither these nor the ``passed`` ones are searched themselves.
    """
    seen: dict[tuple[int, ...], Any] = {}  # the values keep temporary objects' ids unique
    queue = deque([action])
    while queue:
        item = queue.popleft()
        is_method = inspect.ismethod(item)
        key = (id(item.__func__), id(item.__self__)) if is_method else (id(item),)
        if key in seen:
            continue
        if len(seen) >= _VISITED_MAX:
            yield TOO_MUCH
            return
        seen[key] = item
        if wanted(item):
            yield item
        elif not passed(item):
            queue.extend(_mentioned(item))


def _has_code(action: Any) -> bool:
    target = underlying(action)
    return inspect.isfunction(target) or inspect.ismethod(target) or isinstance(target, type)


def _mentioned(item: Any) -> Iterator[Any]:
    """The objects that the code of a function, or the parts of another object, mention."""
    if isinstance(item, functools.partial):
        yield from (item.func, *item.args, *item.keywords.values())
    elif inspect.ismethod(item):
        yield from _mentioned_by_code(item.__func__, (item.__self__,))
    elif inspect.isfunction(item):
        yield from _mentioned_by_code(item, ())
    elif isinstance(item, list | tuple | set | frozenset):
        yield from islice(item, _VISITED_MAX)
    elif isinstance(item, dict):
        yield from islice(item.values(), _VISITED_MAX)
    elif get_origin(item) is not None:  # an annotation such as Command[str] | dict
        yield from (get_origin(item), *get_args(item))
    elif isinstance(item, staticmethod | classmethod):
        yield item.__func__
    elif isinstance(item, property):
        yield item.fget
    elif (method := underlying(item)) is not item:
        yield method
    elif hasattr(item, "__wrapped__"):
        yield item.__wrapped__


def _mentioned_by_code(function: Any, owners: tuple[Any, ...]) -> Iterator[Any]:
    yield getattr(function, "__wrapped__", None)
    returned = hints(function).get("return", function.__annotations__.get("return"))
    yield Command if isinstance(returned, str) and "Command" in returned else returned
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    yield from cells
    if (function.__module__ or "").partition(".")[0] in sys.stdlib_module_names:
        return  # it never routes, but its decorators wrap functions that may
    names = set(_names(function.__code__))
    if names & {"Command", "Send"}:  # imported inside the function
        yield Command
    bases = [
        *owners,
        *cells,
        *(function.__globals__[n] for n in names if n in function.__globals__),
    ]
    yield from bases
    for base in bases:
        for name in names:
            found = inspect.getattr_static(base, name, None)
            is_instance = not isinstance(base, type | types.ModuleType)
            yield (
                types.MethodType(found, base)
                if is_instance and inspect.isfunction(found)
                else found
            )


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is bound only later
        return False


def fingerprint(thing: Any) -> str:
    """Text that identifies a function or object by its code: equal wherever the same code runs.

    For a Python function: its module, name and a hash over bytecode, constants, names, defaults
    and closure; functions that it calls are not followed. An object with a string attribute
    ``fingerprint`` is identified by that.
    """
    return _canonical(thing, ())


def _canonical(thing: Any, above: tuple[int, ...]) -> str:
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        return f"{thing!r}"
    if id(thing) in above:
        return "(itself)"
    above = (*above, id(thing))

    def each(parts: Iterable[Any]) -> list[str]:
        return [_canonical(part, above) for part in parts]

    if isinstance(thing, types.CodeType):
        return ",".join([thing.co_code.hex(), *each(thing.co_consts), *thing.co_names])
    if isinstance(thing, set | frozenset):
        return f"{{{','.join(sorted(each(thing)))}}}"
    if isinstance(thing, list | tuple):
        return f"({','.join(each(thing))})"
    if isinstance(thing, dict):
        return f"{{{','.join(each(thing.items()))}}}"
    if isinstance(thing, functools.partial):
        return f"partial({','.join(each((thing.func, thing.args, thing.keywords)))})"
    if inspect.ismethod(thing):
        return f"{_canonical(thing.__func__, above)} of {_canonical(thing.__self__, above)}"
    if inspect.isfunction(thing):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        parts = each((thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells))
        return f"{_name(thing)}#{blake2b('|'.join(parts).encode(), digest_size=8).hexdigest()}"
    if isinstance(thing, type) or inspect.isroutine(thing):
        return _name(thing)
    own = getattr(thing, "fingerprint", None)
    if isinstance(own, str):
        return own
    parts = each(
        method for _, method in sorted(vars(type(thing)).items()) if inspect.isfunction(method)
    )
    if isinstance(thing, Enum):
        parts = [thing.name]
    elif dataclasses.is_dataclass(thing):
        parts += each(getattr(thing, entry.name) for entry in dataclasses.fields(thing))
    return f"{_name(type(thing))}({','.join(parts)})"


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', thing)}"
