"""A stamp for each microscope that says whether its bookings have changed, renewed by triggers."""

import django.db.models.deletion
from django.db import migrations, models

from bookings.stamps import STAMPS


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0007_calendar_index"),
        ("microscopes", "0004_applications_and_slots"),
    ]

    operations = [
        migrations.CreateModel(
            name="CalendarStamp",
            fields=[
                (
                    "microscope",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="microscopes.microscope",
                    ),
                ),
                ("stamp", models.UUIDField()),
            ],
        ),
        migrations.RunPython(STAMPS.forwards, STAMPS.backwards),
    ]
