"""The page that asks before a person is anonymised."""

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import cached_property
from django.views.generic import FormView

from people import access, anonymising
from people.changes import add_errors
from people.forms import helper
from people.models import User


class AnonymiseForm(forms.Form):
    typed = forms.CharField(max_length=150, label="Username, to confirm")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["typed"].widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}
        self.helper = helper()


class AnonymiseView(FormView):
    template_name = "people/anonymise.html"
    form_class = AnonymiseForm

    @cached_property
    def person(self) -> User:
        if not access.can_manage_people(self.request.user):
            raise PermissionDenied("The facility's staff anonymise accounts.")
        person = get_object_or_404(User, pk=self.kwargs["pk"])
        if not access.can_deactivate(self.request.user, person):
            raise PermissionDenied(f"You may not change {person}.")
        return person

    def get_context_data(self, **kwargs):
        refusal = anonymising.refusal(self.person)
        return super().get_context_data(**kwargs) | {
            "person": self.person,
            "refusal": refusal,
            "to_come": User.objects.with_bookings_to_come().get(pk=self.person.pk).to_come,
        }

    def form_valid(self, form):
        before = str(self.person)
        try:
            user = anonymising.user_anonymise(
                actor=self.request.user, user=self.person, typed=form.cleaned_data["typed"]
            )
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        messages.success(self.request, f"{before} is {user} from now on.")
        return redirect("admin:people_user_change", user.pk)
