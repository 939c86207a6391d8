#!/bin/sh
# Make the virtual environment named by the first argument, with the first Python found that can.
# PYTHON names the one to use instead.

venv=$1
oldest="3.11"

stop() {
    printf '\nEMhub: %s\n' "$1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

complete() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

[ -f "$venv/.made" ] && new_enough "$venv/bin/python" && exit 0

install_hint="On Debian and Ubuntu: apt install python3 python3-venv; on Fedora: dnf install python3; on a Mac: brew install python."

if [ -n "$PYTHON" ]; then
    command -v "$PYTHON" >/dev/null 2>&1 || stop "PYTHON=$PYTHON is no command here."
    new_enough "$PYTHON" || stop "PYTHON=$PYTHON is older than Python $oldest, which EMhub needs."
    complete "$PYTHON" || stop "PYTHON=$PYTHON has no venv module. On Debian and Ubuntu it comes with: apt install python3-venv."
    python=$PYTHON
else
    python=
    incomplete=
    for candidate in python3.11 python3.12 python3.13 python3.14 python3 python; do
        command -v "$candidate" >/dev/null 2>&1 && new_enough "$candidate" || continue
        if complete "$candidate"; then
            python=$candidate
            break
        fi
        incomplete=${incomplete:-$candidate}
    done
    if [ -z "$python" ] && [ -n "$incomplete" ]; then
        stop "$incomplete has no venv module. On Debian and Ubuntu it comes with: apt install $(basename "$incomplete")-venv. Then run make again."
    fi
    if [ -z "$python" ]; then
        found=$(python3 -V 2>/dev/null) && found="There is only $found here. "
        stop "Python $oldest or newer is needed. ${found}$install_hint Or name one: make PYTHON=/path/to/python3.11"
    fi
fi

printf 'EMhub: Making %s with %s ...\n' "$venv" "$("$python" -V)"
# An environment left half made, or whose Python is gone, is made anew.
output=$("$python" -m venv --clear "$venv" 2>&1) || {
    printf '%s\n' "$output" >&2
    case $output in
        *"No space left"*|*"quota exceeded"*) stop "The disk is full. Make room and run make again." ;;
        *"Permission denied"*|*"Read-only file system"*) stop "$(pwd) cannot be written to. Give yourself the right, or clone elsewhere." ;;
        *) stop "$python could not make a virtual environment. What it said is above." ;;
    esac
}
touch "$venv/.made"
