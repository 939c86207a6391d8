"""How staff keep the hardware and the pipelines' tokens."""

import rest_framework_api_key.admin  # noqa: F401  It registers keys of its own, that nothing here uses.
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Prefetch
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from rest_framework_api_key.models import APIKey

from microscopes.models import Camera, DataServer, Microscope, PipelineToken
from microscopes.pictures import clean_picture
from microscopes.services import microscope_retire
from microscopes.tokens import pipeline_token_create, pipeline_token_revoke
from people.changes import (
    ChangedFieldsAdmin,
    ChangedFieldsModelForm,
    ChangedFieldsTabularInline,
    ServiceErrorsAdmin,
)
from people.confirmation import ask, is_confirmed
from people.deletion import CarefulDeletionAdmin

admin.site.unregister(APIKey)


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@admin.register(DataServer)
class DataServerAdmin(CarefulDeletionAdmin, ChangedFieldsAdmin):
    list_display = ["name", "protocol", "host", "path_template", "microscope_count"]
    list_filter = ["protocol"]
    search_fields = ["name", "host"]
    delete_instead = "Give its microscopes another data server and keep this one for its sessions."
    fieldsets = [
        (None, {"fields": ["name", "protocol", ("host", "port"), "path_template"]}),
        ("Other ways in", {"fields": ["globus_collection", "smb_share"]}),
        ("For the people who download", {"fields": ["instructions"]}),
    ]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(microscope_count=Count("microscopes"))

    @admin.display(description="microscopes", ordering="microscope_count")
    def microscope_count(self, server):
        return server.microscope_count


class CameraInline(ChangedFieldsTabularInline):
    model = Camera
    extra = 0
    fields = ["name", "width", "height", "is_active", "position"]


class MicroscopeForm(ChangedFieldsModelForm):
    class Meta:
        widgets = {"colour": forms.TextInput(attrs={"type": "color"})}

    def clean_picture(self):
        picture = self.cleaned_data["picture"]
        if picture and "picture" in self.changed_data:
            return clean_picture(picture)
        return picture


