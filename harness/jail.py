"""The wrapper around every program of an attempt: nothing that it starts outlives it, or writes where it may not.

A program of its own, run by an isolated interpreter as ``jail OPTIONS -- COMMAND`` (`mechanisms.jail_argv`). It
imports nothing of ours and little else, because it is started for every gate and agent; one file for that reason.

What it does, in this order: dies with its parent (PR_SET_PDEATHSIG, then a look whether the parent is still there,
because it may have died in between), joins the cgroup, makes namespaces, forks. The child is init of the PID
namespace: the kernel kills everything in a namespace with its init, and returns from the wait for init only when
all are dead (pid_namespaces(7)). Without a namespace the wrapper itself is a subreaper and kills its children,
level by level, until it has none. The command runs in a session of its own, with no_new_privs and a Landlock
domain, which descendants cannot leave (landlock(7)).

It exits as the command did; 128 + n for signal n; 125 when it failed itself, 126 or 127 when the command cannot be
run, with the reason on `--status` (a file descriptor) or else on stderr.

Guarantee not given: without PID namespace and cgroup, a SIGKILL of this very process leaves behind what has
cleared its environment and left the worktree; `Containment.kill` looks for the rest.
"""

from __future__ import annotations

import _signal as signals  # type: ignore[import-not-found]  # `signal` without its enums: saves 8 ms of every start
import ctypes
import os
import stat
import sys
import time

ABI_WITH_TRUNCATE = 3  # Linux 6.2
ABI_WITH_SCOPES = 6  # Linux 6.12
SWEEP_S = 10.0
"""How long survivors may resist SIGKILL (a process of another user, uninterruptible I/O) before we leave."""

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 8, 0x1000, 0x4000, 1 << 19
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
# What Docker leaves to root in a container, without MKNOD: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
# SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, AUDIT_WRITE, SETFCAP. With the others root reads around Landlock:
# raw memory, raw devices, and with SYS_ADMIN (since about Linux 6.16) the environment of any process.
KEPT_CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31))

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << n for n in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = ((1 << 16) - 1) & ~(MAKE_CHAR | MAKE_BLOCK)
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
SCOPES = 3  # abstract unix sockets, signals
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")

FORWARDED = (
    signals.SIGHUP,
    signals.SIGINT,
    signals.SIGQUIT,
    signals.SIGTERM,
    signals.SIGUSR1,
    signals.SIGUSR2,
)
WAITED = (signals.SIGCHLD, *FORWARDED)

libc = ctypes.CDLL(None, use_errno=True)


class JailError(Exception):
    """The jail cannot be built as asked for. Nothing was run."""


class Spec:
    """The options, in the words of `containment.wrap()`."""

    def __init__(self, argv: list[str]) -> None:
        self.mark = ""
        self.parent = 0  # 0: bubblewrap watches the parent
        self.status = -1
        self.cgroup = ""
        self.namespaces: list[str] = []
        self.landlock = False
        self.bwrap: list[str] = []
        self.init = False
        self.write: list[str] = []
        self.read: list[str] = []
        self.hide: list[str] = []
        rest = iter(argv)
        for option in rest:
            if option == "--":
                break
            value = next(rest)
            name = option.removeprefix("--")
            old = getattr(self, name)
            if isinstance(old, list):
                old.append(value)
            else:
                setattr(self, name, type(old)(int(value)) if isinstance(old, int) else value)
        self.command = list(rest)


def fail(call: str) -> JailError:
    number = ctypes.get_errno()
    return JailError(f"{call}: {os.strerror(number)} (errno {number})")


def prctl(option: int, value: int) -> int:
    return int(
        libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )


# --- Landlock -------------------------------------------------------------------------------------------------


def syscall(number: int, *args: int | bytes | None) -> int:
    return int(
        libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    )


def landlock_abi() -> int:
    """0 when the kernel has no Landlock, or it is switched off."""
    return max(0, syscall(444, None, 0, 1))


