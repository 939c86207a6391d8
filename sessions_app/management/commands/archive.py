"""Archive sessions that ended long ago."""

import datetime

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from sessions_app import lifecycle
from sessions_app.models import Session


class Command(BaseCommand):
    help = (
        "Archive sessions that ended more than so many days ago: their summaries are frozen, their rows and most "
        "pictures go. Without --yes it only says what would be archived."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--older-than", type=int, required=True, metavar="DAYS", help="days since the end, from 1 on"
        )
        parser.add_argument("--microscope", metavar="CODE", help="only sessions of this microscope")
        parser.add_argument("--yes", action="store_true", help="do it")

    def handle(self, *args, older_than, microscope, yes, **options):
        if not 1 <= older_than <= 36500:
            raise CommandError("--older-than takes a number of days from 1 to 36500.")
        before = timezone.now() - datetime.timedelta(days=older_than)
        sessions = Session.objects.filter(
            status__in=[Session.Status.FINISHED, Session.Status.FAILED], end__lt=before
        )
        if microscope:
            sessions = sessions.filter(microscope__code=microscope)
        found = list(sessions.order_by("end", "pk"))
        done = 0
        for session in found:
            if not yes:
                self.stdout.write(f"{session.name}: {_words(lifecycle.archive_losses(session))}")
                continue
            try:
                gone = lifecycle.session_archive(session, None)
            except ValidationError as error:
                # Reopened meanwhile, say: the others are archived all the same.
                self.stderr.write(f"{session.name}: {' '.join(error.messages)}")
                continue
            done += 1
            self.stdout.write(f"{session.name}: archived; gone are {_words(gone)}")
        many = "session" if len(found) == 1 else "sessions"
        if yes:
            self.stdout.write(f"Archived {done} of {len(found)} {many}.")
        else:
            self.stdout.write(
                f"{len(found)} {many} would be archived. Nothing was done yet: say it again with --yes."
            )


def _words(losses) -> str:
    return ", ".join(f"{loss.count:,} {loss.noun}" for loss in losses if loss.count) or "no rows"
