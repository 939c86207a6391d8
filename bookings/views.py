"""Pages about bookings. Rules live in services and rules, who may what in access and querysets."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.functional import cached_property
from django.views.generic import CreateView, DetailView, FormView, UpdateView
from django_filters.views import FilterView

from bookings import access
from bookings.filters import BookingFilterSet
from bookings.forms import BookingForm, CancelForm, booking_defaults
from bookings.handover import can_hand_over
from bookings.models import Booking
from bookings.rules import span
from microscopes.models import Microscope
from people import words
from people.access import is_staff


class BookingListView(FilterView):
    """Who has which microscope when; others' bookings say no more than that it is taken."""

    filterset_class = BookingFilterSet
    paginate_by = 50

    def get_filterset_kwargs(self, filterset_class):
        # Bound without a choice too: what is shown then is the filters' decision as well.
        return super().get_filterset_kwargs(filterset_class) | {"data": self.request.GET}

    def get_queryset(self):
        return Booking.objects.with_people().with_session_counts().with_details_visible_to(self.request.user)

    def get_template_names(self):
        htmx = self.request.htmx
        return ["bookings/_list.html" if htmx and not htmx.history_restore_request else "bookings/list.html"]

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        context["rows"] = [access.as_seen(booking) for booking in context["object_list"]]
        context["may_book"] = access.can_create(self.request.user)
        context["microscopes_exist"] = bool(context["rows"]) or Microscope.objects.exists()
        query = self.request.GET.copy()
        query.pop("page", None)
        context["query"] = query.urlencode()
        context["is_filtered"] = any(query.values())
        return context

    def render_to_response(self, context, **kwargs):
        response = super().render_to_response(context, **kwargs)
        response.headers["Vary"] = "HX-Request"
        return response


def short_name(booking) -> str:
    """What a booking is called where one is and how one gets back."""
    start = timezone.localtime(booking.start)
    return f"{booking.microscope} {start:%Y-%m-%d} {words.clock(start)}"


class BookingDetailView(DetailView):
    template_name = "bookings/detail.html"

    def get_queryset(self):
        queryset = Booking.objects.visible_to(self.request.user).with_people()
        return queryset.select_related("cancelled_by", "series").prefetch_related("collaborators")

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        booking, user = self.object, self.request.user
        # A booking may change its lab later; its sessions belong to whom they were recorded for.
        sessions = (
            booking.sessions.visible_to(user).select_related("summary", "sample").order_by("start", "pk")
        )
        context["sessions"] = list(sessions)
        context["can_change"] = access.can_change(user, booking)
        context["can_cancel"] = access.can_cancel(user, booking)
        context["can_hand_over"] = can_hand_over(user, booking)
        context["can_run"] = access.can_run(user, booking) and (
            booking.is_running or (is_staff(user) and not booking.is_cancelled)
        )
        context["when"] = span(booking.start, booking.end)
        context["short_name"] = short_name(booking)
        context["length"] = booking.end - booking.start
        if booking.kind == Booking.Kind.SLOT:
            context["open_for"] = [*booking.slot_labs.all(), *booking.slot_applications.all()]
        context["overridden"] = [name.replace("_", " ") for name in booking.overridden]
        context["left"] = booking.end - timezone.now()
        return context


def in_words(booking) -> str:
    """What holds now that it was made or changed."""
    when = span(booking.start, booking.end)
    if booking.kind == Booking.Kind.SLOT:
        return f"{booking.microscope} has an open slot from {when}."
    if booking.is_upkeep:
        return f"{booking.microscope} has {booking.get_kind_display()} from {when}."
    return f"{booking.microscope} is booked from {when}."


def and_others(count: int) -> str:
    """What follows the sentence about one booking where more of its repeat were made or changed."""
    return f" So {'is' if count == 1 else 'are'} {count} more of the repeat." if count else ""


class BookingFormMixin:
    """Gives the form its actor and lets the service have the last word."""

    form_class = BookingForm
    template_name = "bookings/form.html"
    done = ""

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"actor": self.request.user}

    def form_valid(self, form):
        booking = form.save()
        if booking is None:
            return self.form_invalid(form)
        text = in_words(booking) + and_others(len(form.saved) - 1)
        messages.success(self.request, f"{self.done}{text}")
        return redirect("bookings:detail", pk=booking.pk)


class BookingCreateView(BookingFormMixin, CreateView):
    def dispatch(self, request, *args, **kwargs):
        if request.user.is_authenticated and not access.can_create(request.user):
            raise PermissionDenied("This account cannot book microscopes.")
        return super().dispatch(request, *args, **kwargs)

    def get_initial(self):
        return booking_defaults(self.request.user, self.request.GET)


class BookingUpdateView(BookingFormMixin, UpdateView):
    done = "Saved. "

    def get_queryset(self):
        return Booking.objects.visible_to(self.request.user).with_people()

    def get_object(self, queryset=None):
        booking = super().get_object(queryset)
        if not access.can_change(self.request.user, booking):
            raise PermissionDenied(access.refusal_to_change(booking))
        self.extra_context = {"short_name": short_name(booking)}
        return booking


class BookingCancelView(FormView):
    form_class = CancelForm
    template_name = "bookings/cancel.html"

    @cached_property
    def booking(self):
        booking = (
            Booking.objects.visible_to(self.request.user).with_people().filter(pk=self.kwargs["pk"]).first()
        )
        if booking is None:
            raise Http404("There is no such booking.")
        if not access.can_cancel(self.request.user, booking):
            raise PermissionDenied(access.refusal_to_change(booking))
        return booking

    @cached_property
    def sessions(self):
        return list(self.booking.sessions.order_by("start").select_related("summary"))

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {
            "actor": self.request.user,
            "booking": self.booking,
            "has_sessions": bool(self.sessions),
        }

    def get_context_data(self, **kwargs):
        return super().get_context_data(**kwargs) | {
            "booking": self.booking,
            "when": span(self.booking.start, self.booking.end),
            "short_name": short_name(self.booking),
            "sessions": self.sessions,
            "running": [session for session in self.sessions if session.is_running],
            "inside": self._inside(),
        }

    def _inside(self) -> int:
        """How many bookings to come lie inside a slot, and stay without it."""
        slot = self.booking
        if slot.kind != Booking.Kind.SLOT:
            return 0
        there = Booking.objects.filter(microscope=slot.microscope_id, kind=Booking.Kind.BOOKING).standing()
        return there.filter(start__gte=max(slot.start, timezone.now()), end__lte=slot.end).count()

    def form_valid(self, form):
        if form.save() is None:
            return self.form_invalid(form)
        messages.success(self.request, self._told(form.saved))
        return redirect("bookings:detail", pk=self.booking.pk)

    def _told(self, cancelled: list[Booking]) -> str:
        booking, number = self.booking, len(cancelled)
        when = span(booking.start, booking.end)
        if booking.kind == Booking.Kind.SLOT:  # It took no time, so that none is free.
            return (
                f"Cancelled: the slot on {booking.microscope} from {when}."
                if number == 1
                else f"{number} slots on {booking.microscope} are cancelled."
            )
        if number > 1:
            return f"{number} bookings of the repeat are cancelled; {booking.microscope} is free again then."
        if booking.has_ended:
            return f"Cancelled: {booking.microscope} from {when}."
        return f"Cancelled: {booking.microscope} is free again from {when}."
