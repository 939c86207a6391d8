"""How staff keep people and labs, and read who did what. Nobody and nothing here is ever deleted."""

import json
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth import admin as auth_admin
from django.contrib.auth import forms as auth_forms
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.views.decorators.cache import never_cache

from people import access, invitations, services
from people.changes import (
    ChangedFieldsAdmin,
    ChangedFieldsModelForm,
    ChangedFieldsTabularInline,
    ServiceErrorsAdmin,
)
from people.confirmation import ask, is_confirmed
from people.models import AuditEntry, Lab, Membership, OutgoingMail, User

NAMED_IN_CONFIRMATION = 50
POWERS = {"is_superuser", "groups", "user_permissions"}


@login_not_required
@never_cache
def admin_login(request, extra_context=None):
    """One door for the whole site: the admin's own login form knows neither e-mail addresses nor the site's look."""
    if request.user.is_authenticated and not admin.site.has_permission(request):
        raise PermissionDenied("The administration is for the facility's staff.")
    if request.user.is_authenticated:
        return redirect("admin:index")
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"), reverse("people:login"))


admin.site.login = admin_login


class NeverDeleted(admin.ModelAdmin):
    """Put before ModelAdmin: not even superusers see a button, and the address answers 403."""

    def has_delete_permission(self, request, obj=None):
        return False


