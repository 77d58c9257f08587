"""What git says, and what we say to it: parsed and built without a repository."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.config import Project
from harness.hub.creation import exclude_file
from harness.hub.git import (
    GitCommandError,
    GitInterrupted,
    person_environment,
    plain_environment,
    transaction,
)
from harness.hub.publish import Refusal, _kind
from harness.hub.snapshot import parse_status
from harness.runner import Ended, EndReason


def test_status_keeps_names_that_are_no_text() -> None:
    fields = [
        b"1 .M N... 100644 100644 100644 " + b"a" * 40 + b" " + b"b" * 40 + b" a b\nc",
        b"u UU N... 100644 100644 100644 100644 " + b" ".join([b"a" * 40] * 3) + b" con flict",
        b"? we\nird\xff",
        b"? -rf",
        b"? nested/",
        b"! cache/",
        b"# branch.oid x",
    ]
    seen = parse_status(fields)
    assert seen.changed == (b"a b\nc", b"con flict")
    assert seen.untracked == (b"we\nird\xff", b"-rf")
    assert seen.nested == (b"nested/",)
    assert seen.ignored == (b"cache/",)
    assert seen.dirty


def test_caches_and_copies_are_excluded_from_the_top_of_the_tree() -> None:
    project = Project(name="app", path="/x", keep=("node_modules", "./a [b]/c "), copy=(".env", "!x", "#y"))
    lines = exclude_file(project).decode().splitlines()[1:]
    assert lines == ["/node_modules", "/a \\[b]/c\\ ", "/.env", "/!x", "/#y"]


def test_a_transaction_never_follows_a_symbolic_ref() -> None:
    assert (
        transaction(["update a b", "delete c"]) == b"option no-deref\nupdate a b\noption no-deref\ndelete c\n"
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("!\trefs/heads/main:refs/heads/main\t[rejected] (stale info)", Refusal.STALE),
        ("! [rejected] main -> main (fetch first)", Refusal.STALE),
        ("!\tx\t[remote rejected] (branch is currently checked out)", Refusal.CHECKED_OUT),
        ("! [remote rejected] main -> main (Working directory has unstaged changes)", Refusal.DIRTY),
        ("! [remote rejected] main -> main (Working directory has staged changes)", Refusal.DIRTY),
        ("! [remote rejected] main -> main (pre-receive hook declined)", Refusal.HOOK),
        ("remote: error: GH006: Protected branch update failed", Refusal.HOOK),
        ("remote: error: Unable to create '/x/refs/heads/main.lock': File exists.", Refusal.LOCKED),
        ("fatal: detected dubious ownership in repository at '/x'", Refusal.DENIED),
        ("git@host: Permission denied (publickey).", Refusal.DENIED),
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", Refusal.DENIED),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", Refusal.UNREACHABLE),
        ("fatal: '/x' does not appear to be a git repository", Refusal.UNREACHABLE),
        ("something new", Refusal.OTHER),
    ],
)
def test_a_refused_push_is_told_apart_by_what_git_says(said: str, kind: Refusal) -> None:
    assert _kind(said) is kind


def test_our_git_sees_nothing_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/sock")
    env = plain_environment(Path("/home/ours"))
    assert "ANTHROPIC_API_KEY" not in env
    assert "SSH_AUTH_SOCK" not in env
    assert env["HOME"] == "/home/ours"
    assert env["GIT_CONFIG_GLOBAL"] == "/dev/null"


def test_fetch_and_push_get_the_persons_credentials_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "GIT_DIR", "GIT_CONFIG_PARAMETERS"):
        monkeypatch.setenv(name, "x")
    for name in ("SSH_AUTH_SOCK", "HOME", "https_proxy", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL"):
        monkeypatch.setenv(name, name)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    env = person_environment()
    assert not {"ANTHROPIC_API_KEY", "GIT_DIR", "GIT_CONFIG_PARAMETERS", "LC_ALL"} & set(env)
    assert env["SSH_AUTH_SOCK"] == "SSH_AUTH_SOCK"
    assert env["https_proxy"] == "https_proxy"
    assert env["GIT_SSH_COMMAND"] == "GIT_SSH_COMMAND"
    assert env["LANG"] == "de_DE.UTF-8"
    assert env["GIT_TERMINAL_PROMPT"] == "0"


def test_a_failed_command_says_what_where_and_why() -> None:
    ended = Ended(reason=EndReason.EXITED, exit_code=128, stderr=b"fatal: no\n")
    e = GitCommandError(("push", "x"), ended, where=Path("/hub"))
    assert str(e) == "/hub: git push x: exit 128: fatal: no"
    assert e.exit_code == 1
    killed = GitCommandError(
        ("gc",), Ended(reason=EndReason.EXITED, signal=signal.SIGKILL), where=Path("/hub")
    )
    assert "signal 9" in str(killed)
    assert killed.exit_code == 75
    full = Ended(reason=EndReason.EXITED, exit_code=128, stderr=b"fatal: x: No space left on device\n")
    assert GitCommandError(("gc",), full, where=Path("/hub")).exit_code == 75
    unstarted = GitCommandError(
        ("gc",), Ended(reason=EndReason.NOT_STARTED, error="no such program"), where=Path("/hub")
    )
    assert "no such program" in str(unstarted)


def test_a_command_that_was_stopped_may_be_tried_again() -> None:
    e = GitInterrupted(
        ("fetch",),
        Ended(reason=EndReason.STOPPED, stop_reason="the harness is stopping", duration_s=3.0),
        where=Path("/hub"),
    )
    assert e.exit_code == 75
    assert "the harness is stopping" in str(e)
