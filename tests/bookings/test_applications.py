"""Applications, their quotas, and the slots that staff open: what they cost, whom they admit, and at once."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from bookings import rules
from bookings.models import ApplicationQuota, Booking
from bookings.quotas import days_charged
from bookings.services import booking_cancel, booking_create, booking_update
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
ZONE = ZoneInfo("Europe/Stockholm")
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
def owner(lab):
    return MembershipFactory(lab=lab).user


def application(lab, microscope=None, days=None, **fields):
    made = ApplicationFactory(**fields)
    made.labs.add(lab)
    if days is not None:
        ApplicationQuota.objects.create(application=made, microscope=microscope, days=days)
    return made


def book(actor, microscope, start="03-15 09:00", end="03-15 17:00", **fields):
    return booking_create(actor=actor, microscope=microscope, start=at(start), end=at(end), **fields)


def refused(function, *args, **fields) -> tuple[set, str]:
    with pytest.raises(ValidationError) as error:
        function(*args, **fields)
    return rules.broken_rules(error.value), " ".join(error.value.messages)


# -- what a booking costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("03-11 09:00", "03-11 09:01", 1),
        ("03-11 09:00", "03-12 09:00", 1),
        ("03-11 09:00", "03-12 09:01", 2),
        ("03-11 00:00", "03-12 00:00", 1),
        ("03-11 00:00", "03-14 00:00", 3),
        ("03-11 22:00", "03-12 06:00", 1),
        # 28 March has 23 hours, 31 October has 25: both are one day from midnight to midnight.
        ("03-28 00:00", "03-29 00:00", 1),
        ("03-27 12:00", "03-28 12:00", 1),
        ("03-27 12:00", "03-28 12:01", 2),
        ("10-31 00:00", "11-01 00:00", 1),
        ("10-30 12:00", "10-31 12:00", 1),
        ("10-30 12:00", "10-31 12:01", 2),
    ],
)
def test_a_booking_costs_the_days_it_begins(start, end, days):
    assert days_charged(at(start), at(end), ZONE) == days
    assert days_charged(at(start).astimezone(datetime.UTC), at(end).astimezone(datetime.UTC), ZONE) == days


def test_the_hour_that_comes_twice_costs_a_day():
    assert days_charged(at("10-31 02:30"), at("10-31 02:30", fold=1), ZONE) == 1
    assert days_charged(at("10-31 02:45"), at("10-31 02:15", fold=1), ZONE) == 1


# -- which application admits ------------------------------------------------------------------------------


def test_who_books_for_a_colleague_spends_and_reads_of_nothing_of_their_other_labs(owner, lab):
    colleague = MembershipFactory(lab=lab).user
    other = LabFactory()
    MembershipFactory(lab=other, user=owner)
    application(other, code="OTHER-1")
    free, asking = MicroscopeFactory(), MicroscopeFactory(requires_application=True)
    times = {"start": at("03-12 09:00"), "end": at("03-12 18:00")}
    assert booking_create(actor=colleague, owner=owner, microscope=free, **times).application is None
    application(other, code="OTHER-2")
    with pytest.raises(ValidationError) as refused:
        booking_create(actor=colleague, owner=owner, microscope=asking, **times)
    assert "OTHER" not in str(refused.value)
    application(lab, code="OURS")
    made = booking_create(actor=colleague, owner=owner, microscope=asking, **times)
    assert made.application.code == "OURS"


def test_it_is_charged_to_the_only_one_that_admits_it(owner, lab):
    microscope = MicroscopeFactory(requires_application=True)
    right = application(lab, microscope, 2, starts_on="2027-03-15", ends_on="2027-03-15")
    application(LabFactory())
    application(lab, status="draft")
    application(lab, status="closed")
    application(lab, ends_on="2027-03-14")
    application(lab, starts_on="2027-03-16")
    application(lab, microscope, 0)
    assert book(owner, microscope, lab=lab).application == right
    assert book(owner, microscope, "03-15 17:00", "03-16 00:00").application == right


def test_of_several_one_must_be_named_where_the_microscope_asks(owner, lab):
    first, second = application(lab), application(lab)
    broken, said = refused(book, owner, MicroscopeFactory(requires_application=True), lab=lab)
    assert broken == {"application_is_named"}
    assert f"Choose one of {first.code}, {second.code}." in said
    assert book(owner, MicroscopeFactory(), lab=lab).application is None
    assert book(owner, MicroscopeFactory(requires_application=True), application=second).application == second


def test_without_any_the_words_say_whom_to_ask(owner, staff):
    microscope = MicroscopeFactory(requires_application=True)
    broken, said = refused(book, owner, microscope)
    assert broken == {"application_is_named"}
    assert "ask the facility's staff" in said
    booking = book(staff, microscope, owner=owner, override={"application_is_named"})
    assert booking.overridden == ["application_is_named"]
    assert book(staff, microscope, "03-16 09:00", "03-16 10:00", kind="maintenance").application is None


def test_none_is_kept_where_the_microscope_does_not_ask(owner, lab):
    application(lab)
    assert book(owner, MicroscopeFactory(), lab=lab, application=None).application is None


@pytest.mark.parametrize(
    ("start", "end", "fits"),
    [
        ("03-15 00:00", "03-17 00:00", True),
        ("03-14 23:59", "03-16 00:00", False),
        ("03-16 12:00", "03-17 00:01", False),
    ],
)
def test_it_lies_in_the_period(owner, lab, start, end, fits):
    of_two_days = application(lab, starts_on="2027-03-15", ends_on="2027-03-16")
    of_two_days.refresh_from_db()
    wish = {"start": start, "end": end, "application": of_two_days, "lab": lab}
    if fits:
        assert book(owner, MicroscopeFactory(), **wish).application == of_two_days
    else:
        broken, said = refused(book, owner, MicroscopeFactory(), **wish)
        assert broken == {"application_covers_the_time"}
        assert "from Mon 15 Mar" in said


def test_it_gives_access_to_its_labs_alone(owner, lab, staff):
    other_lab = MembershipFactory(user=owner).lab
    of_other = application(other_lab)
    assert refused(book, owner, MicroscopeFactory(), lab=lab, application=of_other)[0] == {
        "application_gives_access"
    }
    assert refused(book, staff, MicroscopeFactory(), owner=owner, lab=lab, application=of_other)[0] == {
        "application_gives_access"
    }
    assert book(owner, MicroscopeFactory(), lab=other_lab, application=of_other).application == of_other


# -- the quota ---------------------------------------------------------------------------------------------


def test_the_quota_is_counted_by_microscope_and_without_cancelled_ones(owner, lab, staff):
    here, there = MicroscopeFactory.create_batch(2)
    three_days = application(lab, here, 3)
    first = book(owner, here, "03-15 09:00", "03-17 09:00", application=three_days)
    book(owner, there, "03-15 09:00", "03-19 09:00", application=three_days)
    wish = (owner, here, "03-20 09:00", "03-21 09:01")
    broken, said = refused(book, *wish, application=three_days)
    assert broken == {"application_has_days_left"}
    assert f"{three_days.code} has 1 of 3 days left on {here}; this booking counts as 2." in said
    book(owner, here, "03-20 09:00", "03-21 09:00", application=three_days)
    # It moves and shrinks within what it has, and grows no further.
    booking_update(booking=first, actor=owner, start=at("03-16 09:00"), end=at("03-18 09:00"))
    assert refused(booking_update, booking=first, actor=owner, end=at("03-18 09:01"))[0] == {
        "application_has_days_left"
    }
    forced = booking_update(booking=first, actor=staff, end=at("03-18 09:01"), override=True)
    assert forced.overridden == ["application_has_days_left"]
    ApplicationQuota.objects.update(days=1)
    booking_update(booking=first, actor=owner, end=at("03-18 09:00"))
    booking_cancel(booking=first, actor=owner)
    assert refused(book, owner, here, application=three_days)[0] == {"application_has_days_left"}


def test_the_form_says_what_is_left(client, owner, lab):
    microscope = MicroscopeFactory()
    ten_days = application(lab, microscope, 10, code="APP-7")
    book(owner, microscope, "03-15 09:00", "03-17 09:00", application=ten_days)
    client.force_login(owner)
    asked = {
        "microscope": microscope.pk,
        "application": ten_days.pk,
        "start": "2027-03-20T09:00",
        "end": "2027-03-22T10:00",
    }
    text = client.get("/bookings/taken/", asked).content.decode()
    assert "APP-7 has 8 of 10 days left on this microscope; this booking counts as 3." in text
    client.force_login(UserFactory())
    assert "APP-7" not in client.get("/bookings/taken/", asked).content.decode()


@pytest.mark.django_db(transaction=True)
def test_at_once_the_quota_is_not_exceeded(tmp_path):
    lab = LabFactory()
    microscope = MicroscopeFactory(requires_application=True)
    application(lab, microscope, 3)

    def attempt(n):
        start = at("03-15 09:00") + n * 2 * DAY
        return booking_create(actor=lab.pi, microscope=microscope, start=start, end=start + DAY, lab=lab)

    with shared_database(tmp_path):
        results = at_once(6, attempt)
        assert in_thread(Booking.objects.count) == 3
    failed = [result for result in results if isinstance(result, Exception)]
    assert [rules.broken_rules(error) for error in failed] == [{"application_is_named"}] * 3


# -- slots -------------------------------------------------------------------------------------------------


def slot(staff, microscope, start="03-15 08:00", end="03-15 18:00", **fields):
    return book(staff, microscope, start, end, kind="slot", **fields)


@pytest.mark.parametrize(
    ("start", "end", "fits"),
    [
        ("03-15 08:00", "03-15 18:00", True),
        ("03-15 10:00", "03-15 12:00", True),
        ("03-15 07:59", "03-15 12:00", False),
        ("03-15 12:00", "03-15 18:01", False),
        ("03-15 18:00", "03-15 19:00", False),
    ],
)
def test_a_booking_lies_inside_a_slot(owner, staff, start, end, fits):
    microscope = MicroscopeFactory(requires_slot=True)
    slot(staff, microscope)
    if fits:
        book(owner, microscope, start, end)
    else:
        assert refused(book, owner, microscope, start, end)[0] == {"inside_a_slot"}


def test_a_slot_admits_its_labs_its_applications_or_anyone(owner, lab, staff):
    other = LabFactory()
    theirs, ours = application(other), application(lab)
    cases = [
        ({}, True),
        ({"slot_labs": [lab, other]}, True),
        ({"slot_labs": [other]}, False),
        ({"slot_applications": [ours]}, True),
        ({"slot_applications": [theirs]}, False),
        ({"slot_labs": [other], "slot_applications": [ours]}, True),
    ]
    for opened, admitted in cases:
        microscope = MicroscopeFactory(requires_slot=True)
        made = slot(staff, microscope, **opened)
        assert Booking.objects.slots_open_to(owner).filter(pk=made.pk).exists() == admitted
        assert Booking.objects.slots_open_to(staff).filter(pk=made.pk).exists()
        if admitted:
            book(owner, microscope, lab=lab, application=ours)
        else:
            broken, said = refused(book, owner, microscope, lab=lab, application=ours)
            assert broken == {"inside_a_slot"}
            assert "None is open" in said


def test_the_words_say_which_slots_come_next(owner, staff):
    microscope = MicroscopeFactory(requires_slot=True)
    slot(staff, microscope, "03-16 08:00", "03-16 18:00")
    booking_cancel(booking=slot(staff, microscope), actor=staff)
    _, said = refused(book, owner, microscope)
    assert "Open next: Tue 16 Mar" in said
    assert book(staff, microscope, override=True).overridden == ["inside_a_slot"]


def test_only_a_slot_is_open_for_labs(staff, lab):
    with pytest.raises(ValidationError) as error:
        book(staff, MicroscopeFactory(), slot_labs=[lab])
    assert list(error.value.message_dict) == ["kind"]
    made = slot(staff, MicroscopeFactory(), slot_labs=[lab])
    booking_update(booking=made, actor=staff, kind="maintenance")
    assert not made.slot_labs.exists()


def test_staff_open_a_slot_by_page_and_by_api(client, api, staff, lab):
    microscope = MicroscopeFactory()
    client.force_login(staff)
    data = {
        "microscope": microscope.pk,
        "kind": "slot",
        "owner": staff.pk,
        "start": "2027-03-15T08:00",
        "end": "2027-03-15T18:00",
        "slot_labs": [lab.pk],
    }
    assert client.post("/bookings/new/", data).status_code == 302
    by_page = Booking.objects.get()
    assert lab.name in client.get(f"/bookings/{by_page.pk}/").content.decode()
    answer = api(staff).patch(f"/api/v1/bookings/{by_page.pk}/", {"slot_labs": []})
    assert (answer.status_code, answer.json()["slot_labs"]) == (200, [])
    user = MembershipFactory(lab=lab).user
    client.force_login(user)
    assert "slot_labs" not in client.get("/bookings/new/").context["form"].fields


def test_a_booking_changed_elsewhere_keeps_its_slot_and_application(owner, lab, staff):
    microscope = MicroscopeFactory(requires_slot=True, requires_application=True)
    booking = BookingFactory(
        microscope=microscope, owner=owner, lab=lab, start=at("03-15 09:00"), end=at("03-15 17:00")
    )
    assert booking_update(booking=booking, actor=owner, title="Apoferritin").overridden == []
    booking_update(booking=booking, actor=owner, end=at("03-15 16:00"))


# -- in the admin ------------------------------------------------------------------------------------------


def test_staff_give_quotas_in_the_admin(client, staff, lab):
    made = application(lab)
    microscope = MicroscopeFactory()
    client.force_login(staff)
    data = {
        "code": made.code,
        "title": made.title,
        "status": "active",
        "labs": [lab.pk],
        "quotas-TOTAL_FORMS": 1,
        "quotas-INITIAL_FORMS": 0,
        "quotas-0-microscope": microscope.pk,
        "quotas-0-days": "-1",
    }
    page = client.post(f"/admin/bookings/application/{made.pk}/change/", data)
    assert "days" in page.context["inline_admin_formsets"][0].formset.errors[0]
    assert client.post(f"/admin/bookings/application/{made.pk}/change/", data | {"quotas-0-days": "10"}).url
    assert made.quotas.get().days == 10


def test_a_microscopes_limits_must_fit_together(staff):
    microscope = MicroscopeFactory(min_length_minutes=121, max_length_hours=2, group="  Krios ")
    microscope.refresh_from_db()
    with pytest.raises(ValidationError) as error:
        microscope.full_clean()
    assert list(error.value.message_dict) == ["min_length_minutes"]
    microscope.min_length_minutes = 120
    microscope.full_clean()
    assert microscope.group == "Krios"


def test_an_application_deleted_meanwhile_is_told(owner, lab):
    gone = application(lab)
    type(gone).objects.filter(pk=gone.pk).delete()
    with pytest.raises(ValidationError) as error:
        book(owner, MicroscopeFactory(), lab=lab, application=gone)
    assert list(error.value.message_dict) == ["application"]
