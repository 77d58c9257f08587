"""The whole daemon on real input: a file is dropped, a little later its commit is merged, whatever dies in between."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from harness.reports import process_of
from tests.daemons import daemon, git
from tests.support import until

pytestmark = pytest.mark.timeout(180)


def commit(name: str, text: str = "x") -> str:
    return f"echo {text} > {name}; git add -A; git commit -q -m 'change {name}'"


def test_a_conflict_is_returned_with_the_evidence_and_solved_by_the_next_attempt(tmp_path: Path) -> None:
    with daemon(tmp_path, workers=2) as d:
        # Both start from the same base: each waits until the other's agent runs.
        meet = tmp_path / "meet"
        meet.mkdir()
        wait = f'touch {meet}/$HARNESS_ITEM; while [ "$(ls {meet} | wc -l)" -lt 2 ]; do sleep 0.05; done; '
        first = wait + "echo one > same"
        second = (
            wait
            + 'if grep -q "onflic[t]" "$HARNESS_PROMPT_FILE"; then echo both >> same; else echo two > same; fi'
        )
        d.config["sandbox"] = "none"
        d.write_config()
        d.drop("first", {"prompt": first, "priority": 0})
        d.drop("second", {"prompt": second})
        assert d.run_until_idle() == 0
        assert sorted(s.split(":")[0] for s in d.merges()) == ["first", "second"]
        seen = d.items()
        returned = [a.verdict for s in seen.values() for a in s.attempts if a.verdict and a.verdict.returned]
        assert [v.returned for v in returned] == ["conflict"]
        assert returned[0].files == ("same",)


def test_a_killed_workers_attempt_is_expired_and_the_item_done_once(tmp_path: Path) -> None:
    with daemon(tmp_path, workers=2) as d:
        d.start()
        flag = tmp_path / "go"
        d.drop(
            "slow",
            {
                "prompt": f"(setsid sleep 987654 &) ; while [ ! -e {flag} ]; do sleep 0.05; done; {commit('a')}"
            },
        )
        report = d.until_running("slow")
        d.kill(report)
        until(lambda: d.events("attempt_expired"), 20, what=f"expired {d.tail()}")
        assert not [p for p in d.ours() if b"987654" in Path(f"/proc/{p.pid}/cmdline").read_bytes()]
        flag.touch()
        seen = d.until_state("slow", "merged")
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["expired", "done"]
        until(d.merges, 20)
        assert len(d.merges()) == 1


def test_a_killed_coordinator_disturbs_no_running_attempt_and_the_next_one_adopts_it(tmp_path: Path) -> None:
    with daemon(tmp_path, workers=2) as d:
        first = d.start()
        flag = tmp_path / "go"
        d.drop("slow", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.05; done; {commit('a')}"})
        report = d.until_running("slow")
        first.kill()
        first.wait(10)
        d.start()
        until(lambda: any(e["pid"] == report.pid for e in d.events("worker_adopted")), 20, what=d.tail())
        flag.touch()
        seen = d.until_state("slow", "merged")
        assert len(seen.attempts) == 1
        again = d.report(report.agent)
        assert again
        assert again.pid == report.pid


def test_a_worker_that_can_carry_out_nothing_rests_instead_of_giving_everything_back(tmp_path: Path) -> None:
    """It is always free, so it would take every item first, and twenty releases park an item."""
    with daemon(tmp_path) as d:
        d.start()
        d.drop("first", {"prompt": "true", "commit": "none"})
        d.until_state("first", "done")
        slots = d.layout.hub("app").with_suffix(".ours") / "slots"
        (d.layout.worktree("app", "agent-1") / "README.md").write_text("has to be looked at")
        with (slots / "agent-1.index.lock").open("w"):  # held open: nobody may remove it
            d.drop("plan", [{"id": f"i{k}", "prompt": "true", "commit": "none"} for k in range(5)])
            until(lambda: (r := d.report("agent-1")) and r.last_event.startswith("rests "), 60, what=d.tail())
            assert [e["outcome"] for e in d.events("attempt_ended")] == ["done", "released", "released"]


def test_the_next_coordinator_sweeps_what_a_power_loss_left_and_works_meanwhile(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        d.drop("first", {"prompt": "echo x > a"})
        assert d.run_until_idle() == 0
        hub = d.layout.hub("app")
        locks = [
            hub / "config.lock",
            hub / "refs/harness/attempt/gone-1/1.lock",
        ]  # nobody else comes to these
        theirs = d.app / ".git/refs/heads/other.lock"
        locks[1].parent.mkdir(parents=True)
        for lock in (*locks, theirs):
            lock.touch()
        d.start()
        d.drop("second", {"prompt": "echo y > b"})
        until(lambda: len(d.events("stale_lock_removed")) == 2, 40, what=d.tail())
        assert not any(lock.exists() for lock in locks)
        assert {e["source"] for e in d.events("stale_lock_removed")} == {"coordinator"}
        d.until_state("second", "merged")
        assert theirs.exists()


def test_work_goes_on_while_no_coordinator_lives(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        process = d.start()
        flag = tmp_path / "go"
        d.drop("one", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.05; done", "commit": "none"})
        d.until_running("one")
        d.drop("two", {"prompt": "true", "commit": "none"})
        d.until_state("two", "ready")
        process.kill()
        process.wait(10)
        flag.touch()
        assert d.until_state("two", "done").attempts[0].end


def test_a_stopped_worker_is_killed_only_when_it_is_silent_and_inactive_and_then_replaced(
    tmp_path: Path,
) -> None:
    with daemon(tmp_path, health={"beat_s": 0.1, "hang_s": 1.0}) as d:
        d.start()
        flag = tmp_path / "go"
        d.drop("slow", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.3; done; {commit('a')}"})
        report = d.until_running("slow")
        d.kill(report, signal.SIGSTOP)
        until(lambda: d.events("worker_hung") or d.events("attempt_expired"), 60, what=d.tail())
        flag.touch()
        seen = d.until_state("slow", "merged")
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["expired", "done"]


def test_an_idle_worker_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """It holds no claim, and a pool of one would run nothing for ever."""
    with daemon(tmp_path, health={"beat_s": 0.1, "hang_s": 1.0}) as d:
        d.start()
        report = until(lambda: (r := d.report("agent-1")) and r.state == "idle" and r, 20, what=d.tail())
        assert report
        d.kill(report, signal.SIGSTOP)
        d.drop("a", {"prompt": "true", "commit": "none"})
        d.until_state("a", "done", timeout_s=60)
        assert [e["agent"] for e in d.events("worker_hung")] == ["agent-1"]


def test_a_worker_that_two_coordinators_drain_finishes_its_attempt(tmp_path: Path) -> None:
    """The second one does not know what the first had told it before it died."""
    with daemon(tmp_path) as d:
        flag = tmp_path / "go"
        first = d.start()
        d.drop("slow", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.05; done; {commit('a')}"})
        report = d.until_running("slow")
        first.send_signal(signal.SIGTERM)
        until(lambda: (r := d.coordinator()) and r.state == "draining", 20)
        first.kill()
        first.wait(10)
        second = d.start()
        until(lambda: (r := d.coordinator()) and r.pid == second.pid and r.state == "running", 20)
        second.send_signal(signal.SIGTERM)
        until(lambda: (r := d.coordinator()) and r.state == "draining", 20)
        assert process_of(report).alive()
        flag.touch()
        until(lambda: second.poll() is not None, 60, what=d.tail())
        seen = d.items()["slow"]
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["done"]
        assert not d.ours()


def test_the_first_term_drains_and_the_attempt_finishes(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        process = d.start()
        flag = tmp_path / "go"
        d.drop("slow", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.05; done; {commit('a')}"})
        d.until_running("slow")
        process.send_signal(signal.SIGTERM)
        until(lambda: (r := d.coordinator()) and r.state == "draining", 20)
        assert process.poll() is None
        flag.touch()
        until(lambda: process.poll() is not None, 30, what=d.tail())
        assert process.returncode == 0
        assert [a.end.outcome.value for a in d.items()["slow"].attempts if a.end] == ["done"]
        assert not d.ours()


def test_the_second_term_releases_the_attempt_at_no_cost_and_leaves_no_process(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        process = d.start()
        d.drop("slow", {"prompt": "echo unsaved > work; sleep 9999"})
        report = d.until_running("slow")
        until((d.layout.worktree("app", report.agent) / "work").exists)
        process.send_signal(signal.SIGTERM)
        until(lambda: (r := d.coordinator()) and r.state == "draining", 20)
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, 60, what=d.tail())
        assert not d.ours()
        seen = d.items()["slow"]
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["released"]
        assert seen.state == "ready"
        saved = git(d.layout.hub("app"), "for-each-ref", "--format=%(refname)", "refs/harness/salvage")
        assert saved
        assert git(d.layout.hub("app"), "show", f"{saved.splitlines()[0]}:work") == "unsaved"


def test_a_checked_out_target_stays_clean_and_is_published_when_it_is_left(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        git(d.app, "switch", "-q", "main")
        d.start()
        d.drop("hello", {"prompt": commit("a")})
        d.until_state("hello", "merged")
        until(lambda: d.events("publish_refused"), 20, what=d.tail())
        assert git(d.app, "status", "--porcelain") == ""
        assert d.merges() == []
        until(lambda: (r := d.coordinator()) and any("not published" in p for p in r.problems), 20)
        git(d.app, "switch", "-q", "work")
        until(lambda: len(d.merges()) == 1, 60, what=d.tail())


def test_a_persons_own_commit_meanwhile_is_kept(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        d.start()
        flag = tmp_path / "go"
        d.drop("slow", {"prompt": f"while [ ! -e {flag} ]; do sleep 0.05; done; {commit('a')}"})
        d.until_running("slow")
        git(d.app, "switch", "-q", "main")
        (d.app / "mine").write_text("mine")
        git(d.app, "add", ".")
        git(d.app, "commit", "-q", "-m", "mine")
        git(d.app, "switch", "-q", "work")
        flag.touch()
        until(lambda: "a" in git(d.app, "ls-tree", "--name-only", "main").splitlines(), 60, what=d.tail())
        assert git(d.app, "show", "main:mine") == "mine"


def test_a_damaged_record_is_shown_and_left_alone_while_everything_else_goes_on(tmp_path: Path) -> None:
    torn = {"one": "1.claim", "two": "1.end"}
    with daemon(tmp_path) as d:
        (d.layout.control / "pause").touch()
        process = d.start()
        for name in torn:
            d.drop(name, {"prompt": commit(name)})
        d.drop("later", {"prompt": commit("b"), "depends_on": list(torn)})
        uids = [d.until_state(name, "ready").uid for name in torn]
        for uid, cell in zip(uids, torn.values(), strict=True):
            (d.layout.queue / "open" / uid / cell).write_text('{"v": 1, "outc')
        d.drop("good", {"prompt": commit("c")})
        (d.layout.control / "pause").unlink()

        def told() -> bool:
            said = d.status()
            needs = [need.what for need in said.needs if need.command == "harnessctl fsck"]
            return said.queue.parked == 2 and all(
                any(cell in what for what in needs) for cell in torn.values()
            )

        until(told, 20, what=d.tail())
        until(lambda: len(d.merges()) == 1, 40, what=d.tail())
        assert d.state("later") == "waiting"
        assert not d.events("worker_died")
        # what docs/items.md says to do without a backup
        process.terminate()
        until(lambda: process.poll() is not None, 40, what=d.tail())
        for uid in uids:
            (d.layout.queue / "open" / uid).rename(tmp_path / uid)
        d.cli("fsck", "--repair")
        for name, uid in zip(torn, uids, strict=True):
            (tmp_path / uid / f"raw.{name}.json").rename(d.layout.queue / f"{name}.json")
        assert d.run_until_idle() == 0
        assert {d.state(name) for name in (*torn, "later")} == {"merged"}


def test_pause_keeps_everybody_from_claiming_until_it_is_removed(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        (d.layout.control / "pause").touch()
        d.start()
        d.drop("one", {"prompt": "true", "commit": "none"})
        d.until_state("one", "ready")
        until(lambda: (r := d.report("agent-1")) and r.state == "paused", 20)
        (d.layout.control / "pause").unlink()
        d.drop("two", {"prompt": "true", "commit": "none"})
        d.until_state("one", "done")


def test_a_changed_config_is_read_at_hup_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        process = d.start()
        until(lambda: d.report("agent-1"), 20)
        good = d.layout.config.read_text()
        d.layout.config.write_text("v: 1\nworkrs: 3\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: d.events("config_refused"), 20)
        d.layout.config.write_text(json.dumps(json.loads(good) | {"workers": 2}))
        process.send_signal(signal.SIGHUP)
        until(lambda: d.report("agent-2"), 20, what=d.tail())


def test_only_one_coordinator_runs_for_a_root(tmp_path: Path) -> None:
    with daemon(tmp_path, workers=0) as d:
        d.start()
        until(d.coordinator, 20)
        second = d.start()
        until(lambda: second.poll() is not None, 20)
        assert second.returncode != 0
        assert "runs already" in d.tail()
