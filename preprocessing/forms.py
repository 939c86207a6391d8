"""What people type about limits. Forms check shape; services check the rules."""

from crispy_forms.bootstrap import AppendedText
from crispy_forms.layout import Column, Field, Fieldset, Row
from django import forms

from people import words
from people.changes import ChangedFieldsModelForm
from people.forms import helper
from preprocessing.models import Limits, SessionLimits

MEASURED = (
    "ctf_resolution_max",
    "motion_total_max",
    "astigmatism_max",
    "ice_thickness_max",
    "particles_min",
    "particles_max",
)
TIMED = ("file_minutes", "watcher_minutes", "pipeline_minutes", "size_tb")
UNITS = {
    "ctf_resolution_max": "Å",
    "motion_total_max": "Å",
    "astigmatism_max": "nm",
    "file_minutes": "min",
    "watcher_minutes": "min",
    "pipeline_minutes": "min",
    "size_tb": "TB",
}
LABELS = {
    "ctf_resolution_max": "CTF resolution above",
    "motion_total_max": "Total motion above",
    "astigmatism_max": "Astigmatism above",
    "ice_thickness_max": "Ice thickness above",
    "particles_min": "Particles in a micrograph below",
    "particles_max": "Particles in a micrograph above",
    "file_minutes": "No new file for",
    "watcher_minutes": "Watcher silent for",
    "pipeline_minutes": "Pipeline silent for",
    "size_tb": "Session's data above",
}


class PlainNumberInput(forms.NumberInput):
    """A number as people write it: 6 rather than 6.0."""

    def format_value(self, value):
        return f"{value:.10g}" if isinstance(value, float) else super().format_value(value)


class SessionLimitsForm(ChangedFieldsModelForm):
    """The limits of a session, each empty for no alert of its kind. Only what was changed is written."""

    class Meta:
        model = SessionLimits
        fields = (*MEASURED, *TIMED)
        labels = LABELS
        widgets = {name: PlainNumberInput(attrs={"step": "any"}) for name in (*MEASURED, "size_tb")}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper(
            Fieldset("Out of limits in most of the last micrographs", _cells(MEASURED)),
            Fieldset("Standing still, and size", _cells(TIMED)),
        )

    @property
    def changes(self) -> dict:
        return {name: self.cleaned_data[name] for name in self.changed_fields}


def _cells(names) -> Row:
    cells = [
        Column(
            AppendedText(name, UNITS[name]) if name in UNITS else Field(name), css_class="col-sm-6 col-lg-3"
        )
        for name in names
    ]
    return Row(*cells, css_class="gx-3")


def limit_facts(limits: Limits) -> list[tuple[str, str | None, str]]:
    """Label, number in words (None: no alert) and unit of each limit, for those who only read them."""
    return [
        (LABELS[name], words.number(getattr(limits, name)), UNITS.get(name, ""))
        for name in (*MEASURED, *TIMED)
    ]
