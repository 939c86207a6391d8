"""Forms of the booking pages: they check shape and offer what is possible; the rules are the services'."""

import calendar
import datetime

from crispy_forms.bootstrap import InlineCheckboxes
from crispy_forms.helper import FormHelper
from crispy_forms.layout import HTML, Column, Div, Fieldset, Layout, Row
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from bookings.downtime import Hit, clear_for_upkeep, hits, proposed_reason
from bookings.models import Application, Booking
from bookings.rules import OVERRIDABLE, UPKEEP, by_rule, people_to_operate, people_to_own
from bookings.series import SCOPES, THIS, Repeat, reach, series_cancel, series_create, series_update
from bookings.services import BookingChanges, booking_cancel, booking_create, booking_update
from microscopes.models import Microscope
from people.access import is_staff
from people.changes import ChangedFieldsModelForm, add_errors
from people.fields import LocalDateField, LocalDateTimeField
from people.models import Lab, User

FIRST_HOUR, LAST_HOUR = 9, 18


class PersonChoiceField(forms.ModelChoiceField):
    """People by name; of two with one name, who has which address."""

    def label_from_instance(self, person):
        return f"{person} ({person.username})" if person.get_full_name() else person.username


class PeopleChoiceField(forms.ModelMultipleChoiceField):
    label_from_instance = PersonChoiceField.label_from_instance


class MicroscopeChoiceField(forms.ModelChoiceField):
    def label_from_instance(self, microscope):
        return (
            str(microscope)
            if microscope.status == "active"
            else f"{microscope} ({microscope.get_status_display()})"
        )


class OverrideMixin:
    """For forms of an `actor` whose save asks the services: staff are shown the rules that refused, and may set
    those aside by sending the form again with the box ticked. Only what was listed is set aside.
    """

    overridable: tuple[tuple[str, str], ...] = ()

    @property
    def override(self) -> list[str]:
        """The names of the rules that were listed and confirmed."""
        return self.data.getlist("override") if "override_confirmed" in self.data else []

    def refuse(self, error: ValidationError) -> None:
        add_errors(self, error)
        broken = by_rule(error)
        if is_staff(self.actor) and broken and set(broken) <= OVERRIDABLE:
            # What was set aside already stays so when something else comes up.
            earlier = [(name, "") for name in self.override if name in OVERRIDABLE and name not in broken]
            self.overridable = (*broken.items(), *earlier)


class ScopeMixin:
    """For forms about a booking that repeats: asks whether this one is meant, later ones too, or all."""

    def ask_scope(self, booking: Booking) -> None:
        if booking.series_id is not None:
            numbers = reach(booking, self.actor)
            self.fields["scope"] = forms.ChoiceField(
                choices=[
                    (scope, f"{label} ({numbers[scope]})" if scope in numbers else label)
                    for scope, label in SCOPES
                ],
                initial=THIS,
                required=False,
                widget=forms.RadioSelect,
                label="What is meant",
                help_text="Bookings that have begun or have sessions are never touched.",
            )

    @property
    def scope(self) -> str:
        return self.cleaned_data.get("scope") or THIS


