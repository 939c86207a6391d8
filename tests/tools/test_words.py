"""What is missing is said in a sentence that tells what to do."""

import sys

import pytest
import words


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("npm error code ENOSPC", "disk is full"),
        (
            "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
            "the registry",
        ),
        ("ERROR: Could not find a version that satisfies x==1 (from versions: none)", "the registry"),
        ("npm error code ENOTFOUND", "the registry"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "may not write"),
        ("ERROR: Could not find a version that satisfies x==9 (from versions: 1, 2)", "make clean"),
        ("something nobody has seen before", "What it said last is above"),
    ],
)
def test_a_reason_is_read_from_what_pip_and_npm_say(output, told):
    assert told in words.reason(output, "Installing the site", "the registry")


def test_a_full_disk_is_seen_before_it_is_filled(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        words.need_space(tmp_path, 10**9, "Installing the site")
    assert stopped.value.code == 1
    assert f"Installing the site needs about {10**9} MB" in capsys.readouterr().err
    words.need_space(tmp_path, 0, "Installing the site")


def test_a_failing_command_shows_its_last_words_and_the_reason(capsys):
    command = [sys.executable, "-c", "print('early'); print('No space left on device'); raise SystemExit(3)"]
    with pytest.raises(SystemExit):
        words.run(command, what="Fetching", source="the registry")
    said = capsys.readouterr().err
    assert said.index("No space left") < said.index("EMhub: Fetching stopped because the disk is full")


def test_a_command_that_works_is_quiet(capsys):
    words.run([sys.executable, "-c", "print('much')"], what="Fetching", source="the registry")
    assert capsys.readouterr() == ("", "")
