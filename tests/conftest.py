"""Fixtures, and the promise that the environment of whoever runs the tests does not decide their result."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.layout import Layout
from tests.stores import World
from tests.support import FakeClock, make_root, plain_environment


def pytest_configure() -> None:
    """What runs in the background of a script, or under nohup, ignores these, and so would every child of the tests."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixtures of a whole module are made before this one, and call `plain_environment` themselves."""
    plain_environment(monkeypatch)


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
