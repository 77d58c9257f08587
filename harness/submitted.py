"""`state/run/projects/<project>.submitted/<uid>`: which items probably wait for their verdict. Hints, no truth.

A worker adds one after it has submitted; the merger removes it when it has judged. A lost one is found by the sweep.
"""

from __future__ import annotations

import contextlib
import os

from harness.layout import Layout


def add(layout: Layout, project: str, uid: str) -> None:
    """Never raises OSError: a full disk loses a hint, not work."""
    folder = layout.submitted(project)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / uid).touch()


def remove(layout: Layout, project: str, uid: str) -> None:
    with contextlib.suppress(OSError):
        (layout.submitted(project) / uid).unlink()


def all_of(layout: Layout, project: str) -> list[str]:
    """Uids, sorted."""
    try:
        return sorted(x for x in os.listdir(layout.submitted(project)) if x[0] != ".")
    except OSError:
        return []
