"""PostgreSQL keeps packed rows as they are: trying to compress floating-point numbers costs half of their writing."""

from django.db import migrations

from people.database import VendorSQL

_COLUMN = "ALTER TABLE preprocessing_packedcolumns ALTER COLUMN data SET STORAGE {}"
STORAGE = VendorSQL(
    install={"postgresql": [_COLUMN.format("EXTERNAL")]},
    remove={"postgresql": [_COLUMN.format("EXTENDED")]},
)


class Migration(migrations.Migration):
    dependencies = [("preprocessing", "0015_last_exposure_of_running")]
    operations = [migrations.RunPython(STORAGE.forwards, STORAGE.backwards)]
