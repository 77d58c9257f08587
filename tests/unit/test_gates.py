"""The built-in gates: what they say of facts that git has told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.gates import Change, Facts, GateReport, GateResult, Rules, builtin
from harness.model import CommitPolicy

GOOD = Facts(changes=(Change(path="src/a.py"),), has_commit=True)


def reason(name: str, facts: Facts, rules: Rules | None = None) -> str:
    """Why a gate is red; "" when it is green."""
    result = {r.name: r for r in builtin(facts, rules or Rules())}[name]
    assert result.ok is (result.reason == "")
    return result.reason


def test_work_that_keeps_to_the_rules_is_green() -> None:
    rules = Rules(files=("src/",), protected=(".github/",))
    assert all(r.ok and r.required for r in builtin(GOOD, rules))


def test_all_of_them_are_judged_so_that_all_failures_come_at_once() -> None:
    facts = Facts(changes=(Change(path="x"),), dirty=("y",), has_commit=False)
    report = GateReport(results=builtin(facts, Rules(files=("src/",), protected=("x",))))
    assert [r.name for r in report.red] == ["clean", "commit", "scope", "protected"]
    assert not report.ok


# clean


def test_uncommitted_and_untracked_files_are_named() -> None:
    facts = Facts(dirty=("a.py",), untracked=("b.txt", "c/"), has_commit=True)
    assert reason("clean", facts) == (
        "uncommitted changes: a.py; untracked files: b.txt, c/. Commit, remove or ignore them"
    )


def test_an_operation_left_half_way_is_not_clean() -> None:
    assert "rebase" in reason("clean", Facts(in_progress="rebase", has_commit=True))


def test_a_worktree_that_git_does_not_know_any_more_is_named_as_that_and_as_nothing_else() -> None:
    results = builtin(Facts(dirty=("a.py", ".git: .git is missing. Put it back")), Rules())
    assert {r.name: r.reason for r in results if r.reason} == {
        "clean": "the worktree cannot be used by git any more, nothing in it can be committed: "
        ".git is missing. Put it back"
    }


def test_an_item_without_a_commit_may_leave_files_but_no_half_merge() -> None:
    rules = Rules(commit=CommitPolicy.NONE)
    assert reason("clean", Facts(untracked=("report.txt",)), rules) == ""
    assert reason("clean", Facts(in_progress="merge"), rules) != ""


def test_a_long_list_is_cut_and_control_characters_are_gone() -> None:
    said = reason(
        "clean", Facts(untracked=("\x1b[2Jevil\nname", *(f"f{n}" for n in range(50))), has_commit=True)
    )
    assert "and 31 more" in said
    assert "\x1b" not in said
    assert "\n" not in said


# commit


@pytest.mark.parametrize(
    ("policy", "has_commit", "ok"),
    [
        (CommitPolicy.REQUIRED, True, True),
        (CommitPolicy.REQUIRED, False, False),
        (CommitPolicy.OPTIONAL, True, True),
        (CommitPolicy.OPTIONAL, False, True),
        (CommitPolicy.NONE, True, False),
        (CommitPolicy.NONE, False, True),
    ],
)
def test_there_is_a_commit_exactly_when_the_item_wants_one(
    policy: CommitPolicy, has_commit: bool, ok: bool
) -> None:
    assert (reason("commit", Facts(has_commit=has_commit), Rules(commit=policy)) == "") is ok


# scope


def test_without_files_everything_is_in_scope() -> None:
    assert reason("scope", Facts(changes=(Change(path="anything/at/all"),), has_commit=True)) == ""


def test_what_is_outside_of_the_files_is_named_with_what_is_inside() -> None:
    facts = Facts(changes=(Change(path="src/a"), Change(path="docs/b")), has_commit=True)
    assert "(src/**): docs/b" in reason("scope", facts, Rules(files=("src/**",)))


def test_both_sides_of_a_rename_count() -> None:
    out = Facts(changes=(Change(path="docs/a", was="src/a"),), has_commit=True)
    into = Facts(changes=(Change(path="src/a", was="docs/a"),), has_commit=True)
    rules = Rules(files=("src/",))
    assert "docs/a" in reason("scope", out, rules)
    assert "docs/a" in reason("scope", into, rules)


def test_a_path_that_climbs_is_never_in_scope() -> None:
    facts = Facts(changes=(Change(path="src/../x"),), has_commit=True)
    assert reason("scope", facts, Rules(files=("src/../x", "../", "/"))) != ""


# protected


def test_a_protected_path_must_stay_as_it_is() -> None:
    facts = Facts(changes=(Change(path=".github/workflows/ci.yml"),), has_commit=True)
    assert ".github/workflows/ci.yml" in reason("protected", facts, Rules(protected=(".github",)))


def test_moving_a_protected_file_away_is_a_change_of_it() -> None:
    facts = Facts(changes=(Change(path="x", was="LICENSE"),), has_commit=True)
    assert "LICENSE" in reason("protected", facts, Rules(protected=("LICENSE",)))


def test_an_item_may_be_allowed_some_of_what_is_protected() -> None:
    facts = Facts(changes=(Change(path="ci/a"), Change(path="ci/b")), has_commit=True)
    rules = Rules(protected=("ci/",), allowed=("ci/a",))
    assert reason("protected", facts, rules) == "protected paths changed: ci/b. Take these changes back"


# reports


def result(**more: object) -> GateResult:
    return GateResult(**{"name": "t", "ok": False, **more})  # type: ignore[arg-type]


def test_a_gate_that_is_not_required_never_makes_a_report_red() -> None:
    assert GateReport(results=(result(required=False),)).ok
    assert not GateReport(results=(result(),)).ok


def test_a_gate_that_we_stopped_is_neither_green_nor_red() -> None:
    report = GateReport(results=(result(stopped="drain"),))
    assert (report.ok, report.red, report.stopped) == (False, (), "drain")
    assert not GateReport(results=(result(stopped="drain", required=False),)).ok


def test_no_gates_at_all_are_green() -> None:
    assert GateReport().ok
    assert GateReport().stopped == ""


def test_a_result_knows_where_its_log_is() -> None:
    assert result(log=Path("/x")).log == Path("/x")
