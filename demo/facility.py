"""The demo's facility: who works there, what stands there, and who has booked it around now.

Everybody and everything here is made up. Bookings are made by their owners through the ordinary way.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.utils import timezone

from bookings.models import Application, ApplicationQuota, Booking
from bookings.quotas import quota
from bookings.series import Repeat, series_create
from bookings.services import booking_cancel, booking_create
from demo import DEMO_LOADED
from microscopes.models import Camera, DataServer, Microscope
from people.models import STAFF_GROUP, AuditEntry, Lab, Membership, User
from preprocessing.models import MicroscopeLimits
from sessions_app.models import Sample

PASSWORD = "cryo-em-demo"  # noqa: S105 - printed for everyone to see

DAYS_AROUND = 14  # before and after today that have bookings

STAFF = (
    ("admin", "Robin", "Berg"),
    ("ines", "Inês", "Duarte"),
)
LABS = (
    (
        "Okafor lab",
        "Institute of Structural Biology",
        (("okafor", "Chidi", "Okafor"), ("mei", "Mei", "Tanaka"), ("jonas", "Jonas", "Weber")),
        ("20S proteasome", "Ribosome stalling complex", "Apoferritin standard"),
    ),
    (
        "Lindgren lab",
        "Department of Biochemistry",
        (("lindgren", "Elsa", "Lindgren"), ("priya", "Priya", "Nair"), ("tomas", "Tomás", "Vidal")),
        ("TRPV5 in nanodiscs", "Chaperonin with substrate", "Glutamate dehydrogenase"),
    ),
)

STORAGE_INSTRUCTIONS = """\
Log in with your **institute account**. From outside, connect to the VPN first.

1. Open a terminal where the images are to go.
2. Copy the `rsync` command above. Started again, it goes on where it stopped.
3. Check that the number of movies is the one shown here before the images are deleted.

A transfer of 2 TB takes about six hours on a 1 Gbit/s line. Questions: the staff are in room B.112.
"""
GLOBUS_INSTRUCTIONS = """\
Sessions of this microscope go to the **facility's Globus collection**.

1. Sign in at your institute's Globus page and open the collection given above.
2. Choose the session's folder and your own endpoint, then *Start*.

On Windows in the building, the network share shows the same folders.
"""


@dataclass
class Facility:
    """What the demo's other parts need to find again."""

    admin: User
    staff: list[User]
    labs: list[Lab]
    people: dict[Lab, list[User]] = field(default_factory=dict)
    samples: dict[Lab, list[Sample]] = field(default_factory=dict)
    applications: dict[Lab, Application] = field(default_factory=dict)
    microscopes: list[Microscope] = field(default_factory=list)


def build() -> Facility:
    """Make people, labs, microscopes and projects in an empty database, and mark it as the demo's."""
    # Hashed once: hashing is slow by design and the demo's password is no secret.
    password = make_password(PASSWORD)
    staff = [_person(username, first, last, password, is_staff=True) for username, first, last in STAFF]
    admin = staff[0]
    admin.is_superuser = True
    admin.save(update_fields=["is_superuser"])
    for person in staff:
        person.groups.add(Group.objects.get(name=STAFF_GROUP))
    facility = Facility(admin=admin, staff=staff, labs=[])
    today = timezone.localdate()
    for number, (name, institution, people, samples) in enumerate(LABS, 1):
        members = [_person(*person, password) for person in people]
        lab = Lab.objects.create(name=name, institution=institution, pi=members[0])
        for member in members[1:]:
            Membership.objects.create(lab=lab, user=member, since=today - datetime.timedelta(days=400))
        application = Application.objects.create(
            code=f"CEM-{today.year}-{number:03d}",
            title=f"Structures of the {name}",
            description="Granted by the user committee for the demo.",
            status=Application.Status.ACTIVE,
            starts_on=today - datetime.timedelta(days=200),
            ends_on=today + datetime.timedelta(days=165),
        )
        application.labs.add(lab)
        facility.labs.append(lab)
        facility.people[lab] = members
        facility.applications[lab] = application
        facility.samples[lab] = [
            Sample.objects.create(lab=lab, name=sample, created_by=members[-1]) for sample in samples
        ]
    facility.microscopes = _microscopes()
    AuditEntry.record(
        actor=admin,
        action=DEMO_LOADED,
        target=admin,
        details={"text": "Everyone and everything here is made up."},
    )
    return facility


def _person(username: str, first: str, last: str, password: str, **extra) -> User:
    return User.objects.create(
        username=username,
        first_name=first,
        last_name=last,
        email=f"{username}@example.org",
        password=password,
        **extra,
    )


