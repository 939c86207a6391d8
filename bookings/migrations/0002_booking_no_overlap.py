"""The rule that bookings of one microscope do not overlap, kept by PostgreSQL and SQLite themselves."""

from django.db import migrations

from bookings.overlap import OVERLAP


class Migration(migrations.Migration):
    dependencies = [("bookings", "0001_initial")]

    operations = [migrations.RunPython(OVERLAP.forwards, OVERLAP.backwards)]
