"""A booking is handed to a lab member until it starts."""

import datetime

import pytest
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from bookings.handover import booking_hand_over
from bookings.models import Booking
from people.models import AuditEntry, OutgoingMail
from tests.factories import BookingFactory, LabFactory, MembershipFactory, UserFactory

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def lab():
    return LabFactory()


@pytest.fixture
def ada(lab):
    return MembershipFactory(lab=lab).user


@pytest.fixture
def grace(lab):
    return MembershipFactory(lab=lab).user


@pytest.fixture
def booking(ada, lab):
    return BookingFactory(owner=ada, lab=lab, start=timezone.now() + 30 * HOUR)


def address(booking):
    return f"/bookings/{booking.pk}/hand-over/"


def test_the_owner_hands_it_to_a_lab_member_who_is_told(client, booking, ada, grace):
    client.force_login(ada)
    assert address(booking) in client.get(f"/bookings/{booking.pk}/").text
    answer = client.post(address(booking), {"to": grace.pk}, follow=True)
    assert f"The booking is {grace}&#x27;s now." in answer.text
    booking.refresh_from_db()
    assert booking.owner == grace
    assert AuditEntry.objects.get(action="booking handed over").details == {
        "from": str(ada),
        "to": str(grace),
    }
    assert OutgoingMail.objects.filter(recipient=grace).count() == 1


def test_the_head_of_the_lab_can_be_given_it_too(client, booking, ada, lab):
    client.force_login(ada)
    client.post(address(booking), {"to": lab.pi.pk})
    booking.refresh_from_db()
    assert booking.owner == lab.pi


def test_whom_the_owner_operated_for_operates_for_themselves(booking, ada, grace):
    Booking.objects.update(operator=ada)
    assert booking_hand_over(booking=booking, actor=ada, to=grace).operator is None
    other = UserFactory()
    Booking.objects.update(operator=other)
    assert booking_hand_over(booking=booking, actor=grace, to=ada).operator == other


@pytest.mark.parametrize("who", ["stranger", "deactivated", "owner"])
def test_nobody_else_can_be_given_it(client, booking, ada, lab, who):
    person = {
        "stranger": lambda: UserFactory(),
        "deactivated": lambda: MembershipFactory(lab=lab, user__is_active=False).user,
        "owner": lambda: ada,
    }[who]()
    MembershipFactory(lab=lab)
    client.force_login(ada)
    assert "Select a valid choice" in client.post(address(booking), {"to": person.pk}).text
    booking.refresh_from_db()
    assert booking.owner == ada


def test_colleague_gets_403_stranger_404_and_staff_may(client, booking, grace, staff):
    for person, status in ((grace, 403), (UserFactory(), 404), (staff, 200)):
        client.force_login(person)
        assert client.get(address(booking)).status_code == status
        assert (address(booking) in client.get(f"/bookings/{booking.pk}/").text) == (status == 200)


@pytest.mark.parametrize("change", [{"start": timezone.now()}, {"cancelled_at": timezone.now()}])
def test_not_once_it_has_started_or_was_cancelled(client, booking, ada, grace, change):
    Booking.objects.update(**change)
    client.force_login(ada)
    assert client.post(address(booking), {"to": grace.pk}).status_code == 403
    with pytest.raises(PermissionDenied):
        booking_hand_over(booking=booking, actor=ada, to=grace)


def test_the_rules_of_the_new_owner_are_asked(client, booking, ada, grace):
    microscope = booking.microscope
    microscope.max_pending = 1
    microscope.save()
    BookingFactory(microscope=microscope, owner=grace, start=timezone.now() + 60 * HOUR)
    client.force_login(ada)
    assert client.post(address(booking), {"to": grace.pk}).status_code == 200
    booking.refresh_from_db()
    assert booking.owner == ada


def test_a_lab_of_one_is_told_so(client, ada, lab):
    lonely = LabFactory(pi=ada)
    booking = BookingFactory(owner=ada, lab=lonely, start=timezone.now() + 30 * HOUR)
    client.force_login(ada)
    assert "Nobody to hand it to" in client.get(address(booking)).text


def test_staff_set_a_rule_aside_on_handing_over_and_it_is_kept(client, booking, grace, staff):
    microscope = booking.microscope
    microscope.max_pending = 1
    microscope.save()
    BookingFactory(owner=grace, microscope=microscope, start=booking.start + 48 * HOUR)
    client.force_login(staff)
    page = client.post(address(booking), {"to": grace.pk})
    assert [name for name, _ in page.context["form"].overridable] == ["pending_bookings"]
    assert 'name="override" value="pending_bookings"' in page.text
    sent = {"to": grace.pk, "override": "pending_bookings"}
    assert client.post(address(booking), sent).status_code == 200  # Listed, and not confirmed.
    assert client.post(address(booking), sent | {"override_confirmed": "on"}).status_code == 302
    booking.refresh_from_db()
    assert (booking.owner, booking.overridden) == (grace, ["pending_bookings"])
    assert AuditEntry.objects.filter(action="booking rules overridden").count() == 1


def test_the_owner_cannot_set_a_rule_aside_on_handing_over(client, booking, ada, grace):
    microscope = booking.microscope
    microscope.max_pending = 1
    microscope.save()
    BookingFactory(owner=grace, microscope=microscope, start=booking.start + 48 * HOUR)
    client.force_login(ada)
    sent = {"to": grace.pk, "override": "pending_bookings", "override_confirmed": "on"}
    page = client.post(address(booking), sent)
    assert not page.context["form"].overridable
    assert f"{grace} has 1 booking to come" in page.text
    booking.refresh_from_db()
    assert booking.owner == ada
