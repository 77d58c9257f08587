"""Fixtures, and the promise that the environment of whoever runs the tests does not decide their result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.layout import Layout
from tests.stores import World
from tests.support import FakeClock, make_root, plain_environment


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
