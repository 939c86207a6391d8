import signal
import threading
import time

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections, connection

from people import outbox
from preprocessing import alerts, packed


class Command(BaseCommand):
    help = (
        "Raise and resolve the alerts of running sessions. Run it every minute, or with --every as a service."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--every", type=float, metavar="SECONDS", help="go on, with so many seconds between two looks"
        )

    def handle(self, **options):
        every = options["every"]
        if every is None:
            self.look(options["verbosity"])
            outbox.wait_until_sent()
            return
        if not 1 <= every <= 3600:
            raise CommandError("--every takes 1 to 3600 seconds.")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            began = time.monotonic()
            try:
                self.look(options["verbosity"])
            except DatabaseError as error:
                # Back up or busy in a moment; the next look does what this one did not.
                self.stderr.write(f"The database did not answer, trying again: {error}")
                connection.close()
            close_old_connections()
            stop.wait(max(0.0, every - (time.monotonic() - began)))

    def look(self, verbosity):
        tally = alerts.check()
        packed.catch_up()
        if (verbosity and (tally.raised or tally.resolved)) or verbosity > 1:
            self.stdout.write(
                f"Sessions looked at: {tally.sessions}. Alerts raised: {tally.raised}, resolved: {tally.resolved}."
            )
