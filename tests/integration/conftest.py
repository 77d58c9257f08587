"""What most tests of the hub start from; some say a desk or a hub of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.hub import Hub
from harness.layout import Layout
from tests.hubs import Desk, desk, person


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(layout, person(tmp_path / "up"))


@pytest.fixture
def hub(at: Desk) -> Hub:
    return at.ready()
