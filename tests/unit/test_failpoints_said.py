"""By what a mistake in the daemon was found is what `scripts/failpoints` says: by the checker, or by work never done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import storm
from benchmarks.failpoints import CHECKER, SKIPPED, TIME, USUAL, by_power, by_storm

COUNTED = "12 power losses of ext4, 96 items (seed 1), durability power: 1 violations\n"


@pytest.mark.parametrize(
    ("said", "code", "by"),
    [
        ("loss 3: a/item.json: torn\n" + COUNTED, 1, CHECKER),
        ("lost: s3 is not archived\n" + COUNTED, 1, CHECKER),
        ("never done: 60 s without progress\n" + COUNTED, 1, TIME),
        (COUNTED.replace(" 1 v", " 0 v"), 0, ""),
        ("skipped: no loop devices\n", 0, SKIPPED),
    ],
)
def test_of_power_losses(monkeypatch: pytest.MonkeyPatch, said: str, code: int, by: str) -> None:
    done = SimpleNamespace(stdout=said, stderr="", returncode=code)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    assert by_power("no-syncfs", Path("/"), unsynced=False)[0] == by


def test_power_is_lost_with_other_seeds_until_something_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def run(argv: list[str], **_: object) -> SimpleNamespace:
        tried.append(argv[argv.index("--seed") + 1])
        wrong = "loss 3: torn\n" + COUNTED if tried[-1] == "3" else COUNTED.replace(" 1 v", " 0 v")
        return SimpleNamespace(stdout=wrong, stderr="", returncode=int(tried[-1] == "3"))

    monkeypatch.setattr("subprocess.run", run)
    assert by_power("no-syncfs", Path("/"), unsynced=False) == (CHECKER, "loss 3: torn")
    assert tried == ["1", "2", "3"]


def test_trouble_with_the_machine_finds_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(stdout="", stderr="RuntimeError: somebody holds it", returncode=1)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match="somebody holds it"):
        by_power("no-syncfs", Path("/"), unsynced=False)


class Fleet:
    """One whose work is never published."""

    def __init__(self, *_: object, **__: object) -> None:
        self.queue = self.hub = self.app = Path("/")
        self.killed = False

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.killed

    def started(self) -> bool:
        return True

    def finished(self) -> int:
        return 0

    def until(self, *_: object) -> None:
        raise TimeoutError("not within 120 s: everything is published")

    def kill_all(self) -> None:
        self.killed = True


@pytest.mark.parametrize("when", ["at the end", "in the storm"])
@pytest.mark.parametrize("wrong", ["", "lost: x", "healthy"])
def test_a_storm_that_is_not_over_in_time_is_killed_and_checked_all_the_same(
    monkeypatch: pytest.MonkeyPatch, when: str, wrong: str
) -> None:
    def run(self: storm.Storm, timeout_s: float) -> float:
        if wrong == "healthy":
            self.healthy.append("agent-1 was killed, and it was healthy")
        if when == "in the storm":
            raise TimeoutError(f"not within {timeout_s} s")
        return 1.0

    monkeypatch.setattr(storm, "Fleet", Fleet)
    monkeypatch.setattr(storm.Storm, "run", run)
    monkeypatch.setattr(storm, "check_unfinished", lambda *_: ["lost: x"] if wrong == "lost: x" else [])
    by, said = by_storm("merges-again", Path("/"), USUAL, tries=1)
    assert by == (CHECKER if wrong else TIME)
    assert ("healthy" in said) == (wrong == "healthy")
