"""The calendar page, its range call, the booking form as a dialog, and moving by drag and drop."""

import datetime
import json

import msgspec
from django.contrib.messages import get_messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.generic import TemplateView, View

from bookings import access, calendar, kept
from bookings.models import Booking
from bookings.rules import OVERLAPS, broken_rules
from bookings.series import SCOPES, THIS
from bookings.views import BookingCreateView, and_others, in_words
from people import words
from people.models import Preferences
from people.services import calendar_remember

#: name in the address -> what the button says
VIEWS = {"week": "Week", "month": "Month", "timeline": "Timeline", "weeks": "4 weeks", "list": "Days"}
LIST_DAYS = 7
# In a week's columns more microscopes than these get too narrow to read; each has its own row in the timeline.
WEEK_COLUMNS_AT_MOST = 2


def chosen_microscopes(codes, microscopes):
    """Those of these codes, ignoring case; all where none of them is shown."""
    codes = {code.lower() for code in codes}
    return [microscope for microscope in microscopes if microscope.code.lower() in codes] or microscopes


class CalendarView(TemplateView):
    """The page, and for htmx the days of the list alone. The grids fetch what they show from the range call.

    What is shown is the address's choice, then what the person chose last, on whatever machine; then the usual.
    """

    def get_template_names(self):
        htmx = self.request.htmx
        return [
            "bookings/_calendar_days.html"
            if htmx and not htmx.history_restore_request
            else "bookings/calendar.html"
        ]

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        user = self.request.user
        microscopes = calendar.shown_microscopes()
        asked, kept = self.request.GET, Preferences.of(user)
        is_asked = "view" in asked or "microscope" in asked
        codes = asked.getlist("microscope") if is_asked else kept.calendar_microscopes
        chosen = chosen_microscopes(codes, microscopes)
        day = self._day()
        may_book = access.can_create(user)
        usual = "week" if len(microscopes) <= WEEK_COLUMNS_AT_MOST else "timeline"
        view = next((one for one in (asked.get("view"), kept.calendar_view) if one in VIEWS), usual)
        context |= {"microscopes": microscopes, "day": day, "view": view, "may_book": may_book}
        if view == "list":
            start = calendar.day_start(day)
            last = day + datetime.timedelta(days=LIST_DAYS - 1)
            end = calendar.day_start(last + datetime.timedelta(days=1))
            found = calendar.events(user, start, end, chosen)
            context |= {
                "days": calendar.by_days(found, chosen, day, LIST_DAYS),
                "previous": day - datetime.timedelta(days=LIST_DAYS),
                "next": day + datetime.timedelta(days=LIST_DAYS),
                "range": words.span(start, end),
            }
        named = {microscope.code for microscope in chosen} if len(chosen) < len(microscopes) else set()
        context["chosen"] = named
        context |= {"views": VIEWS, "scopes": SCOPES}
        context["config"] = {
            "view": view,
            "keptView": kept.calendar_view if kept.calendar_view in VIEWS else "",
            "date": day.isoformat() if "date" in self.request.GET else None,
            "today": timezone.localdate().isoformat(),
            "offset": calendar.current_offset(),
            "chosen": sorted(named),
            "mayBook": may_book,
            "page": reverse("bookings:calendar"),
            "events": reverse("bookings:calendar-events"),
            "choice": reverse("bookings:calendar-choice"),
            "detail": reverse("bookings:detail", args=[0]),
            "book": reverse("bookings:calendar-new"),
            "microscopes": [
                {
                    "id": str(microscope.pk),
                    "code": microscope.code,
                    "name": microscope.name,
                    "colour": microscope.colour,
                    "text": calendar.text_colour(microscope.colour),
                    "note": "" if microscope.status == "active" else microscope.get_status_display(),
                }
                for microscope in microscopes
            ],
        }
        return context

    def _day(self) -> datetime.date:
        """The address's day; today where it names none. A year's room is left before and after."""
        try:
            return timezone.localtime(calendar.midnight(self.request.GET.get("date", ""))).date()
        except ValidationError:
            return timezone.localdate()

    def render_to_response(self, context, **kwargs):
        response = super().render_to_response(context, **kwargs)
        response.headers["Vary"] = "HX-Request"
        return response


