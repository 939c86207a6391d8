"""Session names: unique ignoring case, never changed, never reused."""

import datetime

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction

from sessions_app.models import Session
from sessions_app.naming import is_name_conflict, next_name
from tests.factories import BookingFactory, MicroscopeFactory, SessionFactory

pytestmark = pytest.mark.django_db
START = datetime.datetime(2026, 11, 22, 23, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize("name", ["krios1-20261123-01", "KRIOS1-20261123-01"])
def test_a_name_is_refused_a_second_time_ignoring_case(name):
    SessionFactory(name="krios1-20261123-01")
    with pytest.raises(IntegrityError) as error, transaction.atomic():
        SessionFactory(name=name)
    assert is_name_conflict(error.value)


def test_a_name_is_not_free_again_after_deletion():
    session = SessionFactory(name="krios1-20261123-01")
    booking = session.booking
    session.delete()
    with pytest.raises(IntegrityError) as error, transaction.atomic():
        SessionFactory(booking=booking, name="krios1-20261123-01")
    assert is_name_conflict(error.value)


def test_a_name_never_changes():
    session = SessionFactory(name="krios1-20261123-01")
    with pytest.raises(IntegrityError), transaction.atomic():
        Session.objects.filter(pk=session.pk).update(name="other")


def test_bulk_writing_keeps_the_rule():
    booking = BookingFactory()
    SessionFactory(booking=booking, name="one")
    twin = Session(booking=booking, microscope=booking.microscope, creator=booking.owner, name="ONE")
    with pytest.raises(IntegrityError), transaction.atomic():
        Session.objects.bulk_create([twin])


def test_the_next_name_counts_on_the_local_day_past_names_ever_given(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    microscope = MicroscopeFactory(code="krios1")
    assert next_name(microscope, START) == "krios1-20261123-01"
    SessionFactory(name="krios1-20261123-01").delete()
    SessionFactory(name="Krios1-20261123-02")
    assert next_name(microscope, START) == "krios1-20261123-03"


@pytest.mark.parametrize("pattern", ["{microscope}", "{microscope}/{n}", "{nobody}-{n}", "{n"])
def test_a_pattern_that_cannot_work_says_so(settings, pattern):
    settings.SESSION_NAME_PATTERN = pattern
    with pytest.raises(ImproperlyConfigured, match="SESSION_NAME_PATTERN"):
        next_name(MicroscopeFactory(), START)


def test_a_session_keeps_the_microscope_and_lab_of_its_booking_and_gets_a_summary():
    session = SessionFactory()
    assert session.microscope == session.booking.microscope
    assert session.lab == session.booking.lab
    assert session.summary.micrographs == 0
