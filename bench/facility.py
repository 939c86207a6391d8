"""A facility of any size, written straight into the database for benchmarks (never for the demo or tests)."""

import datetime
import random

from django.contrib.auth.models import Group
from django.utils import timezone

MICROSCOPES = 6
LABS = 50
MEMBERS = 4
SESSION_HOURS = 8
CHUNK = 5000
# What a facility does in a year: the newest so many, which the page of statistics is asked for.
STATISTICS_SESSIONS = 500
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]


def build(sessions: int, *, micrographs: int = 500, seed: int = 1) -> dict:
    """Fill an empty, migrated database with `sessions` sessions, one per booking, back to back from now.

    One session runs on each microscope; the others are finished, with summaries. The first microscope's running
    session has one run with `micrographs` micrographs. Returns names: staff and user (usernames), session (a
    running one that both may see).
    """
    from bookings.models import Booking
    from microscopes.models import Camera, DataServer, Microscope
    from people.models import STAFF_GROUP, Lab, Membership, User
    from sessions_app.models import Sample, Session, SessionSummary

    random.seed(seed)
    staff = User.objects.create_user("bench-staff", is_staff=True, first_name="Sam", last_name="Staff")
    staff.groups.add(Group.objects.get(name=STAFF_GROUP))
    server = DataServer.objects.create(name="data", host="data.example.org")
    microscopes = [
        Microscope.objects.create(
            name=f"Krios {n + 1}", code=f"krios{n + 1}", data_server=server, colour=COLOURS[n], position=n
        )
        for n in range(MICROSCOPES)
    ]
    cameras = [Camera.objects.create(microscope=microscope, name="Falcon 4i") for microscope in microscopes]
    people = User.objects.bulk_create(
        User(username=f"user{n}", first_name="Ada", last_name=f"Person{n}", email=f"user{n}@example.org")
        for n in range(LABS * (MEMBERS + 1))
    )
    people = list(User.objects.filter(username__startswith="user").order_by("id"))
    labs = [Lab.objects.create(name=f"Lab {n:02d}", pi=people[n * (MEMBERS + 1)]) for n in range(LABS)]
    Membership.objects.bulk_create(
        Membership(lab=lab, user=people[n * (MEMBERS + 1) + m])
        for n, lab in enumerate(labs)
        for m in range(1, MEMBERS + 1)
    )
    Sample.objects.bulk_create(Sample(lab=lab, name=f"sample {n}") for lab in labs for n in range(10))
    samples = {lab.pk: list(lab.samples.all()) for lab in labs}

    complete = [_complete() for _ in range(50)]
    hours = datetime.timedelta(hours=SESSION_HOURS)
    first = timezone.now() - hours / 2
    done = 0
    running = None
    while done < sessions:
        count = min(CHUNK, sessions - done)
        bookings = []
        for k in range(done, done + count):
            place, turn = k % MICROSCOPES, k // MICROSCOPES
            # The first lab has 60 of the first 100 sessions, so that its members' pages are full at every size.
            lab_number = 0 if k < 100 and k % 5 < 3 else random.randrange(LABS)
            owner = people[lab_number * (MEMBERS + 1) + random.randrange(1, MEMBERS + 1)]
            start = first - hours * turn
            bookings.append(
                Booking(
                    microscope=microscopes[place],
                    owner=owner,
                    operator=staff if k % 3 == 0 else None,
                    creator=owner,
                    lab=labs[lab_number],
                    start=start,
                    end=start + hours,
                )
            )
        Booking.objects.bulk_create(bookings)
        rows = []
        for k, booking in enumerate(bookings, start=done):
            is_running = k < MICROSCOPES
            rows.append(
                Session(
                    booking=booking,
                    microscope=booking.microscope,
                    lab=booking.lab,
                    name=f"{booking.microscope.code}-{k:07d}",
                    creator=booking.owner,
                    operator=booking.operator,
                    camera=cameras[k % MICROSCOPES],
                    sample=random.choice(samples[booking.lab_id]),
                    status=Session.Status.ACTIVE if is_running else Session.Status.FINISHED,
                    start=booking.start,
                    end=None if is_running else booking.end,
                    voltage_kv=300,
                    cs_mm=2.7,
                    pixel_size=0.83,
                    data_server=server,
                    data_path=f"/data/{booking.microscope.code}/{k:07d}",
                    data_movies=random.randrange(500, 9000),
                    data_bytes=random.randrange(10**11, 10**13),
                    delete_on=None if is_running else (booking.end + datetime.timedelta(days=60)).date(),
                )
            )
        Session.objects.bulk_create(rows)
        SessionSummary.objects.bulk_create(
            SessionSummary(
                session=row,
                processing="running" if row.is_running else "finished",
                runs=1,
                exposures=row.data_movies,
                micrographs=row.data_movies,
                ctf_estimated=row.data_movies,
                particles=row.data_movies * 200,
                completed_at=None if row.is_running else row.end,
                **({} if row.is_running else random.choice(complete)),
            )
            for row in rows
        )
        running = running or rows[0]
        done += count
    _micrographs(running, micrographs)
    busiest = first - hours * (STATISTICS_SESSIONS // MICROSCOPES)
    return {
        "staff": staff.username,
        "user": running.booking.owner.username,
        "session": running.name,
        "since": timezone.localtime(busiest).date().isoformat(),
    }


def _complete() -> dict:
    """The completed part of a summary, with as many histograms as a whole pipeline gives."""
    from preprocessing.completion import described
    from preprocessing.histograms import MEASURES

    histograms = {
        name: [random.randrange(0, 200) for _ in range(len(measure.edges) + 1)]
        for name, measure in MEASURES.items()
    }
    return {
        "software": "RELION",
        "histograms": described(histograms),
        "median_resolution": random.uniform(3, 6),
        "median_motion": random.uniform(5, 30),
        "median_astigmatism": random.uniform(10, 60),
    }


def _micrographs(session, count: int) -> None:
    """Give the session a run with `count` micrographs, through ingestion itself."""
    from preprocessing import ingest
    from preprocessing.identity import identity

    run, _ = ingest.open_run(session.pk, key="bench", software="RELION", pixel_size=0.83)
    reports = []
    for n in range(count):
        name = f"Movies/FoilHole_{10_000_000 + n}_Data_1_2_20261123_101500_fractions.tiff"
        values = {
            "motion_total": random.uniform(2, 20),
            "defocus_u": random.uniform(8000, 22000),
            "defocus_v": random.uniform(8000, 22000),
            "defocus_angle": random.uniform(0, 180),
            "ctf_resolution": random.uniform(2.8, 8),
            "particles": random.randrange(100, 400),
        }
        reports.append(ingest.Report(name, identity(name), values))
    ingest.record_micrographs(session.pk, run.pk, reports)
