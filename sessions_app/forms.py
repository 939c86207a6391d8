"""What people type about sessions. Forms check shape; services check the rules."""

import datetime

from crispy_forms.bootstrap import AppendedText
from crispy_forms.helper import FormHelper
from crispy_forms.layout import Column, Field, Fieldset, Layout, Row
from django import forms
from django.db import models
from django.db.models import Q
from django.utils import timezone

from people.changes import ChangedFieldsModelForm
from sessions_app.acquisition import FIELDS, LABELS, UNITS
from sessions_app.dashboard import lab_words
from sessions_app.models import Sample, Session
from sessions_app.services import operators_for


class PlainNumberInput(forms.NumberInput):
    """A number as people write it: 300 rather than 300.0."""

    def format_value(self, value):
        return f"{value:.10g}" if isinstance(value, float) else super().format_value(value)


class SampleField(forms.CharField):
    """The name of a lab's sample, chosen or new."""

    def __init__(self, **kwargs):
        super().__init__(
            required=False,
            max_length=Sample._meta.get_field("name").max_length,
            widget=forms.TextInput(
                attrs={"autocomplete": "off", "list": "sample-options", "data-first": True}
            ),
            **kwargs,
        )


def acquisition_layout() -> Fieldset:
    """The acquisition's fields, two to a line where there is room, each with its unit at its end."""
    cells = [
        Column(AppendedText(name, UNITS[name]) if name in UNITS else Field(name), css_class="col-sm-6")
        for name in FIELDS
    ]
    return Fieldset("Acquisition", Row(*cells, css_class="gx-3"))


def layout() -> Layout:
    return Layout(
        Row(
            Column("operator", css_class="col-sm-6"), Column("camera", css_class="col-sm-6"), css_class="gx-3"
        ),
        "sample",
        acquisition_layout(),
        "notes",
    )


NUMBER_WIDGETS = {
    name: PlainNumberInput(attrs={"step": "any"})
    for name in FIELDS
    if isinstance(Session._meta.get_field(name), models.FloatField)
}


class AcquisitionFormMixin:
    """People, camera, sample and acquisition, as creating and editing share them."""

    sample_options = ()

    def set_up(self, booking, user):
        self.fields["operator"].queryset = operators_for(booking, user, self.instance.operator_id)
        cameras = booking.microscope.cameras.filter(Q(is_active=True) | Q(pk=self.instance.camera_id))
        self.fields["camera"].queryset = cameras
        self.fields["camera"].empty_label = "not known"
        if booking.lab_id is None:
            self.fields["sample"].disabled = True
            self.fields["sample"].help_text = "The booking has no lab to which a sample could belong."
        else:
            # Proposed by the datalist that the templates put beside the form.
            self.sample_options = Sample.objects.filter(lab=booking.lab_id).values_list("name", flat=True)[
                :500
            ]
            self.fields[
                "sample"
            ].help_text = f"Choose one of the {lab_words(booking.lab)}'s or type a new name."
        for name in FIELDS:
            self.fields[name].label = LABELS[name]


class SessionCreateForm(AcquisitionFormMixin, forms.ModelForm):
    """The dialog for a new session."""

    sample = SampleField()

    class Meta:
        model = Session
        # The sample is typed by name: the services find or make it.
        fields = ["operator", "camera", *FIELDS, "notes"]
        widgets = NUMBER_WIDGETS | {"notes": forms.Textarea(attrs={"rows": 2})}

    def __init__(self, *args, booking, user, **kwargs):
        super().__init__(*args, **kwargs)
        self.set_up(booking, user)
        self.fields["operator"].empty_label = None
        self.fields["operator"].required = True
        self.helper = FormHelper()
        self.helper.form_tag = False
        self.helper.layout = layout()

    def _post_clean(self):
        """The service makes the session and checks its rules; here only what was typed counts."""


class SessionEditForm(AcquisitionFormMixin, ChangedFieldsModelForm):
    """Corrections of a session; only fields that were changed are written."""

    sample = SampleField()

    class Meta:
        model = Session
        # The sample is typed by name: the services find or make it.
        fields = ["operator", "camera", *FIELDS, "notes"]
        widgets = NUMBER_WIDGETS | {"notes": forms.Textarea(attrs={"rows": 4})}

    def __init__(self, *args, user, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial["sample"] = self.instance.sample.name if self.instance.sample else ""
        self.set_up(self.instance.booking, user)
        self.helper = FormHelper()
        self.helper.form_tag = False
        self.helper.layout = layout()

    @property
    def changes(self) -> dict:
        """What the person changed, for `session_update`."""
        return {name: self.cleaned_data[name] for name in self.changed_fields}


class ExtendRetentionForm(forms.Form):
    """A new date for the images, later than the one agreed."""

    until = forms.DateField(
        label="Keep the images until",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text="They are deleted on this day.",
    )

    def __init__(self, *args, session, **kwargs):
        super().__init__(*args, **kwargs)
        earliest = max(session.delete_on or timezone.localdate(), timezone.localdate())
        self.fields["until"].widget.attrs["min"] = (earliest + datetime.timedelta(days=1)).isoformat()
        self.fields["until"].initial = earliest + datetime.timedelta(days=30)
        self.helper = FormHelper()
        self.helper.form_tag = False
