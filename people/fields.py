"""Form fields that every app's forms share."""

import datetime

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from people import words

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
    """A date and time in the facility's zone, to the minute; answers an aware datetime.

    `known` is the moment that the record has: left as it was shown it stays exactly that, also in the hour that comes
    twice when the clocks go back, of which nobody can type one.
    """

    widget = LocalDateTimeInput
    hidden_widget = HiddenLocalDateTimeInput
    default_validators = [check_year]
    default_error_messages = {"invalid": "Write a date and a time, such as 2026-11-24 09:00."}
    known: datetime.datetime | None = None

    def to_python(self, value):
        if self.known is not None and value == self.widget.format_value(timezone.localtime(self.known)):
            return self.known
        try:
            return super().to_python(value)
        except ValidationError as error:
            if getattr(error, "code", "") != "ambiguous_timezone":
                raise
        raise ValidationError(_clock_change(value), code="ambiguous_timezone")

    def has_changed(self, initial, data):
        if self.disabled:
            return False
        try:
            initial, value = self.to_python(initial), self.to_python(data)
        except ValidationError:
            return True
        # Seconds are not shown, so that leaving the field alone does not cut them off.
        return _to_the_minute(initial) != _to_the_minute(value)


def _to_the_minute(moment: datetime.datetime | None) -> datetime.datetime | None:
    return moment and moment.replace(second=0, microsecond=0)


def _clock_change(text: str) -> str:
    """Why the clock's time is no moment, and what to do."""
    zone = timezone.get_current_timezone()
    with timezone.override(datetime.UTC):
        local = forms.DateTimeField().to_python(text).replace(tzinfo=zone)
    when = f"{words.clock(local)} on {words.day(local.date())}"
    if local.utcoffset() < local.replace(fold=1).utcoffset():
        return f"There is no {when}: the clocks go forward. Choose a time before or after."
    return f"{when} comes twice: the clocks go back. Choose a time before or after that hour."
