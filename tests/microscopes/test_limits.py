"""What binds bookings of a microscope, in words, where people read it before they book."""

import pytest
from django.urls import reverse

from microscopes.limits import limits_in_words
from microscopes.models import Microscope
from tests.factories import MicroscopeFactory, UserFactory

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, []),
        ({"min_length_minutes": 90}, ["A booking takes 1 h 30 min at least."]),
        ({"max_length_hours": 72}, ["A booking takes 3 d at most."]),
        ({"min_length_minutes": 60, "max_length_hours": 24}, ["A booking takes from 1 h to 24 h."]),
        ({"max_days_ahead": 1}, ["It can be booked 1 day ahead."]),
        ({"change_notice_hours": 0}, ["The time of a booking can be changed until it starts."]),
        ({"cancel_notice_hours": 48}, ["A booking can be cancelled until 2 d before it starts."]),
        (
            {"change_notice_hours": 12, "cancel_notice_hours": 12},
            ["A booking can be changed and cancelled until 12 h before it starts."],
        ),
        ({"max_pending": 1}, ["Everyone has at most 1 booking to come."]),
        (
            {"max_pending": 2, "group": "Krios"},
            ["Everyone has at most 2 bookings to come on the microscopes of the group Krios."],
        ),
        ({"requires_application": True}, ["Every booking is charged to an application."]),
        ({"requires_slot": True}, ["It is booked inside the slots that the staff open for your lab."]),
    ],
)
def test_each_limit_is_a_sentence(limits, told):
    found = [text.replace(NBSP, " ") for text in limits_in_words(Microscope(name="Krios 1", **limits))]
    assert found == told


@pytest.mark.django_db
def test_they_stand_on_its_page_and_in_the_booking_form(client):
    microscope = MicroscopeFactory(code="krios1", max_length_hours=12)
    client.force_login(UserFactory())
    said = f"A booking takes 12{NBSP}h at most."
    assert said in client.get(reverse("microscopes:detail", args=["krios1"])).text
    assert said in client.get(reverse("bookings:taken"), {"microscope": microscope.pk}).text
    free = MicroscopeFactory(code="talos")
    assert "any length" in client.get(reverse("microscopes:detail", args=["talos"])).text
    assert "data-limits" not in client.get(reverse("bookings:taken"), {"microscope": free.pk}).text
