"""The drop box is open to strangers: whatever lies in it, the daemon lives, says why, and does the next good item.

One daemon gets everything at once, at its start and while it runs. Then each drop is looked for: in rejected/ with a
reason, ignored with a reason, or still waiting for its writer; and the world outside of the root is as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import procs
from harness.clock import SystemClock
from harness.store.disk import Disk
from harness.store.fsck import check
from tests.daemons import Daemon, daemon, git
from tests.support import environment, plain_environment, running, until

pytestmark = pytest.mark.timeout(300)

DEEP = 100_000
NOBODY = 65534
PWNED = "/tmp/harness-test-pwned"
GROWS = """
import sys, time
with open(sys.argv[1], "ab", buffering=0) as f:
    while True:
        f.write(b'{"prompt": "' + b"x" * 1000)
        time.sleep(0.01)
"""
REPLACES = """
import itertools, os, sys, time
for k in itertools.count():
    with open(sys.argv[2], "w") as f:
        f.write('{"prompt": "' + "x" * (k % 7) * 1000)
    os.replace(sys.argv[2], sys.argv[1])
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Drop:
    """One hostile file. `said`: words that must be in what the harness says about it."""

    name: str
    content: bytes
    said: str


def item(**fields: Any) -> bytes:
    return json.dumps({"prompt": "exit 1", **fields}).encode()


def text(name: str, content: bytes | str, said: str) -> Drop:
    return Drop(name, content.encode() if isinstance(content, str) else content, said)


