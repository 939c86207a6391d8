from django.apps import AppConfig


class PreprocessingConfig(AppConfig):
    name = "preprocessing"
    verbose_name = "Preprocessing"
