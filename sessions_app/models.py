"""One data acquisition, the sample it looked at, and the summary that stays."""

import math

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.utils import timezone

from bookings.models import Booking
from microscopes.models import Camera, DataServer, Microscope
from people.models import Lab
from sessions_app.ordering import KnownDate, KnownSize
from sessions_app.querysets import SampleQuerySet, SessionQuerySet


class Sample(models.Model):
    """What is looked at; its name is unique in its lab, and its lab sees it."""

    lab = models.ForeignKey(Lab, on_delete=models.PROTECT, related_name="samples")
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SampleQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                "lab",
                Lower("name"),
                name="sample_name_unique_in_lab",
                violation_error_message="The lab has a sample of this name.",
            )
        ]

    def __str__(self):
        return self.name


class SessionName(models.Model):
    """Every name a session ever had, in lower case. Written by a database trigger (naming.py), never removed."""

    key = models.CharField(max_length=80, primary_key=True)

    class Meta:
        verbose_name = "given session name"

    def __str__(self):
        return self.key


def above_zero(value):
    """Validator: a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValidationError(
            "Write a number above 0, or leave it empty if it is not known.", code="min_value"
        )


def _positive(
    verbose_name: str, *, maximum: float, help_text: str = "", zero: bool = False
) -> models.FloatField:
    """An optional acquisition value above 0, or from 0 where that is possible."""
    return models.FloatField(
        verbose_name,
        null=True,
        blank=True,
        help_text=help_text,
        validators=[MinValueValidator(0) if zero else above_zero, MaxValueValidator(maximum)],
    )


class Session(models.Model):
    """One data acquisition during a booking."""

    class Status(models.TextChoices):
        PENDING = "pending", "pending"
        ACTIVE = "active", "active"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        ARCHIVED = "archived", "archived"

    booking = models.ForeignKey(Booking, on_delete=models.PROTECT, related_name="sessions")
    # Copies of the booking's microscope and lab, by which lists filter and sort at any size. A booking with sessions
    # keeps its microscope (bookings/rules.py); where its lab is corrected, bookings/services.py corrects it here.
    microscope = models.ForeignKey(
        Microscope, on_delete=models.PROTECT, related_name="sessions", editable=False
    )
    lab = models.ForeignKey(Lab, null=True, on_delete=models.PROTECT, related_name="sessions", editable=False)
    name = models.CharField(
        max_length=80,
        editable=False,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", "Use letters, digits, - and _.")],
    )
    creator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sessions_created", editable=False
    )
    operator = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="sessions_operated",
    )
    camera = models.ForeignKey(
        Camera, null=True, blank=True, on_delete=models.PROTECT, related_name="sessions"
    )
    sample = models.ForeignKey(
        Sample, null=True, blank=True, on_delete=models.PROTECT, related_name="sessions"
    )
    notes = models.TextField(blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.ACTIVE)
    start = models.DateTimeField(default=timezone.now)
    end = models.DateTimeField(null=True, blank=True)

    # Acquisition
    voltage_kv = _positive("voltage (kV)", maximum=2000)
    cs_mm = _positive("spherical aberration (mm)", maximum=100, zero=True)
    magnification = models.PositiveIntegerField(
        "nominal magnification",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100_000_000)],
    )
    pixel_size = _positive("pixel size (Å)", maximum=1000, help_text="Of the movies as recorded.")
    dose_per_frame = _positive("dose per frame (e⁻/Å²)", maximum=1000)
    total_dose = _positive("total dose (e⁻/Å²)", maximum=10000)
    frames = models.PositiveIntegerField(
        "frames per movie",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
    )
    exposure_time = _positive("exposure time (s)", maximum=10000)
    energy_slit = _positive("energy filter slit (eV)", maximum=1000, zero=True)
    spot_size = models.PositiveSmallIntegerField(
        "spot size", null=True, blank=True, validators=[MaxValueValidator(100)]
    )

    # Data, written by the acquisition watcher only
    data_server = models.ForeignKey(
        DataServer, null=True, blank=True, on_delete=models.PROTECT, related_name="sessions"
    )
    data_path = models.CharField(max_length=500, blank=True)
    data_files = models.PositiveBigIntegerField("files", null=True, blank=True)
    data_movies = models.PositiveBigIntegerField("movies", null=True, blank=True)
    data_bytes = models.PositiveBigIntegerField("size (bytes)", null=True, blank=True)
    last_file_at = models.DateTimeField(null=True, blank=True)
    watcher_seen_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When the watcher was last heard, to the minute."
    )

    # Retention (retention.py)
    delete_on = models.DateField(
        null=True, blank=True, help_text="The facility's local date on which the images are deleted."
    )
    reminded_at = models.DateTimeField(null=True, blank=True, editable=False)
    data_deleted_at = models.DateTimeField(null=True, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        ordering = ["-start", "-id"]
        constraints = [
            models.UniqueConstraint(
                Lower("name"),
                name="session_name_unique_ignoring_case",
                violation_error_message="This session name is taken.",
            ),
            models.CheckConstraint(
                name="session_ends_after_start",
                condition=Q(end__isnull=True) | Q(end__gte=F("start")),
                violation_error_message="The end must not be before the start.",
            ),
            models.CheckConstraint(
                name="session_finished_has_end",
                condition=~Q(status__in=["finished", "archived"]) | Q(end__isnull=False),
                violation_error_message="A finished session needs its end.",
            ),
        ]
        indexes = [
            models.Index(fields=["-start", "-id"], name="session_start"),
            models.Index(fields=["lab", "-start", "-id"], name="session_lab_start"),
            models.Index(fields=["microscope", "-start", "-id"], name="session_microscope_start"),
            models.Index(fields=["status", "-start", "-id"], name="session_status_start"),
            models.Index(fields=["delete_on"], name="session_delete_on"),
            models.Index(KnownSize("data_bytes").desc(), F("id").desc(), name="session_size"),
            models.Index(KnownDate("delete_on").asc(), F("id").asc(), name="session_days_left"),
        ]

    def __str__(self):
        return self.name

    def save(self, *args, **kwargs):
        # Copied here, in the one place all ways of creating share, and never again.
        if self._state.adding:
            self.microscope = self.booking.microscope
            self.lab = self.booking.lab
        adding = self._state.adding
        super().save(*args, **kwargs)
        if adding:
            SessionSummary.objects.create(session=self)

    def clean(self):
        if self.start and self.end and self.end < self.start:
            raise ValidationError({"end": "The end must not be before the start."})

    @property
    def owner(self):
        return self.booking.owner

    @property
    def is_running(self) -> bool:
        return self.status in (self.Status.PENDING, self.Status.ACTIVE)

    @property
    def movies(self) -> int | None:
        """How many there are, as far as the watcher or any pipeline has told; None if neither said anything."""
        return max(self.summary.exposures, self.data_movies or 0) or self.data_movies


class SessionSummary(models.Model):
    """What lists, dashboard, badges and statistics show of processing: one row per session from its creation.

    Counts are those of the leading run (the one with most micrographs, then the newest), because runs of one
    session look at the same exposures and a sum would count them twice. Written by ingestion in its own
    transaction; it stays when the rows go.
    """

    class Processing(models.TextChoices):
        NONE = "none", "no pipeline yet"
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        STOPPED = "stopped", "stopped"

    session = models.OneToOneField(
        Session, on_delete=models.CASCADE, primary_key=True, related_name="summary"
    )
    processing = models.CharField(max_length=10, choices=Processing, default=Processing.NONE)
    runs = models.PositiveIntegerField(default=0)
    exposures = models.PositiveIntegerField(default=0, help_text="Movies known by any run or watcher.")
    micrographs = models.PositiveIntegerField(default=0)
    motion_corrected = models.PositiveIntegerField(default=0)
    ctf_estimated = models.PositiveIntegerField(default=0)
    picked = models.PositiveIntegerField(default=0)
    particles = models.PositiveBigIntegerField(default=0)
    classes = models.PositiveIntegerField(default=0)
    leading_run = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Id of the run the counts are of."
    )
    last_seen_at = models.DateTimeField(null=True, blank=True)
    last_exposure_at = models.DateTimeField(
        null=True, blank=True, help_text="When a movie was last heard of for the first time."
    )
    alerts = models.JSONField(
        default=list,
        blank=True,
        help_text="Those that are open: kind, level, text, and since when (ISO 8601).",
    )
    exposure_revision = models.PositiveBigIntegerField(
        default=0, help_text="Revision of the session's exposures; each change of one takes the next number."
    )
    statistics = models.JSONField(
        default=dict, help_text="Per run: percentiles by field, with the revision they were computed at."
    )
    # Completed when the session is over, and again after late results (lifecycle.py): what statistics are made of.
    completed_at = models.DateTimeField(
        null=True, blank=True, help_text="When what follows was computed from the rows."
    )
    software = models.CharField(max_length=60, blank=True, help_text="Of the leading run.")
    histograms = models.JSONField(
        default=dict,
        help_text="Of the leading run, by quantity: label, unit, edges (first, last, bins between) and counts; the "
        "first count is below the first edge, the last at or above the last.",
    )
    median_resolution = models.FloatField("median CTF resolution (Å)", null=True, blank=True)
    median_motion = models.FloatField("median total motion (Å)", null=True, blank=True)
    median_astigmatism = models.FloatField("median astigmatism (nm)", null=True, blank=True)
    throughput = models.JSONField(
        default=dict,
        help_text="Movies by hour: whether by the time they were acquired or arrived, the first hour (UTC) and "
        "the counts from there on.",
    )
    curation = models.JSONField(
        default=dict, help_text="Movies that people accepted and rejected, and for which reasons."
    )
    pictures = models.JSONField(
        default=list,
        help_text="A few micrographs of the leading run whose pictures are kept with the archive.",
    )
    frozen_at = models.DateTimeField(null=True, blank=True, help_text="Set when the session is archived.")

    class Meta:
        verbose_name_plural = "session summaries"

    def __str__(self):
        return f"Summary of {self.session_id}"
