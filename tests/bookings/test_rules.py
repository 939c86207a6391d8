"""Every rule at its edges, by page and by API, for everyone who may ask: the same answer in the same words."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from bookings import rules
from bookings.models import ApplicationQuota, Booking
from bookings.services import booking_cancel, booking_create, booking_update
from people.models import AuditEntry
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
ZONE = ZoneInfo("Europe/Stockholm")
NEW, API = "/bookings/new/", "/api/v1/bookings/"
MINUTE = datetime.timedelta(minutes=1)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def at(text: str, fold: int = 0) -> datetime.datetime:
    """A local time of the facility, "03-11 09:00", in 2027."""
    return datetime.datetime.fromisoformat(f"2027-{text}").replace(tzinfo=ZONE, fold=fold)


NOW = at("03-10 12:00")


@pytest.fixture(autouse=True)
def _then_and_there(settings, monkeypatch):
    settings.TIME_ZONE = "Europe/Stockholm"
    monkeypatch.setattr(timezone, "now", lambda: NOW)


@pytest.fixture
def lab():
    return LabFactory()


@pytest.fixture
def people(lab, staff):
    """Who may ask, by role."""
    owner = MembershipFactory(lab=lab).user
    member = MembershipFactory(lab=lab).user
    operator = UserFactory()
    return {"owner": owner, "member": member, "pi": lab.pi, "operator": operator, "staff": staff}


class ByPage:
    """Fills in the forms as a person does; answers the names of the rules that refused, and what they said."""

    def __init__(self, client, person):
        self.client = client
        client.force_login(person)

    def _answer(self, page):
        if page.status_code == 302:
            return set(), []
        if page.status_code in (403, 404):
            return page.status_code, []
        data = page.context["form"].errors.as_data()
        found = [error for errors in data.values() for error in errors]
        return {error.code for error in found}, sorted(m for error in found for m in error.messages)

    def create(self, microscope, start, end, owner, **extra):
        return self._answer(self.client.post(NEW, self._filled(microscope, start, end, owner) | extra))

    def move(self, booking, start, end, **extra):
        data = self._filled(booking.microscope, start, end, booking.owner, booking.lab, booking.operator)
        return self._answer(self.client.post(reverse("bookings:edit", args=[booking.pk]), data | extra))

    def cancel(self, booking, **extra):
        data = {"reason": "No grids"} | extra
        return self._answer(self.client.post(reverse("bookings:cancel", args=[booking.pk]), data))

    @staticmethod
    def _filled(microscope, start, end, owner, lab=None, operator=None):
        moments = {
            name: timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M")
            for name, moment in (("start", start), ("end", end))
        }
        ids = {
            name: getattr(value, "pk", "")
            for name, value in (("owner", owner), ("lab", lab), ("operator", operator))
        }
        return moments | ids | {"microscope": microscope.pk, "kind": "booking"}

    @staticmethod
    def setting_aside(*names):
        return {"override": list(names), "override_confirmed": "on"}


class ByAPI:
    def __init__(self, client, person):
        self.client = client
        client.force_login(person)

    def _answer(self, answer):
        if answer.status_code < 300:
            return set(), []
        if answer.status_code in (403, 404):
            return answer.status_code, []
        body = answer.json()
        broken = set(body.pop("rules"))
        assert answer.status_code == (409 if broken <= rules.OVERLAPS else 400)
        said = [m for found in body.values() for m in ([found] if isinstance(found, str) else found)]
        return broken, sorted(said)

    def create(self, microscope, start, end, owner, **extra):
        data = {"microscope": microscope.code, "owner": owner.username} | self._times(start, end) | extra
        return self._answer(self.client.post(API, data))

    def move(self, booking, start, end, **extra):
        return self._answer(self.client.patch(f"{API}{booking.pk}/", self._times(start, end) | extra))

    def cancel(self, booking, **extra):
        return self._answer(self.client.delete(f"{API}{booking.pk}/", {"reason": "No grids"} | extra))

    @staticmethod
    def _times(start, end):
        return {"start": start.isoformat(), "end": end.isoformat()}

    @staticmethod
    def setting_aside(*names):
        return {"override": list(names)}


@pytest.fixture
def ways(client):
    """Page and API, for a person."""
    from rest_framework.test import APIClient

    return lambda person: [ByPage(client, person), ByAPI(APIClient(), person)]


# -- making one --------------------------------------------------------------------------------------------

TAKEN = ("03-12 10:00", "03-12 14:00")
CREATE = {
    # what: (limits of the microscope, start, end, the rule that refuses, whether staff can set it aside)
    "ends as it starts": ({}, "03-11 09:00", "03-11 09:00", "ends_after_start", False),
    "ends before": ({}, "03-11 09:00", "03-11 08:59", "ends_after_start", False),
    "one minute long": ({}, "03-11 09:00", "03-11 09:01", None, None),
    "now": ({}, "03-10 12:00", "03-10 13:00", None, None),
    "a moment ago": ({}, "03-10 11:55", "03-10 13:00", None, None),
    "one minute too long ago": ({}, "03-10 11:54", "03-10 13:00", "not_in_the_past", "staff may"),
    "as short as can be": ({"min_length_minutes": 60}, "03-11 09:00", "03-11 10:00", None, None),
    "one minute too short": (
        {"min_length_minutes": 60},
        "03-11 09:00",
        "03-11 09:59",
        "minimum_length",
        True,
    ),
    "as long as can be": ({"max_length_hours": 8}, "03-11 09:00", "03-11 17:00", None, None),
    "one minute too long": ({"max_length_hours": 8}, "03-11 09:00", "03-11 17:01", "maximum_length", True),
    "the last minute ahead": ({"max_days_ahead": 2}, "03-12 23:59", "03-13 12:00", None, None),
    "one minute too far ahead": (
        {"max_days_ahead": 2},
        "03-13 00:00",
        "03-13 12:00",
        "not_too_far_ahead",
        True,
    ),
    "touching before": ({}, "03-12 08:00", "03-12 10:00", None, None),
    "touching after": ({}, "03-12 14:00", "03-12 15:00", None, None),
    "equal": ({}, *TAKEN, "nothing_overlaps", False),
    "inside": ({}, "03-12 11:00", "03-12 12:00", "nothing_overlaps", False),
    "enclosing": ({}, "03-12 09:00", "03-12 15:00", "nothing_overlaps", False),
    "its first minute": ({}, "03-12 09:00", "03-12 10:01", "nothing_overlaps", False),
    "its last minute": ({}, "03-12 13:59", "03-12 15:00", "nothing_overlaps", False),
    "touching downtime": ({}, "03-15 00:00", "03-15 09:00", None, None),
    "a minute of downtime": ({}, "03-15 00:00", "03-15 09:01", "downtime_blocks", False),
    "inside downtime": ({}, "03-15 10:00", "03-15 11:00", "downtime_blocks", False),
    "in maintenance": (
        {"status": "maintenance"},
        "03-11 09:00",
        "03-11 17:00",
        "microscope_is_bookable",
        True,
    ),
    "not in service": ({"status": "retired"}, "03-11 09:00", "03-11 17:00", "microscope_is_bookable", True),
    # Summer time begins on 28 March: 02:00 to 03:00 does not exist; it ends on 31 October: 02:00 to 03:00 comes twice.
    "two hours on the clock, one in truth": (
        {"min_length_minutes": 61},
        "03-28 01:30",
        "03-28 03:30",
        "minimum_length",
        True,
    ),
    "over the hour that is missing": ({"min_length_minutes": 60}, "03-28 01:30", "03-28 03:30", None, None),
    "eight hours on the clock, nine in truth": (
        {"max_length_hours": 8},
        "10-31 00:00",
        "10-31 08:00",
        "maximum_length",
        True,
    ),
    "over the hour that comes twice": ({"max_length_hours": 8}, "10-31 00:00", "10-31 07:00", None, None),
}


@pytest.fixture
def taken():
    """A microscope that is booked for four hours on 12 March, and down on the 15th."""

    def make(**limits):
        microscope = MicroscopeFactory(**limits)
        BookingFactory(microscope=microscope, start=at(TAKEN[0]), end=at(TAKEN[1]), title="Secret")
        BookingFactory(microscope=microscope, start=at("03-15 09:00"), end=at("03-15 17:00"), kind="downtime")
        return microscope

    return make


@pytest.mark.parametrize("what", CREATE)
def test_booking_at_the_edges(ways, people, taken, what):
    limits, start, end, rule, _ = CREATE[what]
    microscope = taken(**limits)
    for role in ("owner", "member", "pi"):
        told = []
        for way in ways(people[role]):
            broken, said = way.create(microscope, at(start), at(end), people["owner"])
            assert "Secret" not in str(said)
            if rule in ("microscope_is_bookable",) and isinstance(way, ByPage):
                assert broken == {"invalid_choice"}  # Users are not even offered it.
                continue
            assert broken == ({rule} if rule else set()), (role, way)
            told.append(said)
            Booking.objects.filter(owner=people["owner"]).delete()
        assert all(said == told[0] for said in told)


@pytest.mark.parametrize("what", CREATE)
def test_staff_set_aside_what_they_may_and_it_is_kept(ways, people, taken, what):
    limits, start, end, rule, overridable = CREATE[what]
    staff = people["staff"]
    microscope = taken(**limits)
    for way in ways(staff):
        wish = (microscope, at(start), at(end), people["owner"])
        if limits.get("status") == "retired" and isinstance(way, ByPage):
            continue  # Not offered.
        if rule is None or overridable == "staff may":
            assert way.create(*wish)[0] == set()
        elif overridable:
            assert way.create(*wish)[0] == {rule}
            assert not Booking.objects.filter(owner=people["owner"]).exists()
            assert way.create(*wish, **way.setting_aside(rule))[0] == set()
            booking = Booking.objects.get(owner=people["owner"])
            assert booking.overridden == [rule]
            entry = AuditEntry.objects.get(action="booking rules overridden")
            assert (entry.actor, list(entry.details)) == (staff, [rule])
        else:
            answer = way.create(*wish, **(way.setting_aside(rule) if isinstance(way, ByPage) else {}))
            assert answer[0] == {rule}
        Booking.objects.filter(owner=people["owner"]).delete()
        AuditEntry.objects.all().delete()


def test_what_was_not_listed_is_not_set_aside(ways, people):
    microscope = MicroscopeFactory(max_length_hours=8, max_days_ahead=2)
    for way in ways(people["staff"]):
        wish = (microscope, at("03-20 08:00"), at("03-20 18:00"), people["owner"])
        assert way.create(*wish)[0] == {"maximum_length", "not_too_far_ahead"}
        assert way.create(*wish, **way.setting_aside("maximum_length"))[0] == {"not_too_far_ahead"}


def test_a_user_cannot_set_anything_aside(ways, people):
    microscope = MicroscopeFactory(max_length_hours=1)
    wish = (microscope, at("03-20 08:00"), at("03-20 18:00"), people["owner"])
    page, _ = ways(people["owner"])
    assert page.create(*wish, **page.setting_aside("maximum_length"))[0] == {"maximum_length"}
    with pytest.raises(ValidationError):
        booking_create(
            actor=people["owner"],
            microscope=microscope,
            start=at("03-20 08:00"),
            end=at("03-20 18:00"),
            override=True,
        )


def test_the_form_lists_what_would_be_set_aside(client, people):
    page = ByPage(client, people["staff"])
    microscope = MicroscopeFactory(name="Krios 1", max_length_hours=1)
    data = page._filled(microscope, at("03-20 08:00"), at("03-20 18:00"), people["owner"])
    text = client.post(NEW, data).content.decode()
    assert text.count("Krios 1 is booked for at most") == 2  # At its field, and beside the box to tick.
    assert 'name="override_confirmed"' in text
    client.force_login(people["owner"])
    assert 'name="override_confirmed"' not in client.post(NEW, data).content.decode()


def test_limits_bind_bookings_and_not_the_staffs_own_time(staff):
    microscope = MicroscopeFactory(
        max_length_hours=1, max_days_ahead=1, min_length_minutes=600, max_pending=1
    )
    for n, kind in enumerate(["downtime", "maintenance", "slot", "special"]):
        start = at("03-20 08:00") + n * DAY
        booking = booking_create(
            actor=staff, microscope=microscope, start=start, end=start + 9 * HOUR, kind=kind
        )
        assert booking.overridden == []


def test_downtime_is_said_by_its_name_without_its_title(ways, people):
    microscope = MicroscopeFactory(name="Krios 1")
    BookingFactory(
        microscope=microscope,
        kind="maintenance",
        title="Cold FEG of the Hansson lab",
        start=at("03-12 09:00"),
        end=at("03-12 17:00"),
    )
    for way in ways(people["owner"]):
        broken, said = way.create(microscope, at("03-12 16:00"), at("03-12 18:00"), people["owner"])
        assert broken == {"downtime_blocks"}
        assert said == [
            "Krios 1 has maintenance from Fri 12 Mar 09:00 to 17:00. Choose a later start."
            if timezone.localdate().year == 2027
            else "Krios 1 has maintenance from Fri 12 Mar 2027 09:00 to 17:00. Choose a later start."
        ]


# -- changing and cancelling -------------------------------------------------------------------------------


def coming(people, lab, *, limits, start="03-12 12:00"):
    return BookingFactory(
        microscope=MicroscopeFactory(**limits),
        owner=people["owner"],
        operator=people["operator"],
        lab=lab,
        start=at(start),
        end=at(start) + 4 * HOUR,
    )


NOTICE = {
    # Now is 10 March 12:00, the booking starts on 12 March 12:00.
    "the very hour": (48, None),
    "one hour too late": (49, "refused"),
    "no limit": (None, None),
}


@pytest.mark.parametrize("what", NOTICE)
@pytest.mark.parametrize("way", [0, 1])
def test_the_hour_of_the_latest_change(ways, people, lab, what, way):
    hours, refused = NOTICE[what]
    for role in ("owner", "operator", "member", "pi", "staff"):
        booking = coming(people, lab, limits={"change_notice_hours": hours})
        by = ways(people[role])[way]
        broken, _ = by.move(booking, booking.start + HOUR, booking.end)
        if role in ("member", "pi"):
            assert broken == 403
            continue
        assert broken == ({"changed_in_time"} if refused else set()), role
        if refused and role == "staff":
            aside = by.setting_aside("changed_in_time")
            assert by.move(booking, booking.start + HOUR, booking.end, **aside)[0] == set()
            booking.refresh_from_db()
            assert booking.overridden == ["changed_in_time"]


@pytest.mark.parametrize("what", NOTICE)
@pytest.mark.parametrize("way", [0, 1])
def test_the_hour_of_the_latest_cancellation(ways, people, lab, what, way):
    hours, refused = NOTICE[what]
    for role in ("owner", "operator", "member", "pi", "staff"):
        booking = coming(people, lab, limits={"cancel_notice_hours": hours})
        by = ways(people[role])[way]
        broken, _ = by.cancel(booking)
        if role in ("member", "pi"):
            assert broken == 403
            continue
        assert broken == ({"cancelled_in_time"} if refused else set()), role
        if refused and role == "staff":
            assert by.cancel(booking, **by.setting_aside("cancelled_in_time"))[0] == set()
        booking.refresh_from_db()
        assert booking.is_cancelled == (not refused or role == "staff")


CANCEL = {
    # What was taken during it, and what is said with it; the rules that refuse its owner, and those that refuse staff.
    "with a reason": (None, {"reason": "No grids"}, set(), set()),
    "without a reason": (None, {"reason": " "}, set(), {"others_read_why"}),
    "a session runs": (
        SessionFactory,
        {"reason": "No grids"},
        {"no_images_are_being_taken"},
        {"no_images_are_being_taken"},
    ),
    "a session runs, though it may stay": (
        SessionFactory,
        {"reason": "No grids", "keep_sessions": True},
        {"no_images_are_being_taken"},
        {"no_images_are_being_taken"},
    ),
    "a session was finished": (
        FinishedSessionFactory,
        {"reason": "No grids"},
        {"sessions_stay_knowingly"},
        {"sessions_stay_knowingly"},
    ),
    "a session was finished, and may stay": (
        FinishedSessionFactory,
        {"reason": "No grids", "keep_sessions": True},
        set(),
        set(),
    ),
    "both at once": (
        FinishedSessionFactory,
        {"reason": ""},
        {"sessions_stay_knowingly"},
        {"sessions_stay_knowingly", "others_read_why"},
    ),
}


@pytest.mark.parametrize("what", CANCEL)
@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("role", ["owner", "staff"])
def test_what_stands_against_cancelling(ways, people, lab, what, way, role):
    taken, wished, *refusals = CANCEL[what]
    booking = coming(people, lab, limits={})
    if taken is not None:
        taken(booking=booking)
    by = ways(people[role])[way]
    broken, _ = by.cancel(booking, **wished)
    assert broken == refusals[role == "staff"]
    booking.refresh_from_db()
    assert booking.is_cancelled == (not broken)
    assert not broken & rules.OVERRIDABLE


def test_after_the_latest_change_a_title_can_still_be_corrected(people, lab):
    booking = coming(people, lab, limits={"change_notice_hours": 1000, "min_length_minutes": 600})
    assert booking_update(booking=booking, actor=people["owner"], title="Apoferritin").title == "Apoferritin"


def test_one_minute_after_the_hour_is_too_late(people, lab, monkeypatch):
    booking = coming(people, lab, limits={"change_notice_hours": 48, "cancel_notice_hours": 48})
    monkeypatch.setattr(timezone, "now", lambda: NOW + MINUTE)
    with pytest.raises(ValidationError):
        booking_update(booking=booking, actor=people["owner"], end=booking.end + HOUR)
    with pytest.raises(ValidationError):
        booking_cancel(booking=booking, actor=people["owner"])


def test_shortening_below_the_least_and_lengthening_beyond_the_most(people, lab):
    booking = coming(people, lab, limits={"min_length_minutes": 120, "max_length_hours": 3})
    # Four hours were booked before three became the most: it may get shorter, and not longer.
    booking_update(booking=booking, actor=people["owner"], end=booking.end - MINUTE)
    for end, rule in ((booking.start + 5 * HOUR, "maximum_length"), (booking.start + HOUR, "minimum_length")):
        with pytest.raises(ValidationError) as error:
            booking_update(booking=booking, actor=people["owner"], end=end)
        assert rules.broken_rules(error.value) == {rule}


def test_a_booking_is_not_moved_into_the_past(people, lab):
    booking = coming(people, lab, limits={})
    with pytest.raises(ValidationError) as error:
        booking_update(booking=booking, actor=people["owner"], start=NOW - HOUR, end=NOW + HOUR)
    assert rules.broken_rules(error.value) == {"not_in_the_past"}
    booking_update(booking=booking, actor=people["staff"], start=NOW - HOUR, end=NOW + HOUR)


# -- bookings to come --------------------------------------------------------------------------------------


def pending(owner, microscope, start, **fields):
    return BookingFactory(owner=owner, microscope=microscope, start=start, end=start + HOUR, **fields)


@pytest.mark.parametrize("group", ["", "Krios"])
def test_so_many_bookings_to_come_for_one_person(ways, people, group):
    owner = people["owner"]
    here, there = MicroscopeFactory.create_batch(2, group=group, max_pending=2)
    pending(owner, here, NOW + DAY)
    pending(owner, there if group else here, NOW + 2 * DAY)
    # None of these counts: it runs, it was cancelled, it is another's, it is another kind, it is elsewhere.
    pending(owner, here, NOW)
    pending(owner, here, NOW + 3 * DAY, cancelled_at=NOW)
    pending(people["member"], here, NOW + 3 * DAY)
    pending(owner, here, NOW + 4 * DAY, kind="special")
    pending(owner, MicroscopeFactory(), NOW + 4 * DAY)
    for way in ways(owner):
        wish = (here, NOW + 5 * DAY, NOW + 5 * DAY + HOUR, owner)
        broken, (said,) = way.create(*wish)
        assert broken == {"pending_bookings"}
        assert said.startswith("You have 2 bookings to come on ")
        elsewhere = [] if group else [there]
        for microscope in elsewhere:
            assert way.create(microscope, *wish[1:])[0] == set()
            Booking.objects.filter(microscope=microscope).delete()
    (first, *_) = Booking.objects.filter(owner=owner, microscope=here, start=NOW + DAY)
    booking_update(booking=first, actor=owner, start=NOW + 6 * DAY, end=NOW + 6 * DAY + HOUR)
    booking_cancel(booking=first, actor=owner)
    assert ways(owner)[1].create(here, NOW + 5 * DAY, NOW + 5 * DAY + HOUR, owner)[0] == set()


def test_a_booking_does_not_get_past_the_limit_by_moving_to_another_microscope(people):
    owner = people["owner"]
    full, other = MicroscopeFactory(max_pending=1), MicroscopeFactory()
    pending(owner, full, NOW + DAY)
    elsewhere = pending(owner, other, NOW + 2 * DAY)
    with pytest.raises(ValidationError) as error:
        booking_update(booking=elsewhere, actor=owner, microscope=full)
    assert rules.broken_rules(error.value) == {"pending_bookings"}


def test_every_rule_is_known_by_its_name_and_every_overridable_one_exists():
    every = {rule.__name__ for rule in [*rules.RULES, *rules.CANCEL_RULES]}
    assert len(every) == len(rules.RULES) + len(rules.CANCEL_RULES)
    assert every >= rules.OVERRIDABLE | rules.OVERLAPS
    assert not rules.OVERRIDABLE & (rules.OVERLAPS | {"ends_after_start"})


# -- applications and slots --------------------------------------------------------------------------------


def _needs_an_application(lab):
    for code in ("APP-1", "APP-2"):
        ApplicationFactory(code=code).labs.add(lab)
    return MicroscopeFactory(requires_application=True), None


def _outside_its_period(lab):
    application = ApplicationFactory(ends_on=datetime.date(2027, 3, 14))
    application.labs.add(lab)
    return MicroscopeFactory(), application


def _has_no_days_left(lab):
    microscope, application = MicroscopeFactory(), ApplicationFactory()
    application.labs.add(lab)
    ApplicationQuota.objects.create(application=application, microscope=microscope, days=1)
    return microscope, application


def _needs_a_slot(lab):
    microscope = MicroscopeFactory(requires_slot=True)
    for slot_lab, start in ((lab, "03-16 08:00"), (LabFactory(), "03-15 00:00")):
        slot = BookingFactory(microscope=microscope, kind="slot", start=at(start), end=at(start) + 3 * DAY)
        slot.slot_labs.add(slot_lab)
    return microscope, None


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        (_needs_an_application, "application_is_named"),
        (_outside_its_period, "application_covers_the_time"),
        (_has_no_days_left, "application_has_days_left"),
        (_needs_a_slot, "inside_a_slot"),
    ],
)
def test_applications_and_slots_by_page_and_by_api(ways, people, lab, setting, rule):
    microscope, application = setting(lab)
    for role in ("owner", "member", "pi", "staff"):
        told = []
        for way in ways(people[role]):
            ids = {"lab": lab, "application": application}
            if isinstance(way, ByPage):
                extra = {name: getattr(value, "pk", "") for name, value in ids.items()}
            else:
                extra = {"lab": lab.name, "application": application.code if application else None}
            wish = (microscope, at("03-15 09:00"), at("03-16 09:01"), people["owner"])
            broken, said = way.create(*wish, **extra)
            assert broken == {rule}, role
            told.append(said)
            if role == "staff":
                assert way.create(*wish, **extra, **way.setting_aside(rule))[0] == set()
                made = Booking.objects.get(owner=people["owner"])
                assert made.overridden == [rule]
                made.delete()
        assert told[0] == told[1]


def test_a_lab_that_is_not_active_is_booked_for_by_nobody_but_staff_knowingly(ways, people, lab):
    lab.is_active = False
    lab.save()
    wish = (MicroscopeFactory(), at("03-15 09:00"), at("03-15 18:00"), people["owner"])
    _, api = ways(people["owner"])
    assert api.create(*wish, lab=lab.name)[0] == {"lab_is_active"}
    _, api = ways(people["staff"])
    assert api.create(*wish, lab=lab.name)[0] == {"lab_is_active"}
    assert api.create(*wish, lab=lab.name, override=["lab_is_active"])[0] == set()
    made = Booking.objects.get(owner=people["owner"])
    assert made.overridden == ["lab_is_active"]
    # What was booked before stays as it is, and can be moved.
    assert api.move(made, at("03-16 09:00"), at("03-16 18:00"))[0] == set()
