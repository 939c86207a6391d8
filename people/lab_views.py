"""A lab's page: who is in it, and for its head and the staff who comes and goes."""

from django import forms
from django.contrib import messages
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, ValidationError
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.functional import cached_property
from django.views import View
from django.views.generic import FormView, TemplateView

from people import access, invitations, labs
from people.changes import add_errors
from people.forms import helper
from people.models import Lab, Membership, User

INVITE_PAUSE_SECONDS = 60


class MemberForm(forms.Form):
    email = forms.EmailField(label="E-mail address")
    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(
        max_length=150, required=False, help_text="The name is needed only for who has no account here yet."
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = helper()


class OfLab:
    """The lab of the address, for those who may see it; others get 404, and 403 where they may not manage it."""

    needs_managing = True

    @cached_property
    def lab(self) -> Lab:
        lab = get_object_or_404(
            Lab.objects.visible_to(self.request.user).select_related("pi"), pk=self.kwargs["pk"]
        )
        if self.needs_managing and not access.can_manage_lab(self.request.user, lab):
            raise PermissionDenied("The head of the lab and the facility's staff manage its members.")
        return lab

    @cached_property
    def person(self) -> User:
        return get_object_or_404(User.objects.filter(memberships__lab=self.lab), pk=self.kwargs["person"])


class LabView(OfLab, FormView):
    needs_managing = False
    form_class = MemberForm
    template_name = "people/lab.html"

    def post(self, request, *args, **kwargs):
        if not access.can_manage_lab(request.user, self.lab):
            raise PermissionDenied("The head of the lab and the facility's staff manage its members.")
        return super().post(request, *args, **kwargs)

    def form_valid(self, form):
        try:
            person, is_new = labs.lab_member_add(actor=self.request.user, lab=self.lab, **form.cleaned_data)
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        if is_new:
            invite(self.request, person)
        else:
            messages.success(self.request, f"{person} has an account here and is a member now.")
        return redirect(self.lab)

    def get_context_data(self, **kwargs):
        members = Membership.objects.filter(lab=self.lab).exclude(user=self.lab.pi_id).select_related("user")
        return super().get_context_data(**kwargs) | {
            "lab": self.lab,
            "may_manage": access.can_manage_lab(self.request.user, self.lab),
            "members": list(members.order_by("user__last_name", "user__first_name", "user__username")),
        }


def invite(request, person: User) -> None:
    url = request.build_absolute_uri(invitations.password_path(person))
    invitations.invitation_queue(actor=request.user, user=person, url=url)
    if invitations.sends_mail():
        messages.success(request, f"{person} gets a mail with a link to set the password, at {person.email}.")
    else:
        messages.warning(
            request,
            f"{person} is a member now. This site sends no e-mail yet: ask the facility's staff for the link.",
        )


class InviteAgainView(OfLab, View):
    http_method_names = ["post"]

    def post(self, request, *args, **kwargs):
        if not access.can_mail_invitation(request.user, self.person):
            messages.error(request, f"{self.person} has set a password already and needs no invitation.")
        elif cache.add(f"lab-invitation-{self.person.pk}", True, INVITE_PAUSE_SECONDS):
            invite(request, self.person)
        else:
            messages.info(request, "A mail has just been sent. Try again in a minute.")
        return redirect(self.lab)


class RemoveView(OfLab, TemplateView):
    """Asks first, naming what stays."""

    template_name = "people/lab_remove.html"

    def get_context_data(self, **kwargs):
        to_come = self.person.bookings_owned.filter(lab=self.lab, cancelled_at=None, start__gt=timezone.now())
        return super().get_context_data(**kwargs) | {
            "lab": self.lab,
            "person": self.person,
            "to_come": to_come.count(),
        }

    def post(self, request, *args, **kwargs):
        labs.lab_member_remove(actor=request.user, lab=self.lab, person=self.person)
        messages.success(request, f"{self.person} is not in {self.lab} any more.")
        return redirect(self.lab)
