"""Form fields that every app's forms share."""

from django import forms
from django.core.exceptions import ValidationError

# What a date at a facility can be; further out, adding a day or another zone would leave the calendar's end.
FIRST_YEAR, LAST_YEAR = 1970, 2200


def check_year(moment) -> None:
    """Validator for dates and datetimes."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValidationError(f"Give a year between {FIRST_YEAR} and {LAST_YEAR}.")


class LocalDateField(forms.DateField):
    """A date by the browser's own picker."""

    widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    default_validators = [check_year]


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
    default_validators = [check_year]
    default_error_messages = {"invalid": "Write a date and a time, such as 2026-11-24 09:00."}

    def has_changed(self, initial, data):
        # Seconds are not shown, so that leaving the field alone does not cut them off.
        if hasattr(initial, "replace") and not isinstance(initial, str):
            initial = initial.replace(second=0, microsecond=0)
        return super().has_changed(initial, data)
