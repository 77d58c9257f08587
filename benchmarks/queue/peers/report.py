"""What was measured, as Markdown tables and as a chart (SVG by hand: no library, readable on light and on dark)."""

from __future__ import annotations

import statistics
from html import escape

from benchmarks.queue.peers.rounds import Measured, mode
from benchmarks.queue.peers.systems import OURS, PEERS, Given, System

MEANING = {
    True: "durable: what was put, claimed or completed survives power loss",
    False: "not durable: it survives crashes of processes, not of the machine",
}


def systems(got: Measured, given: Given) -> list[System]:
    """Those that were asked for, ours first."""
    names = {name for name, _ in got.series} | given.missing.keys()
    return [s for s in (OURS, *PEERS) if s.name in names]


def markdown(got: Measured, given: Given) -> str:
    """Two tables, one for each mode, and the versions."""
    parts = [_table(got, given, durable) for durable in (True, False)]
    versions = ", ".join(f"{name} {version}" for name, version in given.versions.items())
    parts.append(
        f"Jobs per second, the median of {got.rounds} round{'s' if got.rounds > 1 else ''} in which all systems run in "
        "turn; in brackets the median of the ratios to ours in the same round. Enqueue: one by one, by one process."
        + (f" Versions: {versions}." if versions else "")
    )
    return "\n\n".join(parts)


def _table(got: Measured, given: Given, durable: bool) -> str:
    workers = got.plan.workers
    ours = got.series[OURS.name, durable]
    heads = ["system", "enqueue", *(f"{w} worker{'s' if w > 1 else ''}" for w in workers)]
    heads.append("jobs: missing, double, not completed")
    lines = [f"**{MEANING[durable]}**", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for system in systems(got, given):
        series = got.series.get((system.name, durable))
        reason = given.missing.get(system.name) or (system.undurable if durable else "")
        if series is not None and 0 in series.failed:
            reason = series.failed[0]
        if series is None or reason:
            cells = [f"not measured: {_cell(reason)}", *[""] * (len(heads) - 2)]
        else:
            enqueue = statistics.median(series.enqueue) if series.enqueue else None
            base = statistics.median(ours.enqueue) if ours.enqueue else None
            cells = [_rate(enqueue, enqueue / base if enqueue and base and series is not ours else None)]
            for w in workers:
                why = series.failed.get(w, "")
                text = _rate(series.rate(w), None if series is ours else series.ratio(ours, w))
                cells.append(f"{text} failed: {_cell(why)}" if why else text)
            jobs, *wrong = series.counts()
            cells.append(f"{jobs:,}: {', '.join(f'{n:,}' if not n else f'**{n:,}**' for n in wrong)}")
        lines.append(f"| {system.title} | " + " | ".join(cells) + " |")
    if got.bulk[durable]:
        lines += [
            "",
            f"harness admits {statistics.median(got.bulk[durable]):,.0f} items/s from one `.jsonl`.",
        ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _rate(rate: float | None, ratio: float | None) -> str:
    if rate is None:
        return "–"
    return f"{rate:,.0f}" + (f" ({ratio:.2f})" if ratio is not None else "")


STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .head { font-weight: 600; }
  .small { font-size: 11px; fill: #59636e; }
  .peer { fill: #8c959f; }
  .ours { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .peer { fill: #6e7681; }
    .ours { fill: #4493f8; }
  }
"""
WIDTH, LEFT, RIGHT, ROW, BAR = 760, 190, 140, 24, 15


def svg(got: Measured, given: Given) -> str:
    """Bars of the rates with the most workers, one panel for each mode, each with its own linear scale."""
    most = got.plan.workers[-1]
    body: list[str] = []
    y = 24
    body.append(
        f'<text class="head" x="0" y="{y}">Claim and complete, jobs per second, {most} workers</text>'
    )
    for durable in (True, False):
        bars = [
            (rate, system)
            for system in systems(got, given)
            if (series := got.series.get((system.name, durable))) and (rate := series.rate(most))
        ]
        y += 30
        body.append(f'<text class="small" x="0" y="{y}">{escape(MEANING[durable])}</text>')
        y += 10
        top = max((rate for rate, _ in bars), default=1.0)
        for rate, system in sorted(bars, key=lambda b: -b[0]):
            long = max(1.0, (WIDTH - LEFT - RIGHT) * rate / top)
            kind = "ours" if system is OURS else "peer"
            title = escape(system.title.strip("*"))
            body.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{title}</text>')
            body.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{long:.1f}" height="{BAR}" rx="2"/>')
            twice = " (some twice)" if got.series[system.name, durable].counts()[2] else ""
            body.append(f'<text x="{LEFT + long + 6:.1f}" y="{y + 12}">{rate:,.0f}{twice}</text>')
            y += ROW
    label = f"Bar chart of jobs per second with {most} workers, {mode(True)} and {mode(False)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 4}" width="{WIDTH}" height="{y + 4}" '
        f'role="img" aria-label="{label}">\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )
