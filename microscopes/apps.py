from django.apps import AppConfig


class MicroscopesConfig(AppConfig):
    name = "microscopes"
    verbose_name = "Microscopes"
