"""A session as one file to hand on: a .tar.gz of its folder, without HOME, with what looks like a key blanked.

Best effort, by shape and by the values that this process knows (`redact`): whoever hands it on reads it first. Links and
special files stay out, and so do folders that an agent made: only what the harness writes goes in, and ``ask/``.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.agents.base import CannotInvoke
from harness.agents.jsonl import MAX_LINE_BYTES
from harness.atomicfs import open_plain
from harness.control.desk import Desk
from harness.control.sessions import Found
from harness.dataclass import dataclass
from harness.errors import ConfigError, ConflictError
from harness.redact import REDACTED, hide, redact

if TYPE_CHECKING:
    import tarfile

FOLDERS = ("", "ask")
"""Whose files are taken."""
MAX_FILES = 10_000
SHOWN_BYTES = 64 << 10
"""Of a line that is longer than MAX_LINE_BYTES: the rest is left out."""
MAX_KEY_LINES = 200
IN_MEMORY = 8 << 20
_BEGIN = re.compile(rb"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_END = re.compile(rb"-----END [A-Z ]{0,30}PRIVATE KEY-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of it. `left_out`: names below the session's folder, and why."""

    path: Path
    files: int
    left_out: tuple[str, ...]


def export(desk: Desk, found: Found, path: Path) -> Exported:
    """Writes `path`, mode 0600. Raises ConflictError when there is something of that name, OSError."""
    import tarfile

    _hide_credentials(desk)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as e:
        raise ConflictError(
            "it exists, and is not overwritten", where=path, remedy="name another file"
        ) from e
    try:
        left_out: list[str] = []
        files = 0
        with os.fdopen(fd, "wb") as target, tarfile.open(fileobj=target, mode="w:gz") as archive:
            for name, source in _files(found.path, left_out):
                with source:
                    _add(archive, f"{found.name}/{name}", source)
                files += 1
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    return Exported(path=path, files=files, left_out=tuple(left_out))


def _hide_credentials(desk: Desk) -> None:
    """The keys of config.yaml that can be read here are blanked by their value, whatever they look like."""
    from harness.agents.starting import secret

    with suppress(ConfigError):
        for credential in desk.config.credentials.values():
            with suppress(CannotInvoke, ConfigError, OSError):
                hide([secret(credential, os.environ)])


def _files(folder: Path, left_out: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """(name below the folder, open file). By descriptors: an agent that still runs may put links in the place of folders."""
    count = 0
    for below in FOLDERS:
        try:
            at = os.open(folder / below, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            left_out.append(f"{below}: no folder")
            continue
        try:
            for name in sorted(os.listdir(at)):
                shown = f"{below}/{name}" if below else name
                if shown in (*FOLDERS, "home"):
                    continue
                try:
                    file = os.fdopen(open_plain(name, dir_fd=at), "rb")
                except OSError:
                    left_out.append(f"{shown}: not a file")
                    continue
                count += 1
                if os.fstat(file.fileno()).st_nlink > 1 or count > MAX_FILES:
                    left_out.append(f"{shown}: {'too many files' if count > MAX_FILES else 'a link'}")
                    file.close()
                    continue
                yield shown, file
        finally:
            os.close(at)


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes]) -> None:
    import tarfile

    info = tarfile.TarInfo(name)
    info.mtime, info.mode = int(os.fstat(source.fileno()).st_mtime), 0o600
    with tempfile.SpooledTemporaryFile(
        max_size=IN_MEMORY
    ) as clean:  # its size stands before it, and is not known yet
        for line in redacted(source):
            clean.write(line)
        info.size = clean.tell()
        clean.seek(0)
        archive.addfile(info, clean)


def redacted(source: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file without what looks like a key, also one of many lines. Bytes that are no text stay."""
    inside = 0
    while line := source.readline(MAX_LINE_BYTES):
        if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            yield _clean(line)[:SHOWN_BYTES] + b" [... the rest of this line is left out]\n"
            while (rest := source.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            continue
        if inside:
            inside = 0 if _END.search(line) or inside > MAX_KEY_LINES else inside + 1
            yield REDACTED.encode() + b"\n"
            continue
        opened = list(_BEGIN.finditer(line))
        inside = 1 if opened and not _END.search(line, opened[-1].end()) else 0
        yield _clean(line)


def _clean(line: bytes) -> bytes:
    return redact(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
