"""How staff keep applications and bookings."""

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from bookings import access
from bookings.models import Application, ApplicationQuota, Booking
from bookings.services import booking_cancel, booking_create, booking_update, lock_microscopes
from microscopes.models import Microscope
from people.changes import ChangedFieldsAdmin, ChangedFieldsTabularInline, ServiceErrorsAdmin
from people.confirmation import ask, is_confirmed
from people.deletion import CarefulDeletionAdmin

SESSIONS_NAMED = 50


class QuotaInline(ChangedFieldsTabularInline):
    """A part of its application: whoever changes that gives quotas."""

    model = ApplicationQuota
    extra = 0
    autocomplete_fields = ["microscope"]
    verbose_name = "quota"
    verbose_name_plural = "quotas (a microscope without one has no limit)"

    def has_view_permission(self, request, obj=None):
        return request.user.has_perm("bookings.view_application")

    def _may_change(self, request, obj=None):
        return request.user.has_perm("bookings.change_application")

    has_add_permission = has_change_permission = has_delete_permission = _may_change


@admin.register(Application)
class ApplicationAdmin(CarefulDeletionAdmin, ChangedFieldsAdmin):
    list_display = ["code", "title", "status", "starts_on", "ends_on", "lab_names", "booking_count"]
    list_filter = ["status", "is_confidential", ("labs", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["code", "title", "labs__name"]
    date_hierarchy = "starts_on"
    autocomplete_fields = ["labs"]
    inlines = [QuotaInline]
    readonly_fields = ["created_at"]
    delete_instead = "Close it instead: it gives no more access and its bookings keep it."
    fieldsets = [
        (None, {"fields": ["code", "title", "status", "is_confidential", "description"]}),
        ("Access", {"fields": [("starts_on", "ends_on"), "labs"]}),
        ("Record", {"fields": ["created_at"]}),
    ]

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("labs").with_booking_counts()

    @admin.display(description="labs")
    def lab_names(self, application):
        return ", ".join(lab.name for lab in application.labs.all())

    @admin.display(description="bookings", ordering="booking_count")
    def booking_count(self, application):
        return application.booking_count


class When(admin.SimpleListFilter):
    title = "time"
    parameter_name = "when"

    def lookups(self, request, model_admin):
        return [("now", "running now"), ("next", "to come"), ("past", "past")]

    def queryset(self, request, queryset):
        now = timezone.now()
        if self.value() == "now":
            return queryset.covering(now)
        if self.value() == "next":
            return queryset.filter(start__gt=now)
        return queryset.filter(end__lte=now) if self.value() == "past" else queryset


class Cancelled(admin.SimpleListFilter):
    title = "cancelled"
    parameter_name = "cancelled"

    def lookups(self, request, model_admin):
        return [("no", "no"), ("yes", "yes")]

    def queryset(self, request, queryset):
        if self.value() in ("yes", "no"):
            return queryset.filter(cancelled_at__isnull=self.value() == "no")
        return queryset


class CancelForm(forms.Form):
    reason = forms.CharField(max_length=300, help_text="The owners read it.")
    keep_sessions = forms.BooleanField(
        required=False,
        label="Also those with finished sessions",
        help_text="Their sessions and images stay as they are.",
    )
    override = forms.BooleanField(
        required=False,
        label="Also those whose latest time to cancel has passed",
        help_text="It is recorded on them.",
    )


@admin.register(Booking)
class BookingAdmin(CarefulDeletionAdmin, ServiceErrorsAdmin):
    list_display = [
        "microscope",
        "kind",
        "owner",
        "lab",
        "start",
        "end",
        "hours",
        "session_count",
        "is_cancelled",
    ]
    list_display_links = ["microscope", "start"]
    list_select_related = ["microscope", "owner", "lab"]
    list_filter = [
        ("microscope", admin.RelatedOnlyFieldListFilter),
        "kind",
        When,
        Cancelled,
        ("lab", admin.RelatedOnlyFieldListFilter),
    ]
    date_hierarchy = "start"
    search_fields = [
        "title",
        "microscope__name",
        "microscope__code",
        "lab__name",
        "owner__first_name",
        "owner__last_name",
        "owner__username",
        "owner__email",
    ]
    search_help_text = "Title, microscope, lab or owner"
    autocomplete_fields = [
        "microscope",
        "owner",
        "operator",
        "lab",
        "application",
        "collaborators",
        "slot_labs",
        "slot_applications",
    ]
    readonly_fields = [
        "creator",
        "created_at",
        "overridden",
        "cancelled_at",
        "cancelled_by",
        "cancel_reason",
        "sessions",
    ]
    actions = ["cancel"]
    delete_instead = "Cancel it instead: its time is free again, and its record and sessions stay."

    def get_queryset(self, request):
        return super().get_queryset(request).with_session_counts()

    def get_fieldsets(self, request, obj=None):
        fieldsets = [
            (
                None,
                {
                    "fields": ["microscope", "kind", ("start", "end"), "title", "description"],
                    "description": "The rules are asked here too. To set one aside, to repeat a booking, or to let "
                    "downtime take the time of bookings, use the site's own form.",
                },
            ),
            ("People", {"fields": ["owner", "operator", "lab", "application", "collaborators"]}),
            ("Slot", {"fields": [("slot_labs", "slot_applications")]}),
        ]
        if obj is not None:
            record = ["sessions", "creator", "created_at", *(["overridden"] if obj.overridden else [])]
            cancelled = ["cancelled_at", "cancelled_by", "cancel_reason"] if obj.is_cancelled else []
            fieldsets.append(("Record", {"fields": record + cancelled}))
        return fieldsets

    def get_changeform_initial_data(self, request):
        return {"owner": request.user.pk, **super().get_changeform_initial_data(request)}

    def has_change_permission(self, request, obj=None):
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or access.can_change(request.user, obj))

    @admin.display(description="length (h)", ordering=F("end") - F("start"))
    def hours(self, booking):
        return f"{(booking.end - booking.start).total_seconds() / 3600:.1f}"

    @admin.display(description="sessions", ordering="session_count")
    def session_count(self, booking):
        return booking.session_count

    @admin.display(description="state", ordering="cancelled_at")
    def is_cancelled(self, booking):
        return "cancelled" if booking.is_cancelled else ""

    @admin.display(description="sessions")
    def sessions(self, booking):
        found = list(booking.sessions.order_by("start")[: SESSIONS_NAMED + 1])
        if not found:
            return "none"
        links = format_html_join(
            ", ",
            '<a href="{}">{}</a>',
            ((_session_url(session), session.name) for session in found[:SESSIONS_NAMED]),
        )
        return format_html("{}, …", links) if len(found) > SESSIONS_NAMED else links

    def save_model(self, request, obj, form, change):
        fields = {
            name: form.cleaned_data[name] for name in (form.changed_data if change else form.cleaned_data)
        }
        if change:
            booking = booking_update(
                booking=Booking(pk=obj.pk, microscope=obj.microscope), actor=request.user, **fields
            )
        else:
            booking = booking_create(actor=request.user, **fields)
        obj.__dict__.update(booking.__dict__)

    def delete_model(self, request, obj):
        with transaction.atomic():
            lock_microscopes(obj.microscope)  # First, as everybody does.
            super().delete_model(request, obj)

    def delete_queryset(self, request, queryset):
        with transaction.atomic():
            lock_microscopes(*Microscope.objects.filter(pk__in=queryset.order_by().values("microscope")))
            super().delete_queryset(request, queryset)

    @admin.action(description="Cancel selected bookings", permissions=["change"])
    def cancel(self, request, queryset):
        queryset = queryset.standing()
        if not queryset.exists():
            self.message_user(request, "These bookings are cancelled already.", messages.WARNING)
            return None
        form = CancelForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            number = queryset.count()
            with_sessions = queryset.filter(sessions__isnull=False).order_by().distinct()
            return ask(
                self,
                request,
                queryset,
                action="cancel",
                title="Cancel bookings",
                text=f"Their time is free again for others; {with_sessions.count()} of {number} have sessions.",
                button=f"Cancel {number} booking{'' if number == 1 else 's'}",
                items=queryset.select_related("microscope", "owner"),
                form=form,
            )
        cancelled = 0
        for booking in queryset.select_related("microscope"):
            try:
                booking_cancel(booking=booking, actor=request.user, **form.cleaned_data)
                cancelled += 1
            except ValidationError as error:
                self.message_user(request, f"{booking}: {' '.join(error.messages)}", messages.ERROR)
        self.message_user(
            request, f"{cancelled} booking{'' if cancelled == 1 else 's'} cancelled.", messages.SUCCESS
        )
        return None


def _session_url(session) -> str:
    """The session's page, which belongs to a higher app and is known here by name alone."""
    try:
        return reverse("sessions:detail", args=[session.name])
    except NoReverseMatch:
        return reverse("admin:index")
