"""What the list of microscopes may be narrowed by."""

from microscopes.models import Microscope
from people.api.filters import StrictFilterSet


class MicroscopeFilterSet(StrictFilterSet):
    class Meta:
        model = Microscope
        fields = ["status"]
