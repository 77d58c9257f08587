"""Git works in a worktree when only what `policy` names may be written."""

from __future__ import annotations

import os
import threading
import uuid

import pytest

from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Jail, Policy
from harness.errors import ConfigError
from harness.hub import Hub, Worktree
from harness.runner import Command, Ended, Runner
from tests.hubs import AGENT, git


@pytest.fixture
def containment() -> Containment:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("a jailed command is spawned from the main thread")
    try:
        return Containment.probe(Sandbox.LANDLOCK)
    except ConfigError as e:
        pytest.skip(f"no Landlock here: {e.what}")


def jailed(hub: Hub, tree: Worktree, containment: Containment, script: str) -> Ended:
    """What an agent does, allowed to write what `policy` names and nothing else."""
    command = Command(
        argv=("sh", "-ec", script),
        cwd=tree.path,
        env={"PATH": os.environ["PATH"], "HOME": str(tree.path), **AGENT},
        timeout_s=60.0,
        # A mark of its own for each: tests run at the same time, and the one that ends removes what bears it.
        jail=Jail(
            mark=f"{tree.uid}-{uuid.uuid4().hex[:10]}.{tree.n}",
            policy=Policy(write=hub.policy(tree, tree.uid, tree.n)),
        ),
    )
    return Runner(clock=SystemClock(), containment=containment).run(command)


def test_the_usual_commands_of_git_work(hub: Hub, containment: Containment) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    ended = jailed(
        hub,
        tree,
        containment,
        """
        echo one > new.txt; git add -A; git commit -q -m one
        echo two > new.txt; git commit -q -a -m two
        git commit -q --amend -m 'two, better'
        git switch -q -c harness/x-1/idea
        echo idea > idea; git add idea; git commit -q -m idea
        git switch -q harness/x-1/1
        git merge -q --no-ff -m merge harness/x-1/idea
        git rebase -q HEAD~1
        git reset -q --hard HEAD
        git restore --source=HEAD~1 new.txt; git checkout -q -- new.txt
        git status --porcelain; git log --oneline -3; git diff HEAD~1 --stat
        """,
    )
    assert ended.ok, ended.stderr.decode()
    assert git(tree.path, "log", "-1", "--format=%s", "harness/x-1/idea") == "idea"
    assert hub.commit_leftovers(tree, "rest").sha is None
    head = hub.status(tree).head
    assert head is not None
    hub.pin("x-1", 1, head)


@pytest.mark.parametrize(
    "script",
    [
        "git config user.name x",
        "git branch -f main HEAD~0 && git update-ref refs/heads/main HEAD^{tree}",
        "git update-ref refs/heads/main $(git commit-tree -m evil HEAD^{tree})",
        "git branch harness/y-1/1",
        "git branch -D harness/y-1/9",
        "git tag evil",
        "git update-ref refs/harness/lane HEAD",
        "git update-ref -d refs/harness/attempt/y-1/1",
        "echo x; echo a > a.txt; git stash",
        "echo '#!/bin/sh' > $(git rev-parse --git-common-dir)/hooks/pre-commit",
        "git worktree prune --expire=now; touch $(git rev-parse --git-common-dir)/worktrees/x",
    ],
)
def test_what_belongs_to_others_cannot_be_written(hub: Hub, containment: Containment, script: str) -> None:
    base = hub.target()
    git(hub.path, "update-ref", "refs/heads/harness/y-1/9", base)
    git(hub.path, "update-ref", "refs/harness/attempt/y-1/1", base)
    tree = hub.prepare("agent-1", "x-1", 1, base)
    before = git(hub.path, "for-each-ref")
    ended = jailed(hub, tree, containment, script)
    assert not ended.ok, ended.stdout.decode()
    assert git(hub.path, "for-each-ref") == before
    assert hub.check() == ()
