"""Fetch the front-end files that package-lock.json pins, and lay out the few that the site serves.

    python tools/frontend.py

npm brings the packages into ``node_modules/``; the files named below are copied, unchanged and with their
licences, to ``static_vendor/vendor/``, which staticfiles serves as ``vendor/...``. Where a machine has no
npm, a private one is installed from the Python registry into ``.node/`` and used for this alone.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from words import ROOT, need_space, run, say, stop

OLDEST_NPM = 7  # the first to read lock files of version 3

#: folder under static_vendor/vendor/ -> (package, its files). The manifest storage insists that every file
#: named in a stylesheet or script is there, so source maps and both font formats come along.
FILES = {
    "bootstrap": (
        "bootstrap",
        [
            "LICENSE",
            "dist/css/bootstrap.min.css",
            "dist/css/bootstrap.min.css.map",
            "dist/js/bootstrap.bundle.min.js",
            "dist/js/bootstrap.bundle.min.js.map",
        ],
    ),
    "bootstrap-icons": (
        "bootstrap-icons",
        [
            "LICENSE",
            "font/bootstrap-icons.min.css",
            "font/fonts/bootstrap-icons.woff",
            "font/fonts/bootstrap-icons.woff2",
        ],
    ),
    # For PDF reports, which have to bring their letters along.
    "dejavu": ("dejavu-fonts-ttf", ["LICENSE", "ttf/DejaVuSans.ttf", "ttf/DejaVuSans-Bold.ttf"]),
    "event-calendar": (
        "@event-calendar/build",
        [
            "package.json",  # Names the licence (MIT); the package brings no file of it.
            "dist/event-calendar.min.css",
            "dist/event-calendar.min.js",
            "dist/event-calendar.min.js.map",
        ],
    ),
    "htmx": ("htmx.org", ["LICENSE", "dist/htmx.min.js"]),
    "tom-select": (
        "tom-select",
        [
            "LICENSE",
            "dist/css/tom-select.bootstrap5.min.css",
            "dist/css/tom-select.bootstrap5.min.css.map",
            "dist/js/tom-select.complete.min.js",
            "dist/js/tom-select.complete.min.js.map",
        ],
    ),
    "uplot": ("uplot", ["LICENSE", "dist/uPlot.iife.min.js", "dist/uPlot.min.css"]),
}


def npm_version(npm, environment):
    """Major version of an npm command; 0 when it does not run."""
    try:
        answer = subprocess.run(
            [npm, "--version"], capture_output=True, text=True, env=environment, timeout=60, cwd=ROOT
        )
        return int(answer.stdout.strip().split(".")[0])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def private_npm():
    """Install node and npm from the Python registry into ``.node/``; return the npm command."""
    home = ROOT / ".node"
    pins = ROOT / "tools" / "requirements-node.txt"
    done = home / "installed.txt"
    npm = home / "bin" / "npm"
    if npm.exists() and done.exists() and done.read_text() == pins.read_text():
        return npm
    say("There is no npm here, so node and npm are installed into .node/ (about 200 MB, once).")
    need_space(ROOT, 500, "Installing node")
    venv.create(home, clear=True, with_pip=True, symlinks=True)
    run(
        [
            home / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            pins,
        ],
        what="Installing node and npm",
        source="the Python package registry",
    )
    done.write_text(pins.read_text())
    return npm


def find_npm():
    """Return the npm to use and the environment to use it in."""
    environment = dict(os.environ)
    npm = shutil.which("npm")
    if not npm or not shutil.which("node") or npm_version(npm, environment) < OLDEST_NPM:
        npm = private_npm()
        environment["PATH"] = f"{npm.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    home = Path(environment.get("HOME") or "/nonexistent")
    if not os.access(home, os.W_OK) and "npm_config_cache" not in environment:
        environment["npm_config_cache"] = str(ROOT / ".node" / "cache")
    return npm, environment


def fetch():
    npm, environment = find_npm()
    run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"],
        what="Fetching the front-end files",
        source="the npm registry",
        cwd=ROOT,
        env=environment,
    )


def lay_out(modules, target):
    """Copy the files beside ``target`` first and swap them in whole, so that a server never sees half."""
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for folder, (package, files) in FILES.items():
        for name in files:
            source = modules / package / name
            if not source.is_file():
                stop(f"{package} brought no {name}: tools/frontend.py does not fit package-lock.json.")
            # Fonts stay in fonts/, where their stylesheet looks for them.
            place = Path("fonts") / source.name if source.parent.name == "fonts" else Path(source.name)
            copy = fresh / "vendor" / folder / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def main():
    say("Fetching the front-end files ...")
    need_space(ROOT, 100, "Fetching the front-end files")
    fetch()
    lay_out(ROOT / "node_modules", ROOT / "static_vendor")


if __name__ == "__main__":
    sys.exit(main())
