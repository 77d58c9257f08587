"""What runs and what is to be run: processes of ours, containment, projects, agents, the systemd unit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from harness import service, status
from harness.clock import SystemClock
from harness.config import PLACEHOLDER, Agent, Config, Sandbox, expanded
from harness.containment import Containment, Kind
from harness.doctor.check import Check, fail, ok, warn
from harness.errors import HarnessError
from harness.layout import Layout

SYSTEMD = Path("/run/systemd/system")
UNPRICED = ("codex", "gemini")
"""Adapters of tools that do not say what they cost."""


def processes(layout: Layout) -> Iterator[Check]:
    seen = status.collect(layout, SystemClock())
    coordinator = seen.coordinator
    if coordinator.state == "silent":
        yield fail(
            "coordinator",
            f"pid {coordinator.pid} lives, but has not ticked for {status.FRESH_S:.0f} s",
            f"see what it does: kill -USR1 {coordinator.pid} dumps its state; end it with kill -KILL, attempts go on",
        )
    elif coordinator.pid:
        yield ok("coordinator", f"{coordinator.state}, pid {coordinator.pid}")
    else:
        yield ok("coordinator", "none runs; start it: harnessctl run")
    for agent in seen.agents:
        if agent.health in ("hung", "dead"):
            yield warn("agents", f"{agent.id} is {agent.health}", f"harnessctl logs {agent.id}")
    for need in seen.needs:
        if coordinator.pid:
            yield warn("needs you", need.what, need.command)
    for name, why in seen.ignored.items():
        yield warn("drop box", f"queue/{name} is ignored: it {why}", "move it away, or submit it as a file")


def containment(config: Config) -> Iterator[Check]:
    here = Containment.probe(config.sandbox)
    held, files, *rest = here.explain()
    if here.kind is Kind.MARKS:
        yield warn("containment", held, "allow user namespaces, or run it by systemd (Delegate=yes)")
    else:
        yield ok("containment", held)
    if here.sandbox is Sandbox.NONE:
        yield warn("sandbox", files, "install bubblewrap, or use Linux 5.13 or newer with Landlock")
    else:
        yield ok("sandbox", files)
    for line in rest:
        yield ok("containment", line)


def projects(layout: Layout, config: Config) -> Iterator[Check]:
    from harness.control.changes import make_hub

    if not config.projects:
        yield warn(
            "projects", "there is none, so nothing can be admitted", "add one under projects: in config.yaml"
        )
    for name, project in config.projects.items():
        try:
            hub = make_hub(layout, config, project)
            unpublished = len(hub.unpublished())
        except HarnessError as e:
            yield fail(f"project {name}", f"{e.where}: {e.what}" if e.where else e.what, e.remedy or "")
            continue
        if not project.gates:
            yield warn(
                f"project {name}",
                f"{project.path} is usable, but has no gates: whatever an agent commits is merged",
                f"add a gate: projects.{name}.gates in config.yaml",
            )
        else:
            yield ok(f"project {name}", f"{project.path}, target {project.target}")
        if unpublished:
            yield warn(f"project {name}", f"{unpublished} merges are not published yet", "harnessctl status")


def agents(config: Config) -> Iterator[Check]:
    if not config.agents:
        yield warn("agents", "there is none, so nothing can be run", "add one under agents: in config.yaml")
    for name, agent in config.agents.items():
        program = agent.argv[0] if agent.argv else agent.binary or agent.adapter
        search = agent.env.get("PATH", os.environ.get("PATH", ""))
        found = program if PLACEHOLDER.search(program) else shutil.which(program, path=search)
        if found:
            yield ok(f"agent {name}", found)
        else:
            yield fail(
                f"agent {name}",
                f"{program!r} is not found on PATH",
                f"install it, or write its full path: agents.{name}.{'argv' if agent.argv else 'binary'}",
            )
        yield from _told(config, name, agent)
    for name, credential in config.credentials.items():
        where = credential.file
        if where is None and credential.variable not in os.environ:
            yield warn(
                f"credential {name}",
                f"{credential.variable} is not set here; the daemon needs it in its environment",
                f"set it for the daemon, or use credentials.{name}.file",
            )
        elif where is not None and not os.access(where, os.R_OK):
            yield fail(f"credential {name}", f"{where} cannot be read", "see its path, owner and mode")
        elif where is not None and Path(where).stat().st_mode & 0o077:
            yield warn(f"credential {name}", f"{where} can be read by other users", f"chmod 600 {where}")
        else:
            yield ok(f"credential {name}", str(where or f"${credential.variable}"))


def _told(config: Config, name: str, agent: Agent) -> Iterator[Check]:
    """What its settings need besides the tool."""
    if agent.config_from is not None and not os.path.isdir(expanded(agent.config_from)):
        yield fail(
            f"agent {name}", f"config_from {agent.config_from} is no folder", "make it, or name another"
        )
    unpriced = agent.adapter in UNPRICED and not any(fnmatchcase(agent.model, glob) for glob in config.prices)
    if unpriced and (agent.max_budget_usd is not None or config.budgeted):
        yield warn(
            f"agent {name}",
            f"{agent.adapter} tells tokens and no cost, and its model {agent.model!r} has no price: no budget in USD stops it",
            "add it below prices: in config.yaml",
        )


def unit(layout: Layout) -> Iterator[Check]:
    """The systemd unit, when there is one."""
    for system in (True, False):
        path = service.folder(system=system) / f"{service.NAME}.service"
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if str(layout.root) not in text:
            yield ok("systemd", f"{path} is for another root")
        elif "KillMode=process" not in text:
            yield warn(
                "systemd",
                f"{path} ends the workers when the coordinator crashes (no KillMode=process)",
                "harnessctl service install --force",
            )
        else:
            yield ok("systemd", str(path))
        return
    if SYSTEMD.is_dir():
        yield ok("systemd", "no unit; to make one: harnessctl service install")
    else:
        yield ok("systemd", "does not run here")
