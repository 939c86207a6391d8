"""Alerts as programs read them, for instance to show them on a screen in the microscope room."""

import django_filters
from django.db.models.functions import Lower
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.permissions import IsAuthenticated

from microscopes.models import Microscope
from people.api.filters import AwareDateTimeFilter, StrictFilterSet, TrueOrFalseFilter
from preprocessing.models import Alert


class AlertFilterSet(StrictFilterSet):
    session = django_filters.CharFilter(method="by_session", help_text="The session's name.")
    microscope = django_filters.CharFilter(method="by_microscope", help_text="The microscope's code.")
    kind = django_filters.MultipleChoiceFilter(choices=Alert.Kind, help_text="May be given several times.")
    open = TrueOrFalseFilter(
        field_name="resolved_at",
        lookup_expr="isnull",
        help_text="true: those that are open; false: those that are over.",
    )
    after = AwareDateTimeFilter(field_name="raised_at", lookup_expr="gte", help_text="Raised at or after.")
    before = AwareDateTimeFilter(field_name="raised_at", lookup_expr="lt", help_text="Raised before.")

    class Meta:
        model = Alert
        fields = []

    def by_session(self, queryset, name, value):
        return queryset.filter(session__name__iexact=value)

    def by_microscope(self, queryset, name, value):
        codes = Microscope.objects.annotate(key=Lower("code")).filter(key=value.lower())
        return queryset.filter(session__microscope__in=list(codes.values_list("pk", flat=True)))


class AlertSerializer(serializers.ModelSerializer):
    session = serializers.CharField(source="session.name", read_only=True, help_text="The session's name.")
    microscope = serializers.CharField(
        source="session.microscope.code", read_only=True, help_text="The microscope's code."
    )
    resolved_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When it was well again; null while it is open."
    )

    class Meta:
        model = Alert
        fields = (
            "id",
            "session",
            "microscope",
            "kind",
            "level",
            "text",
            "since",
            "raised_at",
            "resolved_at",
        )
        read_only_fields = fields


@extend_schema(summary="Alerts of the sessions you may see, newest first", tags=["alerts"])
class AlertListView(generics.ListAPIView):
    """They are raised and resolved by the site itself, by the limits set for each session."""

    queryset = Alert.objects.none()
    serializer_class = AlertSerializer
    filterset_class = AlertFilterSet
    permission_classes = [IsAuthenticated]

    def get_queryset(self):
        alerts = Alert.objects.visible_to(self.request.user).select_related("session__microscope")
        return alerts.order_by("-raised_at", "-pk")