def readable(hide: list[str], top: str = "/") -> list[str]:
    """The fewest existing paths below `top` that together hold everything except `hide`.

    Landlock only ever allows, so hiding a path means to allow the neighbours of every folder above it. What is
    created in such a folder later is not readable in this domain. Symbolic links are left out: what they lead to
    is allowed, or not, where it really lies.
    """
    below = [path for path in hide if inside(path, top)]
    if not below:
        return [top]
    if top in below:
        return []
    start = len(top.rstrip("/")) + 1
    on_the_way = {path[start:].partition("/")[0] for path in below}
    found = []
    try:
        with os.scandir(top) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    found += readable(below, entry.path) if entry.name in on_the_way else [entry.path]
    except OSError:
        pass  # not a folder, or not for us to list
    return found


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def block_devices(folder: str = "/dev") -> list[str]:
    """Root could read hidden files from the raw disk.

    What is mounted below is left out: /dev/shm is anybody's, and walking a large tree there would delay every command.
    """
    found: list[str] = []
    try:
        device, names = os.lstat(folder).st_dev, os.listdir(folder)
    except OSError:
        return found  # vanished meanwhile
    for name in names:
        path = f"{folder}/{name}"
        try:
            info = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISBLK(info.st_mode):
            found.append(path)
        elif stat.S_ISDIR(info.st_mode) and info.st_dev == device:
            found += block_devices(path)
    return found


def restrict(spec: Spec) -> None:
    """Puts this process, and whatever it becomes or starts, into a Landlock domain of the policy."""
    abi = landlock_abi()
    handled = (1 << (13, 14, 15, 15, 16)[min(abi, 5) - 1]) - 1 if abi else 0
    attributes = (handled, 0, SCOPES)[: 1 if abi < 4 else 2 if abi < 6 else 3]
    raw = b"".join(value.to_bytes(8, sys.byteorder) for value in attributes)
    ruleset = syscall(444, raw, len(raw), 0)
    if ruleset < 0:
        raise fail("landlock_create_ruleset")

    def allow(path: str, access: int, *, must: bool = False, follow: bool = False) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        except OSError as e:
            if must:
                raise JailError(f"{path}: cannot be made writable or readable: {e.strerror}") from e
            return  # vanished meanwhile, or not reachable for us: then the command cannot reach it either
        try:
            mode = os.fstat(fd).st_mode & 0o170000
            access &= handled & (READ | WRITE if mode == 0o040000 else ON_FILES)
            rule = access.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
            if access and syscall(445, ruleset, 1, rule, 0) < 0 and must:
                raise fail(f"landlock_add_rule {path}")
        finally:
            os.close(fd)

    hide = [name for path in spec.hide for name in {path, os.path.realpath(path)}]
    if os.geteuid() == 0:
        hide += block_devices()
    if hide:
        allow("/", READ_DIR)  # names may be listed everywhere: `ls /` and `ls ~` work; contents stay hidden
    for path in readable(hide):
        allow(path, READ)
    for path in spec.read:
        allow(unaliased(path), READ, must=True)
    for path in spec.write:
        allow(unaliased(path), WRITE, must=True)
    for name in DEVICES:
        allow(f"/dev/{name}", WRITE)
    for fd in (0, 1, 2):  # `> /dev/stderr` opens our log again
        allow(f"/proc/self/fd/{fd}", READ_FILE | (WRITE_FILE | TRUNCATE if fd else 0), follow=True)
    if "mount" in spec.namespaces and os.geteuid() != 0:
        allow("/proc", READ | WRITE_FILE)  # only the attempt's own processes are in it
    if syscall(446, ruleset, 0) < 0:
        raise fail("landlock_restrict_self")
    os.close(ruleset)


def unaliased(path: str) -> str:
    """A link that an earlier attempt has put in the way would lead the permission elsewhere."""
    if not os.path.lexists(path):
        raise JailError(f"{path}: does not exist, so it cannot be made writable or readable")
    if os.path.realpath(path) != path:
        raise JailError(
            f"{path}: is reached through a symbolic link; only real paths are made writable or readable"
        )
    return path


# --- namespaces -----------------------------------------------------------------------------------------------


def unshare(namespaces: list[str]) -> None:
    """PID (for children only), mount and user namespace; in the last our own user and group stay what they are."""
    flags = {"pid": CLONE_NEWPID, "mount": CLONE_NEWNS, "user": CLONE_NEWUSER}
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(sum(flags[name] for name in namespaces)) != 0:
        raise fail(f"unshare {'+'.join(namespaces)}")
    if "user" in namespaces:
        maps = (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"))
        for name, text in maps:
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)


def mount_own(spec: Spec) -> None:
    """A /proc that shows this namespace, an own /dev/shm; nothing of it is seen outside (slave).

    With a policy everything else becomes read-only: Landlock does not know chmod, chown, utime and setxattr.
    """
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None) != 0:
        raise fail("mount --make-rslave /")
    if spec.landlock:
        freeze_mounts(spec.write)
    safe = MS_NOSUID | MS_NODEV
    if libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(safe | MS_NOEXEC), None) != 0:
        raise fail("mount /proc")
    if os.path.isdir("/dev/shm"):  # noqa: S108  # it becomes private here
        libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(safe), b"mode=1777")


