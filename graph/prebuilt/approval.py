"""A person approves tool calls before they run.

Owns the interrupt that asks for the decision, and what each decision leads to. Values have the
form of LangGraph's ``HumanInterrupt`` and ``HumanResponse``, which agent inboxes show.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from graph.errors import InvalidConfigError, InvalidUpdateError
from graph.prebuilt.conversation import ToolCall, tool_message
from graph.run.scope import interrupt


class HumanInterruptConfig(TypedDict, total=False):
    """Which decisions a person may take about a call."""

    allow_accept: bool
    allow_edit: bool
    allow_respond: bool
    allow_ignore: bool


class ActionRequest(TypedDict):
    """A call of a tool: its name, and its arguments."""

    action: str
    args: dict[str, Any]


class HumanInterrupt(TypedDict):
    """The question about one call: the interrupt value is a list of one."""

    action_request: ActionRequest
    config: HumanInterruptConfig
    description: str | None


class HumanResponse(TypedDict):
    """The decision: the resume value, alone or in a list of one.

    ``accept``: run the call. ``edit``: run it as ``args``, an :class:`ActionRequest`, says.
    ``response``: do not run it; the model gets the text ``args`` as its result. ``ignore``: do
    not run it; the model is told so.
    """

    type: Literal["accept", "edit", "response", "ignore"]
    args: str | ActionRequest | None


InterruptOn = Mapping[str, bool | Mapping[str, Any]] | Sequence[str] | bool | None

Rules = Mapping[str, Mapping[str, Any]]

_ALL: Final[HumanInterruptConfig] = {
    "allow_accept": True,
    "allow_edit": True,
    "allow_respond": True,
    "allow_ignore": True,
}
_PERMISSION: Final = {
    "accept": "allow_accept",
    "edit": "allow_edit",
    "response": "allow_respond",
    "ignore": "allow_ignore",
}
# The words of langchain's middleware, which mean the same.
_ALIASES: Final = {"approve": "accept", "respond": "response", "reject": "ignore"}


def rules_of(declared: InterruptOn, tools: Collection[str]) -> Rules:
    """By tool the decisions that a person may take about its calls.

    Raises:
        InvalidConfigError: an unknown tool or an unknown decision.
    """
    if declared is None or isinstance(declared, bool):
        declared = tuple(tools) if declared else ()
    if not isinstance(declared, Mapping):
        declared = dict.fromkeys(declared, True)
    rules: dict[str, Mapping[str, Any]] = {}
    for name, rule in declared.items():
        if name not in tools:
            raise InvalidConfigError(
                f"interrupt_on names {name!r}, which is not a tool; the tools are "
                f"{', '.join(map(repr, tools))}"
            )
        if rule is True:
            rules[name] = _ALL
        elif rule:
            rules[name] = _rule(name, rule)
    return rules


def _rule(name: str, rule: Mapping[str, Any]) -> Mapping[str, Any]:
    decisions = rule.get("allowed_decisions")
    if decisions is not None:
        wanted = {_ALIASES.get(each, each) for each in decisions}
        found: dict[str, Any] = {
            permission: each in wanted for each, permission in _PERMISSION.items()
        }
    else:
        found = {permission: bool(rule.get(permission)) for permission in _ALL}
    if not any(found.values()):
        raise InvalidConfigError(
            f"interrupt_on allows no decision about {name!r}; allow one of "
            f"{', '.join(_PERMISSION.values())}"
        )
    if rule.get("description") is not None:
        found["description"] = rule["description"]
    return found


def decided(rules: Rules, request: Any) -> tuple[Any, Any]:
    """The call as a person decided, or the message to answer it with instead.

    Raises:
        GraphInterrupt: nobody has decided yet.
        InvalidUpdateError: the decision is none, or is not allowed.
    """
    call = request.tool_call
    rule = rules.get(call["name"])
    if rule is None:
        return request, None
    allowed = {permission: rule[permission] for permission in _ALL}
    description = rule.get("description", "Please review the tool call")
    if callable(description):
        description = description(call, request.state, request.runtime)
    asked: HumanInterrupt = {
        "action_request": {"action": call["name"], "args": dict(call["args"])},
        "config": allowed,  # type: ignore[typeddict-item]
        "description": description,
    }
    kind, args = _decision(interrupt([asked]), call)
    if not allowed[_PERMISSION[kind]]:
        raise InvalidUpdateError(
            f"the decision {kind!r} is not allowed for tool {call['name']!r}; allowed are "
            f"{', '.join(each for each, name in _PERMISSION.items() if allowed[name])}"
        )
    if kind == "accept":
        return request, None
    if kind == "edit":
        return request.override(tool_call={**call, **_edited(args, call)}), None
    if kind == "response":
        return request, tool_message(call, args, like=request.asked)
    text = args or f"The call of {call['name']} was declined and did not run."
    return request, tool_message(call, text, error=True, like=request.asked)


def _decision(answer: Any, call: ToolCall) -> tuple[str, Any]:
    if isinstance(answer, Mapping) and "decisions" in answer:
        answer = answer["decisions"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, str):
        answer = {"type": answer}
    kind = answer.get("type") if isinstance(answer, Mapping) else None
    kind = _ALIASES.get(str(kind), kind)
    if kind not in _PERMISSION:
        raise InvalidUpdateError(
            f"the decision about tool {call['name']!r} must be {{'type': …}} with one of "
            f"{', '.join(map(repr, _PERMISSION))}, not {answer!r:.200}"
        )
    args = next(
        (answer[name] for name in ("args", "edited_action", "message") if answer.get(name)), None
    )
    return kind, args


def _edited(args: Any, call: ToolCall) -> ToolCall:
    """The edited part of the call: from an action, or from the arguments alone."""
    if not isinstance(args, Mapping):
        raise InvalidUpdateError(
            f"the decision 'edit' about tool {call['name']!r} needs the arguments to run it with: "
            "{'type': 'edit', 'args': {'action': name, 'args': {…}}}"
        )
    if isinstance(args.get("args"), Mapping):
        name = args.get("action") or args.get("name") or call["name"]
        return {"name": name, "args": dict(args["args"])}
    return {"args": dict(args)}
