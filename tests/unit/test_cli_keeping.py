"""Making a root and keeping it well: init, config, doctor, fsck, service."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import doctor
from harness.config import Agent, Config, Price, load
from harness.doctor import place, work
from harness.doctor.check import Level
from harness.layout import Layout
from harness.model import Outcome
from harness.store.cells import stub_path
from tests.cli import Said, ctl
from tests.hubs import git, person
from tests.stores import World


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(x.relative_to(folder)): x.read_bytes()
        for x in folder.rglob("*")
        if x.is_file() and ".git/" not in str(x)
    }


# ---- init ------------------------------------------------------------------------------------------------------------


def init(here: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> Said:
    monkeypatch.chdir(here)
    return ctl(None, "init", *args)


def test_init_makes_a_root_that_loads_with_its_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person(tmp_path / "app")
    said = init(tmp_path, monkeypatch, "root", "--project", "app=app")
    assert said.code == 0, said.err
    assert "next:" in said.out
    layout = Layout(tmp_path / "root")
    config = load(layout.config)
    assert config.projects["app"].path == str(tmp_path / "app")
    assert 'path: "../app"' in layout.config.read_text()
    assert layout.hub("app").is_dir()
    assert ctl(layout.root, "items").code == 0


def test_init_names_the_branch_that_the_repository_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(tmp_path / "app")
    git(tmp_path / "app", "branch", "-m", "main", "trunk")
    git(tmp_path / "app", "switch", "-q", "trunk")
    said = init(tmp_path, monkeypatch, "root", "--project", "app=app")
    assert said.code == 0, said.err
    assert load(tmp_path / "root" / "config.yaml").projects["app"].target == "trunk"


def test_init_again_changes_nothing_and_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(tmp_path / "app")
    init(tmp_path, monkeypatch, "root", "--project", "app=app")
    before = files(tmp_path / "root")
    (tmp_path / "root" / "state" / "events").rmdir()
    said = init(tmp_path, monkeypatch, "root")
    assert said.code == 0
    assert "already" in said.out
    assert "app" in said.out
    assert files(tmp_path / "root") == before
    assert (tmp_path / "root" / "state" / "events").is_dir()


def test_init_never_adds_to_a_configuration_but_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(tmp_path / "app")
    init(tmp_path, monkeypatch, "root")
    said = init(tmp_path, monkeypatch, "root", "--project", "app=app")
    assert said.code == 4
    assert f"path: {tmp_path}/app" in said.err
    said = init(tmp_path, monkeypatch, "root", "--agent", "claude")
    assert said.code == 4
    assert "    adapter: claude" in said.err
    assert init(tmp_path, monkeypatch, "root", "--agent", "clod").code == 78


def test_init_keeps_off_a_configuration_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("name: theirs\n")
    said = init(tmp_path, monkeypatch, ".")
    assert said.code == 4
    assert files(tmp_path) == {"config.yaml": b"name: theirs\n"}


@pytest.mark.parametrize(
    ("project", "code", "says"),
    [
        ("app", 2, "NAME=PATH"),
        ("app=missing", 2, "no folder"),
        ("app=plain", 2, "git repository"),
        ("App X=app", 78, "cannot name a project"),
    ],
)
def test_init_refuses_what_is_no_project_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str, code: int, says: str
) -> None:
    person(tmp_path / "app")
    (tmp_path / "plain").mkdir()
    said = init(tmp_path, monkeypatch, "root", "--project", project)
    assert said.code == code
    assert says in said.err
    assert not (tmp_path / "root").exists()


def test_init_with_a_project_that_cannot_be_used_makes_the_root_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "empty")
    said = init(tmp_path, monkeypatch, "root", "--project", "empty=empty")
    assert said.code == 78
    assert "no commit yet" in said.err
    assert (tmp_path / "root" / "config.yaml").exists()


# ---- config ----------------------------------------------------------------------------------------------------------


def test_config_show_says_where_a_value_comes_from(layout: Layout) -> None:
    layout.config.write_text("v: 1\nworkers: 5\n")
    found = ctl(layout.root, "config", "show", "--json", HARNESS_DRAIN_S="7").data["settings"]
    origins = {s["path"]: (s["value"], s["origin"]) for s in found}
    assert origins["workers"] == ("5", "config.yaml:2:10")
    assert origins["drain_s"] == ("7", "HARNESS_DRAIN_S")
    assert origins["sandbox"] == ("auto", "default")


def test_config_check_lists_all_problems_as_json_too(layout: Layout) -> None:
    layout.config.write_text("v: 1\nworker: 5\nsandbox: maybe\n")
    said = ctl(layout.root, "config", "check", "--json")
    assert said.code == 78
    assert (said.data["ok"], len(said.data["problems"])) == (False, 2)


# ---- doctor ----------------------------------------------------------------------------------------------------------

CONFIG = """\
v: 1
disk: {{floor_mb: {floor}, floor_inodes: 1}}
projects: {{app: {{path: {path}, agent: shell}}}}
agents: {{shell: {{adapter: command, argv: [{program}]}}}}
"""


def examined(world: World, path: Path, *, floor: int = 1, program: str = "sh") -> dict[str, set[Level]]:
    world.layout.config.write_text(CONFIG.format(floor=floor, path=path, program=program))
    found: dict[str, set[Level]] = {}
    for check in doctor.examine(world.layout):
        found.setdefault(check.name, set()).add(check.level)
        assert check.detail
        assert check.remedy or check.level is Level.OK, check
    return found


def test_a_root_in_order_passes(world: World, tmp_path: Path) -> None:
    found = examined(world, person(tmp_path / "app"))
    assert not [name for name, levels in found.items() if Level.FAIL in levels]
    assert found["store"] == found["config"] == found["git"] == {Level.OK}


def test_a_project_an_agent_and_a_disk_that_cannot_be_used_fail(world: World, tmp_path: Path) -> None:
    found = examined(world, tmp_path / "none", floor=1_000_000_000, program="no-such-tool")
    assert found["project app"] == found["agent shell"] == found["disk"] == {Level.FAIL}


def test_doctor_says_what_an_agent_lacks_besides_its_tool(tmp_path: Path) -> None:
    tools = {
        "a": Agent(adapter="codex", binary="sh", config_from=str(tmp_path / "none"), max_budget_usd=1.0),
        "b": Agent(adapter="codex", binary="sh", model="priced", max_budget_usd=1.0),
        "c": Agent(adapter="claude", binary="sh", max_budget_usd=1.0),
    }
    config = Config(v=1, agents=tools, prices={"pri*": Price(input=1.0, output=8.0)})
    bad = [check for check in work.agents(config) if check.level is not Level.OK]
    assert [check.name for check in bad] == ["agent a", "agent a"]
    assert "is no folder" in bad[0].detail
    assert "no budget in USD stops it" in bad[1].detail


def test_doctor_goes_on_without_a_usable_configuration(world: World) -> None:
    world.layout.config.write_text("v: 1\nnonsense: 1\n")
    said = ctl(world.layout.root, "doctor", "--json")
    assert said.code == 1
    by_name = {c["name"]: c["level"] for c in said.data["checks"]}
    assert said.data["ok"] is False
    assert by_name["store"] == "ok"


def test_a_lost_store_folder_fails(world: World) -> None:
    (world.layout.queue / "waiting").rmdir()
    (check,) = [c for c in place.store(world.layout) if c.level is Level.FAIL]
    assert "waiting" in check.detail
    assert "harnessctl init" in check.remedy


def test_the_file_system_of_a_path_is_named_as_the_kernel_does() -> None:
    assert place.kind_of(Path("/proc")) == "proc"
    assert place.kind_of(Path("/nowhere/at/all")) == ""


def test_the_page_of_the_doctor_says_the_remedy_below_the_problem(world: World, tmp_path: Path) -> None:
    world.layout.config.write_text(CONFIG.format(floor=1, path=tmp_path / "none", program="sh"))
    said = ctl(world.layout.root, "doctor")
    assert said.code == 1
    lines = said.out.splitlines()
    (at,) = [k for k, line in enumerate(lines) if line.startswith("fail  project app")]
    assert lines[at + 1].strip().startswith("->")
    assert "1 failed" in said.err


# ---- fsck ------------------------------------------------------------------------------------------------------------


def test_a_healthy_store_is_said_to_be_so(world: World) -> None:
    world.add(id="a")
    said = ctl(world.layout.root, "fsck")
    assert (said.code, said.out) == (0, "healthy\n")


def test_what_a_crash_left_behind_is_no_failure_and_repaired(world: World) -> None:
    world.disk.do_hint("gone-0123456789", 5)
    root = world.layout.root
    said = ctl(root, "fsck")
    assert said.code == 0
    assert "leftover" in said.out
    assert "repaired" in ctl(root, "fsck", "--repair").out
    assert ctl(root, "fsck").out == "healthy\n"


def test_a_torn_cell_is_a_failure_that_a_person_decides(world: World) -> None:
    uid = world.add(id="a")
    (world.layout.queue / "open" / uid / "1.claim").write_text('{"v": 1')
    said = ctl(world.layout.root, "fsck", "--json")
    assert said.code == 1
    assert said.data["ok"] is False
    assert any(uid in v["path"] and not v["harmless"] for v in said.data["violations"])


def test_a_lost_format_is_made_again(world: World) -> None:
    (world.layout.queue / "FORMAT").unlink()
    root = world.layout.root
    assert ctl(root, "items").code == 78
    assert ctl(root, "fsck", "--repair").code == 0
    assert ctl(root, "items").code == 0


DAMAGED = {
    "an item": ("open", "ready", "item.json"),
    "a claim": ("open", "ready", "1.claim"),
    "an item that waits": ("waiting", "waiting", "item.json"),
    "an item that is over": ("archive/*", "over", "item.json"),
    "an end": ("archive/*", "over", "1.end"),
    "a stub": ("done/*", "over", ""),
    "a rejection": ("rejected", "rejected", "why.json"),
    "the stub of a rejection": ("done/*", "rejected", ""),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_record_is_shown_where_it_stands_and_hides_no_other_item(world: World, what: str) -> None:
    phase, name, file = DAMAGED[what]
    uids = {"ready": world.add(id="ready"), "over": world.add(id="over", commit="none")}
    world.attempt(uids["over"], Outcome.DONE)
    assert world.finish(uids["over"])
    uids["waiting"] = world.add(id="waiting", depends_on=["ready"])
    world.drop("rejected.json", {"no": "prompt"})
    uids["rejected"] = next(a.drop for a in world.admit_all() if a.rejected)
    world.add(id="well")
    folder = uids[name] + (f"/{file}" if file else "")
    path = next(iter(world.layout.queue.glob(f"{phase}/{folder}")), world.layout.queue / phase / folder)
    text = path.read_bytes() if path.exists() else b"{{"
    path.unlink(missing_ok=True)  # a cell may have a second name
    path.write_bytes(text[: len(text) // 2])
    for verb in (["status"], ["status", "--json"], ["items", "--all"], ["show", uids[name]]):
        said = ctl(world.layout.root, *verb)
        assert said.code == 0, (verb, said.err)
        if verb[0] == "show" and phase != "done/*":
            assert "harnessctl fsck" in said.out
            assert "harnessctl retry" not in said.out
        if verb == ["status"] and what == "a claim":  # one that was never tried is only counted
            assert "-> harnessctl fsck" in said.out
            assert "-> harnessctl retry" not in said.out
        if verb[0] == "items":
            assert "well" in said.out
            assert uids[name] in said.out or name in said.out
    assert ctl(world.layout.root, "fsck").code == 1


@pytest.mark.parametrize("stub", [True, False], ids=["with its stub", "and its stub"])
def test_a_cancelled_item_whose_record_is_damaged_is_not_said_to_be_done(world: World, stub: bool) -> None:
    """A script that waits would go on."""
    uid = world.add(id="a")
    world.cancel(uid)
    assert world.finish(uid)
    (home,) = world.layout.queue.glob(f"archive/*/{uid}")
    (home / "item.json").write_text("{")
    if not stub:
        (home / "1.end").unlink(missing_ok=True)
        (world.layout.root / stub_path(uid)).write_text("{")
    said = ctl(world.layout.root, "show", uid)
    assert f"state    {'cancelled' if stub else 'parked'}" in said.out
    assert ctl(world.layout.root, "wait", uid, "--timeout", "1").code != 0


# ---- service, reap ---------------------------------------------------------------------------------------------------


def test_service_prints_a_unit_for_this_root(world: World) -> None:
    world.layout.config.write_text("v: 1\ndrain_s: 30\n")
    said = ctl(world.layout.root, "service", "print")
    assert said.code == 0
    assert f"--root {world.layout.root} run" in said.out
    assert "TimeoutStopSec=90" in said.out


def test_service_install_writes_the_unit_and_says_what_is_left_to_do(world: World, tmp_path: Path) -> None:
    into = tmp_path / "units"
    said = ctl(world.layout.root, "service", "install", "--into", str(into))
    assert said.code == 0
    assert (into / "harness.service").exists()
    assert "systemctl --user enable" in said.out


def test_reap_of_a_root_on_which_nothing_runs(world: World) -> None:
    assert ctl(world.layout.root, "reap").out == "nothing was running\n"
