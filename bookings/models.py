"""Who may use a microscope, and when."""

import calendar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.utils import timezone

from bookings.querysets import ApplicationQuerySet, BookingQuerySet
from microscopes.models import Microscope
from people.models import Lab


class Application(models.Model):
    """An approved project that gives labs access for a period."""

    class Status(models.TextChoices):
        DRAFT = "draft", "draft"
        ACTIVE = "active", "active"
        CLOSED = "closed", "closed"

    code = models.CharField(
        max_length=30,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", "Use letters, digits, - and _.")],
    )
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    starts_on = models.DateField(null=True, blank=True)
    ends_on = models.DateField(null=True, blank=True, help_text="The last day on which it gives access.")
    labs = models.ManyToManyField(Lab, related_name="applications", blank=True)
    is_confidential = models.BooleanField(
        "confidential",
        default=False,
        help_text="What leaves the site, mails and calendar addresses, has no title and description of its bookings, "
        "and of the application its code alone.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ApplicationQuerySet.as_manager()

    class Meta:
        ordering = ["code"]
        constraints = [
            models.UniqueConstraint(
                Lower("code"),
                name="application_code_unique_ignoring_case",
                violation_error_message="Another application has this code.",
            ),
            models.CheckConstraint(
                name="application_ends_after_start",
                condition=Q(starts_on__isnull=True)
                | Q(ends_on__isnull=True)
                | Q(ends_on__gte=F("starts_on")),
                violation_error_message="The period must end on or after the day it starts.",
            ),
        ]

    def __str__(self):
        return f"{self.code} {self.title}"


class ApplicationQuota(models.Model):
    """How many days an application may use a microscope; without one there is no limit there (see quotas.py)."""

    application = models.ForeignKey(Application, on_delete=models.CASCADE, related_name="quotas")
    microscope = models.ForeignKey(Microscope, on_delete=models.PROTECT, related_name="quotas")
    days = models.PositiveIntegerField(
        validators=[MaxValueValidator(36_500)],
        help_text="In days of 24 hours, each counted when it begins. 0: none on this microscope.",
    )

    class Meta:
        ordering = ["application", "microscope"]
        constraints = [
            models.UniqueConstraint(
                fields=["application", "microscope"],
                name="quota_once_per_microscope",
                violation_error_message="The application has a quota for this microscope.",
            )
        ]

    def __str__(self):
        return f"{self.application.code}: {self.days} days on {self.microscope}"


class BookingSeries(models.Model):
    """What makes several bookings one repeat (series.py). Each booking has its own time and may leave the pattern."""

    class Unit(models.TextChoices):
        DAYS = "days", "days"
        WEEKS = "weeks", "weeks"

    every = models.PositiveSmallIntegerField(validators=[MinValueValidator(1)])
    unit = models.CharField(max_length=5, choices=Unit)
    weekdays = models.JSONField(default=list, blank=True, help_text="0 for Monday to 6 for Sunday.")
    until = models.DateField()
    creator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "booking series"

    def __str__(self):
        often = f"every {self.unit[:-1]}" if self.every == 1 else f"every {self.every} {self.unit}"
        days = ", ".join(calendar.day_abbr[day] for day in self.weekdays)
        return f"{often}{f' on {days}' if days else ''} until {self.until.day} {self.until:%b %Y}"


class Booking(models.Model):
    """Half-open [start, end). On one microscope no two overlap, slots and cancelled ones apart (overlap.py)."""

    class Kind(models.TextChoices):
        BOOKING = "booking", "booking"
        SLOT = "slot", "slot"
        DOWNTIME = "downtime", "downtime"
        MAINTENANCE = "maintenance", "maintenance"
        SPECIAL = "special", "special"

    microscope = models.ForeignKey(Microscope, on_delete=models.PROTECT, related_name="bookings")
    kind = models.CharField("type", max_length=12, choices=Kind, default=Kind.BOOKING)
    title = models.CharField(max_length=120, blank=True)
    description = models.TextField(blank=True)
    start = models.DateTimeField()
    end = models.DateTimeField()
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="bookings_owned"
    )
    operator = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="bookings_operated",
        help_text="Who runs the microscope. Empty: the owner.",
    )
    creator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="bookings_created", editable=False
    )
    lab = models.ForeignKey(
        Lab,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="bookings",
        help_text="Its members see the booking and its sessions.",
    )
    application = models.ForeignKey(
        Application, null=True, blank=True, on_delete=models.PROTECT, related_name="bookings"
    )
    collaborators = models.ManyToManyField(
        settings.AUTH_USER_MODEL, blank=True, related_name="bookings_shared"
    )
    series = models.ForeignKey(
        BookingSeries,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="bookings",
        editable=False,
    )
    slot_labs = models.ManyToManyField(
        Lab,
        blank=True,
        related_name="slots",
        verbose_name="open for labs",
        help_text="For a slot: whose members may book inside it. No lab and no application: anyone.",
    )
    slot_applications = models.ManyToManyField(
        Application,
        blank=True,
        related_name="slots",
        verbose_name="open for applications",
        help_text="For a slot: bookings charged to these may lie inside it.",
    )
    cancelled_at = models.DateTimeField(null=True, blank=True, editable=False)
    cancelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
    )
    cancel_reason = models.CharField(max_length=300, blank=True, editable=False)
    overridden = models.JSONField(
        "overridden rules",
        default=list,
        blank=True,
        editable=False,
        help_text="Names of the rules that staff set aside for it, knowingly.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(
        null=True, editable=False, help_text="When it was last changed; empty: never."
    )

    objects = BookingQuerySet.as_manager()

    class Meta:
        ordering = ["-start", "-id"]
        constraints = [
            models.CheckConstraint(
                name="booking_ends_after_start",
                condition=Q(end__gt=F("start")),
                violation_error_message="The end must be after the start.",
            ),
        ]
        indexes = [
            models.Index(fields=["microscope", "start", "end"], name="booking_microscope_time"),
            models.Index(fields=["start", "end"], name="booking_time"),
            models.Index(fields=["end"], name="booking_end"),
            # Slots may lie over each other, so that those around a moment are found by no other (calendar.in_range).
            models.Index(
                fields=["kind", "end", "start"],
                name="booking_kind_standing",
                condition=Q(cancelled_at__isnull=True),
            ),
        ]

    @property
    def is_confidential(self) -> bool:
        """Whether its title and description stay on the site: mails and calendar programs are not told."""
        return self.application_id is not None and self.application.is_confidential

    @property
    def is_upkeep(self) -> bool:
        return self.kind in UPKEEP

    @property
    def public_words(self) -> str:
        """What anybody may read of it (see bookings.access.public_kind)."""
        return str(self.get_kind_display()).capitalize() if self.is_upkeep else "Booked"

    def __str__(self):
        start = timezone.localtime(self.start)
        what = self.title or self.get_kind_display()
        return f"{self.microscope} {start:%Y-%m-%d %H:%M}: {what}"

    def clean(self):
        if self.start and self.end and self.end <= self.start:
            message = "The end must be after the start. Choose a later end."
            raise ValidationError({"end": ValidationError(message, code="ends_after_start")})

    @property
    def is_cancelled(self) -> bool:
        return self.cancelled_at is not None

    @property
    def has_started(self) -> bool:
        return self.start <= timezone.now()

    @property
    def has_ended(self) -> bool:
        return self.end <= timezone.now()

    @property
    def is_running(self) -> bool:
        return not self.is_cancelled and self.has_started and not self.has_ended

    @property
    def takes_sessions(self) -> bool:
        """Images are taken during bookings and special time, not during slots or downtime."""
        return self.kind in (self.Kind.BOOKING, self.Kind.SPECIAL) and not self.is_cancelled


