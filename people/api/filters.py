"""Filters that every app's API shares."""

import datetime

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.utils.dateparse import parse_datetime
from django_filters.rest_framework import FilterSet
from rest_framework import exceptions

PAGING = {"page", "page_size", "format"}


class AwareDateTimeFormField(forms.DateTimeField):
    """A time with its offset; one without is refused, as nobody can know which zone was meant."""

    def clean(self, value):
        if value == "":
            raise ValidationError("Give a time, or leave the filter out.")
        return super().clean(value)

    def to_python(self, value):
        if value in self.empty_values:
            return None
        # A plus sign that was not escaped in the address arrives as a space.
        text = str(value).strip()
        try:
            parsed = parse_datetime(text.replace(" ", "+") if "T" in text else text)
        except ValueError:
            parsed = None
        if parsed is None or parsed.utcoffset() is None:
            raise ValidationError("Write the time with its offset, for instance 2026-11-23T10:15:00Z.")
        try:
            # PostgreSQL knows no offset of 16 hours or more.
            return parsed.astimezone(datetime.UTC)
        except OverflowError as error:
            raise ValidationError("This is outside of the calendar.") from error


class AwareDateTimeFilter(django_filters.IsoDateTimeFilter):
    field_class = AwareDateTimeFormField


class TrueOrFalseField(forms.Field):
    """true or false in any case; Django's own takes every other word for unknown."""

    def to_python(self, value):
        if value is None:
            return None
        known = {"true": True, "false": False}.get(str(value).lower())
        if known is None:
            raise ValidationError("Write true or false.")
        return known


class TrueOrFalseFilter(django_filters.BooleanFilter):
    field_class = TrueOrFalseField


class StrictFilterSet(FilterSet):
    """Refuses parameters it does not know: a misspelt filter would otherwise answer everything."""

    def is_valid(self):
        unknown = sorted(set(self.data) - set(self.filters) - PAGING) if self.data else []
        if unknown:
            raise exceptions.ValidationError({name: ["There is no such filter."] for name in unknown})
        # An empty one would be taken for none and answer everything, too.
        empty = sorted(name for name in self.filters if self.data and self.data.get(name) == "")
        if empty:
            raise exceptions.ValidationError(
                {name: ["Give a value, or leave the filter out."] for name in empty}
            )
        return super().is_valid()
