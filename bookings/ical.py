"""Bookings as iCalendar (RFC 5545), for mails and feeds alike.

Times are written in UTC: a booking is a moment, so summer time cannot move it, and no calendar program has to know
the facility's zone. The caller decides who may read. Everything of a booking that is passed here is written out, the
title and description of a confidential one apart: where a calendar program keeps them is nobody's to say.
"""

import datetime
from collections.abc import Iterable
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from icalendar import Calendar, Event, vCalAddress, vText

from bookings.models import Booking
from people.models import User
from people.outbox import absolute, sender_address

PRODUCT = "-//EMhub//Bookings//EN"
# RFC 5545 3.1: of the control characters only the tab stands in a text; line breaks are written as \n.
CONTROL = {code: None for code in (*range(32), 127) if chr(code) not in "\t\n"}


def uid(booking: Booking) -> str:
    """The same in every mail and feed, so that a program updates an event instead of adding another."""
    return f"booking-{booking.pk}@{urlsplit(settings.SITE_URL).hostname}"


def revised(booking: Booking) -> datetime.datetime:
    """When it became what it is."""
    return booking.changed_at or booking.created_at


def sequence(booking: Booking, moment: datetime.datetime) -> int:
    """The revision as of the moment. It must grow with every change, or programs keep what they have: the tenths of a
    second since the booking was made only grow, and for six years fit the 31 bits that programs give it."""
    return max(0, int((moment - booking.created_at).total_seconds() * 10))


def summary(booking: Booking) -> str:
    title = "" if booking.is_confidential else booking.title
    what = title or (str(booking.lab) if booking.lab_id else booking.get_kind_display().capitalize())
    return f"{booking.microscope}: {what}"


def event(
    booking: Booking,
    *,
    stamp: datetime.datetime,
    revision: int = 0,
    cancelled: bool = False,
    mailed: bool = False,
    attendee: User | None = None,
) -> Event:
    """The booking with its microscope, owner, operator and lab; mailed ones name the facility as their organizer,
    and `attendee` is the person whom a request asks to put it into the calendar.
    """
    made = Event()
    made.add("uid", uid(booking))
    made.add("dtstamp", stamp.astimezone(datetime.UTC))
    made.add("created", booking.created_at.astimezone(datetime.UTC))
    made.add("last-modified", revised(booking).astimezone(datetime.UTC))
    made.add("sequence", revision)
    made.add("dtstart", booking.start.astimezone(datetime.UTC))
    made.add("dtend", booking.end.astimezone(datetime.UTC))
    made.add("summary", _text(summary(booking)))
    made.add("location", _text(f"{booking.microscope}, {settings.FACILITY_NAME}"))
    made.add("description", _text(_description(booking)))
    made.add("url", absolute(reverse("bookings:detail", args=[booking.pk])))
    made.add("categories", [str(booking.get_kind_display())])
    made.add("status", "CANCELLED" if cancelled else "CONFIRMED")
    # Open time blocks nobody's day.
    made.add("transp", "TRANSPARENT" if cancelled or booking.kind == Booking.Kind.SLOT else "OPAQUE")
    if mailed or attendee is not None:
        organizer = vCalAddress(f"mailto:{sender_address()}")
        organizer.params["CN"] = vText(settings.FACILITY_NAME)
        made["organizer"] = organizer
    if attendee is not None:
        person = vCalAddress(f"mailto:{attendee.email}")
        person.params["CN"] = vText(_text(str(attendee)).replace('"', "'"))
        person.params["PARTSTAT"] = vText("ACCEPTED")
        person.params["RSVP"] = vText("FALSE")
        made.add("attendee", person, encode=0)
    return made


def calendar(events: Iterable[Event], *, method: str = "", name: str = "") -> str:
    """A whole iCalendar file; `method` for what is mailed (RFC 5546), `name` for what is subscribed to."""
    made = Calendar()
    made.add("prodid", PRODUCT)
    made.add("version", "2.0")
    made.add("calscale", "GREGORIAN")
    if method:
        made.add("method", method)
    if name:
        made.add("x-wr-calname", _text(name))
        made.add("x-wr-timezone", settings.TIME_ZONE)
        # How often a program may look again (RFC 7986), and the older name of the same wish.
        made.add("refresh-interval", datetime.timedelta(hours=1), parameters={"VALUE": "DURATION"})
        made.add("x-published-ttl", "PT1H")
    for one in events:
        made.add_component(one)
    return made.to_ical().decode()


def mailed(bookings: list[Booking], *, to: User, cancelled: bool = False) -> str:
    """What a mail attaches: one booking as a request or its cancellation, several as what is published.

    RFC 5546 lets a REQUEST or CANCEL name one event alone, and a PUBLISH no attendees.
    """
    now = timezone.now()
    events = [
        event(
            booking,
            stamp=now,
            revision=sequence(booking, now),
            cancelled=cancelled,
            mailed=True,
            attendee=to if len(bookings) == 1 else None,
        )
        for booking in bookings
    ]
    single = "CANCEL" if cancelled else "REQUEST"
    return calendar(events, method=single if len(events) == 1 else "PUBLISH")


def _description(booking: Booking) -> str:
    lines = [f"Owner: {booking.owner}"]
    if booking.operator_id:
        lines.append(f"Operator: {booking.operator}")
    if booking.lab_id:
        lines.append(f"Lab: {booking.lab}")
    if booking.description and not booking.is_confidential:
        lines += ["", booking.description]
    return "\n".join(lines)


def _text(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(CONTROL)
