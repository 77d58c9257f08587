"""What a person is told by an act is durable before, whoever decided it: docs/protocol.md, section 3, rule 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.control import acts
from harness.control.desk import Desk
from harness.errors import ConflictError
from harness.store import operators
from harness.store.disk import Disk
from tests.stores import World

ACTS: dict[str, Callable[[Desk, str], Any]] = {
    "cancel": acts.cancel,
    "park": acts.park,
    "retry": acts.retry,
    "boost": acts.boost,
}


@pytest.mark.parametrize("act", ACTS)
def test_of_what_another_has_decided_and_not_made_durable(
    world: World, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    judge: Any = None  # it has submitted nothing
    other = world.proc(operators.cancel(world.actor("bob"), uid, "bob", "", judge))
    other.after("link", "/1.end")  # it can be seen, and its folder is not synced
    other.kill()
    synced: list[str] = []
    real = Disk.do_fsync_dir

    def noted(disk: Disk, folder: str) -> None:
        synced.append(folder)
        real(disk, folder)

    monkeypatch.setattr(Disk, "do_fsync_dir", noted)
    with Desk(world.layout, by="ada") as desk:
        if act == "cancel":
            assert acts.cancel(desk, uid).state == "cancelled"
        else:
            with pytest.raises(ConflictError, match="it is cancelled already"):
                ACTS[act](desk, uid)
    assert f"queue/open/{uid}" in synced
