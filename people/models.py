"""Users, labs and the audit trail: the ground floor that every other app stands on."""

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

from people import words
from people.querysets import LabQuerySet, UserQuerySet

PIPELINE_GROUP = "Pipeline"
STAFF_GROUP = "Facility staff"


class PeopleManager(UserManager.from_queryset(UserQuerySet)):
    """Django's own way of creating users, with the facility's words for finding them."""


class User(AbstractUser):
    """A person, or a pipeline's service user. People are deactivated or anonymised, never deleted."""

    email = models.EmailField("e-mail address", blank=True)
    is_service = models.BooleanField(
        "service user",
        default=False,
        help_text="A program that posts with a token. It cannot log in and is not shown among people.",
    )
    anonymised_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = PeopleManager()

    class Meta:
        ordering = ["last_name", "first_name", "username"]
        constraints = [
            models.UniqueConstraint(
                Lower("username"),
                name="user_username_unique_ignoring_case",
                violation_error_message="Another user has this username.",
            ),
            models.UniqueConstraint(
                Lower("email"),
                condition=~models.Q(email=""),
                name="user_email_unique_ignoring_case",
                violation_error_message="Another user has this e-mail address.",
            ),
        ]

    def __str__(self):
        return self.get_full_name() or self.username

    def clean(self):
        super().clean()
        self.email = self.email.strip()

    @property
    def initials(self) -> str:
        """One or two letters that stand for the person where space is short."""
        letters = [part[0] for part in (self.first_name, self.last_name) if part]
        return "".join(letters or [self.username[:1]]).upper()

    @property
    def is_invited(self) -> bool:
        """Whether the account waits for its person to set the first password (see UserQuerySet.invited)."""
        return (
            self.is_active
            and not self.is_service
            and self.last_login is None
            and not self.has_usable_password()
        )


class Lab(models.Model):
    """A principal investigator and members; what a member's lab owns, the member sees."""

    name = models.CharField(max_length=120)
    institution = models.CharField(max_length=200, blank=True)
    pi = models.ForeignKey(
        User, on_delete=models.PROTECT, related_name="labs_led", verbose_name="principal investigator"
    )
    members = models.ManyToManyField(User, through="Membership", related_name="labs", blank=True)
    is_active = models.BooleanField(
        "active", default=True, help_text="Inactive labs are not offered in forms."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = LabQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                Lower("name"),
                name="lab_name_unique_ignoring_case",
                violation_error_message="A lab has this name.",
            )
        ]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("people:lab", args=[self.pk])


