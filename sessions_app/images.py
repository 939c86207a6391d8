"""Where a session's images are kept, and how they go: renamed away first, emptied later."""

import shutil
import uuid
from pathlib import Path

from django.conf import settings


def sessions_dir() -> Path:
    return Path(settings.MEDIA_ROOT) / "sessions"


def trash_dir() -> Path:
    """On the same file system as the images, so that a rename is enough to move a folder of any size."""
    return Path(settings.MEDIA_ROOT) / "trash"


def session_image_dir(session) -> Path:
    """The folder of the session's images; it exists once something was written into it.

    Named by the id and not by the name: ids are never reused either, and a path never comes from input.
    """
    return sessions_dir() / str(session.pk)


def trash_images(session_pk: int) -> Path | None:
    """Rename the session's image folder away; answers where it went, or None where there was none."""
    source = sessions_dir() / str(session_pk)
    target = trash_dir() / f"session-{session_pk}-{uuid.uuid4().hex[:12]}"
    trash_dir().mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except FileNotFoundError:
        return None
    return target


def trash_orphans() -> int:
    """Rename away folders whose session is gone: the process died between commit and rename, or an upload was late."""
    from sessions_app.models import Session

    if not sessions_dir().is_dir():
        return 0
    on_disk = {int(path.name) for path in sessions_dir().iterdir() if path.name.isdecimal()}
    # Read after the folders were listed: a session made in between is in the database, so its folder is safe.
    known = set()
    ids = sorted(on_disk)
    for first in range(0, len(ids), 500):
        known.update(Session.objects.filter(pk__in=ids[first : first + 500]).values_list("pk", flat=True))
    orphans = on_disk - known
    for pk in orphans:
        trash_images(pk)
    return len(orphans)


def empty_trash() -> int:
    """Remove what was renamed away; answers how many folders. One that cannot be removed raises OSError."""
    if not trash_dir().is_dir():
        return 0
    count = 0
    for path in trash_dir().iterdir():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue  # Another run of the command was quicker.
        count += 1
    return count
