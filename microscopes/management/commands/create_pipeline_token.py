"""Print a new pipeline token, alone on standard output, once."""

import datetime

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from microscopes.models import Microscope
from microscopes.tokens import pipeline_token_create

MAX_DAYS = 36500


class Command(BaseCommand):
    help = (
        "Make a token for a pipeline and print it, alone on standard output. It is stored hashed and cannot be "
        "shown again."
    )

    def add_arguments(self, parser):
        parser.add_argument("name", help="what the token is called, for instance relion-krios1")
        parser.add_argument(
            "--microscope",
            action="append",
            nargs="+",
            default=[],
            metavar="CODE",
            help="may post for this microscope; several may be given (none: every microscope)",
        )
        parser.add_argument(
            "--days", type=int, metavar="N", help="how long it is valid (left out: until revoked)"
        )

    def handle(self, *, name, microscope, days, **options):
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise CommandError(f"--days {days}: give a number from 1 to {MAX_DAYS}.")
        microscopes = self._microscopes([code for codes in microscope for code in codes])
        expires_at = timezone.now() + datetime.timedelta(days=days) if days is not None else None
        try:
            token, key = pipeline_token_create(
                name=name,
                microscopes=microscopes,
                all_microscopes=not microscopes,
                expires_at=expires_at,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        scope = ", ".join(found.code for found in microscopes) or "every microscope"
        until = (
            f"until {timezone.localtime(expires_at):%Y-%m-%d %H:%M}" if expires_at else "until it is revoked"
        )
        self.stderr.write(f'Token "{token.name}" for {scope}, valid {until}. It is not shown again.')
        self.stdout.write(key)

    @staticmethod
    def _microscopes(codes: list[str]) -> list[Microscope]:
        by_code = {found.code.lower(): found for found in Microscope.objects.all()}
        unknown = [code for code in codes if code.lower() not in by_code]
        if unknown:
            known = ", ".join(sorted(found.code for found in by_code.values())) or "none yet"
            raise CommandError(f"There is no microscope {', '.join(unknown)}. Known codes: {known}.")
        return list({code.lower(): by_code[code.lower()] for code in codes}.values())
