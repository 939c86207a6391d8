"""What the microscopes did: added up from summaries, and who may see it."""

import csv
import datetime
import io

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sessions_app.merging import Merged
from sessions_app.models import Session
from sessions_app.statistics import MAX_SESSIONS, Choice, TooMuch, place, statistics
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
YEAR = Choice(datetime.date(2025, 12, 1), datetime.date(2026, 11, 23))


def at(month, day, hour=8):
    return datetime.datetime(2026, month, day, hour, tzinfo=datetime.UTC)


def histogram(values, first=2, last=12, bins=50):
    edges = np.linspace(first, last, bins + 1)
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=bins + 2)
    return {"label": "CTF resolution", "unit": "Å", "edges": [first, last, bins], "counts": counts.tolist()}


def past_session(microscope=None, start=None, hours=8, lab=None, values=(), **fields):
    """A finished session with a complete summary; `values` are its micrographs' CTF resolutions."""
    start = start or at(11, 2)
    booking = BookingFactory(
        microscope=microscope or MicroscopeFactory(),
        start=start,
        end=start + 10 * HOUR,
        **({"lab": lab} if lab else {}),
    )
    session = SessionFactory(booking=booking, status="finished", end=start + hours * HOUR, **fields)
    summary = session.summary
    summary.exposures = summary.micrographs = len(values) or 100
    summary.particles = 1000
    summary.completed_at = NOW
    if len(values):
        summary.histograms = {"ctf_resolution": histogram(values)}
        summary.median_resolution = float(np.median(values))
    summary.save()
    return session


# -- Merged histograms -------------------------------------------------------------------------------------


def test_the_median_of_merged_histograms_is_that_of_all_values_to_a_bin():
    random = np.random.default_rng(7)
    parts = [random.normal(centre, 0.6, size) for centre, size in ((3, 500), (4, 2000), (6, 50))]
    merged = Merged()
    for values in parts:
        merged.add(histogram(values))
    for share in (0.1, 0.5, 0.9):
        exact = np.quantile(np.concatenate(parts), share)
        assert merged.quantile(share).value == pytest.approx(exact, abs=0.2)
        assert merged.quantile(share).bound == ""
    assert merged.n == 2550


def test_histograms_of_different_edges_are_merged_too():
    random = np.random.default_rng(8)
    old, new = random.uniform(3, 5, 4000), random.uniform(4, 8, 4000)
    merged = Merged()
    merged.add(histogram(old, 0, 20, 40))
    merged.add(histogram(new))
    assert merged.median.value == pytest.approx(np.median(np.concatenate([old, new])), abs=0.5)


def test_beyond_the_edges_only_the_edge_is_known():
    merged = Merged()
    merged.add(histogram([30.0, 40.0, 3.0]))
    assert (merged.median.value, merged.median.bound) == (12, "≥")
    merged = Merged()
    merged.add(histogram([1.0, 1.5, 3.0]))
    assert (merged.median.value, merged.median.bound) == (2, "<")


def test_nothing_merged_has_no_median_and_counts_that_do_not_fit_are_refused():
    merged = Merged()
    merged.add(None)
    assert merged.median is None
    with pytest.raises(ValueError, match="do not fit"):
        merged.add({"edges": [0, 1, 10], "counts": [1, 2, 3]})


# -- Adding up ---------------------------------------------------------------------------------------------


def test_sessions_are_added_up_by_month_microscope_lab_and_sample():
    krios, glacios = MicroscopeFactory(name="Krios"), MicroscopeFactory(name="Glacios")
    lab = LabFactory(name="Hall")
    sample = SampleFactory(lab=lab, name="apoferritin")
    past_session(krios, at(10, 5), lab=lab, sample=sample, data_bytes=10**12, values=[3.0, 3.2])
    past_session(krios, at(11, 5), lab=lab, data_bytes=2 * 10**12, values=[4.0, 4.4, 4.2])
    past_session(glacios, at(11, 6), values=[6.0])
    past_session(glacios, datetime.datetime(2025, 6, 1, tzinfo=datetime.UTC))  # before the period
    found = statistics(Session.objects.all(), YEAR, NOW)
    assert (found.total.sessions, found.total.movies, found.total.bytes) == (3, 6, 3 * 10**12)
    assert found.total.particles == 3000
    assert found.total.booked_hours == 30
    assert found.total.beam_hours == 24
    assert found.total.used == 0.8
    months = {group.label: group.sessions for group in found.months.values()}
    assert months["Oct 2026"] == 1
    assert months["Nov 2026"] == 2
    assert months["Dec 2025"] == 0
    assert len(months) == 12
    assert {group.label: group.sessions for group in found.microscopes.values()} == {"Glacios": 1, "Krios": 2}
    assert {group.label: group.sessions for group in found.labs.values()}["Hall"] == 2
    assert {group.label for group in found.samples.values()} == {"apoferritin", "no sample named"}
    drift = found.drift[krios.pk]
    assert [group.medians[0].value for _, group in sorted(drift.items())] == [
        pytest.approx(3.1, abs=0.2),
        pytest.approx(4.2, abs=0.2),
    ]


