"""Finding the root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import NotFoundError
from harness.root import find_root, is_root
from tests.support import environment


def root_at(folder: Path, config: str = "# mine\nv: 1\n") -> Path:
    (folder / "queue").mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    return folder


def test_the_nearest_parent_with_both_signs_is_the_root(tmp_path: Path) -> None:
    root = root_at(tmp_path / "root")
    inner = root / "state" / "worktrees"
    inner.mkdir(parents=True)
    assert find_root(None, {}, inner).root == root


def test_a_config_of_somebody_else_is_no_root(tmp_path: Path) -> None:
    other = root_at(tmp_path / "other", "version: 3\nname: docker\n")
    assert not is_root(other)
    with pytest.raises(NotFoundError) as caught:
        find_root(None, {}, other)
    assert "harnessctl init" in str(caught.value)


def test_a_nested_folder_without_queue_does_not_hide_the_root_above(tmp_path: Path) -> None:
    root = root_at(tmp_path / "root")
    project = root / "project"
    project.mkdir()
    (project / "config.yaml").write_text("v: 1\n")
    assert find_root(None, {}, project).root == root


def test_the_option_wins_over_the_variable_and_both_over_the_place(tmp_path: Path) -> None:
    a, b, c = (root_at(tmp_path / name) for name in "abc")
    assert find_root(a, {"HARNESS_ROOT": str(b)}, c).root == a
    assert find_root(None, {"HARNESS_ROOT": str(b)}, c).root == b


def test_a_root_that_was_named_wrongly_is_never_replaced_by_another(tmp_path: Path) -> None:
    root = root_at(tmp_path / "root")
    with pytest.raises(NotFoundError) as caught:
        find_root(tmp_path / "rot", {}, root)
    assert str(tmp_path / "rot") in str(caught.value)
    with pytest.raises(NotFoundError) as caught:
        find_root(None, {"HARNESS_ROOT": str(tmp_path)}, root)
    assert "HARNESS_ROOT" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        "v: 1\n",
        '{"v": 1}',
        '{\n  "workers": 3,\n  "v": 1\n}',
        "\ufeffv: 1\n",
        "workers: 3\nv : 1\n",
        "{v: 1}",
        '{"workers": 3, "v": 1}',
        '{"agents": {"a": {"argv": ["x"]}}, "v" : 1}',
        "{workers: 3, 'v': 1}",
        "{\n  # ours\n  v: 1\n}",
        "  v: 1\n  workers: 3\n",
        "--- {v: 1}\n",
        "? v\n: 1\n",
    ],
)
def test_a_version_is_seen_however_it_is_written(tmp_path: Path, config: str) -> None:
    assert is_root(root_at(tmp_path / "root", config))


@pytest.mark.parametrize(
    "config",
    [
        "env: 1\n",
        "x:\n  v: 1\n",
        "# v: 1\n",
        "version: 1\n",
        "",
        "x: {v: 1}\n",
        '{"x": {"v": 1}}',
        "- {v: 1}\n",
        "text: |\n  {v: 1}\n",
        "{v: 1",
        "{v: 1}" + " " * (5 << 20),
        "v\xff: 1",
    ],
)
def test_what_only_looks_like_a_version_is_none(tmp_path: Path, config: str) -> None:
    assert not is_root(root_at(tmp_path / "root", config))


def test_a_config_as_people_write_it_is_recognised_without_loading_yaml(tmp_path: Path) -> None:
    root = root_at(tmp_path / "root")
    other = root_at(tmp_path / "root/other", "version: 3\nname: docker\n")
    code = "import sys; from harness.root import find_root; print(find_root().root, 'yaml' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=other,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(root), "False"]


def test_a_named_folder_whose_config_cannot_be_read_is_told_how_to_see_what_is_wrong(tmp_path: Path) -> None:
    root = root_at(tmp_path / "root", "{v: 1")
    with pytest.raises(NotFoundError) as caught:
        find_root(root, {})
    assert f"harnessctl --root {root} config check" in str(caught.value)
