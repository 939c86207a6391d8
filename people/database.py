"""SQL that the schema editor does not know, per database vendor, kept alive through later migrations.

SQLite rebuilds a table when a column changes, and the rebuild drops its triggers. Whoever installs a trigger
through `VendorSQL` therefore also connects `VendorSQL.ensure` to `post_migrate`.
"""

from dataclasses import dataclass

from django.db import connections


@dataclass(frozen=True)
class VendorSQL:
    """Statements by vendor ("sqlite", "postgresql"); those in `install` must be safe to run again."""

    install: dict[str, list[str]]
    remove: dict[str, list[str]]

    def forwards(self, apps, schema_editor):
        """For migrations.RunPython."""
        self._run(schema_editor.connection, self.install)

    def backwards(self, apps, schema_editor):
        self._run(schema_editor.connection, self.remove)

    def ensure(self, using="default", **kwargs):
        """For post_migrate: SQLite only, as PostgreSQL never drops what a migration installed."""
        connection = connections[using]
        if connection.vendor == "sqlite":
            self._run(connection, self.install)

    @staticmethod
    def _run(connection, statements):
        with connection.cursor() as cursor:
            for statement in statements.get(connection.vendor, []):
                cursor.execute(statement)