def test_sessions_side_by_side_on_a_microscope_use_the_beam_once():
    krios = MicroscopeFactory()
    booking = BookingFactory(microscope=krios, start=at(11, 2), end=at(11, 2, 20))
    for start, end in ((8, 12), (10, 14), (16, 17)):
        SessionFactory(booking=booking, start=at(11, 2, start), end=at(11, 2, end), status="finished")
    past_session(MicroscopeFactory(), at(11, 2), hours=5)
    found = statistics(Session.objects.all(), YEAR, NOW)
    assert found.microscopes[krios.pk].beam_hours == 7
    assert found.total.beam_hours == 12


def test_beam_ends_with_the_last_file_and_a_running_session_counts_until_now():
    krios = MicroscopeFactory()
    past_session(krios, at(11, 2), hours=20, last_file_at=at(11, 2, 11))
    booking = BookingFactory(microscope=krios, start=NOW - 2 * HOUR, end=NOW + 6 * HOUR)
    SessionFactory(booking=booking, start=NOW - 2 * HOUR)
    found = statistics(Session.objects.all(), YEAR, NOW)
    assert found.total.beam_hours == 5
    assert found.total.booked_hours == 12  # of the running booking, what is past
    assert found.incomplete == 1


def test_only_bookings_that_took_beam_time_are_booked_hours():
    krios = MicroscopeFactory()
    past = {"microscope": krios, "start": at(11, 2), "end": at(11, 2, 18)}
    BookingFactory(**past, cancelled_at=NOW)
    BookingFactory(**past | {"start": at(11, 4), "end": at(11, 4, 18)}, kind="downtime")
    BookingFactory(**past | {"start": at(11, 5), "end": at(11, 5, 18)}, kind="slot")
    BookingFactory(microscope=krios, start=NOW + HOUR, end=NOW + 5 * HOUR)
    assert statistics(Session.objects.all(), YEAR, NOW).total.booked_hours == 0
    BookingFactory(**past)
    assert statistics(Session.objects.all(), YEAR, NOW).total.booked_hours == 10


