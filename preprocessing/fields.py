"""Columns of a kind that Django does not have."""

from django.db import models


class WrittenJSONField(models.JSONField):
    """JSON that is always read and written whole: in PostgreSQL of type json, which keeps the text.

    Its jsonb would take each number apart at every write and put it together at every read. What is kept here can be
    neither looked into nor compared by SQL.
    """

    def db_type(self, connection):
        return "json" if connection.vendor == "postgresql" else super().db_type(connection)

    def from_db_value(self, value, expression, connection):
        # PostgreSQL's driver reads this type by itself.
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value