def answer(content: dict | bytes, status: int = 200) -> HttpResponse:
    """`content` to be written as JSON, or that already."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    response = HttpResponse(body, status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def events_json(told: list[kept.Piece], **also) -> bytes:
    """{"events": [...], ...also} of events that are written already, copied once."""
    head, tail = b'{"events":[', b"]," + msgspec.json.encode(also)[1:]
    if not told:
        return head + tail
    first, *others = told
    *others, last = [head + first, *others]
    return b",".join([*others, bytes(last) + tail])


class CalendarEventsView(View):
    """GET ?start=2026-11-23&end=2026-11-30&microscope=krios1: the events of these days, the last one not included.

    Days are the facility's. Answers 400 with words for a range that is no range or too long.
    """

    def get(self, request):
        try:
            start, end = (calendar.midnight(request.GET.get(name, "")) for name in ("start", "end"))
            calendar.check_range(start, end)
        except ValidationError as error:
            return answer({"detail": " ".join(error.messages)}, 400)
        shown = calendar.shown_microscopes()
        chosen = chosen_microscopes(request.GET.getlist("microscope"), shown)
        told = kept.events(request.user, start, end, chosen, shown)
        return answer(events_json(told, offset=calendar.current_offset()))


class CalendarChoiceView(View):
    """POST view (empty: the usual) and microscope (codes, none: all), kept for the next visit. 204, or 400."""

    def post(self, request):
        view, codes = request.POST.get("view", ""), request.POST.getlist("microscope")
        microscopes = calendar.shown_microscopes()
        if view not in {"", *VIEWS} or set(codes) - {microscope.code for microscope in microscopes}:
            return answer({"detail": "The calendar has no such view or microscope."}, 400)
        calendar_remember(user=request.user, view=view, microscopes=codes)
        return HttpResponse(status=204)


class CalendarBookView(BookingCreateView):
    """The form for a new booking in the calendar's dialog; without the dialog it is the plain page."""

    def get_template_names(self):
        return ["bookings/_calendar_form.html"] if self.request.htmx else super().get_template_names()

    def form_valid(self, form):
        response = super().form_valid(form)
        if not self.request.htmx or not isinstance(response, HttpResponseRedirect):
            return response
        # What the next page would say, the calendar says: it stays.
        told = {
            "message": " ".join(str(message) for message in get_messages(self.request)),
            "url": response.url,
        }
        return HttpResponse(status=204, headers={"HX-Trigger": json.dumps({"emhub:booked": told})})


class CalendarMoveView(View):
    """POST start, end (wall time), microscope (id, optional), seen_start, seen_end: moves or resizes a booking.

    Of a repeat `scope` says whether this one is meant (this), later ones too (later) or all.
    200 with what was done; 400 where a rule refuses, 403 who may not, 404 not visible, 409 where the time is taken
    or the booking is not where it was seen any more. Refusals say why in `detail`; nothing is changed then.
    """

    def post(self, request, pk):
        try:
            booking = self._booking(pk)
            microscope = self._microscope(request.POST.get("microscope", ""))
            start, end = request.POST.get("start", ""), request.POST.get("end", "")
            seen = (request.POST.get("seen_start", ""), request.POST.get("seen_end", ""))
            moved = calendar.move(
                booking=booking,
                actor=request.user,
                start=start,
                end=end,
                microscope=microscope,
                seen=seen,
                scope=self._scope(request.POST.get("scope", "")),
            )
        except Http404:
            return answer({"detail": "This booking is not there any more."}, 404)
        except PermissionDenied as error:
            return answer({"detail": str(error)}, 403)
        except calendar.Stale as error:
            return answer({"detail": error.message}, 409)
        except ValidationError as error:
            broken = broken_rules(error)
            status = 409 if broken and broken <= OVERLAPS else 400
            return answer({"detail": " ".join(error.messages)}, status)
        booking, *others = moved
        return answer({"detail": f"Moved. {in_words(booking)}{and_others(len(others))}"})

    def _booking(self, pk) -> Booking:
        booking = Booking.objects.visible_to(self.request.user).with_people().filter(pk=pk).first()
        if booking is None:
            raise Http404
        if not access.can_change(self.request.user, booking):
            raise PermissionDenied(access.refusal_to_change(booking))
        return booking

    def _scope(self, text: str) -> str:
        if text and text not in dict(SCOPES):
            raise ValidationError("Say what is meant: this booking, this and later ones, or all.")
        return text or THIS

    def _microscope(self, text):
        if not text:
            return None
        found = next((one for one in calendar.shown_microscopes() if str(one.pk) == text), None)
        if found is None:
            raise ValidationError({"microscope": "This microscope is not in service. Choose another one."})
        return found
