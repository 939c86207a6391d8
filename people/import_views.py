"""Importing people and labs: choose a file, see what it would do, do it."""

from django import forms
from django.contrib import messages
from django.contrib.auth.mixins import UserPassesTestMixin
from django.core.exceptions import ValidationError
from django.shortcuts import redirect
from django.views.generic import FormView

from people import access, imports, invitations
from people.forms import helper


class ImportForm(forms.Form):
    file = forms.FileField(
        label="CSV file", help_text="Nothing is written yet: you see first what it would do."
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["file"].widget.attrs["accept"] = ".csv,text/csv"
        self.helper = helper()

    def clean_file(self):
        upload = self.cleaned_data["file"]
        # One byte more than allowed is enough to know.
        self.cleaned_data["text"] = imports.decode(upload.read(imports.LONGEST_FILE + 1))
        self.cleaned_data["plan"] = imports.plan(self.cleaned_data["text"])
        return upload


class ImportView(UserPassesTestMixin, FormView):
    template_name = "people/import.html"
    form_class = ImportForm
    raise_exception = True

    def test_func(self):
        return access.can_invite(self.request.user) and access.can_manage_people(self.request.user)

    def get_context_data(self, **kwargs):
        return {
            "columns": imports.COLUMNS,
            "sends_mail": invitations.sends_mail(),
        } | super().get_context_data(**kwargs)

    def form_valid(self, form):
        values = form.cleaned_data
        return self.show(form, values["text"], values["plan"])

    def show(self, form, text, plan):
        return self.render_to_response(self.get_context_data(form=form, text=text, plan=plan))

    def post(self, request, *args, **kwargs):
        if "confirmed" not in request.POST:
            return super().post(request, *args, **kwargs)
        # A browser sends the line breaks of a text area as CR LF.
        text = request.POST.get("text", "").replace("\r\n", "\n")
        form = ImportForm()
        link_of = self._link if request.POST.get("invite") else None
        try:
            people, labs, joins = imports.carry_out(
                actor=request.user, text=text, digest=request.POST.get("digest", ""), link_of=link_of
            )
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            try:
                plan = imports.plan(text)
            except ValidationError:
                return redirect("people:import")
            return self.show(form, text, plan)
        mailed = " They are being mailed their invitations." if link_of and people else ""
        messages.success(
            request,
            f"Imported. New accounts: {people}. New labs: {labs}. Added to a lab: {joins}.{mailed}",
        )
        return redirect("people:import")

    def _link(self, person):
        return self.request.build_absolute_uri(invitations.password_path(person))