class BookingForm(ScopeMixin, OverrideMixin, ChangedFieldsModelForm):
    """Books or changes for `actor`; `save` raises nothing: `saved` is None when a rule refused, with the errors set."""

    microscope = MicroscopeChoiceField(queryset=Microscope.objects.none(), empty_label="Choose a microscope")
    start = LocalDateTimeField(label="From")
    end = LocalDateTimeField(label="To")
    owner = PersonChoiceField(
        queryset=User.objects.none(), help_text="Whose booking it is: you or a member of one of your labs."
    )
    operator = PersonChoiceField(
        queryset=User.objects.none(),
        required=False,
        empty_label="The owner",
        help_text="Who runs the microscope.",
    )
    lab = forms.ModelChoiceField(
        queryset=Lab.objects.none(),
        required=False,
        empty_label="No lab",
        help_text="Its members see the booking and its sessions. Without a lab only the people named here do.",
    )
    application = forms.ModelChoiceField(
        queryset=Application.objects.none(),
        required=False,
        empty_label="None",
        help_text="The approved project.",
    )
    collaborators = PeopleChoiceField(
        queryset=User.objects.none(), required=False, help_text="They see the booking and its sessions too."
    )

    slot_labs = forms.ModelMultipleChoiceField(
        queryset=Lab.objects.none(),
        required=False,
        label="Open for labs",
        help_text="Their members may book inside the slot. No lab and no application: anyone.",
    )
    slot_applications = forms.ModelMultipleChoiceField(
        queryset=Application.objects.none(), required=False, label="Open for applications"
    )

    repeat = forms.ChoiceField(
        choices=[("", "Does not repeat"), ("days", "By days"), ("weeks", "By weeks")],
        required=False,
        label="Repeat",
    )
    repeat_every = forms.IntegerField(
        required=False, initial=1, min_value=1, max_value=366, label="Every how many days or weeks"
    )
    repeat_weekdays = forms.TypedMultipleChoiceField(
        choices=list(enumerate(calendar.day_abbr)),
        coerce=int,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="On",
        help_text="None ticked: the weekday of the first booking; for days, every day.",
    )
    repeat_until = LocalDateField(required=False, label="Until, that day included")

    class Meta:
        model = Booking
        fields = [
            "microscope",
            "kind",
            "start",
            "end",
            "title",
            "description",
            "owner",
            "operator",
            "lab",
            "application",
            "collaborators",
            "slot_labs",
            "slot_applications",
        ]
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3}),
            "title": forms.TextInput(attrs={"placeholder": "For instance: apoferritin, 200 mesh"}),
        }

    def __init__(self, *args, actor, **kwargs):
        super().__init__(*args, **kwargs)
        self.actor = actor
        # What was made or changed: several for a repeat.
        self.saved: list[Booking] = []
        # What downtime would cancel or shorten.
        self.hits: list[Hit] = []
        if not self.is_new:
            for name in ("start", "end"):
                self.fields[name].known = getattr(self.instance, name)
            for name in [name for name in self.fields if name.startswith("repeat")]:
                del self.fields[name]
            self.ask_scope(self.instance)
        self._offer()
        self._arrange()

    def clean(self):
        data = super().clean()
        if data.get("repeat"):
            for name in ("repeat_every", "repeat_until"):
                if not data.get(name) and name not in self.errors:
                    self.add_error(name, "Needed for a repeat.")
        return data

    def _offer(self):
        """What the actor may choose, and what the booking has already, whoever chose it."""
        staff, booking = is_staff(self.actor), self.instance
        fields = self.fields
        microscopes = Microscope.objects.in_service() if staff else Microscope.objects.bookable()
        fields["microscope"].queryset = microscopes | Microscope.objects.filter(pk=booking.microscope_id)
        fields["owner"].queryset = self._with(people_to_own(self.actor), booking.owner_id)
        fields["operator"].queryset = self._with(people_to_operate(self.actor), booking.operator_id)
        shared = [] if self.is_new else booking.collaborators.values_list("pk", flat=True)
        fields["collaborators"].queryset = self._with(people_to_own(self.actor), *shared)
        labs = Lab.objects.visible_to(self.actor).active()
        fields["lab"].queryset = labs | Lab.objects.filter(pk=booking.lab_id)
        active = Application.objects.visible_to(self.actor).filter(status=Application.Status.ACTIVE)
        fields["application"].queryset = active | Application.objects.filter(pk=booking.application_id)
        if staff:
            fields["owner"].help_text = "Whose booking it is."
            fields["slot_labs"].queryset = Lab.objects.all()
            fields["slot_applications"].queryset = Application.objects.all()
        else:
            for name in ("kind", "slot_labs", "slot_applications"):
                del fields[name]
        for name in ("owner", "operator", "collaborators", "application", "slot_labs", "slot_applications"):
            if name in fields:
                fields[name].widget.attrs["data-search"] = ""

    @staticmethod
    def _with(people, *pks):
        """The people, and those of these ids; without joins, so that nobody comes twice."""
        return User.objects.filter(
            Q(pk__in=people.order_by().values("pk")) | Q(pk__in=[pk for pk in pks if pk])
        )

    def _arrange(self):
        self.helper = FormHelper()
        self.helper.form_tag = False
        kind = [Column("kind", css_class="col-sm-4")] if "kind" in self.fields else []
        slot = [
            Fieldset("Who may book inside the slot", "slot_labs", "slot_applications", css_class="for-slots")
        ]
        slot = slot if "slot_labs" in self.fields else []
        repeat = [Fieldset("Which of the repeat", "scope")] if "scope" in self.fields else []
        if "repeat" in self.fields:
            repeat = [
                Fieldset(
                    "Repeat",
                    Row(Column("repeat", css_class="col-sm-6")),
                    Div(
                        Row(
                            Column("repeat_every", css_class="col-sm-6"),
                            Column("repeat_until", css_class="col-sm-6"),
                        ),
                        InlineCheckboxes("repeat_weekdays"),
                        HTML('<p id="repeat-times" class="form-text"></p>'),
                        css_class="for-repeats",
                    ),
                )
            ]
        self.helper.layout = Layout(
            Fieldset(
                "What and when",
                Row(Column("microscope", css_class="col-sm-8" if kind else "col-12"), *kind),
                Row(Column("start", css_class="col-sm-6"), Column("end", css_class="col-sm-6")),
                HTML('{% include "bookings/_taken.html" %}'),
                "title",
                "description",
            ),
            *slot,
            *repeat,
            Fieldset(
                "Who",
                Row(Column("owner", css_class="col-sm-6"), Column("operator", css_class="col-sm-6")),
                Row(Column("lab", css_class="col-sm-6"), Column("application", css_class="col-sm-6")),
                "collaborators",
            ),
        )

    def save(self):
        """The booking, or None where a rule refused it; its words are then at the form's fields."""
        changed = self.changed_data if not self.is_new else self.cleaned_data
        fields = {name: self.cleaned_data[name] for name in changed if name in BookingChanges.__annotations__}
        try:
            self.saved = self._saved(fields)
            return next((one for one in self.saved if one.pk == self.instance.pk), self.saved[0])
        except ValidationError as error:
            self._list_hits()  # First: a field that is refused loses what was typed there.
            self.refuse(error)
            return None

    def _saved(self, fields) -> list[Booking]:
        options = {"actor": self.actor, "override": self.override}
        if self.is_new and (repeat := self._repeat()):
            return series_create(repeat=repeat, **options, **fields)
        if self.is_new:
            return [self._cleared(lambda: booking_create(**options, **fields))]
        booking = Booking.objects.select_related("microscope").get(pk=self.instance.pk)
        if self.scope != THIS:
            return series_update(booking=booking, scope=self.scope, **options, **fields)
        return [self._cleared(lambda: booking_update(booking=booking, **options, **fields))]

    def _cleared(self, save) -> Booking:
        """Save, after what is in the way of downtime has given way where the staff confirmed that."""
        if not self._is_upkeep() or "displace_confirmed" not in self.data:
            return save()
        shown = self.data.getlist("displace")
        return clear_for_upkeep(
            actor=self.actor,
            kind=self.cleaned_data["kind"],
            microscope=self.cleaned_data["microscope"],
            start=self.cleaned_data["start"],
            end=self.cleaned_data["end"],
            confirmed={int(pk) for pk in shown if pk.isascii() and pk.isdigit()},
            reason=self._reason(),
            then=save,
            apart_from=self.instance,
        )

    def _is_upkeep(self) -> bool:
        return is_staff(self.actor) and self.cleaned_data.get("kind") in UPKEEP

    def _list_hits(self) -> None:
        """For staff's downtime over bookings: what is in the way, to be confirmed."""
        if self._is_upkeep() and not self.cleaned_data.get("repeat") and self.scope == THIS:
            data = self.cleaned_data
            self.hits = hits(data["microscope"], data["start"], data["end"], apart_from=self.instance)
            self.displace_reason = self._reason()

    def _reason(self) -> str:
        """What is proposed says no more than everyone may know: the staff's title is theirs."""
        typed = self.data.get("displace_reason", "").strip()[:300]
        if typed:
            return typed
        data = self.cleaned_data
        return proposed_reason(data["microscope"], data["kind"], data["start"], data["end"])

    def _repeat(self) -> Repeat | None:
        data = self.cleaned_data
        if not data.get("repeat"):
            return None
        return Repeat(
            every=data["repeat_every"],
            unit=data["repeat"],
            until=data["repeat_until"],
            weekdays=tuple(data["repeat_weekdays"]),
        )


