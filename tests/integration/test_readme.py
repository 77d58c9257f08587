"""README.md is true: its quick start runs word for word, its links lead somewhere, its snippets are valid."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.group import VERBS
from harness.config import load
from harness.layout import Layout
from harness.reports import CoordinatorReport, coordinator_path, read
from tests.hubs import person
from tests.support import ROOT, environment, running, until

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


@pytest.fixture
def home(clone: Path) -> Path:
    """As getting-started.md supposes it: harnessctl on PATH, a repository in ~/src/app with another branch checked out."""
    home = clone.parent / "home"
    (home / "src").mkdir(parents=True)
    person(home / "src/app")
    return home


def _typed(home: Path, text: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    tools = home.parent / "clone/.venv/bin"
    env = environment(HOME=str(home), PATH=f"{tools}:{os.environ['PATH']}")
    return subprocess.run(
        ("sh", "-eux", "-c", text), cwd=cwd or home, env=env, capture_output=True, text=True, check=False
    )


def test_a_root_is_made_as_it_is_written(home: Path) -> None:
    init, cd, doctor = _block(STARTED, "1. A root").splitlines()
    ran = _typed(home, f"{init}\n{cd}\nharnessctl config show\n")
    assert ran.returncode == 0, ran.stderr
    assert "projects.app.path" in ran.stdout
    assert doctor == "harnessctl doctor"
    assert (
        "project app" in _typed(home, doctor, cwd=home / "fleet").stdout
    )  # its answer depends on the machine


def test_a_root_for_claude_is_made_as_it_is_written_and_no_root_is_changed(home: Path) -> None:
    text = _block(STARTED, "4. Your agent")
    ran = _typed(home, text)
    assert ran.returncode == 0, ran.stderr
    assert "agents.claude.argv" in ran.stdout
    again = _typed(home, text)
    assert again.returncode == 4
    assert "never overwritten" in again.stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="the line uses jq")
def test_the_daemon_reads_its_configuration_again_as_it_is_written(home: Path) -> None:
    root = home / "fleet"
    assert _typed(home, _block(STARTED, "1. A root").splitlines()[0]).returncode == 0
    (reload,) = [b for b in re.findall(r"```sh\n(.*?)```", STARTED, re.DOTALL) if "kill -HUP" in b]
    config = root / "config.yaml"
    config.write_text("workers: 0\n" + config.read_text())
    report = coordinator_path(Layout(root))

    def workers() -> int | None:
        seen = read(report, CoordinatorReport)
        return seen.workers if seen and seen.state == "running" else None

    with running([sys.executable, "-P", "-m", "harness", "--root", root, "run"]) as daemon:
        until(lambda: workers() == 0, 30, what="the daemon runs")
        config.write_text(config.read_text().replace("workers: 0", "workers: nobody", 1))
        assert _typed(home, reload, cwd=root).returncode == 78  # and no signal was sent
        config.write_text(config.read_text().replace("workers: nobody", "workers: 1", 1))
        ran = _typed(home, reload, cwd=root)
        assert ran.returncode == 0, ran.stderr
        until(lambda: workers() == 1, 30, what="the new configuration is in force")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


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