def test_a_session_counts_in_the_facilitys_month(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    past_session(start=datetime.datetime(2026, 10, 31, 23, 30, tzinfo=datetime.UTC))
    with timezone.override("Europe/Stockholm"):
        found = statistics(Session.objects.all(), YEAR, NOW)
    assert found.months[datetime.date(2026, 11, 1)].sessions == 1


def test_the_choice_narrows_sessions_and_bookings_alike():
    krios, lab = MicroscopeFactory(), LabFactory()
    sample = SampleFactory(lab=lab, name="Apoferritin 2")
    past_session(krios, at(11, 2), lab=lab, sample=sample)
    past_session(krios, at(11, 4))
    past_session(MicroscopeFactory(), at(11, 6), lab=lab)
    period = {"since": YEAR.since, "until": YEAR.until}
    for choice, sessions in (
        (Choice(**period, microscopes=(krios.pk,)), 2),
        (Choice(**period, labs=(lab.pk,)), 2),
        (Choice(**period, sample="apoferritin"), 1),
        (Choice(**period, microscopes=(krios.pk,), labs=(lab.pk,)), 1),
        (Choice(datetime.date(2026, 11, 4), datetime.date(2026, 11, 6)), 2),
    ):
        found = statistics(Session.objects.all(), choice, NOW)
        assert (found.total.sessions, found.total.booked_hours) == (sessions, 10 * sessions)


def test_too_many_sessions_are_refused_in_words(monkeypatch):
    monkeypatch.setattr("sessions_app.statistics.MAX_SESSIONS", 1)
    past_session()
    statistics(Session.objects.all(), YEAR, NOW)
    past_session()
    with pytest.raises(TooMuch, match="Choose a shorter one"):
        statistics(Session.objects.all(), YEAR, NOW)
    assert MAX_SESSIONS > 10_000


def test_best_and_worst_are_of_sessions_with_enough_micrographs():
    good = past_session(values=[3.0] * 60)
    bad = past_session(values=[7.0] * 60)
    past_session(values=[2.5] * 3)
    past_session()
    found = statistics(Session.objects.all(), YEAR, NOW)
    from sessions_app.statistics import QUALITIES

    assert [row["name"] for row in found.ranked(QUALITIES[0])] == [good.name, bad.name]
    assert [row["name"] for row in found.ranked(QUALITIES[0], worst=True)] == [bad.name, good.name]
    assert found.ranked(QUALITIES[1]) == []


def test_the_place_of_a_session_among_its_microscopes_last_ninety_days():
    krios = MicroscopeFactory()
    for day, resolution in ((2, 3.0), (4, 4.0), (6, 5.0), (8, 6.0), (10, 7.0)):
        past_session(krios, at(11, day), values=[resolution] * 60)
    past_session(krios, at(5, 1), values=[9.0] * 60)  # too long ago
    past_session(krios, at(11, 20), values=[9.0] * 60)  # after
    past_session(MicroscopeFactory(), at(11, 3), values=[9.0] * 60)
    session = past_session(krios, at(11, 12), values=[4.5] * 60)
    (found,) = place(session)
    assert (found.quality.name, found.better, found.others, found.share) == ("ctf_resolution", 3, 5, 60)
    early = Session.objects.get(booking__start=at(11, 8), microscope=krios)
    assert place(early) == []  # three others could be told one by one
    assert place(SessionFactory()) == []


# -- The page ----------------------------------------------------------------------------------------------


def page(client, user, **query):
    client.force_login(user)
    return client.get(reverse("sessions:statistics"), query)


@pytest.fixture
def year(client):
    """Two labs' sessions in the year that the page shows."""
    krios, lab = MicroscopeFactory(name="Krios", code="krios"), LabFactory(name="Hall")
    start = timezone.now() - datetime.timedelta(days=40)
    return {
        "lab": lab,
        "krios": krios,
        "mine": past_session(krios, start, lab=lab, values=[3.0] * 60),
        "other": past_session(MicroscopeFactory(name="Glacios"), start, values=[5.0] * 60),
    }


def test_staff_see_all_and_choose(client, year):
    answer = page(client, StaffFactory())
    text = answer.content.decode()
    assert "2 sessions began" in text
    assert year["mine"].name in text
    assert year["other"].name in text
    text = page(client, StaffFactory(), microscope="krios").content.decode()
    assert "1 session began" in text
    assert year["other"].name not in text


def test_a_pi_sees_the_labs_own_and_no_other(client, year):
    text = page(client, year["lab"].pi).content.decode()
    assert "1 session began" in text
    assert year["mine"].name in text
    assert year["other"].name not in text
    assert "Glacios</th>" not in text
    other_lab = year["other"].lab
    assert "Select a valid choice" in page(client, year["lab"].pi, lab=other_lab.pk).content.decode()
    url = reverse("sessions:statistics_csv", args=["sessions"])
    assert year["other"].name not in client.get(url).content.decode()


def test_others_are_told_that_it_is_not_theirs(client, year):
    member = MembershipFactory(lab=year["lab"]).user
    for person in (member, UserFactory()):
        assert page(client, person).status_code == 403
        assert client.get(reverse("sessions:statistics_csv", args=["labs"])).status_code == 403
    assert Client().get(reverse("sessions:statistics")).status_code == 302


def test_the_page_costs_the_same_however_many_sessions(client, year, django_assert_num_queries):
    staff = StaffFactory()
    page(client, staff)
    url = reverse("sessions:statistics")
    with django_assert_num_queries(9):
        client.get(url)
    for _ in range(8):
        past_session(start=timezone.now() - datetime.timedelta(days=20), values=[3.0] * 60)
    with django_assert_num_queries(9):
        client.get(url)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"since": "2026-13-01"}, "Enter a valid date"),
        ({"since": "2026-05-01", "until": "2026-04-01"}, "on or after the first"),
        ({"since": "1999-01-01", "until": "2026-04-01"}, "at most ten years"),
        ({"microscope": "nothing"}, "Select a valid choice"),
        ({"lab": "abc"}, "is not a valid value"),
        ({"since": "0001-01-01", "until": "0001-02-01"}, "a microscope can have worked on"),
    ],
)
def test_a_choice_that_makes_no_sense_is_named(client, year, query, words):
    answer = page(client, StaffFactory(), **query)
    assert answer.status_code == 200
    assert words in answer.content.decode()
    url = reverse("sessions:statistics_csv", args=["months"])
    assert client.get(url, query).status_code == 302