def rejects() -> list[Drop]:
    """Regular files that must end up in rejected/, each with the reason."""
    big = "9" * 5000
    bomb = "a: &a [x, x]\n" + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}]\n" for k in range(20))
    return [
        text("deep.json", "[" * DEEP + "]" * DEEP, "nested too deeply"),
        text("deep-object.json", '{"a":' * (DEEP // 2) + "1" + "}" * (DEEP // 2), "nested too deeply"),
        text("deep-item.json", '{"prompt": "x", "source": {"a": ' + "[" * 200 + "]" * 200 + "}}", "nested more than"),
        text("deep.yaml", "[" * DEEP + "]" * DEEP, "nested too deeply"),
        text("big.yaml", "prompt: " + "x" * 300_000, "more than 256 KiB"),
        text("bomb.yaml", bomb, "aliases are not supported"),
        text("object.yaml", f"!!python/object/apply:os.system ['touch {PWNED}']", "not valid YAML"),
        text("number.yaml", f"prompt: x\npriority: {big}", "not valid YAML"),
        text("nul.yaml", b"prompt: a\0b", "not valid YAML"),
        text("empty.json", "", "is empty"),
        text("space.json", " \n\t ", "is empty"),
        text("bom.json", b"\xef\xbb\xbf", "is empty"),
        text("utf16.json", '{"prompt": "x"}'.encode("utf-16"), "is not UTF-8"),
        text("latin.json", b'{"prompt": "\xe9"}', "is not UTF-8"),
        text("zeros.json", b"\0" * 4096, "not valid JSON"),
        text("nul-in-text.json", item(prompt="a\0b"), "NUL"),
        text("truncated.json", item()[:-2], "not valid JSON"),
        text("garbage.json", item() + b"}", "not valid JSON"),
        text("twice.json", '{"prompt": "a", "prompt": "b"}', "occurs twice"),
        text("nan.json", '{"prompt": "x", "timeout_s": NaN}', "NaN"),
        text("infinity.json", '{"prompt": "x", "timeout_s": -Infinity}', "Infinity"),
        text("float.json", '{"prompt": "x", "timeout_s": 1e999}', "timeout_s"),
        text("huge-number.json", f'{{"prompt": "x", "priority": {big}}}', "not valid JSON"),
        text("huge-text-number.json", item(priority=big), "priority"),
        text("lone-surrogate.json", '{"prompt": "\\ud800"}', "surrogate"),
        text("number.json", "1", "an item is a JSON object"),
        text("null.json", "null", "an item is a JSON object"),
        text("text.json", '"exit 1"', "an item is a JSON object"),
        text("true.json", "true", "an item is a JSON object"),
        text("empty-list.json", "[]", "empty list"),
        text("wrong-lines.jsonl", b'{"prompt": "x"}\n{"prompt"\nnull\n', "line"),
        text("no-prompt.json", "{}", "prompt is missing"),
        text("unknown-field.json", item(promt="x", uid="../../x"), "unknown field"),
        text("id-newline.json", item(id="a\nb"), "printable"),
        text("id-nul.json", item(id="a\0b"), "NUL"),
        text("id-long.json", item(id="x" * (1 << 18)), "id"),
        text("id-number.json", item(id=7), "id"),
        text("project.json", item(project="../../app"), "project"),
        text("agent.json", item(agent=f"sh -c 'touch {PWNED}'"), "agent"),
        text("agents.json", item(agent=[1, None]), "agent"),
        text("itself.json", item(id="itself", depends_on=["itself"]), "depend on itself"),
        text("prompt-object.json", item(prompt={"a": 1}), "prompt"),
        text("everything-wrong.json", item(title=[], depends_on={}, files="x", labels=[], source=1, commit=0), "title"),
        text("priority.json", item(priority=99), "priority"),
        text("negative.json", item(timeout_s=-1, max_attempts=-1, max_budget_usd=-0.5), "timeout_s"),
        text("whenever.json", item(not_before="whenever"), "not_before"),
        text("minus-one.json", item(not_before="-1"), "not_before"),
        text("year-10000.json", item(not_before="10000-01-01T00:00:00Z"), "not_before"),
        text("files-out.json", item(files=["../../etc/passwd"]), "leaves the repository"),
        text("files-absolute.json", item(files=["/etc/**"]), "leaves the repository"),
        text("files-nul.json", item(files=["a\0b"]), "NUL"),
        text("cycle.json", json.dumps([
            {"id": "c1", "prompt": "x", "depends_on": ["c2"]}, {"id": "c2", "prompt": "x", "depends_on": ["c1"]},
        ]), "circle"),
        text("same-id.json", json.dumps([{"id": "s", "prompt": "x"}, {"id": "s", "prompt": "y"}]), "used by two items"),
        text("many.jsonl", item() .join([b""] + [b"\n"] * 10_000) + item(), "at most 10000"),
        text("-rf.json", b"{", "not valid JSON"),
        text("--help.json", b"{", "not valid JSON"),
        text("$(touch pwned).json", b"{", "not valid JSON"),
        text("new\nline.json", b"{", "not valid JSON"),
        text("\x1b[31mred.json", b"{", "not valid JSON"),
        Drop(os.fsdecode(b"not-utf8-\xff\xfe.json"), b"{", "not valid JSON"),
        text("n" * 250 + ".json", b"{", "not valid JSON"),
        text("item.json", b"{", "not valid JSON"),
        text("batch.json", b"{", "not valid JSON"),
        text("FORMAT.json", b"{", "not valid JSON"),
        text("why.json", b"{", "not valid JSON"),
        text("raw.json", b"{", "not valid JSON"),
    ]  # fmt: skip


def harmless() -> list[Drop]:
    """Strange and valid: an item each, which fails or waits and touches nothing."""
    later = {"not_before": "9999-12-31T23:59:59Z"}
    return [
        text("id-path.json", item(id="../../etc/x", **later), ""),
        text("id-slash.json", item(id="/etc/passwd", **later), ""),
        text("id-option.json", item(id="--upload-pack=touch", **later), ""),
        text("id-ref.json", item(id="refs/heads/main.lock", **later), ""),
        text("id-emoji.json", item(id="🙂🙃", title="\u202edrow", **later), ""),
        text("stranger.json", item(depends_on=["nobody-has-this-id"]), ""),
        text("🙂.json", item(**later), ""),
        text("bom-and-item.json", b"\xef\xbb\xbf" + item(**later), ""),
    ]


@dataclass
class Box:
    """The drop box of one daemon, with everything in it that is no plain file."""

    daemon: Daemon
    outside: Path
    ignored: dict[str, str] = field(default_factory=dict)
    """name -> words of the reason why it is ignored."""
    pending: set[str] = field(default_factory=set)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def queue(self) -> Path:
        return self.daemon.layout.queue

    def put(self, drop: Drop) -> None:
        """Renamed in, so that the daemon sees the whole of it."""
        hidden = self.queue / ".putting"
        hidden.write_bytes(drop.content)
        hidden.rename(self.queue / drop.name)

    def put_no_files(self) -> None:
        queue, outside = self.queue, self.outside
        (queue / "passwd.json").symlink_to("/etc/passwd")
        (queue / "canary.json").symlink_to(outside / "canary.json")
        (queue / "folder-link.json").symlink_to(outside)
        (queue / "dangling.json").symlink_to(outside / "nothing")
        (queue / "loop.json").symlink_to("loop.json")
        self.ignored |= dict.fromkeys(
            ("passwd.json", "canary.json", "folder-link.json", "dangling.json", "loop.json"), "symbolic link"
        )
        os.mkfifo(queue / "fifo.json")
        self.ignored["fifo.json"] = "a FIFO"
        (queue / "folder.json").mkdir()
        (queue / "folder.json" / "inside.json").write_bytes(item())
        self.ignored["folder.json"] = "a folder"
        server = self.closing.enter_context(socket.socket(socket.AF_UNIX))
        with _inside(queue):
            server.bind("socket.json")
        self.ignored["socket.json"] = "a socket"
        (queue / "notes.txt").write_bytes(item())
        self.ignored["notes.txt"] = "is not .json"
        (queue / ".hidden.json").write_bytes(item())
        (queue / "_underscore.json").write_bytes(item())

    def put_special_files(self) -> None:
        with (self.queue / "sparse.json").open("wb") as f:
            f.truncate(1 << 40)
        (self.queue / "mode-0.json").write_bytes(b"{")
        (self.queue / "mode-0.json").chmod(0)
        os.link(self.outside / "linked", self.queue / "linked.json")
        if os.geteuid() == 0:
            (self.queue / "others.json").write_bytes(b"{")
            (self.queue / "others.json").chmod(0o400)
            os.chown(self.queue / "others.json", NOBODY, NOBODY)

    def put_immutable(self) -> None:
        """Only before the daemon starts: an immutable file cannot be renamed in."""
        path = self.queue / "immutable.json"
        path.write_bytes(item())
        if _chattr("+i", path):
            self.closing.callback(_chattr, "-i", path)
            self.ignored["immutable.json"] = "cannot be moved out of the drop box"
        else:
            path.unlink()

    def put_writers(self) -> None:
        """Files that never come to rest."""
        for code, name, *more in ((GROWS, "grows.json"), (REPLACES, "replaced.json", ".replacing")):
            argv = [sys.executable, "-c", code, *(str(self.queue / x) for x in (name, *more))]
            self.closing.enter_context(running(argv, env=environment()))
            until((self.queue / name).exists, 20)
            self.pending.add(name)


def _chattr(flag: str, path: Path) -> bool:
    """Needs root and a file system that knows the flag."""
    try:
        return subprocess.run(["chattr", flag, path], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """A socket's name may have 107 bytes: bind to it by its name alone."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def fingerprint(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that could be changed about a tree, but access times and what a hard link elsewhere counts."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, content)
    return found


def said(d: Daemon) -> dict[str, str]:
    """File name -> all reasons, of everything in rejected/."""
    out: dict[str, str] = {}
    for folder in (d.layout.queue / "rejected").iterdir():
        why = json.loads((folder / "why.json").read_bytes())
        out[why["drop"]] = "\n".join(why["rejected"])
    return out


def ticked(d: Daemon) -> str:
    report = d.coordinator()
    return report.ticked_at if report else ""


def after_ticks(d: Daemon, number: int) -> None:
    """Until the coordinator has said so many times more that it ticks."""
    for _ in range(number):
        before = ticked(d)
        until(lambda before=before: ticked(d) != before, 60, what=f"a tick; {d.tail()}")  # type: ignore[misc]


@dataclass(frozen=True)
class Hostile:
    """The daemon that was given everything, half of it before its start."""

    box: Box
    pid: int
    outside: dict[str, tuple[Any, ...]]
    """How the world outside of the root was before."""

    @property
    def daemon(self) -> Daemon:
        return self.box.daemon

    def until_settled(self) -> None:
        """All is rejected, admitted or ignored that will ever be."""
        self.daemon.until_state("good", "merged", timeout_s=120)
        until(
            lambda: {"sparse.json", "mode-0.json", "big.yaml"} <= said(self.daemon).keys(),
            60,
            what="rejected",
        )
        after_ticks(self.daemon, 2)


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        plain_environment(monkeypatch)
        yield


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    base = tmp_path_factory.mktemp("hostile")
    outside = base / "outside"
    outside.mkdir()
    (outside / "canary.json").write_bytes(item(id="canary"))
    (outside / "linked").write_bytes(item(id="linked", not_before="9999-01-01T00:00:00Z"))
    before = fingerprint(outside)
    with daemon(base / "d") as d, contextlib.ExitStack() as closing:
        d.layout.config.write_text(
            yaml.safe_dump(d.config)
        )  # as people write it: the command line looks for `v:`
        box = Box(d, outside, closing=closing)
        plain = [*rejects(), *harmless()]
        for drop in plain[::2]:
            box.put(drop)
        box.put_no_files()
        box.put_immutable()
        process = d.start()
        until(d.coordinator, 30, what=d.tail())
        for drop in plain[1::2]:
            box.put(drop)
        box.put_special_files()
        box.put_writers()
        d.drop("good", {"prompt": "echo good > good"})
        made = Hostile(box, process.pid, before)
        made.until_settled()
        yield made
        assert process.poll() is None, d.tail()


def test_the_daemon_lives_and_merged_the_good_item(hostile: Hostile) -> None:
    d = hostile.daemon
    assert git(d.app, "show", "main:good") == "good"
    assert d.merges() == ["good: echo good > good"]
    after_ticks(d, 2)
    report = d.coordinator()
    assert report is not None
    assert (report.pid, report.state) == (hostile.pid, "running")
    assert len(d.events("coordinator_started")) == 1
    assert not d.events("worker_died")


def test_what_is_no_item_is_rejected_with_the_reason(hostile: Hostile) -> None:
    reasons = said(hostile.daemon)
    wanted = {drop.name: drop.said for drop in rejects()}
    wanted |= {"sparse.json": "larger than 16 MiB", "mode-0.json": ""}
    wanted |= {"others.json": "not valid JSON"} if os.geteuid() == 0 else {"mode-0.json": "cannot be read"}
    longest = "n" * 250 + ".json"  # raw.<name> would be too long for the disk: cut
    shown = {longest if name.startswith("nnn") else name: why for name, why in reasons.items()}
    assert {
        name: words for name, words in wanted.items() if words not in shown.get(name, "- not there")
    } == {}
    assert shown.keys() <= wanted.keys()
    told = {e["uid"] for e in hostile.daemon.events("item_rejected") if e["reasons"]}
    assert told == set(os.listdir(hostile.daemon.layout.queue / "rejected"))


def test_what_was_rejected_is_kept_as_it_was(hostile: Hostile) -> None:
    contents = {drop.content for drop in rejects()}
    folder = hostile.daemon.layout.queue / "rejected"
    special = {"raw.sparse.json", "raw.mode-0.json"}
    kept = {p.read_bytes() for p in folder.glob("*/raw.*") if p.name not in special}
    assert contents - kept == set()


def test_what_is_no_file_is_ignored_and_stays_and_people_see_why(hostile: Hostile) -> None:
    d, ignored = hostile.daemon, hostile.box.ignored
    report = d.coordinator()
    assert report is not None
    assert {x: w for x, w in ignored.items() if w not in report.ignored.get(x, "- not there")} == {}
    assert report.ignored.keys() == ignored.keys()
    assert {e["name"] for e in d.events("drop_ignored")} == ignored.keys()
    assert {x for x in ignored if not os.path.lexists(d.layout.queue / x)} == set()
    assert (d.layout.queue / ".hidden.json").exists()
    assert (d.layout.queue / "_underscore.json").exists()
    assert (d.layout.queue / "folder.json" / "inside.json").exists()


def test_a_strange_name_is_a_name(hostile: Hostile) -> None:
    items = hostile.daemon.items()
    strange = (
        "../../etc/x",
        "/etc/passwd",
        "--upload-pack=touch",
        "refs/heads/main.lock",
        "🙂🙃",
        "🙂",
        "linked",
    )
    assert {items[name].state.value for name in strange} == {"waiting"}
    assert items["stranger"].waits_for
    for name in strange:
        assert items[name].uid == Path(items[name].place).name
        assert items[name].uid.isascii()


def test_a_file_that_never_rests_waits_for_its_writer_and_costs_little(hostile: Hostile) -> None:
    d = hostile.daemon
    report = d.coordinator()
    assert report is not None
    assert report.pending_drops >= 1
    for name in hostile.box.pending:
        assert name not in said(d)
        assert name not in d.items()
    who = procs.ProcessId.of(hostile.pid)
    assert who is not None
    used, began = procs.cpu_seconds([who]), time.monotonic()
    after_ticks(d, 4)
    assert (procs.cpu_seconds([who]) - used) / (time.monotonic() - began) < 0.7


def test_nothing_outside_of_the_root_is_touched(hostile: Hostile) -> None:
    assert fingerprint(hostile.box.outside) == hostile.outside
    assert not Path(PWNED).exists()
    assert git(hostile.daemon.app, "status", "--porcelain") == ""


def test_the_store_is_whole(hostile: Hostile) -> None:
    disk = Disk(hostile.daemon.layout, SystemClock())
    try:
        assert [v for v in check(disk, alive=lambda _: True) if not v.harmless] == []
    finally:
        disk.close()
    assert os.listdir(hostile.daemon.layout.queue / "incoming") == []


@pytest.mark.parametrize(
    "argv",
    [("status",), ("status", "--json"), ("events",), ("items", "--all"), ("show", "--", "--upload-pack=touch"), ("doctor",)],
    ids=lambda argv: argv[0],
)  # fmt: skip
def test_people_can_look_at_all_of_it(hostile: Hostile, argv: tuple[str, ...]) -> None:
    """No name and no text of a stranger breaks a command, or reaches the terminal as a control character."""
    root = str(hostile.daemon.root)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness", "--root", root, *argv],
        capture_output=True,
        env=environment(),
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    shown = done.stdout.decode()
    assert [c for c in shown if ord(c) < 32 and c != "\n"] == []
    assert "\u202e" not in shown
