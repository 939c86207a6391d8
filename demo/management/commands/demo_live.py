"""``manage.py demo_live --json``: what the demo's pipeline and agent are to be started with."""

from django.core.management.base import BaseCommand, CommandError

from demo import live


class Command(BaseCommand):
    help = (
        "Make sure that the demo has a running session and a pipeline token, and say where they are. "
        "Does nothing in a database that the demo did not fill."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="for programs: one line of JSON")

    def handle(self, *args, json=False, **options):
        if not live.is_demo_database():
            self.stdout.write("{}" if json else "This is not the demo's database; nothing was done.")
            return
        try:
            found = live.ensure()
        except live.NoRoom as error:
            raise CommandError(str(error)) from error
        if json:
            self.stdout.write(found.as_json())
        else:
            self.stdout.write(
                f"Session {found.session} is running. Its project: {found.project}. Its token: {found.token_file}."
            )
