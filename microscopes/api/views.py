"""The microscopes, read-only: a pipeline sees those of its token."""

from django.db.models import Prefetch
from rest_framework import viewsets

from microscopes.api.filters import MicroscopeFilterSet
from microscopes.api.serializers import MicroscopeSerializer
from microscopes.models import Camera, Microscope


class MicroscopeViewSet(viewsets.ReadOnlyModelViewSet):
    """The facility's microscopes and their cameras."""

    serializer_class = MicroscopeSerializer
    filterset_class = MicroscopeFilterSet
    lookup_field = "code"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def get_queryset(self):
        cameras = Camera.objects.filter(is_active=True).order_by("position", "name")
        return Microscope.objects.visible_to(self.request.user).prefetch_related(
            Prefetch("cameras", queryset=cameras, to_attr="cameras_in_use")
        )