@admin.register(Microscope)
class MicroscopeAdmin(CarefulDeletionAdmin, ChangedFieldsAdmin):
    form = MicroscopeForm
    list_display = [
        "name",
        "code",
        "colour_chip",
        "model",
        "status",
        "voltage_kv",
        "cs_mm",
        "data_server",
        "retention",
        "position",
    ]
    list_select_related = ["data_server"]
    list_filter = ["status", ("data_server", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["name", "code", "model", "location"]
    autocomplete_fields = ["data_server"]
    inlines = [CameraInline]
    actions = ["retire"]
    delete_instead = (
        'Retire it instead (the action "Retire" in the list): it takes no more bookings and keeps them.'
    )
    fieldsets = [
        (None, {"fields": ["name", "code", "model", "location", ("status", "status_note")]}),
        ("Look", {"fields": ["picture", ("colour", "position")]}),
        ("Optics", {"fields": [("voltage_kv", "cs_mm")]}),
        ("Data", {"fields": ["data_server", "retention_days"]}),
        (
            "Booking rules",
            {
                "fields": [
                    ("min_length_minutes", "max_length_hours"),
                    "max_days_ahead",
                    ("change_notice_hours", "cancel_notice_hours"),
                    ("max_pending", "group"),
                    ("requires_application", "requires_slot"),
                ],
                "description": "For bookings by users; downtime, maintenance, slots and special time are free of "
                "them. Staff may override them one booking at a time, and that is recorded.",
            },
        ),
    ]

    @admin.display(description="colour", ordering="colour")
    def colour_chip(self, microscope):
        return format_html(
            '<span style="display:inline-block;width:1em;height:1em;border-radius:.2em;vertical-align:-.15em;'
            'background:{}"></span> {}',
            microscope.colour,
            microscope.colour,
        )

    @admin.display(description="retention (days)", ordering="retention_days")
    def retention(self, microscope):
        days = microscope.effective_retention_days
        return days if microscope.retention_days else f"{days} (facility)"

    def save_model(self, request, obj, form, change):
        before = form.initial.get("picture") if change and "picture" in form.changed_data else None
        super().save_model(request, obj, form, change)
        if before:
            transaction.on_commit(lambda: self._remove_picture(before))

    @staticmethod
    def _remove_picture(picture):
        if not Microscope.objects.filter(picture=picture.name).exists():
            picture.storage.delete(picture.name)

    @admin.action(description="Retire selected microscopes", permissions=["change"])
    def retire(self, request, queryset):
        if not is_confirmed(request):
            coming = queryset.filter(bookings__end__gt=timezone.now(), bookings__cancelled_at__isnull=True)
            coming = dict(coming.annotate(n=Count("bookings")).values_list("pk", "n"))
            return ask(
                self,
                request,
                queryset,
                action="retire",
                title="Retire microscopes",
                text="A retired microscope takes no new bookings and leaves the dashboard. Its bookings and sessions "
                "stay; bookings to come are not cancelled.",
                button=f"Retire {count_of(queryset.count(), 'microscope')}",
                items=[
                    f"{microscope}: {count_of(coming.get(microscope.pk, 0), 'booking')} running or to come"
                    for microscope in queryset
                ],
            )
        retired = sum(microscope_retire(microscope=microscope, actor=request.user) for microscope in queryset)
        self.message_user(request, f"{count_of(retired, 'microscope')} retired.", messages.SUCCESS)
        return None


@admin.register(Camera)
class CameraAdmin(CarefulDeletionAdmin, ChangedFieldsAdmin):
    list_display = ["name", "microscope", "width", "height", "is_active", "position"]
    list_select_related = ["microscope"]
    list_filter = ["is_active", ("microscope", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["name", "microscope__name", "microscope__code"]
    autocomplete_fields = ["microscope"]
    delete_instead = "Make it inactive instead: it is not offered any more and its sessions keep it."


class TokenState(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request, model_admin):
        return [("valid", "valid"), ("expired", "expired"), ("revoked", "revoked")]

    def queryset(self, request, queryset):
        now = timezone.now()
        if self.value() == "valid":
            return queryset.filter(revoked=False).exclude(expiry_date__lt=now)
        if self.value() == "expired":
            return queryset.filter(revoked=False, expiry_date__lt=now)
        return queryset.filter(revoked=True) if self.value() == "revoked" else queryset


class PipelineTokenForm(ChangedFieldsModelForm):
    class Meta:
        help_texts = {
            "name": "What posts with it and where, for instance relion-krios1.",
            "expiry_date": "From then on it is refused. Empty: valid until it is revoked.",
        }

    def clean(self):
        data = super().clean()
        if not data.get("all_microscopes") and "microscopes" in data and not data["microscopes"]:
            raise ValidationError(
                {"microscopes": "Choose the microscopes that it may post for, or all of them."}
            )
        return data


@admin.register(PipelineToken)
class PipelineTokenAdmin(CarefulDeletionAdmin, ServiceErrorsAdmin):
    """Adding makes the key and shows it once. The hash is shown nowhere."""

    form = PipelineTokenForm
    list_display = ["name", "scope", "created", "expiry_date", "last_used_at", "state"]
    list_filter = [TokenState, "all_microscopes", ("microscopes", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["name", "user__username"]
    date_hierarchy = "created"
    autocomplete_fields = ["microscopes"]
    actions = ["revoke"]
    fields = ["name", "all_microscopes", "microscopes", "expiry_date"]

    def get_queryset(self, request):
        microscopes = Prefetch("microscopes", queryset=Microscope.objects.only("pk", "code"))
        return super().get_queryset(request).prefetch_related(microscopes)

    def get_fields(self, request, obj=None):
        return (
            [*self.fields, "user", "created_by", "created", "last_used_at", "state"] if obj else self.fields
        )

    def get_readonly_fields(self, request, obj=None):
        if obj is None:
            return []
        fixed = ["name", "user", "created_by", "created", "last_used_at", "state"]
        return [*fixed, "all_microscopes", "microscopes", "expiry_date"] if obj.revoked else fixed

    def add_view(self, request, form_url="", extra_context=None):
        # The next page shows the key: no way past it.
        one_way = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, one_way | (extra_context or {}))

    @admin.display(description="microscopes")
    def scope(self, token):
        codes = [microscope.code for microscope in token.microscopes.all()]
        return "all" if token.all_microscopes else ", ".join(codes) or "none"

    @admin.display(description="state", ordering="revoked")
    def state(self, token):
        return "revoked" if token.revoked else "expired" if token.has_expired else "valid"

    def save_model(self, request, obj, form, change):
        if change:
            super().save_model(request, obj, form, change)
            return
        token, obj.new_key = pipeline_token_create(
            name=obj.name,
            microscopes=form.cleaned_data["microscopes"],
            all_microscopes=obj.all_microscopes,
            expires_at=obj.expiry_date,
            actor=request.user,
        )
        key = obj.new_key
        obj.__dict__.update(token.__dict__)
        obj.new_key = key

    def response_add(self, request, obj, post_url_continue=None):
        """The key goes straight into this answer, that no one may store, and nowhere else."""
        context = self.admin_site.each_context(request) | {
            "title": f'Token "{obj.name}" is made',
            "token": obj,
            "key": obj.new_key,
            "opts": self.opts,
            "list_url": reverse("admin:microscopes_pipelinetoken_changelist"),
        }
        response = TemplateResponse(request, "admin/microscopes/pipelinetoken/key.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke selected tokens", permissions=["change"])
    def revoke(self, request, queryset):
        queryset = queryset.filter(revoked=False)
        if not queryset.exists():
            self.message_user(request, "These tokens are revoked already.", messages.WARNING)
            return None
        if not is_confirmed(request):
            return ask(
                self,
                request,
                queryset,
                action="revoke",
                title="Revoke pipeline tokens",
                text="Programs that use these tokens are refused from now on. This cannot be undone; a new token can "
                "be made under the same name.",
                button=f"Revoke {count_of(queryset.count(), 'token')}",
                items=queryset,
            )
        tokens = list(queryset)
        for token in tokens:
            pipeline_token_revoke(token=token, actor=request.user)
        self.message_user(request, f"{count_of(len(tokens), 'token')} revoked.", messages.SUCCESS)
        return None
