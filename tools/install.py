"""Install into the virtual environment, and say in a sentence why when that fails.

.venv/bin/python tools/install.py WHAT PIP-ARGUMENT...
"""

import sys

from words import ROOT, need_space, run, say


def main(what, *arguments):
    say(f"Installing {what} ...")
    need_space(ROOT, 400, f"Installing {what}")
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-warn-script-location",
            *arguments,
        ],
        what=f"Installing {what}",
        source="the Python package registry",
        cwd=ROOT,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
