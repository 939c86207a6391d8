from django.core.management.base import BaseCommand

from bookings import mail


class Command(BaseCommand):
    help = "Mail the reminders of bookings that begin within a day, each once. Run it every hour."

    def handle(self, **options):
        count = mail.send_reminders()
        if options["verbosity"]:
            self.stdout.write(f"Reminded of {count} booking{'' if count == 1 else 's'}.")
