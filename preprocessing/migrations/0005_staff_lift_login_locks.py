"""Facility staff see failed logins and lift locks by deleting them.

It stands beside the migration that made the group, which needs the models of all apps.
"""

from django.db import migrations

MODEL, ACTIONS = "accessattempt", ("view", "delete")


def permissions(apps, schema_editor):
    database = schema_editor.connection.alias
    content_type, _ = (
        apps.get_model("contenttypes", "ContentType")
        .objects.using(database)
        .get_or_create(app_label="axes", model=MODEL)
    )
    Permission = apps.get_model("auth", "Permission")
    return [
        Permission.objects.using(database).get_or_create(
            content_type=content_type,
            codename=f"{action}_{MODEL}",
            defaults={"name": f"Can {action} access attempt"},
        )[0]
        for action in ACTIONS
    ]


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
        ("preprocessing", "0004_particles_counted"),
        ("axes", "0010_accessattemptexpiration"),
    ]
    operations = [migrations.RunPython(give, take_back)]