def freeze_mounts(write: list[str]) -> None:
    """Read-only mounts, except for what may be written. Without mount_setattr(2) (Linux 5.12) Landlock stands alone."""
    for path in write:
        name = os.fsencode(unaliased(path))
        if libc.mount(name, name, None, ctypes.c_ulong(MS_BIND | MS_REC), None) != 0:
            raise fail(f"bind mount {path}")
    if set_read_only("/", on=True):
        for path in write:
            if not set_read_only(path, on=False):
                raise fail(f"mount_setattr {path}")
    os.chdir(os.getcwd())  # by name: the folder that we stand in is now covered by its writable self


def set_read_only(path: str, *, on: bool) -> bool:
    attributes = (int(on), int(not on), 0, 0)  # MOUNT_ATTR_RDONLY to be set, to be cleared
    raw = b"".join(value.to_bytes(8, sys.byteorder) for value in attributes)
    return syscall(442, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, raw, len(raw)) == 0


# --- the processes --------------------------------------------------------------------------------------------


def supervise(child: int, receiver: int, parent: int = 0) -> int:
    """Waits for `child`, passes signals on to `receiver` (negative: a group), reaps orphans. Returns its wait status.

    Signals are blocked and taken one by one: no handler, no race. With `parent`, its death ends the wait with the
    status of a SIGKILL.
    """
    while True:
        number = signals.sigwait(WAITED)
        if parent and os.getppid() != parent:
            return int(signals.SIGKILL)
        if number != signals.SIGCHLD:
            send(receiver, number)
        elif (status := reap(child)) is not None:
            return status


def send(pid: int, number: int) -> None:
    """To a process or (negative) a group that may have ended; whoever asked us has a ladder."""
    try:  # noqa: SIM105  # contextlib costs 2 ms of every start
        os.kill(pid, number)
    except OSError:
        pass


def reap(child: int) -> int | None:
    """Collects every zombie that is there; the status of `child` when it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def sweep(child: int) -> int:
    """Kills everything that is left of the command; returns how many there were, `child` not counted.

    As init: one signal to all. As subreaper: our children, again and again. Orphans of what we kill become our
    children, and no child's pid can be reused before we have waited for it.
    """
    reap(child)
    killed = 0
    deadline = time.monotonic() + SWEEP_S
    while time.monotonic() < deadline:
        for pid in [-1] if os.getpid() == 1 else children():
            send(pid, signals.SIGKILL)
        try:
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                killed += pid != child
        except ChildProcessError:
            break
        signals.sigtimedwait((signals.SIGCHLD,), 0.01)
    return killed


def children() -> list[int]:
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as f:
            return [int(word) for word in f.read().split()]
    except OSError:  # kernel without CONFIG_PROC_CHILDREN
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    if int(f.read().rpartition(b")")[2].split()[1]) == own:
                        found.append(int(name))
            except OSError:
                pass
        return found


def become(spec: Spec, supervisor: int, mask: set[int]) -> None:
    """The last steps of the process that becomes the command."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signals.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(125)
    if spec.landlock:
        if os.geteuid() == 0:
            for capability in set(range(64)) - KEPT_CAPABILITIES:
                prctl(PR_CAPBSET_DROP, capability)  # EINVAL for those that this kernel does not know
        if prctl(PR_SET_NO_NEW_PRIVS, 1) != 0:
            raise fail("prctl PR_SET_NO_NEW_PRIVS")
        restrict(spec)
    signals.pthread_sigmask(signals.SIG_SETMASK, mask)
    os.execvp(spec.command[0], spec.command)  # noqa: S606  # to run it is the purpose


def run(spec: Spec, mask: set[int]) -> None:
    """Init's part, or in its absence the subreaper's: the command, its orphans, its end. Does not return."""
    errors, told = os.pipe()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        code, text = 125, ""
        try:
            become(spec, own, mask)
        except OSError as e:
            code, text = (127 if e.errno == 2 else 126), f"cannot run {spec.command[0]!r}: {e.strerror}"
        except Exception as e:  # noqa: BLE001  # reported by our parent; a traceback in the agent's log helps nobody
            text = str(e) or repr(e)
        os.write(told, text.encode("utf-8", "surrogateescape")[:4000])
        os._exit(code)
    os.close(told)
    error = b""
    while piece := os.read(errors, 4096):  # ends when exec closes the other end
        error += piece
    status = supervise(child, -child, spec.parent if own != 1 else 0)
    survivors = sweep(child)
    code = os.waitstatus_to_exitcode(status)
    if error:
        report(spec, b"error " + error)
    elif spec.status >= 0:
        report(spec, b"ended %d %d" % (code, survivors))
    os._exit(code if code >= 0 else 128 - code)


