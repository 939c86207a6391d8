"""What has to be done before the site can be served: the database's tables, the static files, the demo."""

import contextlib
import hashlib
import io
import os
import sqlite3
from datetime import UTC, datetime

from words import need_space, say, stop


def check_database(connection):
    """Stop with a sentence unless the database answers."""
    from django.db.utils import OperationalError

    try:
        connection.ensure_connection()
    except OperationalError as error:
        reason = " ".join(str(error).split()) or "no reason given"
        stop(
            f"The database does not answer ({reason}). Check DATABASE_URL, or the data folder EMHUB_DATA_DIR."
        )


def back_up(path, folder):
    """Copy a SQLite database, safely while others write to it; return the copy's path."""
    folder.mkdir(exist_ok=True)
    need_space(folder, path.stat().st_size // 1_000_000 + 50, "A copy of the database before its update")
    copy = folder / f"{path.stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}.sqlite3"
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    copy.chmod(0o600)
    return copy


def migrate(connection, settings):
    """Bring the tables up to date, never those of a facility's own server behind its back."""
    from django.core.management import call_command
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    executor.loader.check_consistent_history(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not pending:
        return
    fresh = not connection.introspection.table_names()
    if not fresh and not settings.EMBEDDED:
        stop(
            f"The database is {len(pending)} migration{'s' * (len(pending) > 1)} behind this version of EMhub. "
            "Back it up, then run `make migrate` and start again."
        )
    if not fresh:
        copy = back_up(settings.DATABASES["default"]["NAME"], settings.DATA_DIR / "backups")
        say(f"The database is brought up to date; a copy from before is {copy}.")
    call_command("migrate", interactive=False, verbosity=0)


def collect_static(settings):
    """Collect and hash the static files, when any has changed since the last time."""
    from django.contrib.staticfiles.finders import get_finders
    from django.core.management import call_command

    seen = hashlib.sha256(settings.STORAGES["staticfiles"]["BACKEND"].encode())
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = os.stat(storage.path(name))
            seen.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    stamp = settings.STATIC_ROOT / ".collected"
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    if manifest.exists() and stamp.exists() and stamp.read_text() == seen.hexdigest():
        return
    say("Collecting the static files ...")
    # Old hashed files stay: pages that are open now still ask for them.
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(seen.hexdigest())


def load_demo():
    """Load the demo into an empty database; return what it says of itself, its logins above all."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    if not get_user_model().objects.exists():
        say("Loading the demo facility ...")
    words = io.StringIO()
    call_command("load_demo", stdout=words)
    return words.getvalue().strip()
