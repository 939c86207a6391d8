"""What the acquisition watcher tells is seen where people look first."""

import datetime

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.factories import BookingFactory, SessionFactory, StaffFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def session():
    now = timezone.now()
    booking = BookingFactory(start=now - datetime.timedelta(hours=1), end=now + datetime.timedelta(hours=5))
    return SessionFactory(booking=booking)


@pytest.mark.parametrize("place", ["dashboard", "session"])
def test_size_and_last_file_of_a_running_session(client, session, place):
    client.force_login(StaffFactory())
    url = (
        reverse("sessions:dashboard")
        if place == "dashboard"
        else reverse("sessions:detail", args=[session.name])
    )
    assert "GB" not in client.get(url).content.decode()
    session.data_bytes, session.data_files, session.data_movies = 30_200_000_000, 90, 45
    session.last_file_at = timezone.now() - datetime.timedelta(minutes=4)
    session.save()
    text = client.get(url).content.decode()
    assert "30.2" in text
    assert "last file" in text.lower()
    assert "4 min ago" in text
