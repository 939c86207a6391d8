"""Users, labs and the audit trail: the ground floor that every other app stands on."""

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

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
