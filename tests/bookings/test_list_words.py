"""What others' bookings read in lists: upkeep by its name, everything else "Booked"."""

import datetime

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.factories import BookingFactory, MicroscopeFactory, UserFactory

pytestmark = pytest.mark.django_db


def test_upkeep_is_told_from_booked_time_and_nothing_else_is(client):
    krios = MicroscopeFactory()
    start = timezone.now() + datetime.timedelta(days=1)
    for hours, kind in enumerate(("downtime", "maintenance", "booking", "special")):
        begin = start + datetime.timedelta(hours=2 * hours)
        end = begin + datetime.timedelta(hours=1)
        BookingFactory(microscope=krios, kind=kind, title="Secret", start=begin, end=end)
    client.force_login(UserFactory())
    for url in (reverse("bookings:list"), reverse("microscopes:detail", args=[krios.code])):
        text = client.get(url).content.decode()
        assert text.count(">Downtime<") == text.count(">Maintenance<") == 1, url
        assert text.count(">Booked<") == 2
        assert "Secret" not in text
