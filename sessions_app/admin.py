"""How staff keep sessions and samples. What a session's life is made of goes through services and lifecycle."""

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from people.changes import ChangedFieldsAdmin, ServiceErrorsAdmin
from people.confirmation import ask, is_confirmed
from people.deletion import CarefulDeletionAdmin
from people.templatetags.emhub import bytes_tag, dash
from sessions_app import access, lifecycle
from sessions_app.acquisition import FIELDS, UNITS
from sessions_app.models import Sample, Session, SessionSummary
from sessions_app.retention import retention
from sessions_app.services import UPDATABLE, session_create, session_update

RUNS_SHOWN = 20
DATA_FIELDS = ("data_server", "data_path", "data_files", "data_movies", "data_bytes", "last_file_at")


@admin.register(Sample)
class SampleAdmin(CarefulDeletionAdmin, ChangedFieldsAdmin):
    list_display = ["name", "lab", "created_by", "created_at"]
    list_select_related = ["lab", "created_by"]
    list_filter = [("lab", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["name", "lab__name"]
    search_help_text = "Name or lab"
    autocomplete_fields = ["lab"]
    readonly_fields = ["created_by", "created_at"]
    date_hierarchy = "created_at"
    delete_instead = "Rename it instead; sessions keep their sample."

    def save_model(self, request, obj, form, change):
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)


class Images(admin.SimpleListFilter):
    title = "images"
    parameter_name = "images"

    def lookups(self, request, model_admin):
        return [("soon", "deleted within 14 days"), ("due", "past their date"), ("gone", "deleted")]

    def queryset(self, request, queryset):
        if self.value() == "soon":
            return queryset.images_going()
        if self.value() == "due":
            return queryset.images_due()
        return queryset.filter(data_deleted_at__isnull=False) if self.value() == "gone" else queryset


class ExtendForm(forms.Form):
    days = forms.IntegerField(
        min_value=1,
        max_value=3650,
        initial=30,
        help_text="From the date that counts now, or from today if it has passed.",
    )


@admin.register(Session)
class SessionAdmin(ServiceErrorsAdmin):
    """Name, microscope, lab and data path of a new session are set as the dialog sets them."""

    list_display = [
        "name",
        "booking_link",
        "microscope",
        "owner",
        "lab",
        "status",
        "start",
        "images",
        "size",
        "days_left",
    ]
    list_filter = [
        ("microscope", admin.RelatedOnlyFieldListFilter),
        "status",
        ("lab", admin.RelatedOnlyFieldListFilter),
        Images,
    ]
    date_hierarchy = "start"
    search_fields = [
        "name",
        "sample__name",
        "booking__owner__first_name",
        "booking__owner__last_name",
        "booking__owner__username",
    ]
    search_help_text = "Name, sample or owner"
    autocomplete_fields = ["booking", "operator", "sample", "camera", "data_server"]
    actions = ["finish", "extend", "archive", "delete_with_results"]
    list_per_page = 50
    # Counting all rows once more beside the filtered ones says little and costs much.
    show_full_result_count = False

    def get_queryset(self, request):
        return super().get_queryset(request).with_row().order_by("-start", "-id")

    def get_fieldsets(self, request, obj=None):
        acquisition = (
            "Acquisition",
            {"fields": [tuple(FIELDS[n : n + 2]) for n in range(0, len(FIELDS), 2)]},
        )
        if obj is None:
            return [(None, {"fields": ["booking", "operator", "camera", "sample", "notes"]}), acquisition]
        return [
            (
                None,
                {"fields": ["name", "booking", "microscope", "lab", "creator", "status", ("start", "end")]},
            ),
            ("People and sample", {"fields": ["operator", "camera", "sample", "notes"]}),
            acquisition,
            ("Data", {"fields": [*DATA_FIELDS, "delete_on", "reminded_at", "data_deleted_at"]}),
            ("Processing", {"fields": ["processing", "runs"]}),
        ]

    def get_readonly_fields(self, request, obj=None):
        if obj is None:
            return []
        return [
            "name",
            "booking",
            "microscope",
            "lab",
            "creator",
            "status",
            "start",
            "end",
            *DATA_FIELDS,
            "delete_on",
            "reminded_at",
            "data_deleted_at",
            "processing",
            "runs",
        ]

    def get_form(self, request, obj=None, change=False, **kwargs):
        form = super().get_form(request, obj, change=change, **kwargs)
        if obj is None:
            for name in FIELDS:
                form.base_fields[
                    name
                ].help_text = "Empty: as proposed by the microscope and the lab's last session."
        for name in FIELDS:
            if name in form.base_fields and name in UNITS:
                form.base_fields[name].label = capfirst(Session._meta.get_field(name).verbose_name)
        return form

    # -- Columns -----------------------------------------------------------------------------------------

    @admin.display(description="booking", ordering="booking")
    def booking_link(self, session):
        url = reverse("admin:bookings_booking_change", args=[session.booking_id])
        return format_html(
            '<a href="{}">{}</a>', url, session.booking.title or session.booking.get_kind_display()
        )

    @admin.display(description="owner")
    def owner(self, session):
        return str(session.booking.owner)

    @admin.display(description="images")
    def images(self, session):
        return dash("No movies were reported yet") if session.movies is None else f"{session.movies:,}"

    @admin.display(description="size", ordering=F("data_bytes"))
    def size(self, session):
        return bytes_tag(session.data_bytes, why="The acquisition watcher has not reported yet")

    @admin.display(description="days left", ordering=F("delete_on"))
    def days_left(self, session):
        kept = retention(session)
        return dash(kept.text) if kept.days is None else str(kept.days)

    @admin.display(description="processing")
    def processing(self, session):
        return session.summary.get_processing_display()

    @admin.display(description="runs")
    def runs(self, session):
        found = list(session.runs.order_by("-id")[: RUNS_SHOWN + 1])
        lines = [
            f"{run}: {run.get_status_display()}, {run.micrographs:,} micrographs"
            for run in found[:RUNS_SHOWN]
        ]
        return "; ".join(lines + (["…"] if len(found) > RUNS_SHOWN else [])) or "none yet"

    # -- Saving ------------------------------------------------------------------------------------------

    def has_change_permission(self, request, obj=None):
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or access.can_change(request.user, obj))

    def save_model(self, request, obj, form, change):
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_fields if name in UPDATABLE}
            session_update(obj, request.user, **changes)
            return
        data = {name: value for name, value in form.cleaned_data.items() if value not in (None, "")}
        # Staff may note down what was forgotten on another day.
        booking = data["booking"]
        start = None if booking.is_running else booking.start
        session = session_create(creator=request.user, any_time=True, start=start, **data)
        obj.__dict__.update(session.__dict__)

    # -- Actions -----------------------------------------------------------------------------------------

    @admin.action(description="Finish selected sessions", permissions=["change"])
    def finish(self, request, queryset):
        running = list(queryset.running())
        if not running:
            self.message_user(request, "None of these sessions is running.", messages.WARNING)
            return None
        if not is_confirmed(request):
            return ask(
                self,
                request,
                queryset,
                action="finish",
                title="Finish sessions",
                text="They end now, and the date on which their images go is set.",
                button=f"Finish {_sessions(len(running))}",
                items=running,
            )
        for session in running:
            lifecycle.session_finish(session, request.user)
        self.message_user(request, f"{_sessions(len(running))} finished.", messages.SUCCESS)
        return None

    @admin.action(description="Keep the images of selected sessions longer", permissions=["change"])
    def extend(self, request, queryset):
        form = ExtendForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            return ask(
                self,
                request,
                queryset,
                action="extend",
                title="Keep images longer",
                text="The images of these sessions are deleted later.",
                button="Keep longer",
                items=[f"{session}: {retention(session).text}" for session in queryset],
                form=form,
            )
        done = 0
        for session in queryset:
            try:
                lifecycle.extend_retention(session, request.user, days=form.cleaned_data["days"])
                done += 1
            except ValidationError as error:
                self.message_user(request, f"{session}: {' '.join(error.messages)}", messages.ERROR)
        if done:
            self.message_user(request, f"The images of {_sessions(done)} are kept longer.", messages.SUCCESS)
        return None

    @admin.action(description="Archive selected sessions", permissions=["change"])
    def archive(self, request, queryset):
        over = [session for session in queryset if access.can_archive(request.user, session)]
        if not over:
            self.message_user(request, "None of these is over and not archived yet.", messages.WARNING)
            return None
        if not is_confirmed(request):
            return ask(
                self,
                request,
                queryset,
                action="archive",
                title="Archive sessions",
                text="This cannot be undone. Summaries, charts, runs and the last 2D classes stay; rows and other "
                "pictures go.",
                button=f"Archive {_sessions(len(over))}",
                items=[f"{session}: {what_is_archived(session)}" for session in over],
            )
        done = 0
        for session in over:
            try:
                lifecycle.session_archive(session, request.user)
                done += 1
            except ValidationError as error:
                self.message_user(request, f"{session}: {' '.join(error.messages)}", messages.ERROR)
        if done:
            self.message_user(request, f"{_sessions(done)} archived.", messages.SUCCESS)
        return None

    def get_actions(self, request):
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)  # Django's own knows neither services nor what stays.
        return actions

    @admin.action(description="Delete selected sessions", permissions=["delete"])
    def delete_with_results(self, request, queryset):
        sessions = list(queryset)
        if not is_confirmed(request):
            return ask(
                self,
                request,
                queryset,
                action="delete_with_results",
                title="Delete sessions",
                text="This cannot be undone. The files on the data servers stay, and so do the bookings and the names.",
                button=f"Delete {_sessions(len(sessions))}",
                items=[f"{session}: {what_goes(session)}" for session in sessions],
            )
        for session in sessions:
            lifecycle.session_delete(session, request.user)
        self.message_user(request, f"{_sessions(len(sessions))} deleted.", messages.SUCCESS)
        return None

    def delete_view(self, request, object_id, extra_context=None):
        session = self.get_object(request, unquote(object_id))
        if session is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_delete_permission(request, session):
            raise PermissionDenied
        if request.method == "POST":
            lifecycle.session_delete(session, request.user)
            self.message_user(request, f"Session {session} was deleted.", messages.SUCCESS)
            return redirect("admin:sessions_app_session_changelist")
        return TemplateResponse(
            request,
            "admin/sessions_app/session/delete.html",
            self.admin_site.each_context(request)
            | {
                "title": f"Delete session {session}?",
                "session": session,
                "losses": [loss for loss in lifecycle.losses(session) if loss.count],
                "opts": self.opts,
            },
        )


@admin.register(SessionSummary)
class SessionSummaryAdmin(admin.ModelAdmin):
    """Written by ingestion alone: to be looked at."""

    list_display = ["session", "processing", "runs", "exposures", "micrographs", "particles", "last_seen_at"]
    list_select_related = ["session"]
    list_filter = ["processing"]
    search_fields = ["session__name"]
    date_hierarchy = "last_seen_at"
    show_full_result_count = False

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


def _sessions(number: int) -> str:
    return f"{number:,} session{'' if number == 1 else 's'}"


def what_goes(session) -> str:
    """ "5,114 micrographs, 3 runs go; /data/krios1/x stays"."""
    losses = ", ".join(f"{loss.count:,} {loss.noun}" for loss in lifecycle.losses(session) if loss.count)
    stays = f"; the files in {session.data_path} stay" if session.data_path else ""
    return f"{losses or 'no results'} go with it{stays}"


def what_is_archived(session) -> str:
    """ "5,114 rows of micrographs and 10,228 pictures go"."""
    losses = [f"{loss.count:,} {loss.noun}" for loss in lifecycle.archive_losses(session) if loss.count]
    return f"{', '.join(losses) or 'no rows'} go"
