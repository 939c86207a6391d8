"""Form fields that every app's forms share."""

from django import forms


class LocalDateTimeInput(forms.DateTimeInput):
    """The browser's own date and time picker, to the minute."""

    input_type = "datetime-local"

    def __init__(self, attrs=None):
        super().__init__(attrs, format="%Y-%m-%dT%H:%M")


class HiddenLocalDateTimeInput(LocalDateTimeInput):
    input_type = "hidden"


class LocalDateTimeField(forms.DateTimeField):
    """A date and time in the facility's zone, to the minute; answers an aware datetime."""

    widget = LocalDateTimeInput
    hidden_widget = HiddenLocalDateTimeInput
    default_error_messages = {"invalid": "Write a date and a time, such as 2026-11-24 09:00."}

    def has_changed(self, initial, data):
        # Seconds are not shown, so that leaving the field alone does not cut them off.
        if hasattr(initial, "replace") and not isinstance(initial, str):
            initial = initial.replace(second=0, microsecond=0)
        return super().has_changed(initial, data)
