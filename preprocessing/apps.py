from django.apps import AppConfig


class PreprocessingConfig(AppConfig):
    name = "preprocessing"
    verbose_name = "Preprocessing"

    def ready(self):
        from django.db.backends.signals import connection_created
        from django.db.models.signals import pre_migrate

        from preprocessing import archive, completion, deletion, row_arrays, single
        from sessions_app import lifecycle

        connection_created.connect(row_arrays.prepare, dispatch_uid="preprocessing.row_arrays")
        pre_migrate.connect(single.forget_views, sender=self, dispatch_uid="preprocessing.single")
        lifecycle.register(
            count=deletion.losses,
            delete=deletion.delete,
            complete=completion.complete,
            count_archived=archive.losses,
            archive=archive.archive,
        )
