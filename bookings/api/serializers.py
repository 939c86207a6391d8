"""One serializer per direction: what a booking tells, what makes or changes one, what cancels one.

People are named by their usernames, microscopes and applications by their codes, labs by their names: what is read
can be written back.
"""

from django.db.models import Q
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from bookings.access import Booked
from bookings.downtime import Hit
from bookings.models import Application, Booking, BookingSeries
from bookings.rules import OVERRIDABLE, people_to_operate, people_to_own
from bookings.series import SCOPES, THIS, Repeat
from microscopes.models import Microscope
from people.access import is_staff
from people.api.serializers import (
    StrictMixin,
    StrictModelSerializer,
    TrueOrFalseField,
    WholeNumberField,
    WordsField,
)
from people.fields import check_year
from people.models import Lab, User

DETAILS = (
    "id",
    "kind",
    "description",
    "owner",
    "operator",
    "creator",
    "lab",
    "application",
    "collaborators",
    "slot_labs",
    "slot_applications",
    "overridden",
    "series",
    "repeat",
    "cancelled_at",
    "cancel_reason",
)


def _username(**options):
    return serializers.SlugRelatedField(slug_field="username", **options)


class RepeatSerializer(StrictMixin, serializers.Serializer):
    """Every so many days or weeks at the same local hour, until a day."""

    every = WholeNumberField(
        min_value=1,
        max_value=366,
        default=1,
        help_text="Every so many of the unit: 2 and weeks, every other week.",
    )
    unit = serializers.ChoiceField(choices=BookingSeries.Unit.choices)
    until = serializers.DateField(validators=[check_year], help_text="The last day, that day included.")
    weekdays = serializers.ListField(
        child=WholeNumberField(min_value=0, max_value=6),
        required=False,
        max_length=7,
        help_text="0 for Monday to 6 for Sunday; left out: the weekday of the first, for days every day.",
    )


class BookingReadSerializer(serializers.ModelSerializer):
    """Others' bookings have microscope, start and end; their title is "Booked" and everything else null."""

    microscope = serializers.SlugRelatedField(slug_field="code", read_only=True, help_text="Its code.")
    owner = _username(read_only=True, help_text="Username.")
    operator = _username(read_only=True, help_text="Username; null: the owner.")
    creator = _username(read_only=True, help_text="Username.")
    lab = serializers.SlugRelatedField(slug_field="name", read_only=True, help_text="Its name.")
    application = serializers.SlugRelatedField(slug_field="code", read_only=True, help_text="Its code.")
    collaborators = _username(many=True, read_only=True, help_text="Usernames.")
    slot_labs = serializers.SlugRelatedField(
        slug_field="name", many=True, read_only=True, help_text="Of a slot: for which labs it is open."
    )
    slot_applications = serializers.SlugRelatedField(
        slug_field="code",
        many=True,
        read_only=True,
        help_text="Of a slot: for which applications it is open.",
    )
    overridden = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="Names of the rules that staff set aside for it.",
    )
    series = serializers.PrimaryKeyRelatedField(
        read_only=True, help_text="What it shares with the others of its repeat; null: it does not repeat."
    )
    repeat = serializers.SerializerMethodField(help_text="As the series was made; one booking may differ.")

    @extend_schema_field(RepeatSerializer(allow_null=True))
    def get_repeat(self, booking):
        series = booking.series
        if series is None:
            return None
        return {
            "every": series.every,
            "unit": series.unit,
            "until": series.until.isoformat(),
            "weekdays": series.weekdays,
        }

    class Meta:
        model = Booking
        fields = ("id", "microscope", "kind", "title", "description", "start", "end", *DETAILS[3:])
        read_only_fields = fields

    def to_representation(self, booking):
        if isinstance(booking, Booked):
            times = {
                name: self.fields[name].to_representation(getattr(booking, name)) for name in ("start", "end")
            }
            masked = dict.fromkeys(self.Meta.fields)
            return masked | times | {"microscope": booking.microscope.code, "title": "Booked"}
        return super().to_representation(booking)


class OverrideField(serializers.MultipleChoiceField):
    def __init__(self, **options):
        text = "For staff: names of the rules to set aside, knowingly. It is recorded."
        super().__init__(choices=sorted(OVERRIDABLE), required=False, help_text=text, **options)


