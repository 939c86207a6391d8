"""Serializer parts that every app's API shares: strict about names, numbers and times."""

import datetime
import math

from django.db import models
from rest_framework import serializers

from people.fields import check_year


class StrictMixin:
    """Refuses fields it does not know, each by name, instead of losing them silently."""

    def to_internal_value(self, data):
        if isinstance(data, dict):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [str(name) for name in data if name not in known]
            if unknown:
                read_only = {name for name, field in self.fields.items() if field.read_only}
                raise serializers.ValidationError(
                    {
                        name: [
                            "This field cannot be written."
                            if name in read_only
                            else "There is no such field."
                        ]
                        for name in unknown
                    }
                )
        return super().to_internal_value(data)


class WordsField(serializers.CharField):
    """Text: no number that is written as one."""

    default_error_messages = {"invalid": "Text is required."}

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class FiniteFloatField(serializers.FloatField):
    """A number: no text, no boolean, no NaN and no infinity."""

    default_error_messages = {"invalid": "A number is required."}

    def to_internal_value(self, data):
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        try:
            value = float(data)
        except OverflowError:
            self.fail("invalid")
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class WholeNumberField(serializers.IntegerField):
    """A whole number: no text, no boolean, no fraction."""

    default_error_messages = {"invalid": "A whole number is required."}

    def to_internal_value(self, data):
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class TrueOrFalseField(serializers.BooleanField):
    """true or false: no text and no number that could be meant so."""

    default_error_messages = {"invalid": "Write true or false."}

    def to_internal_value(self, data):
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class AwareDateTimeField(serializers.DateTimeField):
    """An ISO 8601 time with its offset; one without is refused, as nobody can know which zone was meant."""

    default_error_messages = {
        "naive": "Write the time with its offset, for instance 2026-11-23T10:15:00Z or 2026-11-23T11:15:00+01:00.",
    }

    def to_internal_value(self, value):
        # DRF would read the facility's zone into a naive time, so the text is looked at first.
        try:
            parsed = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            parsed = None  # DRF's own message says what a time looks like.
        if isinstance(parsed, datetime.datetime) and parsed.utcoffset() is None:
            self.fail("naive")
        try:
            moment = super().to_internal_value(value).astimezone(datetime.UTC)
        except OverflowError:
            self.fail("overflow")
        check_year(moment)
        return moment


class StrictModelSerializer(StrictMixin, serializers.ModelSerializer):
    """A ModelSerializer with all of the above."""

    serializer_field_mapping = serializers.ModelSerializer.serializer_field_mapping | {
        models.CharField: WordsField,
        models.TextField: WordsField,
        models.FloatField: FiniteFloatField,
        models.BooleanField: TrueOrFalseField,
        models.DateTimeField: AwareDateTimeField,
        models.IntegerField: WholeNumberField,
        models.BigIntegerField: WholeNumberField,
        models.PositiveIntegerField: WholeNumberField,
        models.PositiveSmallIntegerField: WholeNumberField,
        models.PositiveBigIntegerField: WholeNumberField,
    }
