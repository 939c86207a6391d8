"""Creating sessions: who, when, with what, and many at once."""

import datetime

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from bookings.models import Booking
from sessions_app.models import Sample, Session
from sessions_app.services import acquisition_defaults, can_create_now, operators_for, session_create
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    ServiceUserFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)


def names_of(booking):
    return sorted(booking.sessions.values_list("name", flat=True))


def test_a_session_is_named_filled_in_and_running(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    server = DataServerFactory(path_template="/data/{microscope}/{lab}/{owner}/{year}-{month}/{session}")
    microscope = MicroscopeFactory(code="krios1", voltage_kv="200.0", cs_mm="2.700", data_server=server)
    camera = CameraFactory(microscope=microscope)
    booking = BookingFactory(
        microscope=microscope, lab=LabFactory(name="Hall / lab"), owner=UserFactory(username="eva")
    )
    start = timezone.now()
    session = session_create(booking=booking, creator=booking.owner, start=start)
    session.refresh_from_db()
    local = timezone.localtime(start)
    assert session.name == f"krios1-{local:%Y%m%d}-01"
    assert session.status == Session.Status.ACTIVE
    assert session.end is None
    assert session.delete_on is None
    assert (session.voltage_kv, session.cs_mm, session.camera) == (200.0, 2.7, camera)
    assert session.operator == booking.owner
    assert session.data_server == server
    assert session.data_path == f"/data/krios1/hall-lab/eva/{local:%Y-%m}/{session.name}"
    assert session.summary.micrographs == 0


def test_the_operator_is_the_bookings_unless_another_is_named():
    booking = BookingFactory(operator=UserFactory())
    assert session_create(booking=booking, creator=booking.owner).operator == booking.operator
    other = UserFactory()
    assert session_create(booking=booking, creator=booking.owner, operator=other).operator == other


def test_defaults_come_from_the_labs_last_session_on_the_microscope():
    booking = BookingFactory()
    first = CameraFactory(microscope=booking.microscope, position=0)
    second = CameraFactory(microscope=booking.microscope, position=1)
    assert acquisition_defaults(booking)["camera"] == first
    earlier = timezone.now() - 100 * HOUR
    old = BookingFactory(microscope=booking.microscope, lab=booking.lab, start=earlier)
    FinishedSessionFactory(booking=old, pixel_size=1.1, magnification=105000, voltage_kv=120, camera=second)
    strangers = BookingFactory(microscope=booking.microscope, start=earlier + 10 * HOUR)
    FinishedSessionFactory(booking=strangers, pixel_size=9.9)
    elsewhere = BookingFactory(lab=booking.lab, start=earlier + 10 * HOUR)
    FinishedSessionFactory(booking=elsewhere, pixel_size=8.8)
    defaults = acquisition_defaults(booking)
    assert defaults["pixel_size"] == 1.1
    assert defaults["magnification"] == 105000
    assert defaults["voltage_kv"] == float(booking.microscope.voltage_kv)
    assert defaults["camera"] == second
    second.is_active = False
    second.save()
    assert acquisition_defaults(booking)["camera"] == first


def test_given_values_win_and_none_is_kept():
    booking = BookingFactory()
    session = session_create(booking=booking, creator=booking.owner, pixel_size=0.65, voltage_kv=None)
    assert session.pixel_size == 0.65
    assert session.voltage_kv is None


def test_impossible_values_are_refused_by_field_and_leave_nothing():
    booking = BookingFactory()
    with pytest.raises(ValidationError) as error:
        session_create(booking=booking, creator=booking.owner, pixel_size=-1, total_dose=1e9)
    assert set(error.value.message_dict) == {"pixel_size", "total_dose"}
    assert not Session.objects.exists()
    assert session_create(booking=booking, creator=booking.owner).name.endswith("-01")


def test_who_may_and_who_may_not():
    booking = BookingFactory(operator=UserFactory())
    member = MembershipFactory(lab=booking.lab).user
    for person in (booking.owner, booking.operator, member, booking.lab.pi, StaffFactory()):
        assert can_create_now(person, booking)
        assert session_create(booking=booking, creator=person).creator == person
    collaborator = UserFactory()
    booking.collaborators.add(collaborator)
    for person in (UserFactory(), collaborator, ServiceUserFactory()):
        assert not can_create_now(person, booking)
        with pytest.raises(PermissionDenied):
            session_create(booking=booking, creator=person)


@pytest.mark.parametrize("kind", ["slot", "downtime", "maintenance"])
def test_no_session_in_time_that_takes_none(kind, staff):
    booking = BookingFactory(kind=kind)
    with pytest.raises(ValidationError, match=f"during {kind} time"):
        session_create(booking=booking, creator=staff)


def test_no_session_in_a_cancelled_booking_even_if_the_caller_has_not_noticed(staff):
    booking = BookingFactory()
    Booking.objects.filter(pk=booking.pk).update(cancelled_at=timezone.now())
    with pytest.raises(ValidationError, match="cancelled"):
        session_create(booking=booking, creator=staff)


def noon():
    return timezone.localtime().replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.mark.parametrize(("offset", "staff_may"), [(-30, False), (-3, True), (3, True), (30, False)])
def test_outside_its_time_only_staff_may_and_only_today(staff, monkeypatch, offset, staff_may):
    moment = noon()
    monkeypatch.setattr(timezone, "now", lambda: moment)
    booking = BookingFactory(start=noon() + offset * HOUR, end=noon() + (offset + 2) * HOUR)
    with pytest.raises(ValidationError, match="begins at" if offset > 0 else "ended at"):
        session_create(booking=booking, creator=booking.owner)
    if staff_may:
        assert session_create(booking=booking, creator=staff)
    else:
        with pytest.raises(ValidationError, match="not of today"):
            session_create(booking=booking, creator=staff)
        assert session_create(booking=booking, creator=staff, any_time=True, start=booking.start)


def test_any_time_is_not_for_users():
    booking = BookingFactory(start=timezone.now() - 50 * HOUR)
    with pytest.raises(ValidationError):
        session_create(booking=booking, creator=booking.owner, any_time=True)


def test_a_sample_is_chosen_or_typed_and_found_again_ignoring_case():
    booking = BookingFactory()
    session = session_create(booking=booking, creator=booking.owner, sample="  Apo  ferritin ")
    assert session.sample.name == "Apo ferritin"
    assert session.sample.lab == booking.lab
    again = session_create(booking=booking, creator=booking.owner, sample="apo ferritin")
    assert again.sample == session.sample
    chosen = SampleFactory(lab=booking.lab)
    assert session_create(booking=booking, creator=booking.owner, sample=chosen).sample == chosen
    assert session_create(booking=booking, creator=booking.owner, sample=" ").sample is None


def test_samples_cameras_and_operators_that_do_not_fit_are_refused_at_their_field():
    booking = BookingFactory()
    with pytest.raises(ValidationError) as error:
        session_create(
            booking=booking,
            creator=booking.owner,
            sample=SampleFactory(),
            camera=CameraFactory(),
            operator=UserFactory(is_active=False),
        )
    assert set(error.value.message_dict) == {"sample", "camera", "operator"}
    with pytest.raises(ValidationError) as error:
        session_create(booking=BookingFactory(lab=None), creator=StaffFactory(), sample="virus")
    assert set(error.value.message_dict) == {"sample"}
    assert not Sample.objects.filter(name="virus").exists()


def test_operators_offered_to_a_user_are_people_of_the_booking_and_staff(staff):
    booking = BookingFactory()
    member = MembershipFactory(lab=booking.lab).user
    stranger = UserFactory()
    offered = set(operators_for(booking, booking.owner))
    assert {booking.owner, member, booking.lab.pi, staff} == offered
    assert stranger in operators_for(booking, staff)
    assert ServiceUserFactory() not in operators_for(booking, staff)


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_on_one_booking_get_twenty_names(tmp_path):
    booking = BookingFactory()
    creator = booking.owner
    with shared_database(tmp_path):
        results = at_once(20, lambda n: session_create(booking=booking, creator=creator).name)
        names = in_thread(lambda: names_of(booking))
    day = f"{timezone.localtime():%Y%m%d}"
    expected = [f"{booking.microscope.code}-{day}-{n:02d}" for n in range(1, 21)]
    assert sorted(map(str, results)) == expected
    assert names == expected


@pytest.mark.django_db(transaction=True)
def test_a_pattern_without_the_microscope_gives_names_across_microscopes_at_once(tmp_path, settings):
    settings.SESSION_NAME_PATTERN = "s{date:%y%m%d}-{n}"
    bookings = [BookingFactory() for _ in range(8)]
    with shared_database(tmp_path):
        results = at_once(
            8, lambda n: session_create(booking=bookings[n], creator=bookings[n].owner, sample="same").name
        )
    day = f"{timezone.localtime():%y%m%d}"
    assert sorted(map(str, results)) == [f"s{day}-{n}" for n in range(1, 9)]
