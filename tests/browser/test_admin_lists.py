"""The administration's lists on a laptop: every column is there without scrolling sideways."""

import datetime

import pytest

from tests.factories import BookingFactory, MicroscopeFactory, SessionFactory, StaffFactory

pytestmark = [pytest.mark.browser]
ROOM = "(() => { const r = document.querySelector('.results'); return [r.scrollWidth, r.clientWidth]; })()"


def test_lists_fit_a_laptop(logged_in, live_server, shot):
    microscope = MicroscopeFactory(name="Titan Krios", model="Thermo Fisher Titan Krios G4")
    booking = BookingFactory(
        microscope=microscope,
        title="Chaperonin with substrate",
        owner__first_name="Elisabeth",
        owner__last_name="Lindgren",
    )
    SessionFactory(booking=booking, name="krios1-20261123-01")
    BookingFactory(microscope=microscope, start=booking.end, end=booking.end + datetime.timedelta(hours=24))
    page = logged_in(StaffFactory(is_superuser=True))
    for name in ("bookings/booking", "people/user", "microscopes/microscope", "sessions_app/session"):
        page.goto(f"{live_server.url}/admin/{name}/")
        page.wait_for_load_state()
        wanted, given = page.evaluate(ROOM)
        assert wanted <= given, name
    page.goto(f"{live_server.url}/admin/bookings/booking/")
    shot(page, "admin-bookings")
