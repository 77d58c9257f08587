"""Reads refs of a hub straight from its files: a git process costs a thousand times as much.

Only reads. The files are git's documented layout (gitrepository-layout(5)) of the "files" backend, which the hub is
created with; git replaces each by rename, so that one read gives the old value or the new. What was read here only
ever *proposes*: every change goes through `git update-ref` with the old value, which decides.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.dataclass import dataclass
from harness.hub.planted import DEEPEST

_NOT_IN_NAME = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)|[./]\Z")
"""What git-check-ref-format(1) refuses, below refs/."""
LONGEST = 4096
"""Bytes of a file that holds one ref."""
_SHA = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PACKED = re.compile(rb"^([0-9a-f]{40,64}) ([^\n]+)$", re.MULTILINE)


def is_sha(text: str) -> bool:
    """A whole object name, as git prints it."""
    return _SHA.match(text.encode("ascii", "replace")) is not None


def is_name(name: str) -> bool:
    """May this be the name of a ref? The name of a file may hold anything, a line break and commands for git included."""
    return name.startswith("refs/") and _NOT_IN_NAME.search(name) is None


def read_file(path: Path) -> bytes | None:
    """A small file of git's that an agent may have replaced by anything. None: it is none, or too large to be one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # none, a folder, a name that cannot be one
        return None
    try:
        raw = os.read(fd, LONGEST + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)
    return raw if raw is not None and len(raw) <= LONGEST else None


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
        for _ in range(3):  # loose, packed, loose again: pack-refs may move it in between, as in git itself
            found, loose = self._loose(name)
            if found:
                return loose
            packed = self._packed().get(name) if self._maybe_packed(name) else None
            if packed is not None:
                return packed
            if not is_name(name) or not os.path.lexists(self.repository / name):
                return None
        return None

    def symbolic(self, name: str) -> bool:
        """Whether the ref is a symbolic one."""
        return is_name(name) and (read_file(self.repository / name) or b"").startswith(b"ref:")

    def below(self, prefix: str) -> dict[str, str]:
        """All refs whose name starts with `prefix` + ``/``: name -> object. Symbolic ones are left out."""
        found = {n: s for n, s in self._packed().items() if n.startswith(prefix + "/") and is_name(n)}
        for name in self._files(prefix):
            sha = self._loose(name)[1] if is_name(name) else None
            if sha is not None:
                found[name] = sha
        return found

    def files(self, prefix: str) -> list[str]:
        """Names of the loose ones below `prefix`, whatever is in them."""
        return [name for name in self._files(prefix) if is_name(name)]

    def _files(self, prefix: str) -> Iterator[str]:
        """Loose refs, by the names of their files; links are not followed."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            with contextlib.suppress(OSError), os.scandir(self.repository / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}"
                    if not entry.is_dir(follow_symlinks=False):
                        yield name
                    elif name.count("/") < DEEPEST:
                        folders.append(name)

    def _loose(self, name: str) -> tuple[bool, str | None]:
        """-> (there is such a file, the object it names)."""
        raw = read_file(self.repository / name) if is_name(name) else None
        if raw is None:
            return False, None
        raw = raw.strip()
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
