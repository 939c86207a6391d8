"""Logging in and out, passwords, and inviting new users."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import views as auth_views
from django.contrib.auth.mixins import UserPassesTestMixin
from django.core.exceptions import ValidationError
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse, reverse_lazy
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.generic import DetailView, FormView

from people import access, forms, invitations, services
from people.changes import add_errors
from people.models import Lab, Preferences, User
from people.sections import sections

INVITED_SHOWN = 50


class LoginView(auth_views.LoginView):
    template_name = "people/login.html"
    authentication_form = forms.LoginForm
    redirect_authenticated_user = True


class LogoutView(auth_views.LogoutView):
    """By POST alone, so that no link or picture logs anyone out."""


class PasswordChangeView(auth_views.PasswordChangeView):
    template_name = "people/password_change.html"
    form_class = forms.PasswordChangeForm
    success_url = reverse_lazy("sessions:dashboard")

    def form_valid(self, form):
        answer = super().form_valid(form)
        messages.success(self.request, "Your password was changed. Other browsers were logged out.")
        return answer


class PasswordResetView(auth_views.PasswordResetView):
    template_name = "people/password_reset.html"
    form_class = forms.PasswordResetForm
    email_template_name = "people/mail/password_reset.txt"
    subject_template_name = "people/mail/password_reset_subject.txt"
    success_url = reverse_lazy("people:password_reset_done")

    @property
    def extra_email_context(self):
        return {"days": invitations.days_valid(), "site_name": settings.FACILITY_NAME}


class PasswordResetDoneView(auth_views.PasswordResetDoneView):
    template_name = "people/password_reset_done.html"
    extra_context = {"sends_mail": invitations.sends_mail}


class PasswordResetConfirmView(auth_views.PasswordResetConfirmView):
    """Where the links of invitations and of resets lead. Whoever sets the password is logged in by it."""

    template_name = "people/password_set.html"
    form_class = forms.SetPasswordForm
    post_reset_login = True
    post_reset_login_backend = "people.backends.UsernameOrEmailBackend"
    success_url = reverse_lazy("sessions:dashboard")

    def form_valid(self, form):
        answer = super().form_valid(form)
        messages.success(self.request, "Your password is set, and you are logged in.")
        return answer

    def get_context_data(self, **kwargs):
        return super().get_context_data(**kwargs) | {"days": invitations.days_valid()}


class ProfileView(FormView):
    """Everyone's page about themselves; other apps add their sections (people/sections.py)."""

    template_name = "people/profile.html"
    form_class = forms.ProfileForm

    def get_form_kwargs(self):
        user = self.request.user
        return super().get_form_kwargs() | {"user": user, "preferences": Preferences.of(user)}

    def form_valid(self, form):
        try:
            changed = services.profile_update(user=self.request.user, **form.changes)
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        messages.success(self.request, "Saved." if changed else "Nothing was changed.")
        return redirect("people:profile")

    def get_context_data(self, **kwargs):
        user = self.request.user
        labs = list(Lab.objects.of(user).select_related("pi"))
        return super().get_context_data(**kwargs) | {
            "labs": labs,
            "sends_mail": invitations.sends_mail(),
            "sections": sections(self.request),
        }


class InvitersOnly(UserPassesTestMixin):
    raise_exception = True

    def test_func(self):
        return access.can_invite(self.request.user)


def mail_invitation(request, user: User) -> None:
    """Mail the link and tell the staff member how that went."""
    url = request.build_absolute_uri(invitations.password_path(user))
    if invitations.invitation_send(actor=request.user, user=user, url=url):
        messages.success(request, f"The invitation was mailed to {user.email}.")
    elif invitations.sends_mail():
        messages.warning(
            request, f"The mail to {user.email} could not be sent. Give the link below to {user} yourself."
        )
    else:
        messages.warning(request, f"This site sends no e-mail yet. Give the link below to {user} yourself.")


class InviteView(InvitersOnly, FormView):
    template_name = "people/invite.html"
    form_class = forms.InviteForm

    def form_valid(self, form):
        values = form.cleaned_data
        try:
            user = services.user_invite(
                actor=self.request.user,
                first_name=values["first_name"],
                last_name=values["last_name"],
                email=values["email"],
                labs=list(values["labs"]),
                is_staff=values["role"] == "staff",
            )
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        mail_invitation(self.request, user)
        return redirect("people:invitation", user.pk)

    def get_context_data(self, **kwargs):
        invited = list(User.objects.invited().order_by("-date_joined")[: INVITED_SHOWN + 1])
        return super().get_context_data(**kwargs) | {
            "invited": invited[:INVITED_SHOWN],
            "more_invited": len(invited) > INVITED_SHOWN,
        }


@method_decorator(never_cache, name="dispatch")
class InvitationView(InvitersOnly, DetailView):
    """The link to hand out; only while nobody has set the password, so never a way into someone's account."""

    template_name = "people/invitation.html"
    context_object_name = "person"

    def get_queryset(self):
        return User.objects.people()

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        context["may_invite"] = access.can_reinvite(self.request.user, self.object)
        if context["may_invite"]:
            context["link"] = self.request.build_absolute_uri(invitations.password_path(self.object))
            context["days"] = invitations.days_valid()
        return context


class InvitationSendView(InvitersOnly, View):
    """Invite again: a new mail with a new link."""

    http_method_names = ["post"]

    def post(self, request, pk):
        user = get_object_or_404(User.objects.people(), pk=pk)
        if access.can_reinvite(request.user, user):
            mail_invitation(request, user)
        else:
            messages.error(request, f"{user} has set a password already and needs no invitation.")
        return redirect(reverse("people:invitation", args=[pk]))
