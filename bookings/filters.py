"""What the list of bookings can be narrowed to. Live in the address."""

import datetime

import django_filters
from django import forms
from django.utils import timezone

from bookings.models import Booking
from microscopes.models import Microscope
from people.access import is_staff
from people.fields import LocalDateField

SELECT = forms.Select(attrs={"class": "form-select"})
CHECKBOX = forms.CheckboxInput(attrs={"class": "form-check-input"})


class LocalDateFilter(django_filters.DateFilter):
    field_class = LocalDateField


def _midnight(day: datetime.date) -> datetime.datetime:
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time()))


class BookingFilterSet(django_filters.FilterSet):
    """Whatever asks for more than time and microscope narrows to bookings whose details the user may read."""

    WHEN = [("", "Now and to come"), ("past", "Past"), ("all", "Any time")]

    microscope = django_filters.ModelChoiceFilter(
        queryset=Microscope.objects.all(), to_field_name="code", empty_label="Any microscope", widget=SELECT
    )
    when = django_filters.ChoiceFilter(
        choices=WHEN[1:], empty_label=WHEN[0][1], method="ignore", label="When", widget=SELECT
    )
    day_from = LocalDateFilter(
        method="ends_after",
        label="From",
        widget=forms.DateInput(attrs={"type": "date", "class": "form-control"}, format="%Y-%m-%d"),
    )
    day_to = LocalDateFilter(
        method="starts_by",
        label="Until",
        widget=forms.DateInput(attrs={"type": "date", "class": "form-control"}, format="%Y-%m-%d"),
    )
    kind = django_filters.ChoiceFilter(
        choices=Booking.Kind, empty_label="Any type", method="of_kind", widget=SELECT
    )
    mine = django_filters.BooleanFilter(method="of_mine", label="Only mine", widget=CHECKBOX)
    cancelled = django_filters.BooleanFilter(method="ignore", label="Cancelled too", widget=CHECKBOX)

    class Meta:
        model = Booking
        fields = []

    def ignore(self, queryset, name, value):
        """Dealt with in `filter_queryset`, since leaving it out means something too."""
        return queryset

    def ends_after(self, queryset, name, day):
        return queryset.filter(end__gt=_midnight(day))

    def starts_by(self, queryset, name, day):
        return queryset.filter(start__lt=_midnight(day + datetime.timedelta(days=1)))

    def of_kind(self, queryset, name, kind):
        return queryset.visible_to(self.request.user).filter(kind=kind)

    def of_mine(self, queryset, name, only):
        return queryset.owned_or_run_by(self.request.user) if only else queryset

    def filter_queryset(self, queryset):
        user, chosen = self.request.user, self.form.cleaned_data
        queryset = super().filter_queryset(queryset)
        # Others' cancelled bookings take no time, so there is nothing to tell of them.
        queryset = queryset.standing_or_visible_to(user) if chosen.get("cancelled") else queryset.standing()
        if not is_staff(user):
            queryset = queryset.blocking_or_visible_to(user)
        when = chosen.get("when")
        if when == "past":
            return queryset.filter(end__lte=timezone.now()).order_by("-start", "-id")
        if when or chosen.get("day_from") or chosen.get("day_to"):
            return queryset.order_by("start", "id")
        return queryset.filter(end__gt=timezone.now()).order_by("start", "id")
