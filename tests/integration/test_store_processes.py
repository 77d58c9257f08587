"""Real processes on one store, killed with SIGKILL at any instruction: every item is done once, and nothing is broken.

Each process does everything that the store knows (take, admit, promote, claim, end, expire, finish); they share nothing
but the folder. An attempt is "executed" by making a file that must not exist.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.clock import SystemClock
from harness.layout import Layout
from harness.store.disk import Disk
from harness.store.fsck import check
from harness.store.setup import open_store
from tests.support import environment, until

PROCESSES = 4
KILLS = 8
EVERYTHING = """
import os, random, signal, sys
from pathlib import Path
from harness.clock import SystemClock
from harness.layout import Layout
from harness.model import End, Identity, Item, Outcome
from harness.store import admission, attempts, promotion
from harness.store.attempts import Claimed
from harness.store.cells import Actor, Standing, look
from harness.store.disk import Disk
from harness.store.dropbox import DropBox
from harness.store.drops import Context

signal.signal(signal.SIGIO, signal.SIG_IGN)
layout, me, durable = Layout(Path(sys.argv[1])), sys.argv[2], sys.argv[3] == "power"
clock = SystemClock()
context = Context(projects={"app": ("claude",)}, agents=("claude",), max_attempts=1000)
box = DropBox(layout, clock, lambda: context, grace_s=0.01, quiet_s=0.01)
disk = Disk(layout, clock, durable=durable, dropbox=box)
actor = Actor(Identity(incarnation=me, name=me))
dice = random.Random(me)
while True:
    disk.run(admission.take())
    for home in disk.do_ls("queue/incoming") or ():
        disk.run(admission.admit(actor, home, context, "2027-01-15"))
    for uid in disk.do_ls("queue/waiting") or ():
        item = disk.do_read(f"queue/waiting/{uid}/item.json", Item)
        if item:
            disk.run(promotion.promote(item))
    for uid in disk.do_ls("queue/open") or ():
        seen = disk.run(look(uid))
        if seen.standing is Standing.RUNNING:
            disk.run(attempts.expire(actor, uid, seen.n))
        elif seen.standing is Standing.OVER:
            disk.run(attempts.finish(uid))
        elif seen.standing is Standing.READY:
            owned = disk.run(attempts.claim(actor, uid))
            if isinstance(owned, Claimed):
                with open(layout.root / "ran" / f"{uid}.{owned.n}", "x") as f:
                    f.write(me)
                outcome = Outcome.FAILED if dice.random() < 0.2 else Outcome.DONE
                disk.run(attempts.end(actor, owned, End(n=owned.n, outcome=outcome, by=me)))
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_every_item_is_done_once_whoever_is_killed_when(layout: Layout, durability: str) -> None:
    open_store(layout)
    (layout.root / "ran").mkdir()
    dice = random.Random(durability)
    running: list[subprocess.Popen[bytes]] = []
    errors = (layout.root / "errors").open("w+b")
    kills = 0

    def spawn(k: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-c", EVERYTHING, str(layout.root), f"p{k}.{kills}.x", durability]
        return subprocess.Popen(argv, env=environment(), stderr=errors, stdin=subprocess.DEVNULL)

    drops = {
        f"d{k}.json": {"id": f"d{k}", "prompt": "do", "depends_on": [f"d{k - 1}"] if k % 3 else []}
        for k in range(24)
    }
    batches = {f"b{k}.json": [{"prompt": "1"}, {"prompt": "2", "depends_on": [f"b{k}-1"]}] for k in range(4)}
    waiting = [*drops.items(), *batches.items()]
    try:
        running = [spawn(k) for k in range(PROCESSES)]
        while kills < KILLS:
            if waiting and dice.random() < 0.7:
                name, content = waiting.pop()
                drop(layout, name, json.dumps(content))
            pause(dice.random() * 0.35)
            k = dice.randrange(PROCESSES)
            assert running[k].poll() is None, said(errors)
            running[k].send_signal(signal.SIGKILL)
            running[k].wait(10)
            kills += 1
            running[k] = spawn(k)
        for name, content in waiting:
            drop(layout, name, json.dumps(content))
        wanted = len(drops) + 2 * len(batches)
        until(lambda: archived(layout) == wanted, 60, what=f"{archived(layout)} of {wanted} archived")
        assert all(p.poll() is None for p in running), said(errors)
    finally:
        for process in running:
            process.kill()
            process.wait(10)
        errors.close()
    disk = Disk(layout, SystemClock())
    assert [str(v) for v in check(disk) if not v.harmless] == []
    disk.close()
    stems = {p.name for p in layout.queue.iterdir() if p.is_file()}
    assert stems == {"FORMAT"}
    assert ran(layout) == claimed(layout)


def drop(layout: Layout, name: str, text: str) -> None:
    """In two pieces, as an editor writes."""
    with (layout.queue / name).open("w") as f:
        f.write(text[: len(text) // 2])
        f.flush()
        f.write(text[len(text) // 2 :])


def pause(seconds: float) -> None:
    """So that a kill comes at any instruction, not only at the start of a process; nothing is waited for."""
    signal.sigtimedwait([], seconds)


def said(errors: object) -> str:
    return Path(errors.name).read_text(errors="replace")[-2000:]  # type: ignore[attr-defined] # a named file


def archived(layout: Layout) -> int:
    return len(list(layout.queue.glob("archive/*/*/item.json")))


def claimed(layout: Layout) -> set[str]:
    """Every attempt that was executed has a claim; one that was killed before it could be executed has one too."""
    return {
        f"{p.parent.name}.{p.name.partition('.')[0]}" for p in layout.queue.glob("archive/*/*/*.claim")
    } & ran(layout)


def ran(layout: Layout) -> set[str]:
    return set(os.listdir(layout.root / "ran"))