def _microscopes() -> list[Microscope]:
    storage = DataServer.objects.create(
        name="Facility storage",
        protocol=DataServer.Protocol.RSYNC,
        host="data.cryo-em.example.org",
        path_template="/data/{microscope}/{year}/{session}",
        instructions=STORAGE_INSTRUCTIONS,
    )
    collection = DataServer.objects.create(
        name="Facility collection",
        protocol=DataServer.Protocol.GLOBUS,
        host="data.cryo-em.example.org",
        path_template="/collections/{microscope}/{lab}/{session}",
        globus_collection="00000000-0000-4000-8000-00000000demo",
        smb_share=r"\\share.cryo-em.example.org\sessions",
        instructions=GLOBUS_INSTRUCTIONS,
    )
    rows = (
        ("Titan Krios", "krios1", "Thermo Fisher Titan Krios G4", "B.021", "#0072B2", 300, 2.7, storage, 60),
        ("Glacios", "glacios", "Thermo Fisher Glacios 2", "B.023", "#E69F00", 200, 2.7, storage, 60),
        ("CRYO ARM", "cryoarm", "JEOL CRYO ARM 300 II", "B.025", "#009E73", 300, 2.7, collection, 30),
    )
    cameras = (
        (("Falcon 4i", 4096, 4096), ("Ceta-D", 4096, 4096)),
        (("Falcon 4", 4096, 4096),),
        (("Apollo", 4096, 4096),),
    )
    microscopes = []
    for position, (name, code, model, room, colour, voltage, cs, server, days) in enumerate(rows):
        microscope = Microscope.objects.create(
            name=name,
            code=code,
            model=model,
            location=f"Room {room}",
            colour=colour,
            voltage_kv=voltage,
            cs_mm=cs,
            data_server=server,
            retention_days=days,
            position=position,
        )
        for place, (camera, width, height) in enumerate(cameras[position]):
            Camera.objects.create(
                microscope=microscope, name=camera, width=width, height=height, position=place
            )
        microscopes.append(microscope)
    # The scale of ice is the pipeline's own, so that a facility sets this limit by itself: here at crystalline ice.
    for microscope in microscopes:
        MicroscopeLimits.objects.create(microscope=microscope, ice_thickness_max=2.5)
    return microscopes


# Bookings


def local(day: datetime.date, hour: int) -> datetime.datetime:
    """An hour of a day in the facility's zone."""
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time(hour)))


def book(
    facility: Facility,
    microscope: Microscope,
    start: datetime.datetime,
    end: datetime.datetime,
    *,
    lab: Lab | None = None,
    owner: User | None = None,
    operator: User | None = None,
    kind: str = Booking.Kind.BOOKING,
    title: str = "",
    description: str = "",
) -> Booking | None:
    """Book the time, or nothing and None where somebody else has."""
    if microscope.bookings.blocking().overlapping(start, end).exists():
        return None
    owner = owner or (facility.people[lab][0] if lab else facility.admin)
    return booking_create(
        actor=owner,
        microscope=microscope,
        kind=kind,
        title=title,
        description=description,
        start=start,
        end=end,
        operator=operator,
        lab=lab,
        application=facility.applications[lab] if lab else None,
        now=min(start, timezone.now()),  # What is past now was booked before it began.
    )


