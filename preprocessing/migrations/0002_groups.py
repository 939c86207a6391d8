"""The groups Facility staff and Pipeline with what they may do.

It stands in the topmost app because its permissions are about the models of all of them.
"""

from django.db import migrations

ALL = ("add", "change", "delete", "view")
# People are deactivated and audit entries stay: nobody may delete either.
STAFF = {
    "people.user": ("add", "change", "view"),
    "people.lab": ("add", "change", "view"),
    "people.membership": ALL,
    "people.auditentry": ("view",),
    "microscopes.dataserver": ALL,
    "microscopes.microscope": ALL,
    "microscopes.camera": ALL,
    "microscopes.pipelinetoken": ALL,
    "bookings.application": ALL,
    "bookings.booking": ALL,
    "sessions_app.sample": ALL,
    "sessions_app.session": ALL,
    "sessions_app.sessionname": ("view",),
    "sessions_app.sessionsummary": ("view",),
    "preprocessing.exposure": ("change", "view"),
    "preprocessing.processingrun": ("change", "delete", "view"),
    "preprocessing.micrograph": ("view",),
    "preprocessing.classaverage": ("view",),
    "preprocessing.runevent": ("view",),
}
PIPELINE = {
    "microscopes.microscope": ("view",),
    "sessions_app.session": ("change", "view"),
    "preprocessing.exposure": ("add", "change", "view"),
    "preprocessing.processingrun": ("add", "change", "view"),
    "preprocessing.micrograph": ("add", "change", "view"),
    "preprocessing.classaverage": ("add", "change", "view"),
    "preprocessing.runevent": ("add", "view"),
}
GROUPS = {"Facility staff": STAFF, "Pipeline": PIPELINE}


def create_groups(apps, schema_editor):
    database = schema_editor.connection.alias
    ContentType = apps.get_model("contenttypes", "ContentType")
    Group = apps.get_model("auth", "Group")
    Permission = apps.get_model("auth", "Permission")
    for name, models in GROUPS.items():
        group, _ = Group.objects.using(database).get_or_create(name=name)
        for model, actions in models.items():
            label, model_name = model.split(".")
            verbose_name = apps.get_model(label, model_name)._meta.verbose_name
            content_type, _ = ContentType.objects.using(database).get_or_create(
                app_label=label, model=model_name
            )
            for action in actions:
                # Django makes permissions only after the last migration; these are needed now.
                permission, _ = Permission.objects.using(database).get_or_create(
                    content_type=content_type,
                    codename=f"{action}_{model_name}",
                    defaults={"name": f"Can {action} {verbose_name}"},
                )
                group.permissions.add(permission)


def remove_groups(apps, schema_editor):
    apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias).filter(
        name__in=GROUPS
    ).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("preprocessing", "0001_initial"),
        ("sessions_app", "0002_session_name_ledger"),
        ("bookings", "0002_booking_no_overlap"),
        ("microscopes", "0001_initial"),
        ("people", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(create_groups, remove_groups)]
