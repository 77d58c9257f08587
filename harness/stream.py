"""A file that is being written, read line by line as it grows. Bounded memory, whatever a line is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.agents.jsonl import MAX_LINE_BYTES
from harness.atomicfs import open_plain

CHUNK_BYTES = 256 << 10
SHOWN_BYTES = 64 << 10
"""Of a line that is longer than MAX_LINE_BYTES."""


class Growing:
    """The lines of one file, each once. A file that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._rest = bytearray()
        self._skipping = False

    def lines(self, *, whole: bool = False) -> Iterator[bytes]:
        """What was completed since the last call, without newlines. `whole`: the last line has no newline to wait for.

        Raises OSError when it is no regular file. Of a line longer than MAX_LINE_BYTES only the beginning is given, at
        once; the rest of it is passed over.
        """
        return (line for line in self.pieces(whole=whole) if line is not None)

    def pieces(self, *, whole: bool = False) -> Iterator[bytes | None]:
        """The same lines, and None for each piece that was read, also when no line ends in it: for who must not stay long."""
        if self._fd is None:
            try:
                self._fd = open_plain(self._path)
            except FileNotFoundError:
                return
        while piece := os.read(self._fd, CHUNK_BYTES):
            yield None
            yield from self._split(piece)
        if whole and self._rest:
            yield bytes(self._rest)
            self._rest.clear()

    def _split(self, piece: bytes) -> Iterator[bytes]:
        *ended, rest = piece.split(b"\n")
        for line in ended:
            if self._skipping:
                self._skipping = False
            elif self._rest:
                self._rest += line
                yield bytes(self._rest)
            else:
                yield line
            self._rest.clear()
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > MAX_LINE_BYTES:
                yield bytes(self._rest[:SHOWN_BYTES])
                self._rest.clear()
                self._skipping = True

    def skip(self, keep: int) -> None:
        """Passes over everything but the last `keep` bytes, and the line that they begin in."""
        if self._fd is not None:
            size = os.fstat(self._fd).st_size
            if size - keep > os.lseek(self._fd, 0, os.SEEK_CUR):
                os.lseek(self._fd, size - keep, os.SEEK_SET)
                self._rest.clear()
                self._skipping = True

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
