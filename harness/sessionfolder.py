"""The folder of one session: ``state/sessions/<day>/<uid>.<n>/``, n being the attempt in which it began. It alone
spells the paths inside.

```
prompt.<k>.md  stdout.<k>.log  stderr.<k>.log     the k-th run of the agent, counted over all attempts that went on with it
events.<k>.jsonl                                  what the run said, in the words of `agents.base`, with times
gate.<name>.<k>.log                               the gates after it
summary.json                                      what happened, and how to go on with it (`sessionrecord`)
home/                                             HOME of the agent, kept
ask/interrupt.json  ask/findings.md               what the agent asks a person, and what others should know later
```
Only `home/` and `ask/` are writable for an agent, and its TMPDIR: it cannot forge its logs.

Temporary files are not here but in ``state/tmp/<slot>/``: what an attempt leaves that is killed, the next one of the
same slot removes, so they never become more than the slots.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.atomicfs import open_plain
from harness.containment import Policy
from harness.dataclass import dataclass
from harness.runner import Command, Runner

MAX_TMP_CHARS = 56
"""Tools put unix sockets below TMPDIR, and a socket's path may have 107 bytes (unix(7)): a longer folder becomes a
link to a short one below the system's temporary folder."""
MAX_QUESTION_BYTES = 64 << 10
REMOVE_S = 300.0
_REMOVE = 'rm -rf -- "$@" 2>/dev/null || { chmod -R u+rwx -- "$@" 2>/dev/null; rm -rf -- "$@"; }'
SUMMARY = "summary.json"
_TMP_PREFIX = "harness-"


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """Paths, and making them. `path` is absolute and real; `scratch` is the slot's, a folder or a link to one."""

    path: Path
    scratch: Path

    def prompt(self, k: int) -> Path:
        return self.path / f"prompt.{k}.md"

    def stdout(self, k: int) -> Path:
        return self.path / f"stdout.{k}.log"

    def stderr(self, k: int) -> Path:
        return self.path / f"stderr.{k}.log"

    def events(self, k: int) -> Path:
        return self.path / f"events.{k}.jsonl"

    def gate_log(self, gate: str, k: int) -> Path:
        """`gate` is a slug."""
        return self.path / f"gate.{gate}.{k}.log"

    @property
    def gate_scratch(self) -> Path:
        """For HOME and TMPDIR of a gate; they run one after the other. A real path once it was made."""
        return self.scratch.resolve() / "gate"

    @property
    def summary(self) -> Path:
        return self.path / SUMMARY

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """TMPDIR of the agent. A real path once it was made."""
        return self.scratch.resolve() / "tmp"

    @property
    def ask(self) -> Path:
        return self.path / "ask"

    @property
    def interrupt_file(self) -> Path:
        return self.ask / "interrupt.json"

    @property
    def findings_file(self) -> Path:
        return self.ask / "findings.md"

    @property
    def writable(self) -> tuple[Path, ...]:
        """What an agent may write here, as real paths. Only after `make`."""
        return (self.home, self.tmp, self.ask)

    def opened(self, policy: Policy | None, writable: tuple[Path, ...]) -> Policy | None:
        """A policy that also opens this folder: readable as a whole, `writable` ones for writing."""
        if policy is None:
            return None
        return replace(policy, write=(*policy.write, *writable), read=(*policy.read, self.path))

    def make(self) -> None:
        """Makes everything, mode 0700. What exists stays."""
        for folder in (self.path.parent, self.path, self.home, self.ask):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.make_scratch()

    def make_scratch(self) -> None:
        self.scratch.parent.mkdir(mode=0o700, exist_ok=True)
        make_tmp(self.scratch)
        if self.tmp.is_symlink() or not self.tmp.is_dir():  # an agent may have put anything in its place
            self.tmp.unlink(missing_ok=True)
            self.tmp.mkdir(mode=0o700)

    def clear(self, runner: Runner) -> None:
        """Removes all temporary files of the slot. May be called at any time when nothing runs there."""
        remove(runner, *tmp_folders(self.scratch))

    def question(self) -> str | None:
        """What the agent left in HARNESS_INTERRUPT_FILE. A link, a FIFO or a folder there is not read."""
        try:
            fd = open_plain(self.interrupt_file)
        except OSError:
            return None
        try:
            return os.read(fd, MAX_QUESTION_BYTES).decode("utf-8", "replace").strip() or None
        finally:
            os.close(fd)


def make_tmp(path: Path) -> Path:
    """A folder for temporary files at `path`; a link to a short one when `path` is too long for sockets below it.

    Returns the real folder.
    """
    if path.is_dir():
        return path.resolve()
    path.unlink(missing_ok=True)  # a link whose folder the system has cleaned away
    if len(os.fsencode(path)) <= MAX_TMP_CHARS:
        path.mkdir(mode=0o700)
    else:
        path.symlink_to(Path(tempfile.mkdtemp(prefix=_TMP_PREFIX)).resolve())
    return path.resolve()


def tmp_folders(path: Path) -> tuple[Path, ...]:
    """What to remove for a `make_tmp(path)`. A link is followed only to a folder that `make_tmp` can have made."""
    if not path.is_symlink():
        return (path,)
    real = path.resolve()
    ours = real.parent == Path(tempfile.gettempdir()).resolve() and real.name.startswith(_TMP_PREFIX)
    return (real, path) if ours else (path,)


def remove(runner: Runner, *paths: Path) -> None:
    """Removes folders and links that agents have written to, however big and with whatever modes.

    Links are removed, never followed. Empty ones go at once; the rest by one command, while the heart beats. What
    cannot be removed stays; nothing depends on it.
    """
    rest = [path for path in paths if not _removed_at_once(path)]
    if rest:
        env = {"PATH": os.environ.get("PATH", os.defpath)}
        runner.run(
            Command(
                argv=("sh", "-c", _REMOVE, "sh", *map(str, rest)), cwd=Path("/"), env=env, timeout_s=REMOVE_S
            )
        )


def _removed_at_once(path: Path) -> bool:
    try:
        if path.is_symlink():
            path.unlink()
        else:
            path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def lines(path: Path, tail_bytes: int | None) -> Iterator[bytes]:
    """The lines of a file without their newlines; with `tail_bytes`, only whole lines of its end."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        if tail_bytes is not None and size > tail_bytes:
            file.seek(size - tail_bytes - 1)
            rest = file.read(tail_bytes + 1)
            # Begins within a line, unless the byte before is a newline; one endless line is given as it ends.
            whole = rest.partition(b"\n")[2] or rest[1:]
            yield from whole.removesuffix(b"\n").split(b"\n")
            return
        for line in file:
            yield line.removesuffix(b"\n")


def tail(path: Path, size: int) -> str:
    """The last `size` bytes as text; "" when there is no such file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
