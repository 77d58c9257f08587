"""The command line against the real daemon, and every first step of docs/cli.md as a person types it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import procs
from harness.clock import SystemClock
from harness.events import EventStream
from harness.layout import Layout
from harness.logs import Event
from tests.cli import ctl
from tests.daemons import Daemon, daemon, git
from tests.hubs import person
from tests.support import ROOT, environment, line, running, until


def started(it: Daemon) -> Daemon:
    it.start()
    until(lambda: (report := it.coordinator()) and report.state == "running", 40, what=it.tail())
    return it


def blocked(it: Daemon, flag: str) -> str:
    """A prompt that runs until the file exists."""
    return f"until [ -e {it.base}/{flag} ]; do sleep 0.05; done; echo done > {flag}.txt"


# ---- new work --------------------------------------------------------------------------------------------------------


def test_add_with_wait_ends_when_the_work_is_merged(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        said = ctl(it.root, "add", "echo hello > hello.txt", "--id", "hello", "--wait", "--timeout", "60")
        assert said.code == 0, said.err
        assert re.match(r"hello  hello-[a-z0-9]{10}\n", said.out)
        assert said.out.endswith("hello: merged\n")
        diff = ctl(it.root, "diff", "hello", "--json").data
        assert (diff["merged"], diff["files"]) == (True, ["hello.txt"])
        assert "+hello" in diff["diff"]
        assert "1 file changed" in ctl(it.root, "diff", "hello", "--stat").out


def test_a_running_coordinator_says_why_it_rejects(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        said = ctl(it.root, "add", "x", "--project", "ap", "--priority", "12")
        assert said.code == 1
        assert "did you mean 'app'" in said.err
        assert "priority" in said.err
        assert len(list((it.layout.queue / "rejected").iterdir())) == 1


def test_submit_of_a_batch_prints_every_uid(tmp_path: Path) -> None:
    with daemon(tmp_path, workers=0) as it:
        started(it)
        lines = "".join(json.dumps({"id": f"x{k}", "prompt": "true"}) + "\n" for k in range(3))
        said = ctl(it.root, "submit", "-", "--format", "jsonl", "--quiet", stdin=lines)
        assert said.code == 0, said.err
        assert sorted(u.split("-")[0] for u in said.out.split()) == ["x0", "x1", "x2"]


# ---- acts on running work ----------------------------------------------------------------------------------------------


def test_cancel_of_a_running_item_stops_its_agent_and_frees_the_worker(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        it.drop("long", {"id": "long", "prompt": blocked(it, "never")})
        worker = it.until_running("long")
        assert ctl(it.root, "cancel", "long", "--why", "no need").code == 0
        assert it.state("long") == "cancelled"
        mark = f"{worker.item}.{worker.attempt}"
        until(lambda: not procs.environ_marked(mark), 20, what="nothing of the attempt is left")
        it.drop("next", {"id": "next", "prompt": "echo x > x.txt"})
        it.until_state("next", "merged")
        after = it.report("agent-1")
        assert after is not None
        assert after.pid == worker.pid, "the worker itself lives on"


def test_park_gives_a_running_attempt_up_and_retry_runs_it_again(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        it.drop("long", {"id": "long", "prompt": blocked(it, "go"), "max_attempts": 1})
        worker = it.until_running("long")
        assert ctl(it.root, "park", "long", "--why", "later").code == 0
        until(lambda: not procs.environ_marked(f"{worker.item}.1"), 20, what="the attempt is gone")
        assert it.state("long") == "parked"
        (it.base / "go").touch()
        assert ctl(it.root, "retry", "long").code == 0
        seen = it.until_state("long", "merged")
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["held", "done"]


def test_cancel_of_what_is_being_merged_keeps_it_out_of_the_target(tmp_path: Path) -> None:
    """The merger is in its gate; the cancel takes the lane from it."""
    slow = f"touch {tmp_path}/judging; until [ -e {tmp_path}/open ]; do sleep 0.05; done"
    gate = {"name": "slow", "run": f"case $PWD in */merger*) {slow};; esac", "timeout_s": 60}
    project = {"gates": [gate], "merge": {"gates": ["slow"]}}
    with daemon(tmp_path, project=project, sandbox="none") as it:
        started(it)
        it.drop("a", {"id": "a", "prompt": "echo 2 > 2.txt"})
        until((it.base / "judging").exists, 40, what=it.tail())
        assert it.state("a") == "merging"
        said = ctl(it.root, "cancel", "a")
        assert said.code == 0, said.err
        (it.base / "open").touch()
        it.drop("b", {"id": "b", "prompt": "echo b > b.txt"})
        it.until_state("b", "merged")
        assert it.state("a") == "cancelled"
        assert not [m for m in it.merges() if m.startswith("a:")]


def test_status_shows_who_works_on_what(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        it.drop("long", {"id": "long", "prompt": blocked(it, "go"), "title": "Something long"})
        it.until_running("long")
        until(lambda: ctl(it.root, "status", "--json").data["queue"]["claimed"] == 1, what="counted")
        data = ctl(it.root, "status", "--json").data
        assert data["coordinator"]["state"] == "running"
        (agent,) = data["agents"]
        assert (agent["id"], agent["state"], agent["attempt"], agent["project"]) == (
            "agent-1",
            "running",
            1,
            "app",
        )
        assert agent["rss_mb"] > 1
        page = ctl(it.root, "status").out
        assert "long.1" in page
        assert "Something long" in page
        assert ctl(it.root, "run").code == 4, "a second coordinator is refused"
        (it.base / "go").touch()
        assert ctl(it.root, "wait", "long", "--timeout", "60").code == 0
        assert ctl(it.root, "logs", "agent-1").out.count("item_claimed") == 1
        until(lambda: "item_merged" in ctl(it.root, "events", "--item", "long").out, what="the merger's word")


def test_pause_keeps_work_waiting_until_resume(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        started(it)
        assert ctl(it.root, "pause").code == 0
        it.drop("a", {"id": "a", "prompt": "echo a > a.txt"})
        it.until_state("a", "ready")
        until(lambda: (r := it.report("agent-1")) and r.state == "paused", 40, what="the worker knows")
        until(lambda: "harnessctl resume" in ctl(it.root, "status").out, what="status says so")
        assert it.state("a") == "ready"
        assert ctl(it.root, "resume").code == 0
        it.until_state("a", "merged")


@pytest.mark.parametrize("act", ["drain", "stop"])
def test_drain_lets_attempts_finish_and_stop_gives_them_back(tmp_path: Path, act: str) -> None:
    with daemon(tmp_path) as it:
        coordinator = it.start()
        it.drop("a", {"id": "a", "prompt": blocked(it, "go")})
        it.until_running("a")
        assert ctl(it.root, act, "--wait", "--timeout", "0").code == 75 or coordinator.poll() is not None
        if act == "drain":
            (it.base / "go").touch()
        assert coordinator.wait(60) == 0, it.tail()
        until(lambda: not it.ours(), 40, what="nothing is left running")
        assert it.state("a") in ({"drain": ("merging", "merged"), "stop": ("ready",)}[act])


# ---- with the coordinator down ---------------------------------------------------------------------------------------


def test_what_is_decided_while_nothing_runs_is_carried_out_later(tmp_path: Path) -> None:
    with daemon(tmp_path) as it:
        first = it.start(idle=True)
        it.drop("a", {"id": "a", "prompt": "false", "max_attempts": 1})
        assert first.wait(60) == 1 or it.state("a") == "parked" or it.run_until_idle() == 1
        assert it.state("a") == "parked"
        it.drop("b", {"id": "b", "prompt": "echo b > b.txt", "depends_on": ["a"]})
        assert it.run_until_idle() == 1
        assert ctl(it.root, "retry", "b", "--without-waiting").code == 0
        assert ctl(it.root, "cancel", "a").code == 0
        assert it.run_until_idle() == 0, (it.items(), it.tail())
        assert (it.state("a"), it.state("b")) == ("cancelled", "merged")


# ---- as a person types it --------------------------------------------------------------------------------------------


def first_steps() -> list[str]:
    text = (ROOT / "docs" / "cli.md").read_text()
    block = text.split("## First steps")[1].split("```console\n")[1].split("```")[0]
    return [step.removeprefix("$ ") for step in block.splitlines()]


def test_the_first_steps_of_the_documentation_are_true(tmp_path: Path) -> None:
    person(tmp_path / "app")
    command = f"exec {shlex.quote(sys.executable)} -P -m harness"
    tool = tmp_path / "bin" / "harnessctl"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n{command} "$@"\n')
    tool.chmod(0o755)
    env = environment(PATH=f"{tool.parent}:{os.environ['PATH']}")
    where = tmp_path
    said = ""
    for step in first_steps():
        if step.startswith("cd "):
            where = where / step.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["sh", "-c", step], cwd=where, env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    assert "hello: merged" in said
    assert "hello.txt | 1 +" in said
    assert "Hello" not in said
    assert set(git(tmp_path / "app", "ls-tree", "--name-only", "main").split()) >= {"hello.txt", "bye.txt"}


@pytest.mark.parametrize("verb", [["status", "--watch"], ["events", "-f"]])
def test_a_verb_that_goes_on_ends_with_130_on_ctrl_c(layout: Layout, verb: list[str]) -> None:
    stream = EventStream(layout, SystemClock(), "test")
    stream.emit(Event.ITEM_CLAIMED, uid="x-1", n=1)
    stream.close()
    argv = [sys.executable, "-P", "-m", "harness", "--root", str(layout.root), *verb]
    with running(argv, stderr=subprocess.PIPE) as process:
        assert line(process), "it has said something, and goes on"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
