"""The last words of the demo: what happened, in figures, and where to look."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.demo.board import Board
from harness.demo.outcome import Proof
from harness.demo.scene import Scene
from harness.demo.work import PLAN, Manner
from harness.store.view import Seen


def summarise(
    out: Console, scene: Scene, board: Board, proof: Proof, wall_s: float, workers: int, *, kept: bool
) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(board, proof, wall_s, workers):
        table.add_row(name, text)
    out.print()
    out.print(table)
    out.print()
    for problem in proof.problems:
        out.print(Text(f"NOT AS PROMISED: {problem}", style="bold red"))
    if not proof.problems:
        out.print(Text(f"All {len(proof.items)} items are merged, each exactly once.", style="bold green"))
    if kept:
        _where(out, scene, board)
    else:
        out.print("Everything was removed again; to look around: harnessctl demo --keep DIR")


def _rows(board: Board, proof: Proof, wall_s: float, workers: int) -> list[tuple[str, str]]:
    counted = ", ".join(f"{number} {name}" for name, number in sorted(proof.outcomes.items()))
    speed = (
        f": {proof.worked_s / wall_s:.1f} times as fast as one after another"
        if workers > 1 and wall_s
        else ""
    )
    return [
        ("items", f"{len(proof.items)}, {len(proof.merges)} merges in git log --first-parent main"),
        ("attempts", f"{proof.attempts}: {counted}"),
        ("healed", _healed(proof)),
        ("returned", _returned(proof, workers)),
        ("killed", _killed(board, proof)),
        ("time", f"{wall_s:.1f} s; {_number(workers)} did {proof.worked_s:.1f} s of work{speed}"),
        ("unit tests", f"{proof.tests} (run on main of the repository)"),
        ("fsck", proof.fsck),
    ]


def _number(workers: int) -> str:
    return f"{workers} workers" if workers > 1 else "1 worker"


def _healed(proof: Proof) -> str:
    by_id = {seen.id: seen for seen in proof.items}
    told = []
    for work in PLAN.values():
        tries = len(by_id[work.id].attempts) if work.id in by_id else 0
        if work.manner is Manner.CARELESS and tries == 1:
            told.append(f"{work.id}: red tests went back to the same session")
        elif work.manner is Manner.STUBBORN and tries > 1:
            told.append(f"{work.id}: red again, so a second attempt was told why")
    return "; ".join(told) or "nothing"


def _returned(proof: Proof, workers: int) -> str:
    told = [
        f"{seen.id}: {why}; attempt {n + 1} was told" for seen in proof.items for n, why in _reasons(seen)
    ]
    return "; ".join(told) or ("nothing" if workers > 1 else "nothing: one worker has no rival")


def _reasons(seen: Seen) -> list[tuple[int, str]]:
    verdicts = [a.verdict for a in seen.attempts if a.verdict and a.verdict.returned]
    return [(v.n, f"{v.returned} {v.why}".strip()) for v in verdicts]


def _killed(board: Board, proof: Proof) -> str:
    kill = board.kill
    if kill is None:
        return "nobody: the agent was too quick"
    words = [f"{kill.agent} (kill -9, on purpose) during {kill.item}"]
    if kill.expired_at is not None:
        words.append(f"attempt ended {max(0.0, kill.expired_at - kill.at) * 1000:.0f} ms later")
    if kill.replaced_at is not None:
        words.append(f"worker replaced after {kill.replaced_at - kill.at:.2f} s")
    if sum(merge.subject.startswith(f"{kill.item}: ") for merge in proof.merges) == 1:
        words.append("merged once all the same")
    return ", ".join(words)


def _where(out: Console, scene: Scene, board: Board) -> None:
    root = scene.layout.root
    item = board.kill.item if board.kill else next(iter(PLAN))
    out.print("Where to look:")
    for command, what in (
        (f"git -C {scene.repository} log --graph --oneline", "what was merged"),
        (f"harnessctl --root {root} items --all", "every item"),
        (f"harnessctl --root {root} show {item}", "the item whose worker was killed"),
        (f"harnessctl --root {root} events", "what happened, in order"),
        (f"ls {root}/queue/archive/*/", "the same without any program"),
        (f"ls {root}/state/sessions/*/", "prompts, output and gate logs of every attempt"),
    ):
        out.print(f"  {command}")
        out.print(Text(f"      {what}", style="dim"))
