"""Fixtures, and the promise that the environment of whoever runs the tests does not decide their result."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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


SHARED = ("test_hostile_agents.py", "test_hostile_drops.py", "test_one_run.py")
"""One daemon for all tests of the file, and half a minute to make it."""


class OneDaemon(LoadScopeScheduling):
    """Tests that share a daemon run in one process (xdist's own groups are lost with pytest 9.2, without a word)."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(SHARED) else nodeid


def pytest_collection_finish() -> None:
    """Thousands of tests are not looked through again at each garbage collection, nor copied by each fork."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneDaemon:
    return OneDaemon(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("cov_source", None):
        for item in items:
            if item.get_closest_marker("uncovered"):
                item.add_marker(
                    pytest.mark.skip(reason="measures time or imports, and coverage adds to both")
                )


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixtures of a whole module are made before this one, and call `plain_environment` themselves."""
    plain_environment(monkeypatch)


IN_MEMORY = ("unit/", "integration/test_hub_")
ON_DISK = ("integration/test_hub_sandbox", "unit/test_worker")
"""A sandbox has a /dev/shm of its own."""
MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """In memory for tests that make thousands of folders for nothing else to look at, where there is such a place.

    What they prove is the order of operations, which the kernel is asked for in either place; that a real disk does the
    same is proved by the races and by the daemon's tests, which stay on one.
    """
    name = request.path.relative_to(Path(__file__).parent).as_posix()
    if not name.startswith(IN_MEMORY) or name.startswith(ON_DISK) or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(
        prefix="harness-test-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


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
