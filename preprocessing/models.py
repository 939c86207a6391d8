"""What watchers and pipelines report, written by `preprocessing.ingest` only; and the limits that people set."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from microscopes.models import Microscope
from preprocessing.fields import WrittenJSONField
from preprocessing.parameters import ParametersDecoder
from preprocessing.querysets import AlertQuerySet, ClassAverageQuerySet, OfRunQuerySet, OfSessionQuerySet
from sessions_app.models import Session


class Exposure(models.Model):
    """One movie of a session, whoever named it: unique by the identity derived from its name (identity.py)."""

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted", "accepted"
        REJECTED = "rejected", "rejected"

    # Looked up by the constraint's index, which begins with the session; one more would slow every insert.
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="exposures", db_index=False)
    identity = models.CharField(max_length=255)
    name = models.CharField(max_length=500, help_text="The movie's name as first posted.")
    acquired_at = models.DateTimeField(null=True, blank=True)
    grid_square = models.CharField(max_length=60, blank=True)
    foil_hole = models.CharField(max_length=60, blank=True)
    stage_x = models.FloatField("stage x (µm)", null=True, blank=True)
    stage_y = models.FloatField("stage y (µm)", null=True, blank=True)
    beam_shift_x = models.FloatField(null=True, blank=True)
    beam_shift_y = models.FloatField(null=True, blank=True)
    # People's verdict; no pipeline touches it.
    verdict = models.CharField(max_length=10, choices=Verdict, blank=True)
    verdict_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
    )
    verdict_at = models.DateTimeField(null=True, blank=True)
    verdict_reason = models.CharField(max_length=300, blank=True)
    revision = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OfSessionQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["session", "identity"], name="exposure_once_per_session")
        ]
        indexes = [models.Index(fields=["session", "revision"], name="exposure_revision")]

    def __str__(self):
        return self.name


class ProcessingRun(models.Model):
    """One pipeline, or one branch of it, on one session."""

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        STOPPED = "stopped", "stopped"

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="runs")
    key = models.CharField(max_length=200, help_text="The run's own identity for its pipeline.")
    software = models.CharField(max_length=60)
    version = models.CharField(max_length=60, blank=True)
    host = models.CharField(max_length=200, blank=True)
    label = models.CharField(max_length=120, blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(default=timezone.now)
    parameters = models.JSONField(default=dict, blank=True, decoder=ParametersDecoder)
    pixel_size = models.FloatField("micrograph pixel size (Å)", null=True, blank=True)
    width = models.PositiveIntegerField("micrograph width (pixels)", null=True, blank=True)
    height = models.PositiveIntegerField("micrograph height (pixels)", null=True, blank=True)
    particle_diameter = models.FloatField("particle diameter (Å)", null=True, blank=True)
    # Kept by ingestion under this row's lock, always equal to a recount of the rows.
    micrographs = models.PositiveIntegerField(default=0, editable=False)
    motion_corrected = models.PositiveIntegerField(default=0, editable=False)
    ctf_estimated = models.PositiveIntegerField(default=0, editable=False)
    picked = models.PositiveIntegerField(default=0, editable=False)
    particles = models.PositiveBigIntegerField(default=0, editable=False)
    classes = models.PositiveIntegerField(default=0, editable=False)
    histograms = WrittenJSONField(default=dict, editable=False, help_text="Per field: counts by fixed edges.")
    revision = models.PositiveBigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OfSessionQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["session", "key"], name="run_key_once_per_session")]

    def __str__(self):
        return self.label or f"{self.software} {self.key}"


class Micrograph(models.Model):
    """One run's measurements of an exposure. Every measured field may be unknown (null). Keep signals off it."""

    # As for exposures: the constraint's index begins with the run.
    run = models.ForeignKey(
        ProcessingRun, on_delete=models.CASCADE, related_name="micrograph_rows", db_index=False
    )
    exposure = models.ForeignKey(Exposure, on_delete=models.CASCADE, related_name="micrographs")
    name = models.CharField(max_length=500, help_text="As this run's pipeline names it.")
    motion_total = models.FloatField("total motion (Å)", null=True)
    motion_early = models.FloatField("early motion (Å)", null=True)
    motion_late = models.FloatField("late motion (Å)", null=True)
    defocus_u = models.FloatField("defocus U (Å)", null=True, help_text="Underfocus is positive.")
    defocus_v = models.FloatField("defocus V (Å)", null=True, help_text="Underfocus is positive.")
    defocus_angle = models.FloatField("defocus angle (°)", null=True)
    phase_shift = models.FloatField("phase shift (°)", null=True)
    ctf_resolution = models.FloatField("CTF resolution (Å)", null=True)
    ctf_score = models.FloatField("CTF score", null=True)
    ice_thickness = models.FloatField("ice thickness (relative)", null=True)
    particles = models.PositiveIntegerField("particles", null=True)
    # So that a count and a list of picks end the same in whichever order they come.
    particles_counted = models.BooleanField(
        default=False, editable=False, help_text="`particles` is the number of coordinates; none was posted."
    )
    rejected = models.BooleanField("rejected by the pipeline", null=True)
    micrograph_image = models.CharField(
        max_length=200, blank=True, help_text="Name in the session's image folder."
    )
    psd_image = models.CharField(max_length=200, blank=True, help_text="Name in the session's image folder.")
    revision = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OfRunQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["run", "exposure"], name="micrograph_once_per_run")]
        indexes = [models.Index(fields=["run", "revision"], name="micrograph_revision")]

    def __str__(self):
        return self.name


