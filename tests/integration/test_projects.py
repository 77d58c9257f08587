"""Projects that cannot be used (yet) do not keep the others waiting."""

from __future__ import annotations

import socket
from pathlib import Path

from harness import procs
from tests.daemons import daemon
from tests.support import until


def test_the_first_fetch_ends_with_the_coordinator(tmp_path: Path) -> None:
    """Nobody would ever know of a git that waits for the network of a coordinator that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as server, daemon(tmp_path, workers=1) as d:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/far.git"
        d.config["projects"]["far"] = {"path": url, "target": "main", "agent": "shell"}
        d.write_config()
        process = d.start()
        far = server.accept()[0]

        def fetching() -> list[int]:
            found = [pid for pid in procs.pids() if url.encode() in (procs.read(pid, "cmdline") or b"")]
            return [pid for pid in found if (seen := procs.stat(pid)) and not seen.dead]

        assert fetching()
        process.kill()
        until(lambda: not fetching(), 20, what="its git has ended")
        far.close()


def test_a_url_that_does_not_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    """The first fetch waits for the network for minutes; systemd would end a coordinator that waits with it."""
    with socket.create_server(("127.0.0.1", 0)) as server, daemon(tmp_path, workers=1) as d:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/far.git"
        d.config["projects"]["far"] = {"path": url, "target": "main", "agent": "shell"}
        d.write_config()
        d.start()
        far = server.accept()[0]
        d.drop("near", {"prompt": "echo x > a", "project": "app"})
        d.drop("other", {"prompt": "true", "commit": "none", "project": "far"})
        d.until_state("near", "merged")
        until(lambda: (r := d.coordinator()) and any("first fetch" in p for p in r.problems), 20)
        assert d.state("other") == "ready"
        far.close()
        until(
            lambda: (
                (r := d.coordinator())
                and any("far cannot be used" in p and "first fetch" not in p for p in r.problems)
            ),
            40,
            what=d.tail(),
        )
        assert d.state("other") == "ready"
        assert d.items()["other"].attempts == ()
