"""Filling an empty database with the demo, in one go or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from bookings.models import Booking
from demo import facility, history, live
from microscopes.models import Microscope
from people.models import OutgoingMail
from preprocessing.models import Micrograph
from sessions_app import images
from sessions_app.models import Session


@dataclass(frozen=True)
class Counts:
    microscopes: int
    bookings: int
    sessions: int
    micrographs: int


def load() -> Counts:
    """Make the facility, its bookings, its past and its running session. Nothing is left when any of it fails."""
    made = []
    try:
        with transaction.atomic():
            built = facility.build()
            for number, past in enumerate(history.PASTS):
                session = history.begin(built, past, number)
                made.append(session.pk)
                history.tell(built, session, past, number)
            facility.book_around_now(built, timezone.now())
            live.ensure()
            # Nobody of these people is there to read what booking in their names has written.
            OutgoingMail.objects.all().delete()
            counts = Counts(
                microscopes=Microscope.objects.count(),
                bookings=Booking.objects.count(),
                sessions=Session.objects.count(),
                micrographs=Micrograph.objects.count(),
            )
    except BaseException:
        # Pictures are files: the transaction took only their rows back.
        for pk in made:
            shutil.rmtree(images.sessions_dir() / str(pk), ignore_errors=True)
        raise
    return counts
