# Sourced by the scripts beside it: finds a Python, makes .venv from the lock files, and nothing else.
# POSIX sh. Works with git and Python >= 3.11 (with venv) alone; uses uv when it is there, because it is quicker.
# shellcheck shell=sh

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
VENV=$ROOT/.venv
MIN_PYTHON="3, 11"

# Settings of the caller's shell that would make this a different environment from everybody else's. An inherited
# PYTHONDONTWRITEBYTECODE makes imports up to 12 times slower.
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONPYCACHEPREFIX VIRTUAL_ENV CONDA_PREFIX
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT UV_PYTHON UV_PROJECT_ENVIRONMENT CDPATH

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Prints the real path of a Python that is new enough and can make environments; says why each candidate will not do.
find_python() {
    tried=
    for candidate in ${HARNESS_PYTHON:+"$HARNESS_PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        # A shim (pyenv, asdf) may exist and not work.
        if found=$("$candidate" -I -c "
import sys
if sys.version_info < ($MIN_PYTHON):
    print('is Python %d.%d' % sys.version_info[:2])
    sys.exit(3)
try:
    import ensurepip, venv
except ImportError as e:
    print('is Python %d.%d without %s' % (sys.version_info[0], sys.version_info[1], e.name))
    sys.exit(3)
print(sys.executable)" 2>/dev/null); then
            printf '%s\n' "$found"
            return 0
        fi
        tried="$tried
  $(command -v "$candidate") ${found:-does not run}"
    done
    say "harness needs Python 3.11 or newer, with the venv module. Found:${tried:- none}
Install one of these, then run this again:
  Debian, Ubuntu    apt install python3 python3-venv
  Fedora            dnf install python3.13
  anywhere          uv (https://docs.astral.sh/uv/), which brings a Python of its own
Or name one that is not on PATH:  HARNESS_PYTHON=/path/to/python $0"
    return 1
}

# What the environment must have been made from: the lock, this file, the place and the Python.
wanted_stamp() { # lock
    printf '%s\n' "$ROOT"
    "$VENV/bin/python" -I -c 'import sys; print(sys.version)' 2>/dev/null || return 1
    cat "$ROOT/scripts/lib.sh" "$ROOT/$1"
}

stamped() { # lock
    [ -f "$VENV/stamp.$1" ] && wanted_stamp "$1" 2>/dev/null | cmp -s - "$VENV/stamp.$1"
}

pip_half() { # 0 or 1
    "$VENV/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off \
        --require-hashes --no-deps --no-compile -r "$VENV/half$1"
}

install_lock() { # lock
    if command -v uv >/dev/null 2>&1; then
        uv pip install --quiet --python "$VENV/bin/python" --require-hashes --no-deps --compile-bytecode -r "$ROOT/$1"
    else
        # An environment that uv made has no pip.
        "$VENV/bin/python" -I -c 'import pip' 2>/dev/null || "$VENV/bin/python" -I -m ensurepip >/dev/null
        # Two at once: pip itself uses one core, for unpacking and (without --no-compile) for compiling.
        awk -v venv="$VENV" '/^[^ #]/ { n++ } { print > (venv "/half" n % 2) }' "$ROOT/$1"
        pip_half 0 &
        half=$!
        pip_half 1 || { wait "$half"; return 1; }
        wait "$half" || return 1
        "$VENV/bin/python" -I -m compileall -q -j 0 "$VENV/lib" || :
    fi
}

new_venv() {
    if [ -e "$VENV" ]; then rm -rf -- "$VENV"; fi
    if command -v uv >/dev/null 2>&1; then
        # Without a Python that will do, uv fetches one.
        python=$(find_python 2>/dev/null) || python=">=3.11,<3.14"
        uv venv --quiet --no-project --python "$python" "$VENV"
    else
        python=$(find_python) || return 1
        "$python" -I -m venv "$VENV"
    fi
}

# Makes the checkout itself importable and puts `harnessctl` beside it: no build, so nothing that is not locked.
install_project() {
    "$VENV/bin/python" -I - "$ROOT" <<'PYTHON'
import os, pathlib, shlex, sys, sysconfig

root = sys.argv[1]
pathlib.Path(sysconfig.get_path("purelib"), "harness.pth").write_text(root + "\n")
command = pathlib.Path(sys.prefix, "bin", "harnessctl")
command.write_text(f'#!/bin/sh\nexec {shlex.quote(os.path.join(sys.prefix, "bin", "python"))} -P -m harness "$@"\n')
command.chmod(0o755)
PYTHON
    "$VENV/bin/python" -I -m compileall -q "$ROOT/harness"
}

build_environment() { # lock
    if stamped "$1"; then return 0; fi # another of us made it while we waited for the lock
    say "harness: installing what $1 names into .venv (once)"
    # The small environment grows into the large one in place: a daemon may be running from it.
    if ! { [ "$1" = requirements-dev.lock ] && stamped requirements.lock; }; then
        new_venv || return 1
    fi
    install_lock "$1" || return 1
    install_project || return 1
    if [ "$1" = requirements-dev.lock ]; then wanted_stamp requirements.lock >"$VENV/stamp.requirements.lock"; fi
    wanted_stamp "$1" >"$VENV/stamp.$1"
}

# One at a time, so that two scripts started together make one environment.
locked() { # command...
    mkdir -p "$ROOT/.cache"
    if command -v flock >/dev/null 2>&1; then
        (
            flock 9 || exit 1
            "$@"
        ) 9>"$ROOT/.cache/environment.lock"
    else
        waited=0
        until mkdir "$ROOT/.cache/environment.lock.d" 2>/dev/null; do
            waited=$((waited + 1))
            if [ "$waited" -ge 600 ]; then die "$ROOT/.cache/environment.lock.d is in the way: when no other script runs, rmdir it"; fi
            sleep 1
        done
        trap 'rmdir "$ROOT/.cache/environment.lock.d"' EXIT
        status=0
        ("$@") || status=$?
        rmdir "$ROOT/.cache/environment.lock.d"
        trap - EXIT
        return "$status"
    fi
}

# environment run: what harnessctl needs. environment dev: and what scripts/test needs. Instant when nothing changed.
environment() {
    case $1 in
    run) lock=requirements.lock ;;
    dev) lock=requirements-dev.lock ;;
    *) die "environment: run or dev, not $1" ;;
    esac
    if ! stamped "$lock"; then
        locked build_environment "$lock" || die "harness: could not make $VENV (the messages above say why); nothing else was touched"
    fi
    PATH=$VENV/bin:$PATH
    export PATH
}
