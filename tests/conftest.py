"""Fixtures, and the promise that the environment of whoever runs the tests does not decide their result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.layout import Layout
from tests.stores import World
from tests.support import FakeClock, make_root

FORGET = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "PYTHONDONTWRITEBYTECODE", "INVOCATION_ID")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of git, of ours or of a service manager leaks in from outside."""
    for name in list(os.environ):
        if name in FORGET or name.startswith(("GIT_", "HARNESS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Test")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "test@example.invalid")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Test")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "test@example.invalid")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A fresh root below tmp_path."""
    return make_root(tmp_path / "root")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(layout: Layout) -> Iterator[World]:
    """A store with processes that a test can stop at any operation."""
    made = World(layout)
    yield made
    made.close()
