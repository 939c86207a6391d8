"""How the API's list of bookings is narrowed."""

import django_filters

from bookings.models import Booking
from microscopes.models import Microscope
from people.api.filters import AwareDateTimeFilter, StrictFilterSet, TrueOrFalseFilter


class BookingFilterSet(StrictFilterSet):
    """Whatever asks for more than time and microscope narrows to bookings whose details the user may read."""

    microscope = django_filters.CharFilter(method="by_microscope", help_text="The microscope's code.")
    after = AwareDateTimeFilter(field_name="end", lookup_expr="gt", help_text="Ends after this time.")
    before = AwareDateTimeFilter(field_name="start", lookup_expr="lt", help_text="Starts before this time.")
    kind = django_filters.ChoiceFilter(
        choices=Booking.Kind, method="by_kind", help_text="Of those you may read."
    )
    series = django_filters.NumberFilter(
        method="by_series",
        min_value=1,
        decimal_places=0,
        max_value=2**63 - 1,
        help_text="Those of one repeat, of those you may read.",
    )
    mine = TrueOrFalseFilter(method="by_mine", help_text="true: those you own or operate.")
    cancelled = TrueOrFalseFilter(
        method="ignore", help_text="true: cancelled ones too, of those you may read."
    )

    class Meta:
        model = Booking
        fields = []

    def ignore(self, queryset, name, value):
        """Dealt with in `filter_queryset`, since leaving it out means something too."""
        return queryset

    def by_microscope(self, queryset, name, code):
        found = Microscope.objects.filter(code__iexact=code).values_list("pk", flat=True)
        return queryset.filter(microscope__in=list(found))

    def by_kind(self, queryset, name, kind):
        return queryset.visible_to(self.request.user).filter(kind=kind)

    def by_series(self, queryset, name, series):
        return queryset.visible_to(self.request.user).filter(series=int(series))

    def by_mine(self, queryset, name, only):
        return queryset.owned_or_run_by(self.request.user) if only else queryset

    def filter_queryset(self, queryset):
        queryset = super().filter_queryset(queryset)
        user = self.request.user
        with_cancelled = self.form.cleaned_data.get("cancelled")
        queryset = queryset.standing_or_visible_to(user) if with_cancelled else queryset.standing()
        return queryset.blocking_or_visible_to(user)
