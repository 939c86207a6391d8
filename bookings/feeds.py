"""Calendar feeds: secret addresses at which a person's calendar program reads bookings without a login.

The address can be shown again at any time to its person, and still stands in no copy of the database: it is made
from the feed's random nonce and the site's SECRET_KEY. A new nonce, a new SECRET_KEY or the feed's removal makes the
old address useless. What a feed tells is asked anew each time it is read: who has left a lab or the staff, or was
deactivated, reads nothing any more.
"""

import datetime
import hashlib
import secrets

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from bookings import ical
from bookings.models import Booking, CalendarFeed
from microscopes.models import Microscope
from people.access import is_staff
from people.models import Lab, User
from people.querysets import user_lab_ids

DAYS_BACK = 90
DAYS_AHEAD = 730
SECRET_LENGTH = 40
READ_AT_MOST = datetime.timedelta(hours=1)


# -- Making and taking away ------------------------------------------------------------------------------------
def may_have(user: User, scope: str, *, lab: Lab | None = None, microscope: Microscope | None = None) -> bool:
    """Everyone one of their own and of each of their labs; staff of any lab and any microscope."""
    if not user.is_active or user.is_service:
        return False
    if scope == CalendarFeed.Scope.MICROSCOPE:
        return microscope is not None and is_staff(user)
    if scope == CalendarFeed.Scope.LAB:
        return lab is not None and (is_staff(user) or lab.pk in user_lab_ids(user))
    return scope == CalendarFeed.Scope.MINE


def feed_make(
    *, user: User, scope: str, lab: Lab | None = None, microscope: Microscope | None = None
) -> CalendarFeed:
    """The person's feed of this, made if there is none yet. Raises PermissionDenied for what is not theirs to read."""
    if not may_have(user, scope, lab=lab, microscope=microscope):
        raise PermissionDenied("There is no such feed for you.")
    feed, _ = CalendarFeed.objects.get_or_create(
        user=user, scope=scope, lab=lab, microscope=microscope, defaults={"nonce": _nonce()}
    )
    return feed


def feed_renew(feed: CalendarFeed) -> CalendarFeed:
    """Give the feed another address; the one it had answers 404 from now on."""
    feed.nonce = _nonce()
    feed.created_at, feed.read_at = timezone.now(), None
    feed.save(update_fields=["nonce", "created_at", "read_at"])
    return feed


def _nonce() -> str:
    return secrets.token_urlsafe(32)


def secret(feed: CalendarFeed) -> str:
    return salted_hmac("bookings.feeds", f"{feed.pk}:{feed.nonce}", algorithm="sha256").hexdigest()[
        :SECRET_LENGTH
    ]


def path_of(feed: CalendarFeed) -> str:
    return reverse("bookings:feed", args=[feed.pk, secret(feed)])


# -- Reading ---------------------------------------------------------------------------------------------------
def find(pk: int, given: str) -> CalendarFeed | None:
    """The feed of this address, if the secret is right and its person may still read it."""
    feed = CalendarFeed.objects.select_related("user", "lab", "microscope").filter(pk=pk).first()
    if feed is None or not constant_time_compare(secret(feed), given):
        return None
    return feed if may_have(feed.user, feed.scope, lab=feed.lab, microscope=feed.microscope) else None


def note_read(feed: CalendarFeed) -> None:
    """Remember that somebody reads it, written at most once an hour."""
    now = timezone.now()
    if feed.read_at is None or now - feed.read_at > READ_AT_MOST:
        CalendarFeed.objects.filter(pk=feed.pk).update(read_at=now)


def bookings_of(feed: CalendarFeed):
    """Queryset of what stands in the feed: standing bookings from 90 days back to two years ahead."""
    now = timezone.now()
    found = (
        Booking.objects.standing()
        .visible_to(feed.user)
        .overlapping(now - datetime.timedelta(days=DAYS_BACK), now + datetime.timedelta(days=DAYS_AHEAD))
        .select_related("microscope", "owner", "operator", "lab", "application")
        .order_by("start", "pk")
    )
    if feed.scope == CalendarFeed.Scope.MICROSCOPE:
        return found.filter(microscope=feed.microscope_id)
    found = found.exclude(kind=Booking.Kind.SLOT)
    if feed.scope == CalendarFeed.Scope.LAB:
        return found.filter(lab=feed.lab_id)
    shared = Booking.collaborators.through.objects.filter(user=feed.user_id).values("booking_id")
    return found.filter(Q(owner=feed.user_id) | Q(operator=feed.user_id) | Q(pk__in=shared))


def name_of(feed: CalendarFeed) -> str:
    return f"{feed} ({settings.FACILITY_NAME})"


def etag(feed: CalendarFeed, bookings: list[Booking]) -> str:
    """Changes with anything that the feed shows; found without writing the calendar."""
    shown = [ical.PRODUCT, settings.SITE_URL, settings.TIME_ZONE, name_of(feed)]
    shown += [
        (
            booking.pk,
            ical.revised(booking).timestamp(),
            booking.start.timestamp(),
            booking.end.timestamp(),
            booking.kind,
            booking.title,
            booking.description,
            booking.is_confidential,
            str(booking.microscope),
            str(booking.owner),
            str(booking.operator),
            str(booking.lab),
        )
        for booking in bookings
    ]
    return f'"{hashlib.sha256(repr(shown).encode()).hexdigest()[:32]}"'


def text(feed: CalendarFeed, bookings: list[Booking]) -> str:
    """The feed as an iCalendar file. The same bookings give the same text."""
    # Without a METHOD the stamp is when the event was revised last (RFC 5545, 3.8.7.2).
    events = (
        ical.event(booking, stamp=revised, revision=ical.sequence(booking, revised))
        for booking in bookings
        for revised in [ical.revised(booking)]
    )
    return ical.calendar(events, name=name_of(feed))