class CalendarStamp(models.Model):
    """Another one after every change of the microscope's bookings. Written by database triggers alone (stamps.py)."""

    # Neither a constraint nor a cascade: deleting a microscope that was never used says nothing of it.
    microscope = models.OneToOneField(
        Microscope, primary_key=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    stamp = models.UUIDField()

    def __str__(self):
        return f"Bookings of microscope {self.microscope_id} as of {self.stamp}"


# -- What people are told of bookings --------------------------------------------------------------------------
class BookingReminder(models.Model):
    """That the people of a booking were told that it begins within a day: once for each start it has had."""

    booking = models.ForeignKey(Booking, on_delete=models.CASCADE, related_name="reminders")
    start = models.DateTimeField()
    sent_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["booking", "start"], name="reminder_once_per_start")]

    def __str__(self):
        return f"Reminder of {self.booking}"


# The facility's own: no person's time.
UPKEEP = (Booking.Kind.DOWNTIME, Booking.Kind.MAINTENANCE)


class CalendarFeed(models.Model):
    """A person's secret address at which calendar programs read bookings (bookings/feeds.py).

    Only what the secret is made from is stored, so that no copy of the database gives an address away.
    """

    class Scope(models.TextChoices):
        MINE = "mine", "my bookings"
        LAB = "lab", "a lab's bookings"
        MICROSCOPE = "microscope", "a microscope's bookings"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="calendar_feeds"
    )
    scope = models.CharField(max_length=12, choices=Scope)
    lab = models.ForeignKey(Lab, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    microscope = models.ForeignKey(
        Microscope, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    nonce = models.CharField(max_length=43, help_text="Random; a new one makes the old address useless.")
    created_at = models.DateTimeField(default=timezone.now)
    read_at = models.DateTimeField(null=True, blank=True, help_text="When it was last read, to the hour.")

    class Meta:
        ordering = ["scope", "pk"]
        constraints = [
            models.CheckConstraint(
                name="feed_names_what_it_is_of",
                condition=Q(scope="mine", lab=None, microscope=None)
                | Q(scope="lab", lab__isnull=False, microscope=None)
                | Q(scope="microscope", lab=None, microscope__isnull=False),
            ),
            models.UniqueConstraint(fields=["user"], condition=Q(scope="mine"), name="feed_of_mine_once"),
            models.UniqueConstraint(fields=["user", "lab"], name="feed_of_lab_once"),
            models.UniqueConstraint(fields=["user", "microscope"], name="feed_of_microscope_once"),
        ]

    def __str__(self):
        return str(self.lab or self.microscope or "My bookings")


class Follow(models.Model):
    """A person who wants to be told when time on the microscope becomes free."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="follows")
    microscope = models.ForeignKey(Microscope, on_delete=models.CASCADE, related_name="followers")
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "microscope"], name="follow_once")]

    def __str__(self):
        return f"{self.user} follows {self.microscope}"
