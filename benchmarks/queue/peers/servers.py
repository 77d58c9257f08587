"""PostgreSQL and Redis for the time of a run: children of this program, on a Unix socket or 127.0.0.1 only.

They are stopped when the block ends, and told to stop by the kernel when this program dies. Their settings are the defaults,
but for what a docstring says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.queue.peers.install import Missing, call, last_line, program

START_S = 30.0
STOP_S = 15.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, str]]:
    """-> (conninfo, version). One server for both modes: synchronous_commit is said by each connection; fsync is on.

    It refuses to be root, so root runs it as `postgres` or `nobody`; `folder` must be on the disk that is measured.
    """
    postgres_, env = program("postgres", "postgresql", folder)
    initdb = postgres_.with_name("initdb")
    version = call([str(postgres_), "--version"], env=env).split()[2]
    data, sockets = folder / "data", folder / "s"
    user: str | None = None
    for path in (folder, data, sockets):
        path.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        user = _other_user()
        folder.chmod(0o755)
        for path in (data, sockets):
            shutil.chown(path, user)
    made = subprocess.run(
        [str(initdb), "-D", str(data), "-U", "peers", "--auth=trust", "--encoding=UTF8", "--locale=C"],
        check=False,
        env=env,
        cwd=folder,
        user=user,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise Missing(f"initdb: {last_line(made.stderr)}")
    command = [str(postgres_), "-D", str(data), "-k", str(sockets), "-c", "listen_addresses="]
    pidfile = data / "postmaster.pid"

    def up() -> bool:
        return pidfile.exists() and "ready" in pidfile.read_text()

    with _running(command, env, folder, "postgres", up, signal.SIGINT, user):
        yield f"host={sockets} user=peers dbname=postgres", version


@contextlib.contextmanager
def redis(folder: Path, *, durable: bool) -> Iterator[tuple[str, str]]:
    """-> (URL, version). Durable: an append-only file with appendfsync always. Else nothing is ever written."""
    redis_, env = program("redis-server", "redis-server", folder)
    version = next(x for x in call([str(redis_), "--version"], env=env).split() if x.startswith("v="))[2:]
    data = folder / ("durable" if durable else "memory")
    data.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(redis_), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--save", ""]
    command += ["--daemonize", "no", "--appendonly", "yes" if durable else "no"]
    command += ["--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]

    def up() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    with _running(command, env, data, f"redis-{data.name}", up, signal.SIGTERM, None):
        yield f"redis://127.0.0.1:{port}/0", version


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Missing("postgres refuses to run as root, and there is no user postgres or nobody")


@contextlib.contextmanager
def _running(
    command: list[str],
    env: dict[str, str],
    folder: Path,
    name: str,
    up: Callable[[], bool],
    stop: signal.Signals,
    user: str | None,
) -> Iterator[None]:
    log = folder / f"{name}.log"

    def tied() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(stop))

    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=user,
            preexec_fn=tied,  # noqa: PLW1509 - this program has one thread
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while not up():
            if server.poll() is not None:
                raise Missing(f"{name} ended: {last_line(log.read_text(errors='replace'))}")
            if time.monotonic() > deadline:
                raise Missing(f"{name} did not answer in {START_S:.0f} s")
            time.sleep(0.05)
        yield
    finally:
        server.send_signal(stop)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