def book_around_now(facility: Facility, now: datetime.datetime) -> Booking:
    """The bookings of the past and coming two weeks on all microscopes; returns the one that runs now on the first.

    The first is used by day and night, the second by day, the third is being serviced now.
    """
    rng = random.Random(7)
    krios, glacios, cryoarm = facility.microscopes
    first, second = facility.labs
    hour = timezone.localtime(now).replace(minute=0, second=0, microsecond=0)
    # From nine to nine, or to six in the evening when that would soon be over.
    nine = local(timezone.localdate(now), 9)
    since = nine if nine <= now else nine - datetime.timedelta(days=1)
    until = since + datetime.timedelta(hours=24)
    if until - now < datetime.timedelta(hours=6):
        until += datetime.timedelta(hours=9)
    running = book(
        facility,
        krios,
        since,
        until,
        lab=first,
        owner=facility.people[first][1],
        operator=facility.staff[1],
        title=facility.samples[first][0].name,
        description="Data collection overnight; grids from box 12, positions 3 and 4.",
    )
    book(
        facility,
        glacios,
        hour - datetime.timedelta(hours=1),
        hour + datetime.timedelta(hours=7),
        lab=second,
        owner=facility.people[second][1],
        title="Screening",
    )
    book(
        facility,
        cryoarm,
        hour - datetime.timedelta(hours=3),
        hour + datetime.timedelta(hours=27),
        kind=Booking.Kind.MAINTENANCE,
        title="Preventive maintenance",
        description="The vendor's engineer is on site. Cooling starts the evening after.",
    )
    today = timezone.localdate(now)
    book(
        facility,
        glacios,
        local(today + datetime.timedelta(days=6), 8),
        local(today + datetime.timedelta(days=7), 18),
        kind=Booking.Kind.DOWNTIME,
        title="No cooling water",
        description="Work on the building's cooling.",
    )
    for offset in range(-DAYS_AROUND, DAYS_AROUND + 1):
        day = today + datetime.timedelta(days=offset)
        for number, microscope in enumerate(facility.microscopes):
            # Weekends are quieter, and no microscope is booked through.
            if rng.random() < (0.75 if day.weekday() >= 5 else 0.25):
                continue
            lab = facility.labs[(offset + number + rng.randint(0, 1)) % 2]
            hours = 24 if microscope is krios else 9
            book(
                facility,
                microscope,
                local(day, 9),
                local(day, 9) + datetime.timedelta(hours=hours),
                lab=lab,
                owner=rng.choice(facility.people[lab]),
                title=rng.choice(facility.samples[lab]).name if microscope is not glacios else "Screening",
            )
    _details(facility, now)
    _plans(facility, today)
    return running


def _plans(facility: Facility, today: datetime.date) -> None:
    """What staff plan ahead: slots, a repeat, days of the projects and the microscopes' limits."""
    krios, glacios, cryoarm = facility.microscopes
    first, second = facility.labs
    manager = facility.staff[1]

    def slot(microscope, days, hours, title, labs=()):
        start = local(today + datetime.timedelta(days=days), 9)
        booking_create(
            actor=manager,
            microscope=microscope,
            kind=Booking.Kind.SLOT,
            title=title,
            start=start,
            end=start + datetime.timedelta(hours=hours),
            slot_labs=labs,
        )

    slot(glacios, 3, 9, "Open screening day")
    slot(glacios, 10, 9, "Open screening day")
    slot(krios, 8, 72, f"Beam time of the {second}", [second])
    # In the evening, when the day's bookings are over and the cooling is back.
    start = local(today + datetime.timedelta(days=2), 18)
    owner = facility.people[first][2]
    series_create(
        actor=owner,
        repeat=Repeat(every=1, unit="weeks", until=today + datetime.timedelta(days=30)),
        microscope=glacios,
        start=start,
        end=start + datetime.timedelta(hours=4),
        lab=first,
        title="Weekly screening",
    )
    # The days used so far, and a few that are left.
    for lab, left in ((first, 12), (second, 5)):
        application = facility.applications[lab]
        used = quota(application, krios).used
        ApplicationQuota.objects.create(application=application, microscope=krios, days=used + left)
    Microscope.objects.filter(pk=krios.pk).update(max_days_ahead=120, cancel_notice_hours=24)
    Microscope.objects.filter(pk=glacios.pk).update(
        min_length_minutes=60, max_length_hours=24, max_days_ahead=60, max_pending=8, cancel_notice_hours=12
    )
    Microscope.objects.filter(pk=cryoarm.pk).update(max_length_hours=96, requires_application=True)


def _details(facility: Facility, now: datetime.datetime) -> None:
    """A guest on one of the coming bookings, and one that was given back."""
    first, second = facility.labs
    coming = (
        Booking.objects.standing().filter(start__gt=now, kind=Booking.Kind.BOOKING).order_by("start", "pk")
    )
    shared = coming.filter(lab=first).first()
    if shared is not None:
        shared.collaborators.add(facility.people[second][2])
    given_back = coming.filter(lab=second).last()
    if given_back is not None:
        booking_cancel(booking=given_back, actor=given_back.owner, reason="The grids are not ready.")


def logins() -> str:
    """Whom to log in as, for the terminal."""
    lines = ["This is a demo: everyone and everything in it is made up. Log in as", ""]
    roles = [(STAFF[0][0], "facility staff, administrator"), (STAFF[1][0], "facility staff")]
    for name, _, people, _ in LABS:
        roles.append((people[0][0], f"principal investigator, {name}"))
        roles += [(username, f"user, {name}") for username, _, _ in people[1:]]
    width = max(len(username) for username, _ in roles)
    lines += [f"    {username:<{width}}   {role}" for username, role in roles]
    lines += ["", f"each with the password {PASSWORD}"]
    return "\n".join(lines)
