"""Session names are never reused and never changed, kept by the database itself."""

from django.db import migrations

from sessions_app.naming import NAME_LEDGER


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0001_initial")]

    operations = [migrations.RunPython(NAME_LEDGER.forwards, NAME_LEDGER.backwards)]
