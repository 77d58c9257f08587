"""README.md is true: its quick start runs word for word, its links lead somewhere, its snippets are valid."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.group import VERBS
from harness.config import load
from tests.support import ROOT, environment

README = (ROOT / "README.md").read_text()
STARTED = (ROOT / "docs/getting-started.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))


def _block(text: str, heading: str) -> str:
    """The first shell block below a heading."""
    found = re.search(r"```sh\n(.*?)```", text.partition(f"\n## {heading}\n")[2], re.DOTALL)
    assert found, heading
    return found[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As a clone looks after ./scripts/demo: .venv/bin holds harnessctl."""
    command = tmp_path / "clone/.venv/bin/harnessctl"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m harness "$@"\n')
    command.chmod(0o755)
    return tmp_path / "clone"


@pytest.mark.timeout(300)
def test_the_quick_start_runs_word_for_word_and_ends_with_what_was_asked_for(clone: Path) -> None:
    tmp = clone.parent / "tmp"
    tmp.mkdir()
    ran = subprocess.run(
        ("sh", "-eux", "-c", _block(README, "Quick start")),
        cwd=clone,
        env=environment(TMPDIR=str(tmp)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("hello\n")  # the second item saw the merge of the first
    assert "bye: " in ran.stdout
    assert "2 done" in ran.stdout


def test_every_configuration_that_is_shown_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("v: 1\n" + _yaml(README)[0])
    load(tmp_path / "config.yaml")
    gates, agents = _yaml(STARTED)
    (tmp_path / "config.yaml").write_text(f"v: 1\n{gates}\n{agents}")
    load(tmp_path / "config.yaml")


def _yaml(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        if anchor:
            assert anchor in _anchors(other.read_text()), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_command_that_is_shown_exists() -> None:
    for text in (README, STARTED):
        for verb in re.findall(r"(?m)(?:^|`)harnessctl ([a-z]+)", text):
            assert verb in VERBS, verb
    for script in re.findall(r"\./(scripts/\w+)", README):
        assert (ROOT / script).exists()
