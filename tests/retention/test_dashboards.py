"""The dashboard and the alert rules in the examples ask for metrics that exist, by their labels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client import generate_latest

from retention.metrics import Metrics

ROOT: Final = Path(__file__).resolve().parents[2]
OPERATIONS: Final = ROOT / "docs" / "examples" / "operations"
LABELS_OF_PROMETHEUS: Final = {"le", "instance"}


def expressions() -> list[str]:
    """Every query of the dashboard and of the rules."""
    dashboard = json.loads((OPERATIONS / "grafana-retention.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((OPERATIONS / "alerts.yaml").read_text(encoding="utf-8"))
    variables = [each.get("definition", "") for each in dashboard["templating"]["list"]]
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return (
        variables + panels + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    )


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Each metric that the daemon exports, with its labels as ``name="value"``."""
    samples: dict[str, set[str]] = {}
    for line in generate_latest(Metrics().registry).decode().splitlines():
        if found := re.match(r"(\w+?)(?:\{(.*)\})? ", line):
            samples.setdefault(found[1], set()).update(re.findall(r'\w+="[^"]*"', found[2] or ""))
    return {name: labels for name, labels in samples.items() if not name.endswith("_created")}


def test_every_name_and_label_is_exported(exposed: dict[str, set[str]]) -> None:
    for expression in expressions():
        for name, selected in re.findall(r"\b(retention_\w+)(?:\{([^}]*)\})?", expression):
            assert name in exposed, expression
            for pair in re.findall(r'\w+="[^"]*"', selected):
                assert pair in exposed[name], expression
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        labels = {label.partition("=")[0] for pairs in exposed.values() for label in pairs}
        assert set(grouped) <= labels | LABELS_OF_PROMETHEUS, expression


def test_every_metric_is_shown_or_watched(exposed: dict[str, set[str]]) -> None:
    asked = " ".join(expressions())
    # A histogram's count and sum come with its buckets.
    parts = {name for name in exposed if name.endswith(("_count", "_sum"))}
    assert [name for name in sorted(set(exposed) - parts) if name not in asked] == []


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((OPERATIONS / "grafana-retention.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((OPERATIONS / "alerts.yaml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert rule["annotations"]["summary"] and rule["annotations"]["action"], rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]


def promtool(*arguments: str | Path, given: bytes = b"") -> None:
    """Run Prometheus' own tool, which must find nothing wrong."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (on Debian: the package prometheus)")
    checked = subprocess.run(
        [program, *map(str, arguments)], input=given, capture_output=True, timeout=120, check=False
    )
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", OPERATIONS / "alerts.yaml")


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", ROOT / "tests" / "data" / "alerts_test.yaml")


def test_prometheus_takes_what_is_exported() -> None:
    promtool("check", "metrics", given=generate_latest(Metrics().registry))
