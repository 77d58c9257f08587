"""Every system call of a day in the store's life, failed in every way: the process ends or goes on, and nothing is lost,
double or torn after the next one has recovered.

All of it: ``HARNESS_FAULTS=all`` (some thousand runs); without that every 23rd of them.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.layout import Layout
from harness.model import CommitPolicy, Item, Outcome
from harness.store import admission, attempts, lane, operators, promotion
from harness.store.attempts import Claimed
from harness.store.cells import Actor, Standing, look
from harness.store.disk import Disk
from harness.store.fsck import check
from tests.faults import ERRORS, KILL, Faults, Killed
from tests.stores import DAY, World, end_record
from tests.support import make_root

DROPS: list[tuple[str, object]] = [
    ("a.json", {"id": "a", "prompt": "1"}),
    ("b.json", {"id": "b", "prompt": "2", "commit": "none", "depends_on": ["a"]}),
    ("bad.json", {"prompt": 7}),
    ("plan.json", [{"id": "p", "prompt": "3", "commit": "none"}, {"prompt": "4", "depends_on": ["p"]}]),
]
IDS = {"a", "b", "p", "plan-2"}
EVERY = 1 if os.environ.get("HARNESS_FAULTS") == "all" else 23


class Life:
    """One world, and what was executed in it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(Layout(make_root(folder).root), durable=True)
        for name, content in DROPS:
            self.world.drop(name, content)
        self.ran: dict[tuple[str, int], str] = {}

    def day(self, disk: Disk, me: Actor) -> None:
        """What coordinator, worker and merger do, once for each item."""
        self._admit(disk, me)
        for uid in disk.do_ls("queue/waiting") or ():
            item = disk.do_read(f"queue/waiting/{uid}/item.json", Item)
            if isinstance(item, Item):
                disk.run(promotion.promote(item))
        for uid in [*disk.hints.find(), *(disk.do_ls("queue/open") or ())]:
            disk.hints.take(uid)
            self._care(disk, me, uid)

    def _admit(self, disk: Disk, me: Actor) -> None:
        for _ in range(2):
            disk.run(admission.take())
            self.world.clock.advance(10)
        disk.run(admission.take())
        for home in disk.do_ls("queue/incoming") or ():
            disk.run(admission.admit(me, home, self.world.context, DAY))

    def _care(self, disk: Disk, me: Actor, uid: str) -> None:
        seen = disk.run(look(uid))
        if seen.standing is Standing.RUNNING:
            disk.run(attempts.expire(me, uid, seen.n))
        elif seen.standing is Standing.PARKED:
            disk.run(operators.retry(me, uid, "me", ""))
        elif seen.standing is Standing.READY:
            got = disk.run(attempts.claim(me, uid))
            if isinstance(got, Claimed):
                self._execute(disk, me, got)
        if disk.run(look(uid)).standing is Standing.SUBMITTED:
            seen = disk.run(look(uid))
            disk.run(lane.judge(me, "app", uid, seen.n))
        if disk.run(look(uid)).standing is Standing.OVER:
            disk.run(attempts.finish(uid))

    def _execute(self, disk: Disk, me: Actor, got: Claimed) -> None:
        owner = me.identity.incarnation
        assert self.ran.setdefault((got.uid, got.n), owner) == owner
        if got.n == 1 and got.item.id == "p":
            disk.run(attempts.end(me, got, end_record(got.n, Outcome.FAILED)))
            return
        sha = f"sha-{got.uid}" if got.item.commit is not CommitPolicy.NONE else None
        disk.run(attempts.end(me, got, end_record(got.n, Outcome.DONE, sha)))

    def recover(self) -> None:
        """The next processes, on a healthy disk, until nothing is left to do."""
        for k in range(12):
            self.world.box = self.world.new_box()
            disk = self.world.new_disk()
            self.day(disk, self.world.actor(f"next{k}"))
            disk.close()
            if not any(os.listdir(self.world.layout.queue / p) for p in ("waiting", "open")) and k > 2:
                return

    def check(self, unreadable: bool) -> None:
        queue = self.world.layout.queue
        done = Counter(Item.from_record(_json(p)).id for p in queue.glob("archive/*/*/item.json"))
        refused = {p.name for p in queue.glob("rejected/*/raw.*")} - {"raw.bad.json"}
        if refused:  # the disk did not give its bytes: the drop is there, with that reason
            assert unreadable
            assert [
                str(_json(p)) for p in queue.glob("rejected/*/why.json") if "cannot be read" in p.read_text()
            ]
        lost = {"raw.a.json": {"a", "b"}, "raw.b.json": {"b"}, "raw.plan.json": {"p", "plan-2"}}
        assert done == Counter(IDS.difference(*(lost[name] for name in refused)))
        assert len(list(queue.glob("rejected/*/why.json"))) == 1 + len(refused)
        assert [str(v) for v in check(self.world.disk) if not v.harmless] == []
        merged = [(u, n) for u, n, _ in self.world.hub.history]
        assert len(merged) == len({u for u, _ in merged}) == len(done.keys() & {"a", "plan-2"})


def _json(path: Path) -> object:
    return json.loads(path.read_bytes())


def suffer(faults: Faults) -> tuple[list[str], str]:
    """A day with a fault, then days without. -> (calls, how the day ended)"""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        life = Life(Path(folder) / "root")
        try:
            disk = life.world.new_disk()
            fate = "went on"
            try:
                with faults():
                    life.day(disk, life.world.actor("first"))
            except Killed:
                fate = "killed"
            except (OSError, HarnessError) as e:
                fate = type(e).__name__
            disk.close()
            life.recover()
            life.check(unreadable=faults.error in (errno.EIO, errno.EACCES, errno.EMLINK))
        finally:
            life.world.close()
    return faults.calls, fate


def cases() -> Iterator[tuple[int, int]]:
    calls, _ = suffer(Faults())
    every = [(k, error) for k in range(len(calls)) for error in (*ERRORS, KILL)]
    yield from every[::EVERY]


def test_a_day_without_faults_makes_some_hundred_calls() -> None:
    calls, fate = suffer(Faults())
    assert fate == "went on"
    assert len(calls) > 250
    assert {"open", "link", "rename", "fsync", "mkdir", "fcntl"} <= set(calls)


@pytest.mark.timeout(60 if EVERY > 1 else 7200)
def test_nothing_is_lost_or_double_whichever_call_fails_in_whichever_way() -> None:
    fates: Counter[str] = Counter()
    for at, error in cases():
        faults = Faults(at, error)
        try:
            _, fate = suffer(faults)
        except BaseException as e:
            name = errno.errorcode.get(error, "kill")
            e.add_note(
                f"call {at} ({faults.calls[at] if at < len(faults.calls) else '?'}) failed with {name}"
            )
            raise
        fates[fate] += 1
    assert fates["OSError"] > 0
    assert fates["killed"] > 0