class Membership(models.Model):
    """A person's current place in a lab; removed when the person leaves."""

    lab = models.ForeignKey(Lab, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    since = models.DateField(default=timezone.localdate)

    class Meta:
        ordering = ["lab", "user"]
        constraints = [
            models.UniqueConstraint(
                fields=["lab", "user"],
                name="membership_once",
                violation_error_message="Already a member of this lab.",
            )
        ]

    def __str__(self):
        return f"{self.user} in {self.lab}"


class Preferences(models.Model):
    """What a person has chosen. Without a row everything is as its default says: see `of`."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="preferences")
    mail_created = models.BooleanField(
        "A booking was made for me",
        default=True,
        help_text="Somebody else booked a microscope in my name or named me on it.",
    )
    mail_changed = models.BooleanField(
        "A booking of mine was changed",
        default=True,
        help_text="By somebody else: another time or microscope, handed to me or away from me; or I was named on it.",
    )
    mail_cancelled = models.BooleanField(
        "A booking of mine was cancelled", default=True, help_text="By somebody else, with the reason."
    )
    mail_own = models.BooleanField(
        "I book, change or cancel time of mine myself",
        default=True,
        help_text="A confirmation with the file for my calendar. Not needed where it reads an address of this page.",
    )
    mail_day_before = models.BooleanField(
        "My booking begins within a day",
        default=True,
        help_text="A reminder of what I own, operate or am a collaborator of.",
    )
    mail_alert_data = models.BooleanField(
        "The data of a session of mine are out of limits",
        default=True,
        help_text="Resolution, motion, ice, astigmatism, particles or size, in sessions I own or operate.",
    )
    mail_alert_machines = models.BooleanField(
        "A session of mine stands still",
        default=True,
        help_text="No new files, the watcher or the pipeline silent, or an error of the pipeline.",
    )
    mail_alert_over = models.BooleanField(
        "An alert is over", default=False, help_text="What one of the two above told of is well again."
    )

    hour_cycle = models.CharField(
        "Times of day",
        max_length=3,
        choices=[(words.H23, "24 hours, 18:00"), (words.H12, "12 hours, 6:00 pm")],
        default=words.H23,
        help_text="How times are shown to you, on pages and in mails.",
    )
    calendar_view = models.CharField(max_length=12, blank=True, help_text="As last chosen in the calendar.")
    calendar_microscopes = models.JSONField(
        default=list, blank=True, help_text="Codes of those last chosen in the calendar; none: all."
    )

    MAILS = (
        "mail_created",
        "mail_changed",
        "mail_cancelled",
        "mail_own",
        "mail_day_before",
        "mail_alert_data",
        "mail_alert_machines",
        "mail_alert_over",
    )
    #: What the person chooses on their own page.
    CHOICES = ("hour_cycle", *MAILS)

    class Meta:
        verbose_name_plural = "preferences"

    def __str__(self):
        return f"Preferences of {self.user}"

    @classmethod
    def of(cls, user: User) -> "Preferences":
        """The person's choices, or the defaults, not saved, where none were made yet."""
        # Known already for who is logged in (people/backends.py).
        if "preferences" in user._state.fields_cache:
            return user._state.fields_cache["preferences"] or cls(user=user)
        return cls.objects.filter(user=user).first() or cls(user=user)


class OutgoingMail(models.Model):
    """A mail that is to leave, or has left. It is written in the transaction of what it tells of (people/outbox.py).

    Text and attachment are emptied once it is sent: what it said is nobody's business any more, and an invitation's
    link stands in no backup.
    """

    recipient = models.ForeignKey(User, on_delete=models.CASCADE, related_name="outgoing_mails")
    address = models.EmailField()
    subject = models.CharField(max_length=250)
    body = models.TextField(blank=True)
    calendar = models.TextField(blank=True, help_text="An attached iCalendar file, with its METHOD.")
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(
        null=True, default=timezone.now, help_text="When it is tried (again); empty: never any more."
    )
    attempts = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True, help_text="Why the last attempt failed.")

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(
                fields=["due_at"], name="outgoing_mail_due", condition=models.Q(due_at__isnull=False)
            ),
            models.Index(fields=["created_at"], name="outgoing_mail_created"),
        ]

    def __str__(self):
        return f"{self.subject} (to {self.address})"


class AuditEntry(models.Model):
    """Who did what to which record, and when. Outlives both the record and the person."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="audit_entries")
    actor_name = models.CharField(max_length=200)
    action = models.CharField(max_length=60, help_text="For instance: session deleted.")
    target_type = models.CharField(max_length=60, help_text="The model, for instance sessions_app.session.")
    target_id = models.CharField(max_length=60)
    target_name = models.CharField(max_length=200)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["target_type", "target_id"], name="audit_target")]

    def __str__(self):
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor_name}: {self.action} {self.target_name}"

    @classmethod
    def record(cls, *, actor, action: str, target, details: dict | None = None) -> "AuditEntry":
        """Write an entry about `target`, a saved model instance, in the caller's transaction."""
        return cls.objects.create(
            actor=actor if actor is not None and actor.pk else None,
            actor_name=str(actor) if actor is not None else "the system",
            action=action,
            target_type=target._meta.label_lower,
            target_id=str(target.pk),
            target_name=str(target)[:200],
            details=details or {},
        )
