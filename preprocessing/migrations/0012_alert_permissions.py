"""Facility staff set limits and read alerts."""

from django.db import migrations

GIVEN = {
    "microscopelimits": ("add", "change", "delete", "view"),
    "sessionlimits": ("add", "change", "delete", "view"),
    "alert": ("view",),
}


def permissions(apps, schema_editor):
    database = schema_editor.connection.alias
    types = apps.get_model("contenttypes", "ContentType").objects.using(database)
    known = apps.get_model("auth", "Permission").objects.using(database)
    for model, actions in GIVEN.items():
        words = apps.get_model("preprocessing", model)._meta.verbose_name
        content_type, _ = types.get_or_create(app_label="preprocessing", model=model)
        for action in actions:
            yield known.get_or_create(
                content_type=content_type,
                codename=f"{action}_{model}",
                defaults={"name": f"Can {action} {words}"},
            )[0]


def groups(apps, schema_editor):
    Group = apps.get_model("auth", "Group")
    return Group.objects.using(schema_editor.connection.alias).filter(name="Facility staff")


def give(apps, schema_editor):
    for group in groups(apps, schema_editor):
        group.permissions.add(*permissions(apps, schema_editor))


def take_back(apps, schema_editor):
    for group in groups(apps, schema_editor):
        group.permissions.remove(*permissions(apps, schema_editor))


class Migration(migrations.Migration):
    dependencies = [
        ("preprocessing", "0011_alerts"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(give, take_back)]
