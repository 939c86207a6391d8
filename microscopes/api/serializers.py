"""What pipelines and programs read of the hardware."""

from rest_framework import serializers

from microscopes.models import Camera, Microscope

# What binds bookings; null: no limit.
BOOKING_LIMITS = (
    "min_length_minutes",
    "max_length_hours",
    "max_days_ahead",
    "change_notice_hours",
    "cancel_notice_hours",
    "max_pending",
    "requires_application",
    "requires_slot",
)


class CameraSerializer(serializers.ModelSerializer):
    class Meta:
        model = Camera
        fields = ["id", "name", "width", "height"]


class MicroscopeSerializer(serializers.ModelSerializer):
    voltage_kv = serializers.FloatField(help_text="Acceleration voltage in kV.")
    cs_mm = serializers.FloatField(help_text="Spherical aberration in mm.")
    cameras = CameraSerializer(
        many=True, source="cameras_in_use", help_text="Those in use, the default first."
    )

    class Meta:
        model = Microscope
        fields = [
            "name",
            "code",
            "model",
            "location",
            "group",
            "colour",
            "status",
            "status_note",
            "voltage_kv",
            "cs_mm",
            "cameras",
            *BOOKING_LIMITS,
        ]
