"""Which root a command works on: the only place that looks for one.

A root is a folder with a ``config.yaml`` that is a mapping with ``v`` *and* a ``queue/``. Nothing here validates either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from harness.errors import NotFoundError
from harness.layout import Layout

VARIABLE = "HARNESS_ROOT"
_PLAIN = re.compile(rb"^(?:\xef\xbb\xbf)?v[ \t]*:", re.MULTILINE)
"""As nearly everybody writes it. A YAML that has this and means something else by it is not YAML."""
_POSSIBLE = re.compile(rb"""\bv["']?\s*:""")
"""Without this no key is `v`, however it is written."""
_MAX_BYTES = 4 << 20
"""A bigger file is no configuration (config/loading.py)."""


def is_root(folder: Path) -> bool:
    """Whether both signs are there."""
    try:
        return (folder / "queue").is_dir() and has_version(folder / "config.yaml")
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
    """Whether a config.yaml is ours: a mapping with ``v``, whatever else is wrong with it. Raises OSError.

    YAML is only parsed (and its parser loaded) when the key may be there but does not begin a line.
    """
    with config.open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    if _PLAIN.search(raw):
        return True
    if len(raw) > _MAX_BYTES or not _POSSIBLE.search(raw):
        return False
    from harness.yamlpos import parse

    data = parse(raw.decode("utf-8-sig", "replace")).data
    return isinstance(data, dict) and "v" in data


def _checked(given: Path, source: str) -> Path:
    folder = given.expanduser().resolve()
    if is_root(folder):
        return folder
    make = f"make it one: harnessctl init {folder}"
    if not folder.is_dir():
        other = "leave it out to work on the folder you are in" if source == "--root" else f"unset {source}"
        raise NotFoundError(
            f"{source} names {'a file' if folder.exists() else 'no folder'}",
            where=folder,
            remedy=f"see its spelling, or {other}",
        )
    what = f"{source} names a folder that is no root: there is no "
    if not (folder / "config.yaml").exists():
        raise NotFoundError(f"{what}config.yaml", where=folder, remedy=make)
    if not (folder / "queue").is_dir():
        raise NotFoundError(f"{what}queue/", where=folder, remedy=make)
    raise NotFoundError(
        f"{what}`v:` in its config.yaml, or it cannot be read",
        where=folder,
        remedy=f"see what is wrong with it: harnessctl --root {folder} config check",
    )