class PackedColumns(models.Model):
    """A cache of packed.py: a part of a run's rows in the order of their making, as bytes of packed.DTYPE.

    Written by readers now and then; emptied at any time without loss.
    """

    run = models.ForeignKey(ProcessingRun, on_delete=models.CASCADE, related_name="packed")
    number = models.PositiveIntegerField()
    layout = models.PositiveSmallIntegerField()
    revision = models.PositiveBigIntegerField(help_text="Of the run: the rows are as of then.")
    data = models.BinaryField()
    texts = models.JSONField(default=list, help_text="What the codes of grid squares and foil holes mean.")

    class Meta:
        verbose_name_plural = "packed columns"
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="packed_once_per_run")]

    def __str__(self):
        return f"Part {self.number} of run {self.run_id}"


class ArchivedRows(models.Model):
    """What is left of an archived run's rows: every measured value, without coordinates (archive.py).

    `data` is zlib-compressed rows of a numpy structured array whose `columns` are name and type, so that it can be
    read whatever packed.DTYPE becomes; `names` the micrographs' names in the same order, a line each, compressed.
    """

    run = models.OneToOneField(
        ProcessingRun, on_delete=models.CASCADE, primary_key=True, related_name="archived_rows"
    )
    rows = models.PositiveIntegerField()
    columns = models.JSONField()
    texts = models.JSONField(default=list, help_text="What the codes of grid squares and foil holes mean.")
    data = models.BinaryField()
    names = models.BinaryField()

    class Meta:
        verbose_name_plural = "archived rows"

    def __str__(self):
        return f"{self.rows} micrographs of run {self.run_id}"


class Coordinates(models.Model):
    """A micrograph's picks in micrograph pixels: `points` is little-endian float32, shape (n, 2), x then y."""

    micrograph = models.OneToOneField(
        Micrograph, on_delete=models.CASCADE, primary_key=True, related_name="coordinates_row"
    )
    points = models.BinaryField()

    class Meta:
        verbose_name_plural = "coordinates"

    def __str__(self):
        return f"{len(self.points) // 8} picks of micrograph {self.micrograph_id}"


class CurationAct(models.Model):
    """One decision of a person about one or many exposures of a session, so that it can be seen and undone."""

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="curation_acts")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField()
    verdict = models.CharField(
        max_length=10, choices=Exposure.Verdict, blank=True, help_text="Empty: taken back."
    )
    reason = models.CharField(max_length=300, blank=True)
    count = models.PositiveIntegerField()
    what = models.CharField(max_length=300, help_text="Which ones, in words.")
    before = models.BinaryField(help_text="Compressed JSON: identity and the columns as they were.")
    undone_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    undone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["session", "-id"], name="curation_newest")]

    def __str__(self):
        return f"{self.get_verdict_display() or 'undecided'}: {self.what}"


class ClassAverage(models.Model):
    """A 2D class of a run."""

    run = models.ForeignKey(ProcessingRun, on_delete=models.CASCADE, related_name="class_averages")
    job = models.CharField(max_length=120)
    iteration = models.PositiveIntegerField(default=0)
    number = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    particles = models.PositiveIntegerField(default=0)
    resolution = models.FloatField("estimated resolution (Å)", null=True, blank=True)
    image = models.CharField(max_length=200, blank=True, help_text="Name in the session's image folder.")
    # People's choice of the good ones; no pipeline touches it.
    selected = models.BooleanField(default=False, db_default=False)
    revision = models.PositiveBigIntegerField(default=0)

    objects = ClassAverageQuerySet.as_manager()

    class Meta:
        ordering = ["job", "-iteration", "-particles", "number"]
        verbose_name = "2D class"
        verbose_name_plural = "2D classes"
        constraints = [
            models.UniqueConstraint(
                fields=["run", "job", "iteration", "number"], name="class_once_per_iteration"
            ),
            models.CheckConstraint(
                name="class_resolution_positive", condition=Q(resolution__isnull=True) | Q(resolution__gt=0)
            ),
        ]
        indexes = [models.Index(fields=["run", "revision"], name="class_revision")]

    def __str__(self):
        return f"{self.job} it{self.iteration:03d} class {self.number}"


class RunEvent(models.Model):
    """A message of the pipeline's own: what it did, or what went wrong."""

    class Level(models.TextChoices):
        INFO = "info", "info"
        WARNING = "warning", "warning"
        ERROR = "error", "error"

    run = models.ForeignKey(ProcessingRun, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    level = models.CharField(max_length=8, choices=Level, default=Level.INFO)
    text = models.CharField(max_length=2000)
    revision = models.PositiveBigIntegerField(default=0)

    objects = OfRunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["run", "-id"], name="event_newest")]

    def __str__(self):
        return f"{self.level}: {self.text[:80]}"