class Kind(admin.SimpleListFilter):
    """People, unless service users are asked for: programs are not shown among people."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request, model_admin):
        return [("service", "Service users"), ("all", "Both")]

    def choices(self, changelist):
        people, *others = super().choices(changelist)
        return [people | {"display": "People"}, *others]

    def queryset(self, request, queryset):
        if self.value() == "all":
            return queryset
        return queryset.filter(is_service=self.value() == "service")


class UserForm(ChangedFieldsModelForm, auth_forms.UserChangeForm):
    class Meta(auth_forms.UserChangeForm.Meta):
        model = User
        help_texts = {
            "is_active": "Without it nobody can log in with this account; what is theirs stays.",
            "is_staff": "Facility staff see and manage everything. The group's permissions come and go with it.",
        }


class LabsOfUserInline(ChangedFieldsTabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ["lab"]
    verbose_name = "membership"
    verbose_name_plural = "Member of"


class MembersOfLabInline(ChangedFieldsTabularInline):
    model = Membership
    extra = 1
    autocomplete_fields = ["user"]
    verbose_name = "member"
    verbose_name_plural = "Members"

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("user", "lab")


def _bookings_to_come(number: int) -> str:
    return f"{number} booking{'' if number == 1 else 's'} to come"


def _with_what_is_to_come(user) -> str:
    return f"{user}: {_bookings_to_come(user.to_come)}" if user.to_come else str(user)


@admin.register(User)
class UserAdmin(NeverDeleted, ServiceErrorsAdmin, auth_admin.UserAdmin):
    form = UserForm
    inlines = [LabsOfUserInline]
    list_display = ["name", "username", "email", "lab_names", "role", "standing", "last_login"]
    list_display_links = ["name", "username"]
    list_filter = [
        Kind,
        "is_active",
        "is_staff",
        ("labs", admin.RelatedOnlyFieldListFilter),
    ]
    search_fields = ["username", "first_name", "last_name", "email"]
    search_help_text = "Name, username or e-mail address"
    ordering = ["last_name", "first_name", "username"]
    actions = ["invite_again", "deactivate", "reactivate", "anonymise"]
    autocomplete_fields = []

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("labs", "labs_led")

    # -- Who may -------------------------------------------------------------------------------------------
    def has_change_permission(self, request, obj=None):
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or access.can_change_person(request.user, obj))

    def get_fieldsets(self, request, obj=None):
        standing = ["is_active", "is_staff"]
        if obj is not None and obj.is_service:
            return [(None, {"fields": ["username", "first_name", "last_name", "is_active", "is_service"]})]
        if access.can_give_powers(request.user):
            standing += ["is_superuser", "groups", "user_permissions"]
        return [
            (None, {"fields": [("first_name", "last_name"), "email", "username", "password"]}),
            ("Standing", {"fields": standing}),
            ("Record", {"fields": ["last_login", "date_joined"]}),
        ]

    def get_readonly_fields(self, request, obj=None):
        fields = ["last_login", "date_joined", "is_service"]
        if obj is not None and obj.pk == request.user.pk:
            fields += ["is_active", "is_staff"]  # Nobody locks themselves out.
        return fields

    def get_inlines(self, request, obj):
        return [] if obj is not None and obj.is_service else self.inlines

    # -- Adding is inviting --------------------------------------------------------------------------------
    def add_view(self, request, form_url="", extra_context=None):
        if not self.has_add_permission(request):
            raise PermissionDenied
        return redirect("people:invite")

    # -- Columns -------------------------------------------------------------------------------------------
    @admin.display(description="name", ordering="last_name")
    def name(self, user):
        return str(user)

    @admin.display(description="labs")
    def lab_names(self, user):
        led = {lab.pk: f"{lab.name} (PI)" for lab in user.labs_led.all()}
        names = {lab.pk: lab.name for lab in user.labs.all()} | led
        return ", ".join(sorted(names.values())) or "–"

    @admin.display(description="role", ordering="is_staff")
    def role(self, user):
        if user.is_service:
            return "program"
        if user.is_superuser:
            return "administrator"
        return "staff" if user.is_staff else "user"

    @admin.display(description="account", ordering="is_active")
    def standing(self, user):
        if not user.is_active:
            return "anonymised" if user.anonymised_at else "deactivated"
        return "invited" if user.is_invited else "active"

    # -- Saving --------------------------------------------------------------------------------------------
    def save_model(self, request, obj, form, change):
        changed = set(form.changed_fields)
        plain = changed - {"is_active", "is_staff"}
        if plain:
            obj.save(update_fields=plain)
        if "is_active" in changed:
            services.user_set_active(actor=request.user, user=obj, is_active=obj.is_active)
            self._tell_what_is_to_come(request, obj)
        if "is_staff" in changed:
            services.staff_set(actor=request.user, user=obj, is_staff=obj.is_staff)
        powers = sorted(POWERS & set(form.changed_data))
        if powers:
            AuditEntry.record(
                actor=request.user, action="user's powers changed", target=obj, details={"changed": powers}
            )

    def _tell_what_is_to_come(self, request, user):
        to_come = 0 if user.is_active else User.objects.with_bookings_to_come().get(pk=user.pk).to_come
        if to_come:
            query = urlencode({"q": user.username, "cancelled": "no"})
            listed = f"{reverse('admin:bookings_booking_changelist')}?{query}"
            text = format_html(
                '{} of {} still {} time. <a href="{}">Cancel them or hand them over</a>.',
                _bookings_to_come(to_come),
                user,
                "keeps its" if to_come == 1 else "keep their",
                listed,
            )
            self.message_user(request, text, messages.WARNING)

    # -- Actions -------------------------------------------------------------------------------------------
    @admin.action(description="Mail the invitation again", permissions=["add"])
    def invite_again(self, request, queryset):
        sent, unsent, settled = [], [], []
        for user in queryset:
            if not access.can_reinvite(request.user, user) or not user.email:
                settled.append(str(user))
                continue
            url = request.build_absolute_uri(invitations.password_path(user))
            done = invitations.invitation_send(actor=request.user, user=user, url=url)
            (sent if done else unsent).append(user)
        if sent:
            self.message_user(
                request, f"Mailed to {', '.join(user.email for user in sent)}.", messages.SUCCESS
            )
        for user in unsent:
            link = reverse("people:invitation", args=[user.pk])
            text = format_html(
                'The mail to {} was not sent. <a href="{}">Show the link</a> to give it yourself.', user, link
            )
            self.message_user(request, text, messages.WARNING)
        if settled:
            why = "because they have a password, no e-mail address or no active account"
            self.message_user(request, f"Not invited, {why}: {', '.join(settled)}.", messages.WARNING)

    @admin.action(description="Deactivate…", permissions=["change"])
    def deactivate(self, request, queryset):
        people = list(queryset.with_bookings_to_come()[: NAMED_IN_CONFIRMATION + 1])
        if not is_confirmed(request):
            more = ["and more"] if len(people) > NAMED_IN_CONFIRMATION else []
            return ask(
                self,
                request,
                queryset,
                action="deactivate",
                title="Deactivate these accounts?",
                text="These people are logged out at once and cannot log in any more. Their bookings, sessions and "
                "entries stay, and they can be reactivated. Bookings to come keep their time until you cancel them or "
                "hand them over.",
                button="Yes, deactivate them",
                items=[*map(_with_what_is_to_come, people[:NAMED_IN_CONFIRMATION]), *more],
            )
        return self._set_active(request, queryset, False, "deactivated")

    @admin.action(description="Reactivate", permissions=["change"])
    def reactivate(self, request, queryset):
        return self._set_active(request, queryset, True, "reactivated")

    @admin.action(description="Anonymise…", permissions=["change"])
    def anonymise(self, request, queryset):
        people = list(queryset[:2])
        if len(people) == 1:
            return redirect("people:anonymise", people[0].pk)
        self.message_user(request, "Anonymise one account at a time: it cannot be undone.", messages.WARNING)
        return None

    def _set_active(self, request, queryset, is_active, done):
        changed = 0
        for user in queryset:
            try:
                changed += services.user_set_active(actor=request.user, user=user, is_active=is_active)
            except PermissionDenied as error:
                self.message_user(request, str(error), messages.ERROR)
            except ValidationError as error:
                self.message_user(request, " ".join(error.messages), messages.ERROR)
        noun = "account" if changed == 1 else "accounts"
        self.message_user(
            request, f"{changed} {noun} {done}.", messages.SUCCESS if changed else messages.INFO
        )


@admin.register(Lab)
class LabAdmin(NeverDeleted, ChangedFieldsAdmin):
    list_display = ["name", "institution", "pi", "member_count", "is_active"]
    list_filter = ["is_active"]
    list_select_related = ["pi"]
    search_fields = ["name", "institution", "pi__first_name", "pi__last_name", "pi__username"]
    search_help_text = "Name, institution or principal investigator"
    autocomplete_fields = ["pi"]
    readonly_fields = ["created_at"]
    inlines = [MembersOfLabInline]
    fieldsets = [
        (None, {"fields": ["name", "institution", "pi", "is_active"]}),
        ("Record", {"fields": ["created_at"]}),
    ]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(member_count=Count("memberships"))

    @admin.display(description="members", ordering="member_count")
    def member_count(self, lab):
        return lab.member_count


class ReadOnly(admin.ModelAdmin):
    """Put before ModelAdmin: nobody adds, changes or deletes here."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