def booking_defaults(actor, wishes) -> dict:
    """What a new booking's form proposes; `wishes` are the address's microscope (a code), start and end."""
    tomorrow = timezone.localdate() + datetime.timedelta(days=1)
    start, end = (
        timezone.make_aware(datetime.datetime.combine(tomorrow, datetime.time(hour)))
        for hour in (FIRST_HOUR, LAST_HOUR)
    )
    if wished := _moment(wishes.get("start")):
        start, end = wished, wished + (end - start)
    if (wished := _moment(wishes.get("end"))) and wished > start:
        end = wished
    microscopes = list(Microscope.objects.in_service())
    bookable = [microscope for microscope in microscopes if microscope.status == Microscope.Status.ACTIVE]
    code = wishes.get("microscope", "").lower()
    wished = next((microscope for microscope in microscopes if microscope.code.lower() == code), None)
    labs = list(Lab.objects.of(actor).active()[:2])
    applications = list(
        Application.objects.visible_to(actor).filter(status=Application.Status.ACTIVE)[:2]
        if not is_staff(actor)
        else []
    )
    return {
        "start": start,
        "end": end,
        "owner": actor.pk,
        "microscope": wished or (bookable[0] if len(bookable) == 1 else None),
        "lab": labs[0] if labs else None,
        "application": applications[0] if len(applications) == 1 else None,
    }


