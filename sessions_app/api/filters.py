"""How the API's list of sessions is narrowed."""

import django_filters
from django.db.models import Q, Value
from django.db.models.functions import Concat, Lower, Trim

from microscopes.models import Microscope
from people.access import is_pipeline
from people.api.filters import AwareDateTimeFilter, StrictFilterSet
from people.models import Lab, User
from sessions_app.models import Session


class SessionFilterSet(StrictFilterSet):
    name = django_filters.CharFilter(lookup_expr="icontains", help_text="Part of the name.")
    status = django_filters.MultipleChoiceFilter(
        choices=Session.Status, help_text="May be given several times."
    )
    microscope = django_filters.CharFilter(method="by_microscope", help_text="The microscope's code.")
    lab = django_filters.CharFilter(method="by_lab", help_text="The lab's name.")
    operator = django_filters.CharFilter(
        method="by_operator", help_text="The operator's name as shown; for people the username too."
    )
    after = AwareDateTimeFilter(field_name="start", lookup_expr="gte", help_text="Started at or after.")
    before = AwareDateTimeFilter(field_name="start", lookup_expr="lt", help_text="Started before.")

    class Meta:
        model = Session
        fields = []

    def by_microscope(self, queryset, name, value):
        codes = Microscope.objects.annotate(key=Lower("code")).filter(key=value.lower())
        return queryset.filter(microscope__in=list(codes.values_list("pk", flat=True)))

    def by_lab(self, queryset, name, value):
        labs = Lab.objects.annotate(key=Lower("name")).filter(key=Lower(Value(value)))
        return queryset.filter(lab__in=list(labs.values_list("pk", flat=True)))

    def by_operator(self, queryset, name, value):
        people = User.objects.annotate(full=Trim(Concat("first_name", Value(" "), "last_name")))
        match = Q(full__iexact=value.strip())
        # Usernames are more than a pipeline may learn by trying, but for those shown in place of a name.
        match |= Q(username__iexact=value.strip(), **({"full": ""} if is_pipeline(self.request.user) else {}))
        return queryset.filter(operator__in=list(people.filter(match).values_list("pk", flat=True)))
