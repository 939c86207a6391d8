from django.core.management.base import BaseCommand

from people import outbox


class Command(BaseCommand):
    help = "Send the mails that wait, those that failed before included. Run it every few minutes."

    def handle(self, **options):
        sent, failed = outbox.send_due()
        outbox.forget_old()
        if options["verbosity"] and (sent or failed):
            self.stdout.write(f"Mails sent: {sent}. Put off because sending failed: {failed}.")
