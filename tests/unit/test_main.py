from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness import __main__ as entry
from harness.errors import ConfigError
from harness.layout import Layout


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A role that is no real one, so that these tests load none of them."""
    module = ModuleType("tests.a_role")
    monkeypatch.setitem(sys.modules, "tests.a_role", module)
    monkeypatch.setitem(entry.ROLES, "worker", "tests.a_role")
    monkeypatch.setattr(sys, "argv", ["harness", "worker", "--root", "/r", "--agent", "agent-1"])
    return module


def test_a_role_gets_its_arguments_and_gives_its_exit_code(
    role: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[tuple[Layout, str]] = []

    def main(layout: Layout, name: str) -> int:
        got.append((layout, name))
        return 7

    monkeypatch.setattr(role, "main", main, raising=False)
    assert entry.main() == 7
    assert got == [(Layout(Path("/r")), "agent-1")]


def test_an_error_of_ours_is_a_message_and_its_exit_code(
    role: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(layout: Layout, name: str) -> int:
        raise ConfigError("it is empty", where="config.yaml", remedy="run: harnessctl init")

    monkeypatch.setattr(role, "main", main, raising=False)
    assert entry.main() == 78
    assert capsys.readouterr().err == "harness worker: config.yaml: it is empty\n  run: harnessctl init\n"


@pytest.mark.parametrize("argv", [[], ["--root"], ["--root", "/r"], ["--root", "/r", "--agent", "a", "x"]])
def test_a_role_that_is_started_wrongly_says_how_it_is_started(
    role: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "worker", *argv])
    assert entry.main() == 2
    assert "--root ROOT --agent NAME" in capsys.readouterr().err
