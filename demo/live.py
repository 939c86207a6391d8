"""The demo's live session: a booking that covers now, a session that runs in it, and what its pipeline needs.

Only what a facility would do through the site is done here; the session's results come from the agent, by the API.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from bookings.models import Booking
from bookings.services import booking_create
from demo import DEMO_LOADED, project
from demo.values import Instrument
from microscopes.models import Microscope, PipelineToken
from microscopes.tokens import pipeline_token_create, pipeline_token_revoke
from people.models import AuditEntry, User
from sessions_app.lifecycle import session_finish
from sessions_app.models import Session
from sessions_app.services import session_create

TOKEN_NAME = "demo pipeline"  # noqa: S105 - a name, no secret
BOOKING_LENGTH = datetime.timedelta(hours=24)
SHORTEST = datetime.timedelta(minutes=10)  # a booking shorter than this is not worth making


@dataclass(frozen=True)
class Live:
    """What the pipeline and the agent are started with."""

    session: str
    project: Path
    token_file: Path

    def as_json(self) -> str:
        return json.dumps(
            {"session": self.session, "project": str(self.project), "token_file": str(self.token_file)}
        )


class NoRoom(Exception):
    """No booking can take the live session now; the message says why."""


def is_demo_database() -> bool:
    """Whether this is the embedded database and the demo filled it."""
    return settings.EMBEDDED and AuditEntry.objects.filter(action=DEMO_LOADED).exists()


def demo_dir() -> Path:
    return Path(settings.DATA_DIR) / "demo"


def projects_dir() -> Path:
    return demo_dir() / "projects"


def ensure() -> Live:
    """Make sure that a session is running, and that its pipeline can post.

    A session whose booking is over, or whose project has grown to its limit, is finished and followed by a new
    one. Raises NoRoom if no booking can take it.
    """
    microscope = Microscope.objects.in_service().first()
    if microscope is None:
        raise NoRoom("There is no microscope in service.")
    actor = _administrator()
    session = _current(microscope)
    if session is not None and (not session.booking.is_running or _is_complete(session)):
        session_finish(session, actor, end=_end_of(session))
        session = None
    if session is None:
        session = _begin(_booking(microscope, actor), actor)
    folder = projects_dir() / session.name
    folder.mkdir(parents=True, exist_ok=True)
    token_file = _token_file(microscope, actor)
    _remove_old_projects(keep=folder)
    return Live(session.name, folder, token_file)


def _administrator() -> User:
    """Somebody of the staff to act for the demo: its admin, or whoever else is left."""
    staff = User.objects.people().active().filter(is_staff=True, is_superuser=True).order_by("pk").first()
    if staff is None:
        raise NoRoom("The demo has no active administrator left.")
    return staff


def _current(microscope: Microscope) -> Session | None:
    """The running session that has a demo project, newest first."""
    running = (
        microscope.sessions.running()
        .select_related("booking", "microscope", "summary")
        .order_by("-start", "-id")
    )
    return next((session for session in running if (projects_dir() / session.name).is_dir()), None)


def _is_complete(session: Session) -> bool:
    """Whether the project's pipeline has reached its limit: nothing would move on the live page any more."""
    return (projects_dir() / session.name / "AutoPick/job004/RELION_JOB_EXIT_SUCCESS").exists()


def _end_of(session: Session) -> datetime.datetime:
    """When the session really ended: with the last its pipeline was heard of."""
    return max(session.start, session.summary.last_seen_at or session.start)


def _booking(microscope: Microscope, actor: User) -> Booking:
    """The booking that runs on the microscope now; made if there is none."""
    now = timezone.now()
    running = microscope.bookings.blocking().covering(now).first()
    if running is not None:
        if not running.takes_sessions:
            raise NoRoom(f"{microscope} is not used for images now ({running.get_kind_display()}).")
        return running
    # People book from the quarter of an hour; never back into someone else's time.
    start = now - datetime.timedelta(
        minutes=now.minute % 15, seconds=now.second, microseconds=now.microsecond
    )
    end = start + BOOKING_LENGTH
    last = microscope.bookings.blocking().filter(end__gt=start, end__lte=now).order_by("-end").first()
    if last is not None:
        start = last.end
    following = microscope.bookings.blocking().filter(start__gt=now).order_by("start").first()
    if following is not None:
        end = min(end, following.start)
    if end - now < SHORTEST:
        raise NoRoom(f"{microscope} is booked from {timezone.localtime(end):%H:%M} on; try again then.")
    previous = (
        microscope.bookings.standing()
        .filter(kind=Booking.Kind.BOOKING, start__lt=now, lab__isnull=False)
        .order_by("-start")
        .first()
    )
    return booking_create(
        actor=actor,
        microscope=microscope,
        start=start,
        end=end,
        owner=previous.owner if previous and previous.owner.is_active else actor,
        lab=previous.lab if previous else None,
        title="Data collection",
        now=min(start, now),
    )


def _begin(booking: Booking, actor: User) -> Session:
    """A new running session with the parameters that the simulated pipeline assumes."""
    instrument = Instrument()
    samples = booking.lab.samples.order_by("pk") if booking.lab else []
    session = session_create(
        booking=booking,
        creator=booking.owner if booking.owner.is_active else actor,
        sample=next(iter(samples), None),
        notes="A made-up session: a program writes its RELION project and the agent posts it.",
        voltage_kv=instrument.voltage,
        cs_mm=instrument.cs,
        magnification=130_000,
        pixel_size=instrument.pixel_size,
        dose_per_frame=instrument.dose_per_frame,
        total_dose=instrument.dose_per_frame * instrument.frames,
        frames=instrument.frames,
        exposure_time=4.2,
        energy_slit=10,
        spot_size=6,
    )
    # The database may be younger than the folder and give a name again that an older one gave.
    folder = projects_dir() / session.name
    if folder.is_dir():
        _remove_project(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return session


def _token_file(microscope: Microscope, actor: User) -> Path:
    """A file only we can read, holding the plain key of a token that is good for the microscope."""
    path = demo_dir() / "token"
    with contextlib.suppress(FileNotFoundError):
        key = path.read_text().strip()
        tokens = PipelineToken.objects.filter(name=TOKEN_NAME, microscopes=microscope)
        if any(not t.revoked and not t.has_expired and t.is_valid(key) for t in tokens):
            path.chmod(0o600)
            return path
    key = _new_key(microscope, actor)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    # Opened with its final mode: at no moment can another user of the machine read the key.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(key + "\n")
    temporary.replace(path)
    return path


def _new_key(microscope: Microscope, actor: User) -> str:
    """A new token's plain key; tokens of the demo whose key is lost are revoked."""
    for token in PipelineToken.objects.filter(name=TOKEN_NAME, revoked=False):
        pipeline_token_revoke(token=token, actor=actor)
    return pipeline_token_create(name=TOKEN_NAME, microscopes=[microscope], actor=actor)[1]


def _remove_old_projects(*, keep: Path) -> None:
    """Remove the projects of sessions that run no more."""
    names = [path.name for path in projects_dir().iterdir()]
    running = set(Session.objects.running().filter(name__in=names).values_list("name", flat=True))
    for name in names:
        if name not in running and name != keep.name:
            _remove_project(projects_dir() / name)


def _remove_project(folder: Path) -> None:
    """Remove a project unless a pipeline is writing it; nothing that the demo's pipeline did not make."""
    if folder.is_symlink() or not (folder / project.MARKER).is_file():
        with contextlib.suppress(OSError):
            folder.rmdir()  # an empty folder whose pipeline never started; anything else stays
        return
    with (folder / project.LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder)
