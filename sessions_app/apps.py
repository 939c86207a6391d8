from django.apps import AppConfig
from django.db.models.signals import post_migrate


class SessionsAppConfig(AppConfig):
    name = "sessions_app"
    verbose_name = "Sessions"

    def ready(self):
        from sessions_app.naming import NAME_LEDGER

        post_migrate.connect(NAME_LEDGER.ensure, sender=self, dispatch_uid="sessions_app.names")
