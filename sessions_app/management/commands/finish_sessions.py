"""Finish sessions that nobody finished: their booking ended and no movie came for hours."""

import datetime

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand
from django.utils import timezone

from sessions_app.lifecycle import session_finish
from sessions_app.models import Session


class Command(BaseCommand):
    help = (
        "Finish running sessions whose booking ended and whose last movie came more than FINISH_AFTER_HOURS ago "
        "(0: none). They end at their last movie, or with the booking where none came. Run it every hour."
    )

    def handle(self, *args, **options):
        hours = settings.FINISH_AFTER_HOURS
        done = 0
        if hours:
            before = timezone.now() - datetime.timedelta(hours=hours)
            for session in Session.objects.forgotten(before).select_related("booking", "summary"):
                signs = (session.last_file_at, session.summary.last_exposure_at)
                last = max((moment for moment in signs if moment is not None), default=session.booking.end)
                try:
                    session_finish(session, None, end=max(last, session.start))
                except ValidationError as error:
                    self.stderr.write(f"{session.name}: {' '.join(error.messages)}")
                    continue
                done += 1
                if options["verbosity"] > 1:
                    self.stdout.write(f"{session.name}: finished")
        if done or options["verbosity"] > 1:
            self.stdout.write(f"Finished {done} session{'' if done == 1 else 's'}.")
