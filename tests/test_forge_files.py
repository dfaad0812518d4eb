"""Files for other programs fit the schemas that those programs publish.

The workflows and forms of the forge, and the compose file, run elsewhere. The schemas come with
check-jsonschema: nothing is fetched.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
FORGE: Final = ROOT / ".github"
FORMS: Final = FORGE / "ISSUE_TEMPLATE"


def complaints(schema: str, *files: Path) -> str:
    """What check-jsonschema has to say about ``files``; empty where they fit."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    checked = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, timeout=120, check=False
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", sorted((FORGE / "workflows").iterdir())),
        ("dependabot", [FORGE / "dependabot.yml"]),
        ("github-issue-config", [FORMS / "config.yaml"]),
        ("github-issue-forms", [FORMS / "bug.yaml", FORMS / "wish.yaml"]),
        ("compose-spec", [ROOT / "docs" / "examples" / "services" / "compose.yaml"]),
    ],
)
def test_files_fit_their_schema(schema: str, files: list[Path]) -> None:
    assert complaints(schema, *files) == ""


def test_actions_are_pinned_by_hash() -> None:
    """A tag can be moved to other code; a hash cannot."""
    used = [
        line.split("uses:", 1)[1]
        for file in (FORGE / "workflows").iterdir()
        for line in file.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert used
    assert [each for each in used if not re.fullmatch(r" \S+@[0-9a-f]{40} # v[0-9.]+", each)] == []


def test_a_misspelt_word_is_found(tmp_path: Path) -> None:
    """The check itself can fail."""
    workflow = tmp_path / "check.yaml"
    written = (FORGE / "workflows" / "check.yaml").read_text(encoding="utf-8")
    workflow.write_text(written.replace("runs-on:", "run-on:"), encoding="utf-8")
    assert "runs-on" in complaints("github-workflows", workflow)
