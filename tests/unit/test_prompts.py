"""What agents are told. The whole text is compared: `UPDATE_GOLDEN=1 pytest` writes the files anew, for review."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.config import CommitBy, Instructions
from harness.model import Attempt, CommitPolicy, End, Item, Outcome, Verdict
from harness.prompts import Brief, GateLine, RedGate, attempt_prompt, heal_prompt, resume_prompt

DATA = Path(__file__).resolve().parent.parent / "data" / "prompts"
ITEM = Item(
    uid="fix-login-x7",
    id="fix-login",
    title="Repair the login",
    prompt="The login fails when the name has a space.\nRepair it and add a test.\n",
    project="app",
    files=("src/login/**", "tests/"),
    protected=("CHANGELOG.md",),
)
BRIEF = Brief(
    target="main",
    gates=(
        GateLine(name="tests", run="pytest -q"),
        GateLine(name="lint", run="ruff check .", required=False),
    ),
    protected=(".github/", "CHANGELOG.md"),
    instructions=Instructions.TEXT,
)
CONFLICT = Verdict(
    n=1,
    returned="conflict",
    files=("src/login/form.py",),
    onto="1234567",
    evidence="ours: fix-login Repair the login\ntheirs: rename-form Rename the form\n",
)
RED_MERGE = Verdict(
    n=2, returned="gate", gate="tests", evidence="FAILED tests/test_form.py::test_space\n1 failed\n"
)


def golden(name: str, text: str) -> None:
    path = DATA / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def returned(verdict: Verdict) -> Attempt:
    end = End(n=verdict.n, outcome=Outcome.DONE, by="agent-1", sha="abc")
    return Attempt(n=verdict.n, claim=None, end=end, verdict=verdict)


def ended(n: int, outcome: Outcome, reason: str) -> Attempt:
    return Attempt(n=n, claim=None, end=End(n=n, outcome=outcome, by="agent-1", reason=reason))


def brief(**more: object) -> Brief:
    return Brief(**{"target": "main", "instructions": Instructions.TEXT, **more})  # type: ignore[arg-type]


def plain(**more: object) -> Item:
    return Item(**{"uid": "a-1", "id": "a", "prompt": "Do it.", "project": "app", **more})  # type: ignore[arg-type]


def test_the_first_attempt_as_text() -> None:
    golden("attempt.text.md", attempt_prompt(ITEM, BRIEF))


def test_the_first_attempt_of_a_script() -> None:
    script = plain(prompt="echo hello > greeting.txt\ngit add greeting.txt\n")
    golden("attempt.comment.sh", attempt_prompt(script, brief(instructions=Instructions.COMMENT)))


def test_an_attempt_after_a_conflict_a_red_merge_and_a_crash() -> None:
    crash = ended(3, Outcome.FAILED, "gate tests: exit 1\nFAILED tests/test_form.py\n1 failed")
    golden("attempt.again.md", attempt_prompt(ITEM, BRIEF, [returned(CONFLICT), returned(RED_MERGE), crash]))


def test_a_heal_round_after_a_red_gate() -> None:
    red = [
        RedGate(name="tests", reason="exit 1", run="pytest -q", tail="E   assert 1 == 2\n1 failed in 0.1s\n")
    ]
    golden("heal.text.md", heal_prompt(ITEM, BRIEF, red, number=1, rounds=3))


def test_a_heal_round_after_a_built_in_gate() -> None:
    reason = "changed outside of the item's files (src/): docs/x.md. Take these changes back"
    red = [RedGate(name="scope", reason=reason, tail=reason)]
    golden("heal.builtin.md", heal_prompt(plain(), brief(), red, number=2, rounds=3))


@pytest.mark.parametrize(
    "prompt", ["echo hi\n", "#!/bin/sh\necho hi", "cat <<END\nhi\nEND\n", "echo hi; exit 0"]
)
def test_a_script_stays_a_script_with_everything_that_is_added(prompt: str) -> None:
    item = plain(prompt=prompt, title="evil\nrm -rf x", files=("$(false)",))
    text = attempt_prompt(item, brief(instructions=Instructions.COMMENT), [returned(CONFLICT)])
    text += heal_prompt(
        item,
        brief(instructions=Instructions.COMMENT),
        [
            RedGate(
                name="t",
                reason="a\nexit 9",
                run="x\nexit 9",
                tail="b\r\nexit 9\x0bexit 9\u2028exit 9\x85exit 9\n",
            )
        ],
        number=1,
        rounds=1,
    )
    done = subprocess.run(["sh", "-c", text], capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout[:3], done.stderr) == (0, b"hi\n", b"")


def test_without_instructions_the_prompt_is_exactly_what_the_person_wrote() -> None:
    bare = brief(instructions=Instructions.NONE)
    assert attempt_prompt(ITEM, bare, [returned(CONFLICT)]) == ITEM.prompt
    assert heal_prompt(ITEM, bare, [RedGate(name="t", reason="x")], number=1, rounds=1) == ITEM.prompt


def test_the_prompt_of_the_person_always_comes_first() -> None:
    assert attempt_prompt(ITEM, BRIEF).startswith(ITEM.prompt.rstrip("\n") + "\n")
    assert heal_prompt(ITEM, BRIEF, [], number=1, rounds=1).startswith(ITEM.prompt.rstrip("\n") + "\n")


@pytest.mark.parametrize(
    ("commit_by", "said"),
    [
        (CommitBy.AGENT, "Commit your work yourself"),
        (CommitBy.HARNESS, "Do not commit: leave your changes"),
        (CommitBy.EITHER, "Commit your work, or leave your changes"),
    ],
)
def test_who_commits_is_said(commit_by: CommitBy, said: str) -> None:
    assert said in attempt_prompt(plain(), brief(commit_by=commit_by))


def test_an_item_without_a_commit_is_told_so() -> None:
    assert "Do not commit: the result" in attempt_prompt(plain(commit=CommitPolicy.NONE), brief())
    assert "fine to change nothing" in attempt_prompt(plain(commit=CommitPolicy.OPTIONAL), brief())


def test_releases_and_what_people_did_are_not_held_against_the_next_attempt() -> None:
    earlier = [
        ended(1, Outcome.RELEASED, "rate_limit"),
        ended(2, Outcome.HELD, "by ann"),
        Attempt(n=3, claim=None),
    ]
    assert "Earlier attempts" not in attempt_prompt(plain(), brief(), earlier)


def test_only_the_last_attempts_are_told() -> None:
    text = attempt_prompt(plain(), brief(), [ended(n, Outcome.FAILED, f"reason {n}") for n in range(1, 8)])
    assert [n for n in range(1, 8) if f"reason {n}" in text] == [5, 6, 7]


def test_long_output_is_cut_from_its_beginning_at_a_line() -> None:
    tail = "".join(f"line {n}\n" for n in range(10_000))
    text = heal_prompt(
        plain(), brief(), [RedGate(name="t", reason="exit 1", run="x", tail=tail)], number=1, rounds=1
    )
    assert "[...]" in text
    assert "line 9999" in text
    assert "line 10\n" not in text
    assert len(text) < 14_000


def test_escape_sequences_in_evidence_do_not_reach_the_prompt() -> None:
    text = heal_prompt(
        plain(),
        brief(),
        [RedGate(name="t", reason="\x1b[1mx", run="r", tail="\x1b]0;t\x07o")],
        number=1,
        rounds=1,
    )
    assert "\x1b" not in text


def test_a_session_that_goes_on_is_told_what_broke_it_off_and_where_it_is_now() -> None:
    text = resume_prompt(ITEM, BRIEF, "usage limit", "/srv/worktrees/app/agent-2", carried=True)
    golden("resume.text.md", text)
    assert ITEM.prompt not in text
    lost = resume_prompt(ITEM, BRIEF, "it crashed", "/w", carried=False)
    assert "what you had changed is not there" in lost
    assert "restarted" not in text + lost
    torn = resume_prompt(ITEM, BRIEF, "it died", "/w", carried=True, found="c0ffee")
    assert "Your commits are there" in torn
    assert "commit c0ffee: take over what is whole" in torn


def test_a_correction_for_a_session_that_knows_its_task_does_not_repeat_it() -> None:
    red = [RedGate(name="tests", reason="exit 1", run="pytest -q", tail="1 failed")]
    assert ITEM.prompt in heal_prompt(ITEM, BRIEF, red, number=1, rounds=3)
    assert ITEM.prompt not in heal_prompt(ITEM, BRIEF, red, number=1, rounds=3, knows=True)


def test_the_first_mistakes_of_a_long_output_are_told_before_its_end() -> None:
    tail = "\n".join(["start", "src/a.py:3: error: name x", *[f"line {k}" for k in range(100)], "2 failed"])
    red = [RedGate(name="tests", reason="exit 1", run="pytest -q", tail=tail)]
    text = heal_prompt(ITEM, BRIEF, red, number=1, rounds=3)
    assert (
        text.index("What stands out") < text.index("src/a.py:3: error: name x") < text.index("The end of its")
    )


def test_briefings_follow_the_item_and_come_before_the_rules() -> None:
    text = attempt_prompt(plain(), brief(briefings=("Use tabs.", "The API is in api/."), worktree="/w/t"))
    assert text.index("Do it.") < text.index("Use tabs.") < text.index("The API is in api/.")
    assert text.index("The API is in api/.") < text.index("## Rules")
    assert "Worktree: /w/t" in text
