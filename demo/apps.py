"""The demo facility: an app without records of its own, above all others."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo"
    verbose_name = "demo"
