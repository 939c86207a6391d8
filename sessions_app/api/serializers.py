"""One serializer per direction: what a session tells, what creates one, what corrects one."""

import datetime

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from bookings.models import Booking
from people.access import is_pipeline
from people.api.serializers import StrictModelSerializer, WordsField
from sessions_app.acquisition import FIELDS
from sessions_app.data_access import check_path
from sessions_app.models import Session, SessionSummary
from sessions_app.retention import retention

DATA_FIELDS = ("data_path", "data_files", "data_movies", "data_bytes", "last_file_at")
CLOCK_AHEAD = datetime.timedelta(days=1)
WRITABLE_STATUS = ("pending", "active", "finished", "failed")


class ProcessingSerializer(serializers.ModelSerializer):
    """What lists show of processing; the whole is at /sessions/{name}/summary/."""

    status = serializers.ChoiceField(source="processing", choices=SessionSummary.Processing, read_only=True)

    class Meta:
        model = SessionSummary
        fields = (
            "status",
            "runs",
            "exposures",
            "micrographs",
            "motion_corrected",
            "ctf_estimated",
            "picked",
            "particles",
            "classes",
            "last_seen_at",
        )
        read_only_fields = fields


class SessionReadSerializer(serializers.ModelSerializer):
    """People appear by name only: a pipeline learns no more of them."""

    booking = serializers.IntegerField(source="booking_id", read_only=True)
    microscope = serializers.CharField(source="microscope.code", read_only=True)
    lab = serializers.SerializerMethodField()
    owner = serializers.SerializerMethodField()
    operator = serializers.SerializerMethodField()
    camera = serializers.SerializerMethodField()
    sample = serializers.SerializerMethodField()
    data_server = serializers.SerializerMethodField()
    days_left = serializers.SerializerMethodField()
    processing = ProcessingSerializer(source="summary", read_only=True)

    class Meta:
        model = Session
        fields = (
            "name",
            "status",
            "booking",
            "microscope",
            "lab",
            "owner",
            "operator",
            "camera",
            "sample",
            "notes",
            "start",
            "end",
            *FIELDS,
            "data_server",
            *DATA_FIELDS,
            "watcher_seen_at",
            "delete_on",
            "days_left",
            "processing",
        )
        read_only_fields = fields

    def to_representation(self, session):
        data = super().to_representation(session)
        if is_pipeline(self.context["request"].user):
            # Notes are what people write to each other.
            del data["notes"]
        return data

    @extend_schema_field({"type": "string", "nullable": True, "description": "The lab's name."})
    def get_lab(self, session):
        return session.lab.name if session.lab else None

    @extend_schema_field({"type": "string", "description": "Name of the booking's owner."})
    def get_owner(self, session):
        return str(session.booking.owner)

    @extend_schema_field(
        {"type": "string", "nullable": True, "description": "Name of who runs the microscope."}
    )
    def get_operator(self, session):
        return str(session.operator) if session.operator else None

    @extend_schema_field({"type": "string", "nullable": True, "description": "The camera's name."})
    def get_camera(self, session):
        return session.camera.name if session.camera else None

    @extend_schema_field({"type": "string", "nullable": True, "description": "The sample's name in its lab."})
    def get_sample(self, session):
        return session.sample.name if session.sample else None

    @extend_schema_field({"type": "string", "nullable": True, "description": "The data server's name."})
    def get_data_server(self, session):
        return session.data_server.name if session.data_server else None

    @extend_schema_field(
        {
            "type": "integer",
            "nullable": True,
            "description": "Days until the images are deleted; negative when overdue.",
        }
    )
    def get_days_left(self, session):
        return retention(session).days


class CameraNameMixin:
    """`camera` is written as it is read: by its name, which is unique on its microscope."""

    def camera_named(self, microscope, name):
        camera = microscope.cameras.filter(name=name).first()
        if camera is None:
            names = ", ".join(microscope.cameras.filter(is_active=True).values_list("name", flat=True))
            raise serializers.ValidationError(
                {"camera": [f"{microscope} has no such camera. Choose one of: {names or 'none yet'}."]}
            )
        return camera


class SessionCreateSerializer(CameraNameMixin, StrictModelSerializer):
    """A new session of a booking that runs now. Fields left out are proposed as in the dialog; null is kept."""

    booking = serializers.PrimaryKeyRelatedField(
        queryset=Booking.objects.none(), help_text="The booking's id."
    )
    camera = WordsField(required=False, max_length=80, help_text="The camera's name.")
    sample = WordsField(
        required=False,
        allow_null=True,
        max_length=120,
        help_text="The name of a sample of the booking's lab; made if it is new.",
    )

    class Meta:
        model = Session
        fields = ("booking", "camera", "sample", *FIELDS)

    def get_fields(self):
        fields = super().get_fields()
        fields["booking"].queryset = Booking.objects.visible_to(self.context["request"].user).with_people()
        return fields

    def validate(self, attrs):
        if "camera" in attrs:
            attrs["camera"] = self.camera_named(attrs["booking"].microscope, attrs["camera"])
        return attrs


class SessionUpdateSerializer(CameraNameMixin, StrictModelSerializer):
    """Corrections. Only fields that are given are written."""

    status = serializers.ChoiceField(
        choices=[(value, value) for value in WRITABLE_STATUS],
        required=False,
        help_text="finished and failed set the end and the date on which the images go.",
    )
    camera = WordsField(required=False, allow_null=True, max_length=80, help_text="The camera's name.")

    class Meta:
        model = Session
        fields = ("status", "camera", *FIELDS, *DATA_FIELDS)

    def validate_last_file_at(self, value):
        """The images are kept for so long after it: a clock that is years ahead would keep them for ever."""
        if value is not None and value > timezone.now() + CLOCK_AHEAD:
            raise serializers.ValidationError("This time is in the future. Is the watcher's clock right?")
        return value

    def validate_data_path(self, value):
        check_path(value)
        return value

    def validate(self, attrs):
        if attrs.get("camera") is not None:
            attrs["camera"] = self.camera_named(self.instance.microscope, attrs["camera"])
        return attrs
