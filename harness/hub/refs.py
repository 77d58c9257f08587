"""Reads refs of a hub straight from its files: a git process costs a thousand times as much.

Only reads. The files are git's documented layout (gitrepository-layout(5)) of the "files" backend, which the hub is
created with; git replaces each by rename, so that one read gives the old value or the new. What was read here only
ever *proposes*: every change goes through `git update-ref` with the old value, which decides.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.dataclass import dataclass

_SHA = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PACKED = re.compile(rb"^([0-9a-f]{40,64}) ([^\n]+)$", re.MULTILINE)


def is_sha(text: str) -> bool:
    """A whole object name, as git prints it."""
    return _SHA.match(text.encode("ascii", "replace")) is not None


def zero(sha: str) -> str:
    """The object name that stands for "does not exist", in the length of the repository's hash."""
    return "0" * len(sha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """The refs of one repository."""

    repository: Path

    def read(self, name: str) -> str | None:
        """The object that a ref names; None when there is none. A symbolic ref counts as none: nothing of ours
        is one, so it was planted."""
        for _ in range(
            3
        ):  # loose, packed, loose again: pack-refs may have moved it in between, as in git itself
            found, loose = self._loose(name)
            if found:
                return loose
            packed = self._packed().get(name) if self._maybe_packed(name) else None
            if packed is not None:
                return packed
            if not (self.repository / name).exists():
                return None
        return None

    def symbolic(self, name: str) -> bool:
        """Whether the ref is a symbolic one."""
        try:
            return (self.repository / name).read_bytes().startswith(b"ref:")
        except OSError:
            return False

    def below(self, prefix: str) -> dict[str, str]:
        """All refs whose name starts with `prefix` + ``/``: name -> object. Symbolic ones are left out."""
        found = {n: s for n, s in self._packed().items() if n.startswith(prefix + "/")}
        base = os.fsencode(self.repository)
        for folder, _, files in os.walk(os.path.join(base, os.fsencode(prefix))):
            for file in files:
                name = os.fsdecode(os.path.relpath(os.path.join(folder, file), base))
                sha = None if name.endswith(".lock") else self._loose(name)[1]
                if sha is not None:
                    found[name] = sha
        return found

    def _loose(self, name: str) -> tuple[bool, str | None]:
        """-> (there is such a file, the object it names)."""
        try:
            raw = (self.repository / name).read_bytes().strip()
        except OSError:  # ENOENT; EISDIR and ENOTDIR: a folder of refs is no ref
            return False, None
        return True, raw.decode() if _SHA.match(raw) else None

    def _maybe_packed(self, name: str) -> bool:
        try:
            return (
                f" {name}\n".encode("utf-8", "surrogateescape")
                in (self.repository / "packed-refs").read_bytes()
            )
        except OSError:
            return False

    def _packed(self) -> dict[str, str]:
        try:
            raw = (self.repository / "packed-refs").read_bytes()
        except OSError:
            return {}
        return {os.fsdecode(name): sha.decode() for sha, name in _PACKED.findall(raw)}
