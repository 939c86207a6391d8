"""Complete the summaries of sessions that are over: see preprocessing/completion.py."""

from django.core.management.base import BaseCommand

from preprocessing.completion import complete, stale


class Command(BaseCommand):
    help = (
        "Complete the summary of every session that is over and got results since it was last completed. "
        "Statistics are made of these. Run it every ten minutes from a timer or cron."
    )

    def handle(self, *args, **options):
        sessions = list(stale().values_list("pk", "name"))
        for pk, name in sessions:
            if complete(pk) and options["verbosity"] > 1:
                self.stdout.write(f"{name}: completed")
        if sessions or options["verbosity"] > 1:
            many = "summary" if len(sessions) == 1 else "summaries"
            self.stdout.write(f"Completed {len(sessions)} {many}.")
