"""Prove, and repair, the counters and histograms that ingestion keeps."""

from django.core.management.base import BaseCommand, CommandError

from preprocessing.recount import recount
from sessions_app.models import Session


class Command(BaseCommand):
    help = "Compare counters, histograms and summaries with the rows. Ends with 1 if anything differs unrepaired."

    def add_arguments(self, parser):
        parser.add_argument("--session", metavar="NAME", help="Only this session; by default all.")
        parser.add_argument("--repair", action="store_true", help="Write what the rows say.")

    def handle(self, *, session, repair, **options):
        sessions = Session.objects.order_by("pk")
        if session:
            sessions = sessions.named(session)
            if not sessions.exists():
                raise CommandError(f"There is no session named {session}.")
        checked = differing = 0
        for pk in sessions.values_list("pk", flat=True).iterator():
            checked += 1
            for difference in recount(pk, repair=repair):
                differing += 1
                self.stdout.write(str(difference))
        word = "repaired" if repair else "found"
        self.stdout.write(f"{checked} sessions checked, {differing} differences {word}.")
        if differing and not repair:
            raise CommandError("Counters differ from the rows. Run again with --repair.", returncode=1)
