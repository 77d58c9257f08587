"""Tests of the store are in memory: they make some fifty thousand folders, and make them for nothing else to look at.

What they prove is the order of operations, which `Disk` takes from the kernel in either place; that a real disk does the
same is proved by the races and by real processes (tests/races, tests/integration), which stay where `tmp_path` is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Below MEMORY for test_store_*.py, where there is such a place."""
    if not request.path.name.startswith("test_store_") or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="harness-test-", dir=MEMORY) as folder:
        yield Path(folder)
