"""The page on which a booking is handed to somebody else."""

from crispy_forms.helper import FormHelper
from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django.shortcuts import redirect
from django.utils.functional import cached_property
from django.views.generic import FormView

from bookings import handover
from bookings.forms import OverrideMixin
from bookings.models import Booking
from bookings.rules import span
from bookings.views import short_name
from people.models import User


class HandOverForm(OverrideMixin, forms.Form):
    to = forms.ModelChoiceField(
        User.objects.none(),
        label="New owner",
        empty_label="Choose a person",
        help_text="They get a mail about it.",
    )

    def __init__(self, *args, actor, heirs, **kwargs):
        super().__init__(*args, **kwargs)
        self.actor = actor
        self.fields["to"].queryset = heirs
        self.helper = FormHelper()
        self.helper.form_tag = False


class HandOverView(FormView):
    form_class = HandOverForm
    template_name = "bookings/hand_over.html"

    @cached_property
    def booking(self) -> Booking:
        booking = (
            Booking.objects.visible_to(self.request.user).with_people().filter(pk=self.kwargs["pk"]).first()
        )
        if booking is None:
            raise Http404("There is no such booking.")
        if not handover.can_hand_over(self.request.user, booking):
            raise PermissionDenied(
                "A booking is handed over by its owner, operator or the facility's staff, and only until it starts."
            )
        return booking

    @cached_property
    def heirs(self):
        return handover.heirs(self.request.user, self.booking)

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"actor": self.request.user, "heirs": self.heirs}

    def get_context_data(self, **kwargs):
        booking = self.booking
        return super().get_context_data(**kwargs) | {
            "booking": booking,
            "when": span(booking.start, booking.end),
            "short_name": short_name(booking),
            "has_heirs": self.heirs.exists(),
        }

    def form_valid(self, form):
        to = form.cleaned_data["to"]
        try:
            handover.booking_hand_over(
                booking=self.booking, actor=self.request.user, to=to, override=form.override
            )
        except ValidationError as error:
            form.refuse(error)
            return self.form_invalid(form)
        messages.success(self.request, f"The booking is {to}'s now.")
        if Booking.objects.visible_to(self.request.user).filter(pk=self.booking.pk).exists():
            return redirect("bookings:detail", pk=self.booking.pk)
        return redirect("bookings:list")