def test_nothing_in_a_period_says_so(client):
    assert "Nothing began in this period" in page(client, StaffFactory()).content.decode()


@pytest.mark.parametrize("table", ["months", "microscopes", "drift", "labs", "samples", "sessions"])
def test_every_table_is_there_as_csv(client, year, table):
    client.force_login(StaffFactory())
    answer = client.get(reverse("sessions:statistics_csv", args=[table]))
    assert answer["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert rows
    assert all(None not in row and None not in row.values() for row in rows)
    if table != "sessions":
        assert sum(int(row["sessions"]) for row in rows) == 2
    else:
        assert {row["median_ctf_resolution_A"] for row in rows} == {"3.0", "5.0"}


def test_a_table_that_is_none_is_not_found(client):
    client.force_login(StaffFactory())
    assert client.get(reverse("sessions:statistics_csv", args=["people"])).status_code == 404


# -- Samples -----------------------------------------------------------------------------------------------


def test_a_sample_is_seen_by_its_lab_with_its_sessions(client, django_assert_num_queries):
    lab = LabFactory()
    sample = SampleFactory(lab=lab, name="apoferritin")
    first = past_session(start=at(10, 2), lab=lab, sample=sample, values=[3.0] * 60)
    past_session(start=at(11, 2), lab=lab, sample=sample, values=[4.0] * 60)
    member = MembershipFactory(lab=lab).user
    client.force_login(member)
    text = client.get(reverse("sessions:sample", args=[sample.pk])).content.decode()
    assert first.name in text
    assert "3.00" in text
    assert "4.00" in text
    assert "<svg" in text
    assert "apoferritin" in client.get(reverse("sessions:samples")).content.decode()
    with django_assert_num_queries(9):
        client.get(reverse("sessions:samples"))
    client.force_login(UserFactory())
    assert client.get(reverse("sessions:sample", args=[sample.pk])).status_code == 404
    assert "apoferritin" not in client.get(reverse("sessions:samples")).content.decode()
    client.force_login(StaffFactory())
    assert client.get(reverse("sessions:sample", args=[sample.pk])).status_code == 200


def test_samples_are_searched_and_counted(client):
    lab = LabFactory(name="Hall")
    sample = SampleFactory(lab=lab, name="ribosome")
    SampleFactory(name="apoferritin")
    past_session(lab=lab, sample=sample)
    client.force_login(StaffFactory())
    text = client.get(reverse("sessions:samples"), {"q": "hall"}).content.decode()
    assert "ribosome" in text
    assert "apoferritin" not in text
    assert "No sample fits" in client.get(reverse("sessions:samples"), {"q": "xyz"}).content.decode()
    empty = client.get(reverse("sessions:sample", args=[SampleFactory().pk])).content.decode()
    assert "No session had this sample yet" in empty


def test_a_samples_page_costs_the_same_for_one_and_for_many_sessions(client, django_assert_num_queries):
    lab = LabFactory()
    sample = SampleFactory(lab=lab)
    past_session(lab=lab, sample=sample)
    client.force_login(StaffFactory())
    url = reverse("sessions:sample", args=[sample.pk])
    client.get(url)
    with django_assert_num_queries(6):
        client.get(url)
    for _ in range(5):
        past_session(lab=lab, sample=sample)
    with django_assert_num_queries(6):
        client.get(url)