def _moment(text) -> datetime.datetime | None:
    """A local time as the form writes it; None for anything else."""
    try:
        return LocalDateTimeField().clean(text)
    except ValidationError:
        return None


class CancelForm(ScopeMixin, OverrideMixin, forms.Form):
    """Asks why, and for a booking with sessions whether they may stay without it."""

    reason = forms.CharField(max_length=300, required=False, widget=forms.Textarea(attrs={"rows": 2}))
    keep_sessions = forms.BooleanField(
        required=False, label="Cancel it all the same; its sessions and images stay."
    )

    def __init__(self, *args, actor, booking, has_sessions, **kwargs):
        super().__init__(*args, **kwargs)
        self.actor, self.booking = actor, booking
        self.saved: list[Booking] = []
        self.ask_scope(booking)
        if not has_sessions:
            del self.fields["keep_sessions"]
        own = actor.pk in (booking.owner_id, booking.operator_id)
        self.fields["reason"].label = "Reason (optional)" if own else "Reason"
        self.fields["reason"].help_text = "" if own else f"{booking.owner} reads it."
        self.helper = FormHelper()
        self.helper.form_tag = False

    def save(self):
        try:
            data = {name: value for name, value in self.cleaned_data.items() if name != "scope"}
            options = {"booking": self.booking, "actor": self.actor, "override": self.override}
            if self.scope == THIS:
                self.saved = [booking_cancel(**options, **data)]
            else:
                self.saved = series_cancel(scope=self.scope, reason=data["reason"], **options)
            return self.saved[0]
        except ValidationError as error:
            self.refuse(error)
            return None
