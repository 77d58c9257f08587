"""What holds the project itself together: locks, layout of the repository, versions, names."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.config import load
from harness.config.template import template
from tests.support import ROOT, environment

PIN = re.compile(r"(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;\\]+)")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def uv_lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text())


def pins(name: str) -> dict[str, str]:
    """package -> version of a requirements file."""
    lines = (ROOT / name).read_text().splitlines()
    return {m["name"]: m["version"] for m in map(PIN.match, lines) if m}


def normal(requirement: str) -> str:
    """``types-PyYAML>=6`` -> ``types-pyyaml``."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def tracked() -> list[Path]:
    """The files that git knows, or all when this is no clone."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [Path(p) for p in listing.stdout.decode().split("\0") if p]


def test_version_is_the_same_in_the_package_and_the_project_file() -> None:
    assert pyproject()["project"]["version"] == harness.__version__


def test_exported_locks_hold_exactly_the_versions_of_uv_lock() -> None:
    locked = {p["name"]: p["version"] for p in uv_lock()["package"] if p["name"] != "harness"}
    assert pins("requirements-dev.lock") == locked
    core = pins("requirements.lock")
    assert core.items() <= locked.items()
    assert {normal(r) for r in pyproject()["project"]["dependencies"]} <= core.keys()


def test_uv_lock_was_made_from_the_requirements_of_the_project_file() -> None:
    (ours,) = [p for p in uv_lock()["package"] if p["name"] == "harness"]

    def spec(requirement: str) -> tuple[str, str]:
        name = normal(requirement)
        return name, ",".join(sorted(requirement[len(name) :].split(",")))

    def locked(entries: list[dict[str, str]]) -> set[tuple[str, str]]:
        return {(e["name"], ",".join(sorted(e.get("specifier", "").split(",")))) for e in entries}

    project = pyproject()
    assert locked(ours["metadata"]["requires-dist"]) == {spec(r) for r in project["project"]["dependencies"]}
    assert locked(ours["metadata"]["requires-dev"]["dev"]) == {
        spec(r) for r in project["dependency-groups"]["dev"]
    }


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_a_hash_that_uv_lock_knows(name: str) -> None:
    known = {
        p["name"]: {f["hash"] for f in (*p.get("wheels", ()), *([p["sdist"]] if "sdist" in p else ()))}
        for p in uv_lock()["package"]
        if p["name"] != "harness"
    }
    current = ""
    found: dict[str, set[str]] = {}
    for text in (ROOT / name).read_text().splitlines():
        if match := PIN.match(text):
            current = match["name"]
        if match := re.search(r"--hash=(sha256:[0-9a-f]{64})", text):
            found.setdefault(current, set()).add(match[1])
    assert found.keys() == pins(name).keys()
    for package, hashes in found.items():
        assert hashes <= known[package], package


@pytest.mark.parametrize("name", ["uv.lock", "requirements.lock", "requirements-dev.lock"])
def test_locks_name_the_public_index_and_nothing_of_a_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "find-links" not in text
    assert "file:" not in text
    assert not re.search(r'(path|directory) = "', text)
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}


def test_queue_and_state_hold_no_python_so_that_nothing_hides_the_standard_library() -> None:
    assert queue.__file__
    assert not Path(queue.__file__).is_relative_to(ROOT)
    bad = [p for p in tracked() if p.parts[0] in ("queue", "state") and p.name != "README.md"]
    assert bad == []


def test_queue_stays_the_standard_library_with_the_checkout_as_working_directory() -> None:
    code = "import queue, harness; print(queue.SimpleQueue.__name__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "SimpleQueue"


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in (ROOT / "harness").rglob("*.py")
        if not re.match(r'(#!.*\n)?r?"""\S', p.read_text())
    ]
    assert silent == []


def test_commands_of_the_repository_are_executable() -> None:
    for name in ("scripts/test", "scripts/demo", "scripts/lock", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    if not (ROOT / "README.md").exists():
        pytest.skip("README.md is not written yet")
    subprocess.run(
        [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [n for n in names if n.endswith("entry_points.txt")]
        assert "harnessctl = harness.cli:main" in archive.read(entry).decode()
    assert {n.split("/")[0] for n in names} == {"harness", f"harness-{harness.__version__}.dist-info"}


def test_the_configuration_of_the_checkout_is_the_commented_default_and_is_valid() -> None:
    assert (ROOT / "config.yaml").read_text() == template({})
    assert load(ROOT / "config.yaml").projects == {}


def test_architecture_is_one_file_that_can_be_read_at_once() -> None:
    path = ROOT / "ARCHITECTURE.md"
    if not path.exists():
        pytest.skip("ARCHITECTURE.md is not written yet")
    assert len(path.read_text().splitlines()) <= 150
