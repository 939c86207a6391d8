"""``manage.py load_demo``: fill an empty database with a small facility to look at."""

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from demo import facility, live, load
from microscopes.models import Microscope
from people.models import User


class Command(BaseCommand):
    help = "Fill an empty embedded database with a made-up facility. Never touches a database that has data."

    def handle(self, *args, **options):
        if not settings.EMBEDDED:
            raise CommandError(
                "DATABASE_URL is set, and the demo only goes into the embedded database. "
                "Unset it and choose an empty EMHUB_DATA_DIR to see the demo."
            )
        if User.objects.exists() or Microscope.objects.exists():
            if live.is_demo_database():
                self.stdout.write(f"The demo is loaded.\n\n{facility.logins()}")
            else:
                self.stdout.write("The database has data of its own, so the demo was not loaded.")
            return
        counts = load.load()
        self.stdout.write(
            f"The demo is loaded: {counts.microscopes} microscopes, {counts.bookings} bookings, "
            f"{counts.sessions} sessions with {counts.micrographs} micrographs.\n\n{facility.logins()}"
        )
