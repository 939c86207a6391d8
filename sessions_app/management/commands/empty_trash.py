from django.core.management.base import BaseCommand

from sessions_app import images


class Command(BaseCommand):
    help = "Remove the images of deleted sessions from the disk. Run it every night, say."

    def handle(self, **options):
        images.trash_orphans()
        count = images.empty_trash()
        if options["verbosity"]:
            self.stdout.write(f"Removed the images of {count} deleted session{'' if count == 1 else 's'}.")