def _limit(
    verbose_name: str, *, maximum: float, default: float | None = None, **options
) -> models.FloatField:
    """An optional bound; empty: no alert of this."""
    return models.FloatField(
        verbose_name,
        null=True,
        blank=True,
        default=default,
        validators=[MinValueValidator(0), MaxValueValidator(maximum)],
        **options,
    )


def _minutes(verbose_name: str, *, default: int, help_text: str) -> models.PositiveIntegerField:
    """After how long without a sign; at least two minutes, as signs of life are kept to the minute."""
    return models.PositiveIntegerField(
        f"{verbose_name} (minutes)",
        null=True,
        blank=True,
        default=default,
        help_text=help_text,
        validators=[MinValueValidator(2), MaxValueValidator(7 * 24 * 60)],
    )


class Limits(models.Model):
    """When a session needs somebody: each field empty for no alert of that kind (alerts.py)."""

    ctf_resolution_max = _limit("CTF resolution above (Å)", maximum=1000, default=6)
    motion_total_max = _limit("total motion above (Å)", maximum=100_000, default=50)
    ice_thickness_max = _limit(
        "ice thickness above (relative)",
        maximum=100_000,
        help_text="On the scale of the pipeline that measures it.",
    )
    astigmatism_max = _limit("astigmatism above (nm)", maximum=100_000, default=100)
    particles_min = _limit("particles in a micrograph below", maximum=1_000_000, default=1)
    particles_max = _limit("particles in a micrograph above", maximum=1_000_000)
    file_minutes = _minutes("no new file for", default=15, help_text="While the watcher is alive.")
    watcher_minutes = _minutes("watcher silent for", default=10, help_text="Once it has been heard.")
    pipeline_minutes = _minutes("pipeline silent for", default=10, help_text="Of a run that has not ended.")
    size_tb = _limit("session's data above (TB)", maximum=1_000_000, default=20)

    class Meta:
        abstract = True

    def clean(self):
        if None not in (self.particles_min, self.particles_max) and self.particles_min > self.particles_max:
            raise ValidationError({"particles_max": "This must not be below the least number of particles."})


class MicroscopeLimits(Limits):
    """What sessions of the microscope start from; without a row the fields' defaults hold."""

    microscope = models.OneToOneField(
        Microscope, on_delete=models.CASCADE, primary_key=True, related_name="limits"
    )

    class Meta:
        verbose_name = "alert limits of a microscope"
        verbose_name_plural = "alert limits of microscopes"

    def __str__(self):
        return f"Alert limits of {self.microscope}"


class SessionLimits(Limits):
    """The whole set of one session, made where somebody changed it; without a row the microscope's hold."""

    session = models.OneToOneField(Session, on_delete=models.CASCADE, primary_key=True, related_name="limits")
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "alert limits of a session"
        verbose_name_plural = "alert limits of sessions"

    def __str__(self):
        return f"Alert limits of {self.session}"


class Alert(models.Model):
    """Something about a running session that needs somebody, from when it was seen to when it was well again.

    Written by `preprocessing.alerts` only; it stays when the session's rows go.
    """

    class Kind(models.TextChoices):
        RESOLUTION = "resolution", "resolution"
        MOTION = "motion", "motion"
        ICE = "ice", "ice"
        ASTIGMATISM = "astigmatism", "astigmatism"
        PARTICLES = "particles", "particles"
        SIZE = "size", "session size"
        NO_FILE = "no_file", "no new file"
        WATCHER = "watcher_silent", "watcher silent"
        PIPELINE = "pipeline_silent", "pipeline silent"
        ERROR = "pipeline_error", "pipeline error"

    class Level(models.TextChoices):
        WARNING = "warning", "warning"
        BAD = "bad", "bad"

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=16, choices=Kind)
    level = models.CharField(max_length=8, choices=Level, default=Level.WARNING)
    text = models.CharField(max_length=400)
    since = models.DateTimeField(help_text="When what it tells of began, as far as that is known.")
    raised_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True, blank=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        ordering = ["-raised_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "kind"],
                condition=Q(resolved_at__isnull=True),
                name="alert_open_once_of_a_kind",
            ),
            models.CheckConstraint(
                name="alert_resolved_after_it_was_raised",
                condition=Q(resolved_at__isnull=True) | Q(resolved_at__gte=models.F("raised_at")),
            ),
        ]
        indexes = [
            models.Index(fields=["-raised_at", "-id"], name="alert_newest"),
            models.Index(fields=["session", "-raised_at", "-id"], name="alert_session_newest"),
            models.Index(fields=["id"], condition=Q(resolved_at__isnull=True), name="alert_open"),
        ]

    def __str__(self):
        return f"{self.session}: {self.text}"

    @property
    def is_open(self) -> bool:
        return self.resolved_at is None

    @property
    def lasted(self):
        """For how long it has been or was open, as a timedelta."""
        return (self.resolved_at or timezone.now()) - self.raised_at
