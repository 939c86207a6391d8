"""How people narrow and order the list of sessions; all of it lives in the address."""

import datetime

import django_filters
from django import forms
from django.db.models import F, Q, Value
from django.db.models.functions import Concat, Lower
from django.utils import timezone

from bookings.models import Booking
from microscopes.models import Microscope
from people.models import Lab, User
from sessions_app.models import Sample, Session
from sessions_app.ordering import KnownDate, KnownSize

# Only orders that an index serves, so that the list is as quick for a hundred thousand sessions as for ten.
ORDERS = {
    "-start": (F("start").desc(), F("id").desc()),
    "start": (F("start").asc(), F("id").asc()),
    "name": (Lower("name").asc(),),
    "-name": (Lower("name").desc(),),
    "-size": (KnownSize("data_bytes").desc(), F("id").desc()),
    "size": (KnownSize("data_bytes").asc(), F("id").asc()),
    "days": (KnownDate("delete_on").asc(), F("id").asc()),
    "-days": (KnownDate("delete_on").desc(), F("id").desc()),
}
DEFAULT_ORDER = "-start"
STATUS_CHOICES = [("running", "running"), *Session.Status.choices]


def local_midnight(day: datetime.date) -> datetime.datetime:
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time()))


def matching_samples(text: str):
    return Sample.objects.filter(name__icontains=text).order_by().values("pk")


def matching_bookings(text: str):
    """Bookings whose owner's name, username or address holds the text."""
    people = User.objects.annotate(full=Concat("first_name", Value(" "), "last_name")).filter(
        Q(full__icontains=text) | Q(username__icontains=text)
    )
    owners = list(people.order_by().values_list("pk", flat=True)[:500])
    return Booking.objects.filter(owner__in=owners).order_by().values("pk")


class SessionFilter(django_filters.FilterSet):
    q = django_filters.CharFilter(
        method="search",
        label="Search",
        max_length=100,
        widget=forms.SearchInput(attrs={"placeholder": "name, sample or owner"}),
    )
    status = django_filters.ChoiceFilter(
        choices=STATUS_CHOICES, method="by_status", label="Status", empty_label="any status"
    )
    microscope = django_filters.ModelChoiceFilter(
        queryset=Microscope.objects.all(),
        to_field_name="code",
        label="Microscope",
        empty_label="any microscope",
    )
    lab = django_filters.ModelChoiceFilter(
        queryset=lambda request: Lab.objects.visible_to(request.user), label="Lab", empty_label="any lab"
    )
    sample = django_filters.CharFilter(
        method="by_sample",
        label="Sample",
        max_length=120,
        widget=forms.TextInput(attrs={"placeholder": "any sample"}),
    )
    since = django_filters.DateFilter(
        method="by_since", label="From", widget=forms.DateInput(attrs={"type": "date"})
    )
    until = django_filters.DateFilter(
        method="by_until", label="to", widget=forms.DateInput(attrs={"type": "date"})
    )

    class Meta:
        model = Session
        fields = []

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for field in self.form.fields.values():
            select = isinstance(field.widget, forms.Select)
            field.widget.attrs["class"] = (
                "form-select form-select-sm" if select else "form-control form-control-sm"
            )

    def search(self, queryset, name, value):
        return queryset.filter(
            Q(name__icontains=value)
            | Q(sample__in=matching_samples(value))
            | Q(booking__in=matching_bookings(value))
        )

    def by_status(self, queryset, name, value):
        return queryset.running() if value == "running" else queryset.filter(status=value)

    def by_sample(self, queryset, name, value):
        return queryset.filter(sample__in=matching_samples(value))

    def by_since(self, queryset, name, value):
        return queryset.filter(start__gte=local_midnight(value))

    def by_until(self, queryset, name, value):
        """The day itself counts."""
        return queryset.filter(start__lt=local_midnight(value + datetime.timedelta(days=1)))

    @property
    def is_narrowed(self) -> bool:
        return any(self.data.get(name) for name in self.filters)

    @property
    def order(self) -> str:
        order = self.data.get("sort", DEFAULT_ORDER)
        return order if order in ORDERS else DEFAULT_ORDER

    def sessions(self):
        """The sessions asked for, in order; none while a filter is not understood."""
        if not self.is_valid():
            return self.queryset.none()
        return self.qs.order_by(*ORDERS[self.order])

    def sentence(self) -> str:
        """What is shown, in words."""
        data = self.form.cleaned_data if self.is_valid() else {}
        words = [data["status"] if data.get("status") else "all", "sessions"]
        if data.get("microscope"):
            words.append(f"on {data['microscope']}")
        if data.get("lab"):
            words.append(f"of {data['lab']}")
        if data.get("sample"):
            words.append(f"of samples like “{data['sample']}”")
        if data.get("since"):
            words.append(f"from {data['since']:%-d %b %Y}")
        if data.get("until"):
            words.append(f"to {data['until']:%-d %b %Y}")
        if data.get("q"):
            words.append(f"matching “{data['q']}”")
        text = " ".join(words)
        return text[0].upper() + text[1:]
