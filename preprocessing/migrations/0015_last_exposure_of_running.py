"""Sessions that run while the site is updated know when their last movie came."""

from django.db import migrations
from django.db.models import Max, OuterRef, Subquery


def fill(apps, schema_editor):
    database = schema_editor.connection.alias
    newest = (
        apps.get_model("preprocessing", "Exposure")
        .objects.filter(session=OuterRef("session"))
        .order_by()
        .values("session")
        .annotate(newest=Max("created_at"))
        .values("newest")
    )
    apps.get_model("sessions_app", "SessionSummary").objects.using(database).filter(
        session__status__in=["pending", "active"], last_exposure_at=None
    ).update(last_exposure_at=Subquery(newest))


class Migration(migrations.Migration):
    dependencies = [
        ("preprocessing", "0014_class_selected"),
        ("sessions_app", "0006_when_last_heard"),
    ]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