@admin.register(OutgoingMail)
class OutgoingMailAdmin(ReadOnly):
    """Whether a mail left, and why not. What it said is not shown: an invitation's link opens an account."""

    list_display = ["created_at", "subject", "address", "sent_at", "attempts", "error"]
    list_display_links = ["created_at", "subject"]
    list_filter = [("sent_at", admin.EmptyFieldListFilter)]
    search_fields = ["address", "subject"]
    search_help_text = "Address or subject"
    fields = ["created_at", "recipient", "address", "subject", "sent_at", "due_at", "attempts", "error"]

    def has_view_permission(self, request, obj=None):
        return access.can_manage_people(request.user)

    def has_module_permission(self, request):
        return access.can_manage_people(request.user)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    """Read only for all: what was written down stays as it was."""

    list_display = ["at", "actor_name", "action", "target_name", "target_type"]
    list_display_links = ["at", "target_name"]
    list_filter = ["action", "target_type"]
    date_hierarchy = "at"
    search_fields = ["actor_name", "target_name", "target_id"]
    search_help_text = "Who, or the record's name"
    fields = ["at", "actor_name", "action", "target_type", "target_name", "target_id", "what"]

    @admin.display(description="details")
    def what(self, entry):
        rows = (
            (key, value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False))
            for key, value in entry.details.items()
        )
        return format_html_join("", "<div><strong>{}</strong>: {}</div>", rows) or "–"
