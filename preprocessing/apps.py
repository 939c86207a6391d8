from django.apps import AppConfig


class PreprocessingConfig(AppConfig):
    name = "preprocessing"
    verbose_name = "Preprocessing"

    def ready(self):
        from preprocessing import archive, completion, deletion
        from sessions_app import lifecycle

        lifecycle.register(
            count=deletion.losses,
            delete=deletion.delete,
            complete=completion.complete,
            count_archived=archive.losses,
            archive=archive.archive,
        )