def report(spec: Spec, line: bytes) -> None:
    try:  # noqa: SIM105  # as above
        os.write(spec.status if spec.status >= 0 else 2, line.replace(b"\n", b" ") + b"\n")
    except OSError:
        pass  # nobody listens any more


def start_bwrap(spec: Spec, mask: set[int]) -> tuple[int, int]:
    """(pid of bubblewrap, pid of the init inside). Signals go to init: bubblewrap itself would just die of them."""
    info, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signals.pthread_sigmask(signals.SIG_SETMASK, mask)
        os.set_inheritable(told, True)
        if spec.status >= 0:
            os.set_inheritable(spec.status, True)
        argv = [*spec.bwrap, "--info-fd", str(told), "--", *spec.command]
        os.execv(argv[0], argv)  # noqa: S606  # no shell is wanted
    os.close(told)
    text = b""
    while b"}" not in text and (piece := os.read(info, 4096)):
        text += piece
    digits = text.partition(b'"child-pid":')[2].split(b",")[0].strip(b" }\n")
    if not digits.isdigit():
        os.waitpid(pid, 0)
        raise JailError("bubblewrap could not make its namespace; its reason is on stderr")
    return pid, int(digits)


def build(spec: Spec) -> None:
    """Does not return."""
    namespaced = bool(spec.namespaces or spec.bwrap or spec.init)
    if spec.parent:
        # Without a namespace we must live a moment longer than our parent, to kill what we have started.
        deadly = signals.SIGKILL if namespaced else signals.SIGTERM
        mask = signals.pthread_sigmask(signals.SIG_BLOCK, WAITED)
        prctl(PR_SET_PDEATHSIG, deadly)
        if os.getppid() != spec.parent:
            os._exit(125)
    else:
        mask = signals.pthread_sigmask(signals.SIG_BLOCK, WAITED)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    if spec.cgroup:
        with open(f"{spec.cgroup}/cgroup.procs", "w") as f:
            f.write("0")
    if spec.bwrap:
        for path in (*spec.write, *spec.read):
            unaliased(path)
        pid, init = start_bwrap(spec, mask)
        leave(supervise(pid, init))
    if not spec.namespaces:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        run(spec, mask)
    unshare(spec.namespaces)
    prctl(PR_SET_PDEATHSIG, signals.SIGKILL)  # a new user namespace clears it: prctl(2)
    if os.getppid() != spec.parent:
        os._exit(125)
    alive, kept = os.pipe()  # `kept` is ours alone: its end is the proof that we are gone
    pid = os.fork()
    if pid:
        os.close(alive)
        leave(supervise(pid, pid))
    try:
        os.close(kept)
        prctl(PR_SET_PDEATHSIG, signals.SIGKILL)
        os.set_blocking(alive, False)
        try:
            os.read(alive, 1)
            os._exit(125)  # end of file: our parent died before the prctl
        except BlockingIOError:
            pass  # it lives, and from now on we die with it
        if "mount" in spec.namespaces:
            mount_own(spec)
        run(spec, mask)
    except BaseException as e:  # noqa: BLE001  # init must not run its parent's code
        report(spec, f"error {e}".encode())
    os._exit(125)


def leave(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def restore_locale() -> None:
    """The interpreter sets LC_CTYPE where there is no locale (PEP 538); the command must not see that."""
    with open("/proc/self/environ", "rb") as f:
        given = [entry for entry in f.read().split(b"\0") if entry.startswith(b"LC_CTYPE=")]
    os.environb.pop(b"LC_CTYPE", None)
    if given:
        os.environb[b"LC_CTYPE"] = given[0].partition(b"=")[2]


def main() -> None:
    spec = Spec(sys.argv[1:])
    try:
        restore_locale()
        if spec.status >= 0:
            os.set_inheritable(spec.status, False)
        if spec.mark:
            os.environ["HARNESS_ATTEMPT"] = spec.mark
        build(spec)
    except Exception as e:  # noqa: BLE001  # whatever it is: nothing was run, and our caller is told why
        report(spec, f"error {e}".encode("utf-8", "surrogateescape"))
    os._exit(125)


if __name__ == "__main__":
    main()
