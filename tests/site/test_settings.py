"""How the site comes up with what a facility says: each case in a Python of its own, as a server starts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "k" * 60
POSTGRES = "postgres://emhub:pass%20word@db.example.org:5433/emhub"
SHOW = """
import json, sys
import django
from django.conf import settings
django.setup()
print(json.dumps({name: getattr(settings, name, None) for name in sys.argv[1:]}, default=str))
"""


@pytest.fixture
def start(tmp_path):
    """Start with these variables and nothing of the tester's own; returns the process's answer."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}

    def run(*names, **variables):
        return subprocess.run(
            [sys.executable, "-c", SHOW, *names],
            cwd=ROOT,
            env={
                **kept,
                "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
                "EMHUB_ENV_FILE": "/dev/null",
                "EMHUB_DATA_DIR": str(tmp_path / "data"),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def show(start):
    """The settings that these variables make, by name."""

    def run(*names, **variables):
        answer = start(*names, **variables)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    return run


def test_the_safe_defaults(show, tmp_path):
    got = show(
        "DEBUG",
        "ALLOWED_HOSTS",
        "TIME_ZONE",
        "EMBEDDED",
        "DATABASES",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
        "SECURE_SSL_REDIRECT",
        "SECURE_PROXY_SSL_HEADER",
        "SECRET_KEY",
    )
    assert got["DEBUG"] is False
    assert got["ALLOWED_HOSTS"] == ["127.0.0.1", "localhost", "[::1]"]
    assert got["TIME_ZONE"] == "UTC"
    assert got["EMBEDDED"] is True
    database = got["DATABASES"]["default"]
    assert database["NAME"] == str(tmp_path / "data/emhub.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database["OPTIONS"]["timeout"] >= 5
    assert re.search(r"journal_mode\s*=\s*WAL", database["OPTIONS"]["init_command"])
    assert re.search(r"synchronous\s*=\s*FULL", database["OPTIONS"]["init_command"])
    # Opened as plain http://127.0.0.1, where secure cookies would let nobody log in.
    assert got["SESSION_COOKIE_SECURE"] is got["CSRF_COOKIE_SECURE"] is got["SECURE_SSL_REDIRECT"] is False
    # Nobody's X-Forwarded-Proto is believed unless a proxy is there.
    assert got["SECURE_PROXY_SSL_HEADER"] is None
    assert len(got["SECRET_KEY"]) >= 50


def test_the_made_key_is_the_same_at_the_next_start(show):
    assert show("SECRET_KEY") == show("SECRET_KEY")


def test_production_is_safe_without_saying_more(show):
    got = show(
        "EMBEDDED",
        "DATABASES",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
        "SECURE_SSL_REDIRECT",
        "SECURE_HSTS_SECONDS",
        DATABASE_URL=POSTGRES,
        SECRET_KEY=KEY,
        ALLOWED_HOSTS="emhub.example.org",
    )
    database = got["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["USER"], database["PASSWORD"]) == ("emhub", "pass word")
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example.org", 5433, "emhub")
    assert got["EMBEDDED"] is False
    assert got["SESSION_COOKIE_SECURE"] is got["CSRF_COOKIE_SECURE"] is got["SECURE_SSL_REDIRECT"] is True
    assert got["SECURE_HSTS_SECONDS"] > 0


def test_production_wants_its_key(start):
    answer = start(DATABASE_URL=POSTGRES)
    assert answer.returncode != 0
    assert "Set SECRET_KEY" in answer.stderr.splitlines()[-1]


def test_what_a_facility_decides(show):
    got = show(
        "FACILITY_NAME",
        "LOGO_TEXT",
        "TIME_ZONE",
        "SESSION_NAME_PATTERN",
        "RETENTION_DAYS",
        "ALLOWED_HOSTS",
        "CSRF_TRUSTED_ORIGINS",
        "EMAIL_HOST",
        "EMAIL_USE_TLS",
        "DEFAULT_FROM_EMAIL",
        "IMAGE_MAX_PIXELS",
        FACILITY_NAME="Northern cryo-EM",
        LOGO_TEXT="NCEM",
        TIME_ZONE="Europe/Stockholm",
        SESSION_NAME_PATTERN="{microscope}_{n:04d}",
        RETENTION_DAYS="30",
        ALLOWED_HOSTS="emhub.example.org,10.0.0.7",
        CSRF_TRUSTED_ORIGINS="https://emhub.example.org",
        EMAIL_URL="smtp+tls://hub:secret@mail.example.org:587",
        DEFAULT_FROM_EMAIL="hub@example.org",
        IMAGE_MAX_MEGAPIXELS="25",
    )
    assert got == {
        "FACILITY_NAME": "Northern cryo-EM",
        "LOGO_TEXT": "NCEM",
        "TIME_ZONE": "Europe/Stockholm",
        "SESSION_NAME_PATTERN": "{microscope}_{n:04d}",
        "RETENTION_DAYS": 30,
        "ALLOWED_HOSTS": ["emhub.example.org", "10.0.0.7"],
        "CSRF_TRUSTED_ORIGINS": ["https://emhub.example.org"],
        "EMAIL_HOST": "mail.example.org",
        "EMAIL_USE_TLS": True,
        "DEFAULT_FROM_EMAIL": "hub@example.org",
        "IMAGE_MAX_PIXELS": 25_000_000,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "flase"),
        ("HTTPS", "ja"),
        ("SECURE_SSL_REDIRECT", "2"),
        ("RETENTION_DAYS", "sixty"),
        ("RETENTION_DAYS", "0"),
        ("API_MAX_BODY_MB", "32MB"),
        ("LOGIN_FAILURES", "0"),
        ("LOGIN_LOCK_MINUTES", "for ever"),
        ("API_RATE_PER_TOKEN", "plenty"),
        ("API_RATE_PER_ADDRESS", "-1"),
        ("IMAGE_MAX_MB", "-1"),
        ("EMAIL_TIMEOUT", "soon"),
        ("TIME_ZONE", "Europe/Stokholm"),
        ("SESSION_NAME_PATTERN", "{microscoop}-{n}"),
        ("LOG_LEVEL", "chatty"),
        ("DATABASE_URL", "postgres://db.example.org:fivethousand/emhub"),
        ("DATABASE_URL", "emhub"),
        ("DATABASE_URL", "mysql://db.example.org/emhub"),
        ("EMAIL_URL", "mail.example.org"),
        ("EMHUB_DATA_DIR", "/dev/null/emhub"),
    ],
)
def test_a_misspelt_value_stops_the_start_with_its_name(start, name, value):
    answer = start(SECRET_KEY=KEY, **{name: value})
    assert answer.returncode != 0
    last = answer.stderr.strip().splitlines()[-1]
    assert "ImproperlyConfigured" in last
    assert name in last


def test_the_example_names_every_variable_and_nothing_else():
    """Whatever settings and server read from the environment stands in .env.example, and the other way round."""
    code = "".join(
        (ROOT / "emhub_site" / name).read_text() for name in ("env.py", "settings.py", "gunicorn.py")
    )
    read = set(re.findall(r"""(?:env\.\w+|text)\(\s*["']([A-Z][A-Z_]+)["']""", code))
    told = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert read == told


def test_the_examples_values_are_the_defaults(show, tmp_path):
    """A copy of .env.example with every remark sign taken from a line that has a value changes nothing."""
    text = (ROOT / ".env.example").read_text()
    aside = "EMHUB_DATA_DIR|DATABASE_URL|EMAIL_URL|HTTPS|SECURE_\\w+|BEHIND_PROXY"
    (tmp_path / "env").write_text(
        re.sub(rf"^#(?!(?:{aside})=)([A-Z][A-Z_]+=)", r"\1", text, flags=re.MULTILINE)
    )
    names = [
        "DEBUG", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "FACILITY_NAME", "LOGO_TEXT", "TIME_ZONE",
        "SESSION_NAME_PATTERN", "RETENTION_DAYS", "API_MAX_BODY_MB",
        "AXES_FAILURE_LIMIT", "AXES_COOLOFF_TIME",
        "API_RATE_PER_TOKEN", "API_RATE_PER_ADDRESS", "IMAGE_MAX_MB", "IMAGE_MAX_PIXELS",
        "EMAIL_TIMEOUT", "DEFAULT_FROM_EMAIL", "LOGGING", "STATIC_ROOT",
    ]  # fmt: skip
    assert show(*names, EMHUB_ENV_FILE=str(tmp_path / "env")) == show(*names)
