"""Which root a command works on: the only place that looks for one.

A root is a folder with a ``config.yaml`` that has ``v:`` *and* a ``queue/``. Nothing here validates either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from harness.errors import NotFoundError
from harness.layout import Layout

VARIABLE = "HARNESS_ROOT"
_KEY = rb"""(?:v|"v"|'v')[ \t]*:"""
_VERSION = re.compile(rb"^(?:\xef\xbb\xbf)?" + _KEY + rb"|[{,]\s*" + _KEY, re.MULTILINE)
"""``v:`` at the beginning of a line, or as a key of a mapping in braces (JSON is YAML)."""
_HEAD_BYTES = 64 << 10


def is_root(folder: Path) -> bool:
    """Whether both signs are there. Reads the beginning of config.yaml, never parses it."""
    try:
        return has_version(folder / "config.yaml") and (folder / "queue").is_dir()
    except OSError:
        return False


def find_root(
    option: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Layout:
    """``--root``, else ``HARNESS_ROOT``, else the nearest parent of `start` that is a root.

    Raises NotFoundError; a root that was named and is none is never replaced by another one.
    """
    named = (environ if environ is not None else os.environ).get(VARIABLE)
    for source, given in (("--root", option), (VARIABLE, named)):
        if given:
            return Layout(_checked(Path(given), source))
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if is_root(folder):
            return Layout(folder)
    raise NotFoundError(
        "no root here or above (a folder with a config.yaml that has `v:`, and a queue/)",
        where=here,
        remedy="make one: harnessctl init, or name one: harnessctl --root DIR ...",
    )


def has_version(config: Path) -> bool:
    """Whether a config.yaml is ours. Reads its beginning, never parses it. Raises OSError."""
    with config.open("rb") as file:
        return bool(_VERSION.search(file.read(_HEAD_BYTES)))


def _checked(given: Path, source: str) -> Path:
    folder = given.expanduser().resolve()
    if is_root(folder):
        return folder
    if not folder.is_dir():
        raise NotFoundError(f"{source} names no folder", where=folder, remedy="see its spelling")
    missing = "config.yaml with `v:`" if (folder / "queue").is_dir() else "queue/"
    if not (folder / "config.yaml").exists():
        missing = "config.yaml"
    raise NotFoundError(
        f"{source} names a folder that is no root: there is no {missing}",
        where=folder,
        remedy=f"make it one: harnessctl init {folder}",
    )
