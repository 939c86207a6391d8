"""Deleting in the admin with care: what is in use stays, with words that tell what to do instead.

The database keeps it too (PROTECT); this is what staff read before they get that far. Whatever is deleted leaves an
audit entry.
"""

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.db.models import PROTECT, Count, Exists, OuterRef, Q, QuerySet
from django.db.models.deletion import ProtectedError
from django.shortcuts import redirect
from django.urls import reverse

from people.models import AuditEntry

NAMED_AT_MOST = 5


def _users_of(model) -> list:
    """The relations whose rows keep a record of this model from being deleted."""
    return [
        relation
        for relation in model._meta.get_fields(include_hidden=True)
        if relation.auto_created and not relation.concrete and getattr(relation, "on_delete", None) is PROTECT
    ]


def in_use(queryset: QuerySet) -> QuerySet:
    """Those of the queryset that other records need, in one query at any size."""
    condition = Q(pk__in=[])
    for relation in _users_of(queryset.model):
        condition |= Exists(
            relation.related_model._base_manager.filter(**{relation.field.name: OuterRef("pk")})
        )
    return queryset.filter(condition)


def uses(record) -> str:
    """What needs the record: "12 bookings, 3 sessions"; empty if nothing does."""
    counts: dict = {}
    for relation in _users_of(type(record)):
        found = relation.related_model._base_manager.filter(**{relation.field.name: record.pk})
        meta = relation.related_model._meta
        number = found.aggregate(n=Count("pk"))["n"]
        if number:
            # The same record may be needed twice by one other, as owner and as creator: tell the larger number.
            one, many = str(meta.verbose_name), str(meta.verbose_name_plural)
            counts[one, many] = max(counts.get((one, many), 0), number)
    return ", ".join(f"{number} {one if number == 1 else many}" for (one, many), number in counts.items())


class CarefulDeletionAdmin(admin.ModelAdmin):
    """Put before ModelAdmin. `delete_instead` says what staff do with a record that is in use."""

    delete_instead = ""

    def refusal_to_delete(self, record) -> str:
        """Why the record cannot be deleted, in a sentence with what to do instead; empty if it can."""
        users = uses(record)
        return (
            f"{record} cannot be deleted: {users} belong to it. {self.delete_instead}".strip()
            if users
            else ""
        )

    def formfield_for_dbfield(self, db_field, request, **kwargs):
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and hasattr(field.widget, "can_delete_related"):
            # Deleting a microscope has no place beside choosing one.
            field.widget.can_delete_related = False
        return field

    def delete_view(self, request, object_id, extra_context=None):
        record = self.get_object(request, unquote(object_id))
        if record is not None and self.has_delete_permission(request, record):
            refusal = self.refusal_to_delete(record)
            if not refusal:
                try:
                    return super().delete_view(request, object_id, extra_context)
                except ProtectedError:  # Someone used it in this moment.
                    refusal = self.refusal_to_delete(record) or f"{record} is in use. {self.delete_instead}"
            self.message_user(request, refusal, messages.ERROR)
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
            return redirect(reverse(name, args=[object_id], current_app=self.admin_site.name))
        return super().delete_view(request, object_id, extra_context)

    def get_actions(self, request):
        actions = super().get_actions(request)
        if "delete_selected" in actions:
            _, name, description = actions["delete_selected"]
            actions["delete_selected"] = (type(self)._delete_selected, name, description)
        return actions

    def _delete_selected(self, request, queryset):
        kept = list(in_use(queryset)[: NAMED_AT_MOST + 1])
        if not kept:
            try:
                return delete_selected(self, request, queryset)
            except ProtectedError:
                kept = list(in_use(queryset)[: NAMED_AT_MOST + 1])
        for record in kept[:NAMED_AT_MOST]:
            self.message_user(request, self.refusal_to_delete(record), messages.ERROR)
        more = " There are more of these." if len(kept) > NAMED_AT_MOST else ""
        self.message_user(request, f"Nothing was deleted.{more}", messages.WARNING)
        return None

    def delete_model(self, request, obj):
        with transaction.atomic():
            self._record_deletion(request, obj)
            super().delete_model(request, obj)

    def delete_queryset(self, request, queryset):
        with transaction.atomic():
            for record in queryset:
                self._record_deletion(request, record)
            super().delete_queryset(request, queryset)

    def _record_deletion(self, request, record):
        AuditEntry.record(actor=request.user, action=f"{self.opts.verbose_name} deleted"[:60], target=record)
