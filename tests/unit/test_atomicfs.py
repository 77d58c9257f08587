from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness import atomicfs
from harness.atomicfs import FileLock, ensure_dir, held, locked_by_other, replace_file, syncfs, try_lock
from tests.support import line, python


@pytest.mark.parametrize("durable", [True, False])
def test_replace_file_writes_a_new_file_and_replaces_an_old_one(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "x"
    replace_file(path, b"one", durable=durable)
    replace_file(path, b"two" * 100_000, durable=durable)
    assert path.read_bytes() == b"two" * 100_000
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_failed_replace_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space"):
            replace_file(path, b"new", durable=True)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    replace_file(tmp_path / "x", b"0123456789", durable=False)
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_durable_means_data_before_name_before_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(fd: int) -> None:
        steps.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "fsync file")
        fsync(fd)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    replace_file(tmp_path / "x", b"x", durable=True)
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_ensure_dir_makes_what_is_missing_and_fsyncs_each_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomicfs, "fsync_dir", synced.append)
    ensure_dir(tmp_path / "a" / "b" / "c")
    ensure_dir(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_ensure_dir_refuses_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError):
        ensure_dir(tmp_path / "a")


def test_syncfs_succeeds_on_a_real_file_system(tmp_path: Path) -> None:
    syncfs(tmp_path)


def test_a_failed_syncfs_is_an_error_and_not_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("")
    real = os.open
    # An O_PATH descriptor is the simplest one that syncfs(2) refuses (EBADF).
    monkeypatch.setattr(os, "open", lambda p, flags: real(p, flags | os.O_PATH))
    with pytest.raises(OSError, match="syncfs") as raised:
        syncfs(path)
    assert raised.value.errno == errno.EBADF


def test_only_one_holds_a_lock_even_within_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / "l") as one, FileLock(tmp_path / "l") as other:
        assert one.try_lock()
        assert one.try_lock()
        assert not other.try_lock()
        assert other.held_by_other()
        assert not one.held_by_other()
        one.close()
        assert not other.held_by_other()
        assert other.try_lock()


def test_closing_another_descriptor_of_the_file_keeps_the_lock(tmp_path: Path) -> None:
    with FileLock(tmp_path / "l") as lock:
        assert lock.try_lock()
        (tmp_path / "l").read_bytes()  # a POSIX lock would be gone now
        assert held(tmp_path / "l")


def test_a_lock_on_a_file_that_was_removed_in_between_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l"
    real = atomicfs.try_lock
    removed: list[Path] = []

    def slow(fd: int) -> bool:
        if not removed:  # a sweep comes between open and lock
            path.unlink()
            removed.append(path)
        return real(fd)

    monkeypatch.setattr(atomicfs, "try_lock", slow)
    with FileLock(path) as lock:
        assert lock.try_lock()
        assert held(path)


def test_asking_about_a_missing_lock_makes_no_file(tmp_path: Path) -> None:
    assert not held(tmp_path / "l")
    assert not FileLock(tmp_path / "l").held_by_other()
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "l"
    code = """
import sys
from pathlib import Path
from harness.atomicfs import FileLock
lock = FileLock(Path(sys.argv[1])); lock.try_lock(); lock.write("me\\n"); print("held", flush=True); sys.stdin.read()
"""
    with python(code, str(path)) as holder:
        assert line(holder) == "held"
        assert held(path)
        assert path.read_text() == "me\n"
        holder.kill()
        holder.wait()
        assert not held(path)


def test_raw_descriptors_can_be_locked_too(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text("")
    one, other = (os.open(path, os.O_RDWR) for _ in range(2))
    try:
        assert try_lock(one)
        assert not try_lock(other)
        assert locked_by_other(other)
        assert not locked_by_other(one)
    finally:
        os.close(one)
        os.close(other)
