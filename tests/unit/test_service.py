from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import service
from harness.errors import ConflictError, UsageError
from harness.service import Unit, install, render
from tests.support import ROOT

EXAMPLE = Unit(root=Path("/var/lib/harness"), python=Path("/opt/harness/.venv/bin/python"), user="harness")


def settings(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def test_the_file_in_the_repository_is_what_would_be_rendered() -> None:
    assert (ROOT / "systemd" / "harness.service").read_text() == render(EXAMPLE)


def test_a_crash_keeps_the_workers_and_a_stop_reaps_them() -> None:
    found = dict(settings(render(EXAMPLE)))
    assert found["KillMode"] == "process"
    assert found["ExecStopPost"].endswith(" reap --if-stopped")
    assert (found["Type"], found["NotifyAccess"], found["Restart"]) == ("notify", "main", "on-failure")
    assert found["RestartPreventExitStatus"] == "2 4 78"
    assert found["OOMPolicy"] == "continue"


def test_a_stop_may_take_as_long_as_running_attempts_may() -> None:
    assert "TimeoutStopSec=3660\n" in render(Unit(root=Path("/r"), drain_s=3600))


def test_a_root_below_var_lib_is_made_by_systemd() -> None:
    assert ("StateDirectory", "harness") in settings(render(EXAMPLE))
    assert "StateDirectory" not in dict(settings(render(Unit(root=Path("/srv/x"), user="harness"))))


def test_a_unit_of_a_user_names_no_user_and_starts_with_the_session() -> None:
    found = dict(settings(render(Unit(root=Path("/home/me/x")))))
    assert "User" not in found
    assert found["WantedBy"] == "default.target"


@pytest.mark.parametrize(
    "unit",
    [
        Unit(root=Path("relative")),
        Unit(root=Path("/a\nExecStartPre=/bin/evil")),
        Unit(root=Path("/a"), user="x\nUser=root"),
        Unit(root=Path("/a"), user="x", group="a b"),
    ],
)
def test_what_would_write_other_settings_is_refused(unit: Unit) -> None:
    with pytest.raises(UsageError):
        render(unit)


def verify(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["plain", 'a "b" %c $d'])
def test_systemd_has_nothing_to_say_against_it(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    path = tmp_path / "harness-test.service"
    path.write_text(render(Unit(root=root, python=Path(sys.executable), user="root")))
    done = verify(path)
    about = [line for line in done.stderr.splitlines() if "harness-test" in line]
    if not about and done.returncode:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()}")
    assert about == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_would_say_something_if_there_were(tmp_path: Path) -> None:
    path = tmp_path / "harness-test.service"
    text = render(Unit(root=tmp_path, python=Path(sys.executable), user="root"))
    path.write_text(text.replace("KillMode=process", "KillMode=perhaps"))
    assert "harness-test.service:" in verify(path).stderr


def test_install_writes_the_unit_once_and_says_what_is_next(tmp_path: Path) -> None:
    done = install(EXAMPLE, into=tmp_path / "units")
    assert done.changed
    assert done.path == tmp_path / "units" / "harness.service"
    assert done.path.read_text() == render(EXAMPLE)
    assert done.path.stat().st_mode & 0o777 == 0o644
    assert done.next_steps == ("systemctl daemon-reload", "systemctl enable --now harness.service")
    assert not install(EXAMPLE, into=tmp_path / "units").changed


def test_install_keeps_a_unit_that_differs_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "harness.service").write_text("mine\n")
    with pytest.raises(ConflictError) as raised:
        install(EXAMPLE, into=tmp_path)
    assert "--force" in str(raised.value)
    assert (tmp_path / "harness.service").read_text() == "mine\n"
    assert install(EXAMPLE, into=tmp_path, force=True).changed


def test_a_unit_of_a_user_goes_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = install(Unit(root=Path("/srv/x")), name="other")
    assert done.path == tmp_path / "systemd" / "user" / "other.service"
    assert any("enable-linger" in step for step in done.next_steps)


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        (replace(EXAMPLE, user="nobody-of-that-name"), "useradd"),
        (replace(EXAMPLE, user="root", group="no-such-group"), "groupadd"),
    ],
)
def test_a_service_of_a_user_who_does_not_exist_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: Unit, says: str
) -> None:
    monkeypatch.setattr(service, "folder", lambda *, system: tmp_path)
    with pytest.raises(UsageError) as raised:
        install(unit)
    assert says in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x", "", "a b"])
def test_the_name_of_a_unit_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        install(EXAMPLE, name=name, into=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir(mode=0o500)
    with pytest.raises(UsageError) as raised:
        install(EXAMPLE, into=tmp_path / "units")
    assert "sudo" in str(raised.value)


def test_the_folder_of_the_administrator_is_the_one_that_overrides_packages() -> None:
    assert service.folder(system=True) == Path("/etc/systemd/system")
