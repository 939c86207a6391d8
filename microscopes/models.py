"""The facility's hardware, and the tokens that say which program may post for which microscope."""

import datetime
from pathlib import PurePosixPath

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey, BaseAPIKeyManager

from microscopes.querysets import MicroscopeQuerySet

LAST_USED_RESOLUTION = datetime.timedelta(minutes=1)


class DataServer(models.Model):
    """How people fetch their images. No password is ever stored or shown."""

    class Protocol(models.TextChoices):
        SFTP = "sftp", "SFTP"
        RSYNC = "rsync", "rsync over SSH"
        GLOBUS = "globus", "Globus"
        SMB = "smb", "SMB (Windows share)"
        OTHER = "other", "other"

    name = models.CharField(max_length=80, unique=True)
    protocol = models.CharField(max_length=10, choices=Protocol, default=Protocol.SFTP)
    host = models.CharField(max_length=200, blank=True, help_text="For instance data.example.org.")
    port = models.PositiveIntegerField(null=True, blank=True, validators=[MaxValueValidator(65535)])
    path_template = models.CharField(
        max_length=300,
        default="/data/{microscope}/{session}",
        help_text="Where a session's images are. Fields: {microscope}, {session}, {lab}, {owner}, {year}, {month}.",
    )
    globus_collection = models.CharField("Globus collection id", max_length=80, blank=True)
    smb_share = models.CharField(
        "SMB share", max_length=200, blank=True, help_text=r"For instance \\server\share."
    )
    instructions = models.TextField(blank=True, help_text="For the people who download, in Markdown.")

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    def clean(self):
        try:
            self.path_template.format(
                microscope="m", session="s", lab="l", owner="o", year="2026", month="01"
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValidationError(
                {"path_template": f"This template cannot be filled in: {error}."}
            ) from error


class Microscope(models.Model):
    """One with bookings is retired, not deleted."""

    class Status(models.TextChoices):
        ACTIVE = "active", "active"
        MAINTENANCE = "maintenance", "in maintenance"
        RETIRED = "retired", "retired"

    name = models.CharField(max_length=80)
    code = models.SlugField(
        max_length=20,
        help_text="Short and without spaces; it begins the names of its sessions. For instance krios1.",
    )
    model = models.CharField(max_length=80, blank=True, help_text="For instance Titan Krios G4.")
    location = models.CharField(max_length=120, blank=True)
    status = models.CharField(max_length=12, choices=Status, default=Status.ACTIVE)
    status_note = models.CharField(
        max_length=200, blank=True, help_text="Shown to users, for instance why it is down."
    )
    picture = models.ImageField(upload_to="microscopes/", blank=True)
    colour = models.CharField(
        max_length=7,
        default="#0072B2",
        validators=[RegexValidator(r"^#[0-9a-fA-F]{6}$", "Write a colour such as #0072B2.")],
        help_text="Its colour on every page.",
    )
    voltage_kv = models.DecimalField(
        "voltage (kV)", max_digits=5, decimal_places=1, default=300, validators=[MinValueValidator(1)]
    )
    cs_mm = models.DecimalField(
        "spherical aberration (mm)",
        max_digits=5,
        decimal_places=3,
        default=2.7,
        validators=[MinValueValidator(0)],
    )
    data_server = models.ForeignKey(
        DataServer, null=True, blank=True, on_delete=models.PROTECT, related_name="microscopes"
    )
    retention_days = models.PositiveIntegerField(
        "retention (days)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(36500)],
        help_text="Days that images are kept after the last file. Empty: the facility's default.",
    )
    position = models.PositiveSmallIntegerField(default=0, help_text="Order on the dashboard.")
    group = models.CharField(
        max_length=40,
        blank=True,
        help_text="Microscopes of one group share the limit of bookings to come. For instance Krios.",
    )
    min_length_minutes = models.PositiveIntegerField(
        "shortest booking (minutes)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(525_600)],
        help_text="Empty: no limit.",
    )
    max_length_hours = models.PositiveIntegerField(
        "longest booking (hours)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(8760)],
        help_text="Empty: no limit.",
    )
    max_days_ahead = models.PositiveIntegerField(
        "how far ahead (days)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="A booking may start on this many days after today at most. Empty: no limit.",
    )
    change_notice_hours = models.PositiveIntegerField(
        "latest change (hours before)",
        null=True,
        blank=True,
        validators=[MaxValueValidator(8760)],
        help_text="So many hours before its start a booking's time can still be changed. Empty: until it starts.",
    )
    cancel_notice_hours = models.PositiveIntegerField(
        "latest cancellation (hours before)",
        null=True,
        blank=True,
        validators=[MaxValueValidator(8760)],
        help_text="So many hours before its start a booking can still be cancelled. Empty: until it starts.",
    )
    max_pending = models.PositiveIntegerField(
        "bookings to come per person",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="How many one person may have, on this microscope or all of its group. Empty: no limit.",
    )
    requires_application = models.BooleanField(
        default=False, help_text="Every booking is charged to an application that admits it."
    )
    requires_slot = models.BooleanField(
        default=False, help_text="Users book only inside time that staff opened as a slot for their lab."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MicroscopeQuerySet.as_manager()

    class Meta:
        ordering = ["position", "name"]
        constraints = [
            models.UniqueConstraint(
                Lower("code"),
                name="microscope_code_unique_ignoring_case",
                violation_error_message="Another microscope has this code.",
            ),
            models.UniqueConstraint(
                Lower("name"),
                name="microscope_name_unique_ignoring_case",
                violation_error_message="Another microscope has this name.",
            ),
            models.CheckConstraint(
                name="microscope_voltage_and_cs_are_physical",
                condition=models.Q(voltage_kv__gt=0, cs_mm__gte=0),
                violation_error_message="Voltage must be above 0 kV and Cs not negative.",
            ),
        ]

    def __str__(self):
        return self.name

    def clean(self):
        self.group = self.group.strip()
        if (
            self.min_length_minutes is not None
            and self.max_length_hours is not None
            and self.min_length_minutes > self.max_length_hours * 60
        ):
            raise ValidationError(
                {"min_length_minutes": "The shortest booking cannot be longer than the longest."}
            )

    @property
    def picture_version(self) -> str:
        """Changes with the picture, for addresses that browsers may keep."""
        return PurePosixPath(self.picture.name).stem if self.picture else ""

    @property
    def effective_retention_days(self) -> int:
        return self.retention_days or settings.RETENTION_DAYS


class Camera(models.Model):
    # A microscope that was never used goes with its cameras; one that was used is kept by its bookings.
    microscope = models.ForeignKey(Microscope, on_delete=models.CASCADE, related_name="cameras")
    name = models.CharField(max_length=80, help_text="For instance Falcon 4i or K3.")
    width = models.PositiveIntegerField("width (pixels)", null=True, blank=True)
    height = models.PositiveIntegerField("height (pixels)", null=True, blank=True)
    is_active = models.BooleanField(
        "active", default=True, help_text="Inactive cameras are not offered in forms."
    )
    position = models.PositiveSmallIntegerField(default=0, help_text="The first active one is proposed.")

    class Meta:
        ordering = ["microscope", "position", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["microscope", "name"],
                name="camera_once_per_microscope",
                violation_error_message="The microscope has a camera of this name.",
            )
        ]

    def __str__(self):
        return self.name


class PipelineTokenManager(BaseAPIKeyManager):
    def assign_key(self, obj):
        key = super().assign_key(obj)
        # Not the package's own id, which has the hash in it: ids show in addresses and in audit entries.
        obj.id = obj.prefix
        return key


class PipelineToken(AbstractAPIKey):
    """A program's key: who it is and for which microscopes it may post. Stored as a hash, shown once."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="pipeline_tokens",
        limit_choices_to={"is_service": True},
        editable=False,
    )
    all_microscopes = models.BooleanField(
        default=False, help_text="May post for every microscope, later ones too."
    )
    microscopes = models.ManyToManyField(Microscope, blank=True, related_name="pipeline_tokens")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    last_used_at = models.DateTimeField(null=True, editable=False)

    objects = PipelineTokenManager()

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "pipeline token"
        verbose_name_plural = "pipeline tokens"

    def allowed_microscopes(self):
        """Queryset of the microscopes this token may post for."""
        return Microscope.objects.all() if self.all_microscopes else self.microscopes.all()

    def touch(self, now=None):
        """Note that the token was used; written at most once a minute, so that reads stay reads."""
        now = now or timezone.now()
        stale = now - LAST_USED_RESOLUTION
        if self.last_used_at is None or self.last_used_at < stale:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)
            self.last_used_at = now
