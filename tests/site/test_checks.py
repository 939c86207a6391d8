"""Django's and drf-spectacular's own checks of the whole site."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.django_db
def test_no_migration_is_missing():
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())


def test_a_production_site_has_nothing_to_warn_of(tmp_path):
    answer = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "EMHUB_ENV_FILE": "/dev/null",
            "EMHUB_DATA_DIR": str(tmp_path),
            "DATABASE_URL": "postgres://emhub@db.example.org/emhub",
            "SECRET_KEY": "5CsHcvg0mTP1sFTXWlPz8wUCiDKq0yAQ4EjLxvOeV7b2nRkH9uZt3aYd6fGi",
            "ALLOWED_HOSTS": "emhub.example.org",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.django_db
def test_the_schema_is_made_without_a_warning(tmp_path):
    call_command(
        "spectacular",
        fail_on_warn=True,
        validate=True,
        file=str(tmp_path / "schema.yml"),
        stdout=io.StringIO(),
    )
    assert "/api/v1/sessions/" in (tmp_path / "schema.yml").read_text()
