"""The booking pages, as owner, colleague, stranger and staff see them."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from bookings.models import Booking
from people import words
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
HOUR = datetime.timedelta(hours=1)
LIST = "/bookings/"
NEW = "/bookings/new/"


def tomorrow(hour=9):
    day = timezone.localdate() + datetime.timedelta(days=1)
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time(hour)))


def later(**fields):
    return BookingFactory(start=tomorrow(9), end=tomorrow(17), **fields)


def local(moment) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M")


@pytest.fixture
def as_(client):
    def login(person):
        client.force_login(person)
        return client

    return login


def filled(user, microscope, **fields) -> dict:
    data = {
        "microscope": microscope.pk,
        "start": local(tomorrow(9)),
        "end": local(tomorrow(17)),
        "title": "Apoferritin",
        "description": "",
        "owner": user.pk,
        "operator": "",
        "lab": "",
        "application": "",
    }
    return data | {name: getattr(value, "pk", value) for name, value in fields.items()}


def queries(client, address) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


# -- who gets in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detail", "edit", "cancel"])
def test_whoever_is_not_logged_in_is_sent_to_the_login(client, name):
    address = reverse(f"bookings:{name}", args=[later().pk])
    for page in (address, LIST, NEW):
        answer = client.get(page)
        assert answer.status_code == 302
        assert "next=" in answer.url


@pytest.mark.parametrize("name", ["detail", "edit", "cancel"])
def test_a_stranger_gets_404(as_, user, name):
    address = reverse(f"bookings:{name}", args=[later(title="Secret").pk])
    assert as_(user).get(address).status_code == 404
    assert as_(user).post(address, {"reason": "x"}).status_code in (404, 405)
    assert not Booking.objects.get().is_cancelled


def test_owner_colleague_pi_operator_collaborator_and_staff_read_it(as_, staff):
    booking = later(title="Apoferritin")
    friend = UserFactory()
    booking.collaborators.add(friend)
    member = MembershipFactory(lab=booking.lab).user
    for person in (booking.owner, booking.lab.pi, member, friend, staff):
        page = as_(person).get(reverse("bookings:detail", args=[booking.pk]))
        assert page.status_code == 200
        assert "Apoferritin" in page.content.decode()


def test_who_reads_it_may_not_always_change_it(as_):
    booking = later()
    member = MembershipFactory(lab=booking.lab).user
    for name in ("edit", "cancel"):
        assert as_(member).get(reverse(f"bookings:{name}", args=[booking.pk])).status_code == 403
    page = as_(member).get(reverse("bookings:detail", args=[booking.pk])).content.decode()
    assert reverse("bookings:edit", args=[booking.pk]) not in page
    assert reverse("bookings:cancel", args=[booking.pk]) not in page


def test_from_its_start_only_staff_change_it(as_, staff):
    booking = BookingFactory()
    edit = reverse("bookings:edit", args=[booking.pk])
    assert as_(booking.owner).get(edit).status_code == 403
    assert as_(staff).get(edit).status_code == 200


# -- booking -----------------------------------------------------------------------------------------------


def test_a_user_books_and_reads_what_was_booked(as_, user):
    lab = MembershipFactory(user=user).lab
    friend = MembershipFactory(lab=lab).user
    microscope = MicroscopeFactory(name="Krios 1")
    answer = as_(user).post(NEW, filled(user, microscope, lab=lab, collaborators=friend), follow=True)
    booking = Booking.objects.get()
    assert answer.redirect_chain[-1][0] == reverse("bookings:detail", args=[booking.pk])
    (message,) = [str(message) for message in answer.context["messages"]]
    assert (
        message == f"Krios 1 is booked from {tomorrow():%a} {tomorrow().day} {tomorrow():%b} 09:00 to 17:00."
    )
    assert (booking.start, booking.end, booking.owner, booking.lab) == (tomorrow(9), tomorrow(17), user, lab)
    assert booking.creator == user
    assert list(booking.collaborators.all()) == [friend]


def test_the_form_proposes_what_fits_most(as_, user):
    lab = MembershipFactory(user=user).lab
    application = ApplicationFactory()
    application.labs.add(lab)
    microscope = MicroscopeFactory()
    MicroscopeFactory(status="retired")
    form = as_(user).get(NEW).context["form"]
    assert form.initial == {
        "start": tomorrow(9),
        "end": tomorrow(18),
        "owner": user.pk,
        "microscope": microscope,
        "lab": lab,
        "application": application,
    }


def test_the_address_may_name_microscope_and_time(as_, user):
    krios = MicroscopeFactory(code="titan1")
    MicroscopeFactory()
    form = (
        as_(user).get(f"{NEW}?microscope=TITAN1&start=2027-01-05T08:00&end=2027-01-05T12:00").context["form"]
    )
    assert form.initial["microscope"] == krios
    assert [local(form.initial[name]) for name in ("start", "end")] == [
        "2027-01-05T08:00",
        "2027-01-05T12:00",
    ]
    for nonsense in (
        "microscope=x&start=2027-13-45T99:00&end=nonsense",
        "microscope=%00",
        "start=9999-12-31T23:59Z",
    ):
        assert as_(user).get(f"{NEW}?{nonsense}").status_code == 200


def test_times_are_read_and_shown_in_the_facilitys_zone(as_, user, settings):
    settings.TIME_ZONE = "America/New_York"
    microscope = MicroscopeFactory()
    data = filled(user, microscope, start="2027-01-05T08:00", end="2027-01-05T12:00")
    answer = as_(user).post(NEW, data, follow=True)
    assert Booking.objects.get().start == datetime.datetime(2027, 1, 5, 13, tzinfo=datetime.UTC)
    assert "08:00" in answer.content.decode()
    assert "13:00" not in answer.content.decode()


def test_an_overlap_is_told_at_its_field_and_nothing_typed_is_lost(as_, user):
    taken = later(title="Secret", microscope=MicroscopeFactory(name="Krios 1"))
    page = as_(user).post(NEW, filled(user, taken.microscope, title="My own words"))
    assert page.status_code == 200
    (error,) = page.context["form"].errors["start"]
    assert error.startswith("Krios 1 is already booked from ")
    text = page.content.decode()
    assert "Choose a later start." in text
    assert "My own words" in text
    for secret in ("Secret", taken.owner.last_name, taken.lab.name):
        assert secret not in text
    assert Booking.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", "yesterday"),
        ("start", ""),
        ("end", "2020-01-01T00:00"),
        ("end", "9999-12-31T23:59"),
        ("start", "0001-01-01T00:00"),
        ("microscope", "99999"),
        ("microscope", "x"),
        ("microscope", "9" * 30),
        ("owner", "\x00"),
        ("owner", ""),
        ("title", "x" * 121),
    ],
)
def test_what_cannot_be_is_told_at_its_field(as_, user, field, value):
    page = as_(user).post(NEW, filled(user, MicroscopeFactory()) | {field: value})
    assert list(page.context["form"].errors) == [field]
    assert not Booking.objects.exists()


def test_a_user_is_offered_and_allowed_only_their_labs_people(as_, user, staff):
    lab = MembershipFactory(user=user).lab
    stranger = UserFactory(last_name="Unknown")
    form = as_(user).get(NEW).context["form"]
    assert "kind" not in form.fields
    assert set(form.fields["owner"].queryset) == {user, lab.pi}
    assert set(form.fields["operator"].queryset) == {user, lab.pi, staff}
    assert "Unknown" not in as_(user).get(NEW).content.decode()
    page = as_(user).post(
        NEW, filled(user, MicroscopeFactory(), owner=stranger, lab=LabFactory(), kind="slot")
    )
    assert set(page.context["form"].errors) == {"owner", "lab"}


def test_staff_book_downtime_on_a_microscope_in_maintenance(as_, staff):
    microscope = MicroscopeFactory(status="maintenance")
    page = as_(staff).post(NEW, filled(staff, microscope, kind="booking"))
    assert list(page.context["form"].errors) == ["microscope"]
    as_(staff).post(NEW, filled(staff, microscope, kind="downtime"))
    assert Booking.objects.get().kind == "downtime"


# -- changing ----------------------------------------------------------------------------------------------


def test_the_owner_changes_it_and_only_what_they_changed_is_saved(as_):
    booking = later(title="Old", lab=None)
    edit = reverse("bookings:edit", args=[booking.pk])
    form = as_(booking.owner).get(edit).context["form"]
    page = filled(booking.owner, booking.microscope, title="Old")
    page |= {form.add_initial_prefix(name): value for name, value in page.items()}
    Booking.objects.update(title="Corrected by staff meanwhile")
    answer = as_(booking.owner).post(edit, page | {"end": local(tomorrow(19))})
    assert answer.status_code == 302
    booking.refresh_from_db()
    assert (booking.title, booking.end) == ("Corrected by staff meanwhile", tomorrow(19))


def test_seconds_that_the_form_does_not_show_stay(as_):
    start = tomorrow(9) + datetime.timedelta(seconds=42)
    booking = BookingFactory(start=start, end=tomorrow(17), lab=None)
    edit = reverse("bookings:edit", args=[booking.pk])
    as_(booking.owner).post(edit, filled(booking.owner, booking.microscope, title="New"))
    booking.refresh_from_db()
    assert (booking.start, booking.title) == (start, "New")


def test_moving_onto_another_is_told_at_its_field(as_):
    first = later(lab=None)
    second = BookingFactory(
        microscope=first.microscope, start=tomorrow(18), end=tomorrow(20), lab=None, title="Apoferritin"
    )
    page = as_(second.owner).post(
        reverse("bookings:edit", args=[second.pk]),
        filled(second.owner, first.microscope, start=local(tomorrow(16)), end=local(tomorrow(20))),
    )
    assert list(page.context["form"].errors) == ["start"]
    second.refresh_from_db()
    assert second.start == tomorrow(18)


# -- cancelling --------------------------------------------------------------------------------------------


def test_cancelling_is_asked_first_and_says_so_after(as_):
    booking = later()
    address = reverse("bookings:cancel", args=[booking.pk])
    page = as_(booking.owner).get(address)
    assert page.status_code == 200
    assert not Booking.objects.get().is_cancelled
    answer = as_(booking.owner).post(address, {"reason": "No grids"}, follow=True)
    assert Booking.objects.get().is_cancelled
    assert "No grids" in answer.content.decode()
    assert "is free again" in str(next(iter(answer.context["messages"])))
    assert as_(booking.owner).get(address).status_code == 403


def test_staff_need_a_reason(as_, staff):
    booking = later()
    page = as_(staff).post(reverse("bookings:cancel", args=[booking.pk]), {"reason": " "})
    assert list(page.context["form"].errors) == ["reason"]
    assert not Booking.objects.get().is_cancelled


def test_with_sessions_it_is_cancelled_only_when_that_is_confirmed(as_, staff):
    session = FinishedSessionFactory()
    address = reverse("bookings:cancel", args=[session.booking_id])
    assert session.name in as_(staff).get(address).content.decode()
    page = as_(staff).post(address, {"reason": "Wrong lab"})
    assert page.context["form"].non_field_errors()
    as_(staff).post(address, {"reason": "Wrong lab", "keep_sessions": "on"})
    assert Booking.objects.get().is_cancelled
    page = as_(staff).get(reverse("bookings:detail", args=[session.booking_id]))
    assert session.name in page.content.decode()


def test_while_images_are_taken_it_cannot_be_cancelled(as_, staff):
    session = SessionFactory()
    address = reverse("bookings:cancel", args=[session.booking_id])
    page = as_(staff).get(address).content.decode()
    assert "Finish" in page
    assert 'name="reason"' not in page
    as_(staff).post(address, {"reason": "x", "keep_sessions": "on"})
    assert not Booking.objects.get().is_cancelled


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_shows_its_sessions_with_their_counts(as_):
    session = FinishedSessionFactory()
    session.summary.exposures, session.summary.particles = 1234, 98765
    session.summary.save()
    page = (
        as_(session.booking.owner).get(reverse("bookings:detail", args=[session.booking_id])).content.decode()
    )
    for told in (session.name, "finished", "1,234", "98,765"):
        assert told in page


def test_a_session_stays_with_its_lab_when_the_booking_changes_hands(as_):
    session = FinishedSessionFactory()
    booking = session.booking
    booking.lab = LabFactory()
    booking.save()
    newcomer = MembershipFactory(lab=booking.lab).user
    visible = type(session).objects.visible_to(newcomer).filter(pk=session.pk).exists()
    page = as_(newcomer).get(reverse("bookings:detail", args=[booking.pk])).content.decode()
    assert (session.name in page) == visible


def test_the_page_costs_the_same_for_one_and_for_ten_sessions(as_, staff):
    booking = FinishedSessionFactory().booking
    address = reverse("bookings:detail", args=[booking.pk])
    one = queries(as_(staff), address)
    FinishedSessionFactory.create_batch(9, booking=booking)
    booking.collaborators.add(*UserFactory.create_batch(5))
    assert queries(as_(staff), address) == one <= 8


# -- the list ----------------------------------------------------------------------------------------------


def titles(page) -> list:
    return [getattr(row, "title", None) for row in page.context["rows"]]


def test_others_bookings_read_booked_and_nothing_else_leaves_the_server(as_, user):
    other = later(title="Secret title", description="Secret text", kind="special")
    page = as_(user).get(LIST).content.decode()
    assert "Booked" in page
    for secret in ("Secret", other.owner.last_name, other.lab.name, "special</", f"/bookings/{other.pk}/"):
        assert secret not in page.replace('<option value="special">special</option>', "")


def test_staff_and_colleagues_read_more(as_, staff):
    booking = later(title="Apoferritin")
    for person in (staff, booking.owner, booking.lab.pi):
        page = as_(person).get(LIST).content.decode()
        assert "Apoferritin" in page
        assert reverse("bookings:detail", args=[booking.pk]) in page


def test_what_comes_next_is_first_and_what_is_past_last(as_, staff):
    now = timezone.now()
    for title, hours in (
        ("next week", 168),
        ("past", -48),
        ("running", -1),
        ("tonight", 12),
        ("long ago", -480),
    ):
        BookingFactory(title=title, start=now + hours * HOUR)
    assert titles(as_(staff).get(LIST)) == ["running", "tonight", "next week"]
    assert titles(as_(staff).get(f"{LIST}?when=past")) == ["past", "long ago"]
    everything = ["long ago", "past", "running", "tonight", "next week"]
    assert titles(as_(staff).get(f"{LIST}?when=all")) == everything
    day = timezone.localdate(now - 48 * HOUR).isoformat()
    assert titles(as_(staff).get(f"{LIST}?day_from={day}&day_to={day}")) == ["past"]


def test_it_narrows_to_microscope_type_and_mine(as_, staff):
    mine = later(title="mine", owner=staff)
    later(title="other", kind="special")
    assert titles(as_(staff).get(f"{LIST}?microscope={mine.microscope.code}")) == ["mine"]
    assert titles(as_(staff).get(f"{LIST}?kind=special")) == ["other"]
    assert titles(as_(staff).get(f"{LIST}?mine=on")) == ["mine"]


def test_narrowing_by_type_tells_nothing_of_others(as_, user):
    later(kind="special")
    assert as_(user).get(f"{LIST}?kind=special").context["rows"] == []
    assert len(as_(user).get(LIST).context["rows"]) == 1


def test_others_slots_and_cancelled_bookings_are_not_listed(as_, user):
    own = later(owner=user, title="own", cancelled_at=timezone.now(), cancelled_by=user)
    later(kind="slot"), later(cancelled_at=timezone.now())
    assert as_(user).get(LIST).context["rows"] == []
    assert as_(user).get(f"{LIST}?cancelled=on").context["rows"] == [own]


@pytest.mark.parametrize(
    "query",
    [
        "microscope=nonsense",
        "day_from=nonsense",
        "day_to=9999-12-31",
        "when=nonsense",
        "microscope=%00",
        "kind=%00",
        "page=2",
    ],
)
def test_a_nonsense_choice_is_told(as_, user, query):
    answer = as_(user).get(f"{LIST}?{query}")
    assert answer.status_code == (404 if query.startswith("page") else 200)


def test_an_empty_list_says_what_to_do_next(as_, user):
    assert NEW in as_(user).get(LIST).content.decode()
    page = as_(user).get(f"{LIST}?mine=on").content.decode()
    assert "No booking fits" in page


def test_a_refresh_answers_the_list_alone(as_, user):
    page = as_(user).get(LIST, headers={"HX-Request": "true"})
    assert "<html" not in page.content.decode()
    assert "HX-Request" in page.headers["Vary"]


@pytest.mark.parametrize("person", ["staff", "user"])
def test_the_list_costs_the_same_for_one_and_for_fifty(as_, request, person):
    someone = request.getfixturevalue(person)
    later(owner=someone)
    one = queries(as_(someone), LIST)
    for _ in range(2):
        later(owner=someone)
        later()
        FinishedSessionFactory(booking=later())
    assert queries(as_(someone), LIST) == one <= 9


def test_pages_keep_what_was_chosen(as_, staff):
    microscope = MicroscopeFactory()
    for n in range(51):
        start = tomorrow(9) + n * HOUR
        BookingFactory(microscope=microscope, start=start, end=start + HOUR, lab=None, owner=staff)
    page = as_(staff).get(f"{LIST}?microscope={microscope.code}")
    assert len(page.context["rows"]) == 50
    assert f"?microscope={microscope.code}&amp;page=2" in page.content.decode()
    assert len(as_(staff).get(f"{LIST}?microscope={microscope.code}&page=2").context["rows"]) == 1


# -- times taken -------------------------------------------------------------------------------------------


def test_the_form_tells_when_a_microscope_is_taken_and_no_more(as_, user):
    booking = later(title="Secret")
    later(microscope=booking.microscope, kind="slot")
    page = as_(user).get(f"/bookings/taken/?microscope={booking.microscope_id}&start={local(tomorrow())}")
    text = page.content.decode()
    assert "09:00 to 17:00" in text
    assert text.count("to 17:00") == 1
    assert "Secret" not in text
    free = as_(booking.owner).get(f"/bookings/taken/?microscope={booking.microscope_id}&booking={booking.pk}")
    assert "Free" in free.content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "microscope=x",
        "microscope=1&start=9999-12-31",
        "microscope=²",
        "microscope=1&start=0001-01-01",
        "microscope=1&repeat=weeks&repeat_every=x&repeat_weekdays=9",
    ],
)
def test_nonsense_about_times_taken_is_no_error(as_, user, query):
    assert as_(user).get(f"/bookings/taken/?{query}").status_code == 200


def test_whose_a_taken_time_is_cannot_be_found_out_by_its_id(as_, user):
    booking = later()
    query = f"microscope={booking.microscope_id}&start={local(tomorrow())}&booking={booking.pk}"
    assert "09:00 to 17:00" in as_(user).get(f"/bookings/taken/?{query}").text
    assert "Free" in as_(booking.owner).get(f"/bookings/taken/?{query}").text


def test_the_form_says_what_it_will_book(as_, user, staff):
    microscope = MicroscopeFactory(name="Krios 1")
    query = f"page=1&microscope={microscope.pk}&start={local(tomorrow(9))}&end={local(tomorrow(17))}&kind=downtime"
    day = f"{tomorrow():%a} {tomorrow().day} {tomorrow():%b}"
    assert (
        f"Downtime on Krios 1, {day} 09:00 to 17:00 (8\xa0h)."
        in as_(staff).get(f"/bookings/taken/?{query}").text
    )
    backwards = f"page=1&microscope={microscope.pk}&start={local(tomorrow(17))}&end={local(tomorrow(9))}"
    assert "to 09:00" not in as_(user).get(f"/bookings/taken/?{backwards}").text


def test_the_form_says_which_dates_a_repeat_has_and_which_are_taken(as_, user):
    microscope = MicroscopeFactory()
    week = datetime.timedelta(days=7)
    BookingFactory(microscope=microscope, start=tomorrow(16) + week, end=tomorrow(18) + week)
    until = (tomorrow() + 2 * week).date()
    query = (
        f"page=1&microscope={microscope.pk}&start={local(tomorrow(9))}&end={local(tomorrow(17))}"
        f"&repeat=weeks&repeat_every=1&repeat_until={until}"
    )
    text = as_(user).get(f"/bookings/taken/?{query}").text
    first, second, third = (words.day(tomorrow().date() + n * week) for n in range(3))
    assert f"3 times: {first}, {second}, {third}." in text
    assert f"Not free: {second}." in text
    assert "and 2 more of the repeat" in text
    assert "Choose a day after" in as_(user).get(f"/bookings/taken/?{query[:-10]}{tomorrow().date()}").text


# -- the nights on which the clock changes -----------------------------------------------------------------
@pytest.fixture
def stockholm(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    with timezone.override("Europe/Stockholm"):
        yield


@pytest.mark.parametrize(
    ("typed", "told"),
    [("2027-03-28T02:30", "There is no 02:30 on Sun 28 Mar"), ("2027-10-31T02:30", "02:30 on Sun 31 Oct")],
)
def test_a_time_that_is_no_moment_is_refused_in_words(as_, user, stockholm, typed, told):
    page = as_(user).post(NEW, filled(user, MicroscopeFactory(), start=typed, end=typed[:11] + "09:00"))
    assert told in page.context["form"].errors["start"][0]
    assert not Booking.objects.exists()


def test_what_begins_in_the_repeated_hour_can_be_edited_and_stays_there(as_, user, stockholm):
    start = datetime.datetime(
        2027, 10, 31, 0, 30, tzinfo=datetime.UTC
    )  # 02:30, which comes again an hour later.
    booking = BookingFactory(owner=user, start=start, end=start + 8 * HOUR)
    address = reverse("bookings:edit", args=[booking.pk])
    assert 'value="2027-10-31T02:30"' in as_(user).get(address).text
    data = filled(user, booking.microscope, lab=booking.lab, start="2027-10-31T02:30", end="2027-10-31T09:30")
    for name in ("start", "end"):
        data[f"initial-{name}"] = data[name]
    assert as_(user).post(address, data | {"title": "Another"}).status_code == 302
    booking.refresh_from_db()
    assert (booking.title, booking.start) == ("Another", start)


# -- words for what is no booking of a person ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("booking", "Krios 1 is booked from"),
        ("slot", "Krios 1 has an open slot from"),
        ("downtime", "Krios 1 has downtime from"),
    ],
)
def test_each_type_is_told_in_its_own_words(as_, staff, kind, told):
    microscope = MicroscopeFactory(name="Krios 1")
    page = as_(staff).post(NEW, filled(staff, microscope, kind=kind), follow=True)
    assert told in page.text
    text = " ".join(page.text.split())
    said = {"slot": "Krios 1 is open for anyone, ", "downtime": "Krios 1 has downtime, "}
    assert said.get(kind, "Krios 1 is booked for ") in text


def test_a_slot_that_goes_frees_no_time_and_says_what_stays_inside(as_, staff):
    slot = later(kind="slot", owner=staff)
    BookingFactory(microscope=slot.microscope, start=tomorrow(10), end=tomorrow(12))
    address = reverse("bookings:cancel", args=[slot.pk])
    assert "1 booking to come lies inside it and stays booked." in as_(staff).get(address).text
    page = as_(staff).post(address, {"reason": ""}, follow=True)
    assert f"Cancelled: the slot on {slot.microscope} from" in page.text
    assert "free again" not in page.text


def test_where_staff_can_confirm_the_form_says_so_where_it_begins(as_, staff):
    taken = later()
    page = as_(staff).post(NEW, filled(staff, taken.microscope, kind="downtime"))
    assert 'href="#displace-title">confirm what it cancels' in page.text
    taken.microscope.max_length_hours = 1
    taken.microscope.save()
    Booking.objects.all().delete()
    page = as_(staff).post(NEW, filled(staff, taken.microscope, kind="booking"))
    assert 'href="#override-title">set it aside</a>' in page.text
    assert "set it aside" not in as_(taken.owner).post(NEW, filled(taken.owner, taken.microscope)).text


def test_without_a_microscope_there_is_no_form_to_fill_in_vain(as_, user, staff):
    for person in (user, staff):
        page = as_(person).get(NEW)
        assert "No microscope can be booked now" in page.text
        assert 'name="title"' not in page.text
        assert "There is no microscope yet" in as_(person).get(LIST).text
    MicroscopeFactory(status="maintenance")
    assert "No microscope can be booked now" in as_(user).get(NEW).text
    assert 'name="title"' in as_(staff).get(NEW).text
    assert "Every microscope is free" in as_(user).get(LIST).text