class BookingWriteSerializer(StrictModelSerializer):
    """Shape alone; whether it is possible is the rules' to say. A field left out is left as it was."""

    microscope = serializers.SlugRelatedField(
        slug_field="code", queryset=Microscope.objects.all(), help_text="Its code."
    )
    owner = _username(
        queryset=User.objects.none(), required=False, help_text="Username; left out: you yourself."
    )
    operator = _username(
        queryset=User.objects.none(), required=False, allow_null=True, help_text="Username; null: the owner."
    )
    lab = serializers.SlugRelatedField(
        slug_field="name", queryset=Lab.objects.none(), required=False, allow_null=True, help_text="Its name."
    )
    application = serializers.SlugRelatedField(
        slug_field="code",
        queryset=Application.objects.none(),
        required=False,
        allow_null=True,
        help_text="Its code.",
    )
    collaborators = _username(
        many=True, queryset=User.objects.none(), required=False, help_text="Usernames; replaces the list."
    )
    slot_labs = serializers.SlugRelatedField(
        slug_field="name",
        many=True,
        queryset=Lab.objects.none(),
        required=False,
        help_text="For a slot: names of the labs for which it is open.",
    )
    slot_applications = serializers.SlugRelatedField(
        slug_field="code",
        many=True,
        queryset=Application.objects.none(),
        required=False,
        help_text="For a slot: codes of the applications for which it is open.",
    )
    override = OverrideField()
    displace = serializers.ListField(
        child=WholeNumberField(min_value=1, max_value=2**63 - 1),
        required=False,
        max_length=500,
        help_text="For staff's downtime and maintenance: ids of the bookings that are to be cancelled or shortened "
        "for it, as the 409 named them under `displaces`. All of them or none.",
    )
    displace_reason = WordsField(
        required=False,
        max_length=300,
        help_text="Why; their people read it. Left out: the type and the time.",
    )

    class Meta:
        model = Booking
        fields = (
            "microscope",
            "kind",
            "title",
            "description",
            "start",
            "end",
            "owner",
            "operator",
            "lab",
            "application",
            "collaborators",
            "slot_labs",
            "slot_applications",
            "override",
            "displace",
            "displace_reason",
        )

    def get_fields(self):
        fields = super().get_fields()
        request = self.context.get("request")
        if request is None or not request.user.is_authenticated or request.user.is_service:
            return fields
        actor, booking = request.user, self.instance
        shared = booking.collaborators.values("pk") if booking is not None else []
        fields["owner"].queryset = _people(people_to_own(actor), booking and booking.owner_id)
        fields["operator"].queryset = _people(people_to_operate(actor), booking and booking.operator_id)
        fields["collaborators"].child_relation.queryset = User.objects.filter(
            Q(pk__in=people_to_own(actor).order_by().values("pk")) | Q(pk__in=shared)
        )
        fields["lab"].queryset = Lab.objects.visible_to(actor) | Lab.objects.filter(
            pk=booking.lab_id if booking is not None else None
        )
        fields["application"].queryset = Application.objects.visible_to(actor) | Application.objects.filter(
            pk=booking.application_id if booking is not None else None
        )
        if is_staff(actor):
            fields["slot_labs"].child_relation.queryset = Lab.objects.all()
            fields["slot_applications"].child_relation.queryset = Application.objects.all()
        return fields

    def validate_override(self, names):
        if names and not is_staff(self.context["request"].user):
            raise serializers.ValidationError("Only the facility's staff set rules aside.")
        return sorted(names)

    def validate_displace(self, ids):
        if ids and not is_staff(self.context["request"].user):
            raise serializers.ValidationError("Only the facility's staff take the time of bookings.")
        return ids


class ScopeField(serializers.ChoiceField):
    def __init__(self, **options):
        text = "Of one that repeats: this booking, this and later ones, or all. Those begun stay untouched."
        super().__init__(choices=SCOPES, default=THIS, help_text=text, **options)


class BookingCreateSerializer(BookingWriteSerializer):
    repeat = RepeatSerializer(
        required=False, help_text="Book each of these times, all of them or none; the answer is the first."
    )

    class Meta(BookingWriteSerializer.Meta):
        fields = (*BookingWriteSerializer.Meta.fields, "repeat")

    def validate_repeat(self, wished):
        return Repeat(wished["every"], wished["unit"], wished["until"], tuple(wished.get("weekdays", ())))


class BookingChangeSerializer(BookingWriteSerializer):
    scope = ScopeField()

    class Meta(BookingWriteSerializer.Meta):
        fields = (*BookingWriteSerializer.Meta.fields, "scope")


def displaced(hit: Hit) -> dict:
    """What a 409 says of a booking in the way of downtime; staff alone read it."""
    return {
        "id": hit.booking.pk,
        "start": hit.booking.start.isoformat(),
        "end": hit.booking.end.isoformat(),
        "owner": hit.booking.owner.username,
        "action": hit.action,
    }


def _people(people, pk):
    """Them, and who is named on the booking already, whoever named them."""
    return User.objects.filter(Q(pk__in=people.order_by().values("pk")) | Q(pk=pk))


class BookingCancelSerializer(StrictMixin, serializers.Serializer):
    """Why, and for a booking with sessions whether they may stay without it."""

    reason = WordsField(
        required=False,
        allow_blank=True,
        max_length=300,
        default="",
        help_text="Needed on cancelling for another; the owner reads it.",
    )
    keep_sessions = TrueOrFalseField(
        required=False, default=False, help_text="Cancel although images were taken; they stay."
    )
    scope = ScopeField()
    override = OverrideField()

    validate_override = BookingWriteSerializer.validate_override
