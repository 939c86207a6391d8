"""What pipelines reported, for staff to look at. Only ingestion writes it; people give verdicts and labels."""

from django.contrib import admin, messages
from django.utils import timezone
from django.utils.text import Truncator

from people.changes import ChangedFieldsAdmin
from preprocessing import ingest
from preprocessing.deletion import delete_run
from preprocessing.forms import MEASURED, TIMED
from preprocessing.histograms import ANGSTROM_PER_MICROMETRE, mean_defocus
from preprocessing.models import (
    Alert,
    ClassAverage,
    Exposure,
    Micrograph,
    MicroscopeLimits,
    ProcessingRun,
    RunEvent,
    SessionLimits,
)
from sessions_app.models import Session


class ReportAdmin(admin.ModelAdmin):
    """Read-only unless `editable` names fields; lists cost the same at any size."""

    editable: tuple[str, ...] = ()
    show_full_result_count = False
    list_per_page = 50
    actions = None

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return bool(self.editable) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request, obj=None):
        return False

    def get_readonly_fields(self, request, obj=None):
        return [field.name for field in self.model._meta.fields if field.name not in self.editable]


@admin.register(Exposure)
class ExposureAdmin(ReportAdmin):
    editable = ("verdict", "verdict_reason")
    list_display = ["name", "session", "acquired_at", "grid_square", "foil_hole", "verdict"]
    list_select_related = ["session"]
    list_filter = ["verdict"]
    search_fields = ["=identity", "=session__name", "=grid_square", "=foil_hole"]
    search_help_text = "An identity, a session's name, a grid square or a foil hole, whole."

    def save_model(self, request, obj, form, change):
        """A verdict is told to whoever follows a run, so it goes the way of every change."""
        values = {name: form.cleaned_data[name] for name in form.changed_data if name in self.editable}
        if "verdict" in values:
            values |= {"verdict_by_id": request.user.pk, "verdict_at": timezone.now()}
        if not values:
            return
        try:
            ingest.change_exposures(obj.session_id, {obj.identity: values})
        except ingest.SessionArchived:
            messages.error(request, "Nothing was saved: the session is archived.")


@admin.register(ProcessingRun)
class ProcessingRunAdmin(ReportAdmin):
    editable = ("label",)
    list_display = [
        "__str__",
        "session",
        "software",
        "version",
        "status",
        "micrographs",
        "ctf_estimated",
        "particles",
        "last_seen_at",
    ]
    list_select_related = ["session"]
    list_filter = ["status", "software"]
    search_fields = ["=session__name", "key", "label", "host"]
    date_hierarchy = "started_at"
    actions = ["delete_selected"]

    def has_delete_permission(self, request, obj=None):
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def save_model(self, request, obj, form, change):
        values = {name: form.cleaned_data[name] for name in form.changed_data if name in self.editable}
        if not values:
            return
        try:
            ingest.change_run(obj.session_id, obj.pk, **values)
        except ingest.SessionArchived:
            messages.error(request, "Nothing was saved: the session is archived.")

    def get_deleted_objects(self, objs, request):
        """What would go, as numbers: there may be tens of thousands of rows below a run."""
        told = [
            f"{run} of {run.session}: {run.micrographs} micrographs, {run.classes} classes, {run.particles} picks"
            for run in objs
        ]
        allowed = self.has_delete_permission(request)
        counts = {
            "runs": len(objs),
            "micrographs": sum(run.micrographs for run in objs),
            "2D classes": ClassAverage.objects.filter(run__in=objs).count(),
        }
        return told, counts, set() if allowed else {"processing run"}, []

    def delete_model(self, request, obj):
        delete_run(obj, request.user)

    def delete_queryset(self, request, queryset):
        for run in queryset:
            delete_run(run, request.user)

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("session")


@admin.register(Micrograph)
class MicrographAdmin(ReportAdmin):
    list_display = [
        "name",
        "run",
        "session",
        "defocus",
        "ctf_resolution",
        "motion_total",
        "particles",
        "rejected",
    ]
    list_select_related = ["run__session", "exposure"]
    list_filter = ["rejected"]
    search_fields = ["=name", "=exposure__identity", "=run__session__name"]
    search_help_text = "A micrograph's name or identity, or a session's name, whole."
    ordering = ["-id"]

    @admin.display(ordering="run__session")
    def session(self, micrograph) -> Session:
        return micrograph.run.session

    @admin.display(description="defocus (µm)", ordering="defocus_u")
    def defocus(self, micrograph) -> str | None:
        defocus = mean_defocus(micrograph.defocus_u, micrograph.defocus_v)
        return None if defocus is None else f"{defocus / ANGSTROM_PER_MICROMETRE:.2f}"


@admin.register(ClassAverage)
class ClassAverageAdmin(ReportAdmin):
    list_display = ["job", "iteration", "number", "particles", "resolution", "run", "session"]
    list_select_related = ["run__session"]
    search_fields = ["=job", "=run__session__name"]
    search_help_text = "A job or a session's name, whole."
    ordering = ["-id"]

    @admin.display(ordering="run__session")
    def session(self, average) -> Session:
        return average.run.session


@admin.register(RunEvent)
class RunEventAdmin(ReportAdmin):
    list_display = ["at", "level", "message", "run", "session"]
    list_select_related = ["run__session"]
    list_filter = ["level"]
    search_fields = ["text", "=run__session__name"]
    ordering = ["-id"]

    @admin.display(ordering="text")
    def message(self, event) -> str:
        return Truncator(event.text).chars(120)

    @admin.display(ordering="run__session")
    def session(self, event) -> Session:
        return event.run.session


@admin.register(Alert)
class AlertAdmin(ReportAdmin):
    list_display = ["raised_at", "session", "kind", "level", "message", "resolved_at"]
    list_select_related = ["session"]
    list_filter = ["kind", ("resolved_at", admin.EmptyFieldListFilter)]
    search_fields = ["=session__name"]
    search_help_text = "A session's name, whole."
    date_hierarchy = "raised_at"

    @admin.display(ordering="text")
    def message(self, alert) -> str:
        return Truncator(alert.text).chars(120)


class LimitsAdmin(ChangedFieldsAdmin):
    """Each limit empty for no alert of its kind."""

    show_full_result_count = False

    def get_fieldsets(self, request, obj=None):
        of = "session" if self.model is SessionLimits else "microscope"
        return [
            (None, {"fields": [of]}),
            ("Out of limits in most of the last 25 micrographs", {"fields": MEASURED}),
            ("Standing still, and size", {"fields": TIMED}),
        ]


@admin.register(MicroscopeLimits)
class MicroscopeLimitsAdmin(LimitsAdmin):
    list_display = ["microscope", *MEASURED, *TIMED]
    list_select_related = ["microscope"]
    autocomplete_fields = ["microscope"]

    def get_readonly_fields(self, request, obj=None):
        return ["microscope"] if obj else []


@admin.register(SessionLimits)
class SessionLimitsAdmin(LimitsAdmin):
    """Made and changed on the session's own page; here they are seen together and taken away."""

    list_display = ["session", *MEASURED, *TIMED, "changed_by", "changed_at"]
    list_select_related = ["session", "changed_by"]
    search_fields = ["=session__name"]
    search_help_text = "A session's name, whole."

    def has_add_permission(self, request):
        return False

    def get_readonly_fields(self, request, obj=None):
        return ["session"]

    def save_model(self, request, obj, form, change):
        obj.changed_by = request.user
        obj.save(update_fields=[*form.changed_fields, "changed_by", "changed_at"])
