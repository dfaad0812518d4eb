"""The support agent of the documentation does on both runtimes what it does on the other."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from tests.graph.prebuilt.support import ScriptedModel, calls, told

EXAMPLE: Final = Path(__file__).parents[3] / "docs" / "examples" / "support"

SCRIPT: Final = [
    calls(("find_order", {"order": "A-7"}), ("find_order", {"order": "B-2"}), text="Let me look."),
    calls(("refund", {"order": "A-7", "amount": 40.0}), text="I refund the lamp."),
    "Your money is on its way.",
    calls(("refund", {"order": "A-7", "amount": 900.0}), text="And more."),
    "That was declined.",
    calls(("escalate", {"reason": "angry"}), text="I call a colleague."),
]

TURNS: Final = ["Please refund A-7", "More!", "Give me a person"]


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def approve(value: Any) -> Any:
    if value["amount"] > 100:
        return {"approved": False, "why": "too much"}
    return {"approved": True, "amount": value["amount"] / 2}


def conversation(name: str, database: str) -> list[Any]:
    """What a customer sees and what is kept; each turn opens the database anew."""
    module, model = loaded(name), ScriptedModel(answers=SCRIPT)
    shown: list[str] = []
    kept: list[Any] = []
    for text in TURNS:
        with module.opened(database) as saver:
            saver.setup()
            agent = module.build(model, saver)
            given = {"messages": [HumanMessage(text)], "customer": "ann"}
            state = module.talk(agent, "1", given, approve, shown.append)
            kept.append((told(state["messages"]), state.get("refunded"), state.get("escalated")))
    return ["".join(shown), *kept]


def test_the_agents_differ_by_their_imports() -> None:
    ours, theirs = (
        [line for line in (EXAMPLE / name).read_text().splitlines() if not _is_import(line)]
        for name in ("agent.py", "agent_langgraph.py")
    )
    assert ours == theirs
    assert len(ours) < 160


def _is_import(line: str) -> bool:
    in_parentheses = line.startswith("    ") and line.strip(" ,").isidentifier()
    return not line or line == ")" or line.startswith(("from ", "import ")) or in_parentheses


@pytest.mark.slow
def test_both_runtimes_have_the_same_conversation(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = conversation("agent_langgraph", str(tmp_path / "theirs.db"))
    ours = conversation("agent", str(tmp_path / "ours.db"))
    assert ours == theirs
    assert "[refunded 20.00 for A-7]" in ours[0]
    assert ours[-1][1:] == (20.0, True)


def test_the_database_is_a_matter_of_configuration(postgresql_url: str, tmp_path: Path) -> None:
    url = postgresql_url.replace("postgresql+psycopg://", "postgresql://")
    assert conversation("agent", url) == conversation("agent", str(tmp_path / "ours.db"))


def test_a_thread_that_waits_goes_on_in_another_process(tmp_path: Path) -> None:
    module, model = loaded("agent"), ScriptedModel(answers=SCRIPT)
    database = str(tmp_path / "ours.db")

    def interrupted(value: Any) -> Any:
        raise KeyboardInterrupt

    with module.opened(database) as saver:
        agent = module.build(model, saver)
        given = {"messages": [HumanMessage(TURNS[0])], "customer": "ann"}
        with pytest.raises(KeyboardInterrupt):
            module.talk(agent, "1", given, interrupted, lambda _: None)
    with module.opened(database) as saver:
        agent = module.build(model, saver)
        state = module.talk(agent, "1", None, approve, lambda _: None)
    assert isinstance(state["messages"][-1], AIMessage)
    assert state["refunded"] == 20.0
