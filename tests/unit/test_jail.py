"""What a jail looks at before a command starts must not grow with what others leave on the machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness import jail


def test_the_search_for_block_devices_enters_nothing_that_is_mounted_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: list[str] = []
    real = os.listdir

    def listdir(folder: str) -> list[str]:
        entered.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    found = jail.block_devices()
    assert entered[0] == "/dev"
    assert [
        folder
        for folder in entered[1:]
        if os.path.ismount(folder) and os.stat(folder).st_dev != os.stat("/dev").st_dev
    ] == []
    assert all(stat.S_ISBLK(os.lstat(path).st_mode) for path in found)


def test_the_search_for_block_devices_goes_into_folders_and_not_through_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "block").mkdir()
    (tmp_path / "block/disk").touch()
    (tmp_path / "again").symlink_to(tmp_path / "block")
    monkeypatch.setattr(stat, "S_ISBLK", stat.S_ISREG)  # a file stands for a device, which only root can make
    assert jail.block_devices(str(tmp_path)) == [str(tmp_path / "block/disk")]
