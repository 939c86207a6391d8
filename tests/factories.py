"""The smallest valid object of each model; tests spell out what matters to them."""

import datetime
import importlib

import factory
from django.apps import apps
from django.contrib.auth.models import Group
from django.db import connection
from django.utils import timezone
from factory.django import DjangoModelFactory

from bookings.models import Application, Booking
from microscopes.models import Camera, DataServer, Microscope, PipelineToken
from people.models import PIPELINE_GROUP, STAFF_GROUP, Lab, Membership, User
from preprocessing.models import Alert, ClassAverage, Exposure, Micrograph, ProcessingRun, RunEvent
from sessions_app.models import Sample, Session

PASSWORD = "correct horse battery"


def _group(name: str) -> Group:
    """A group as its migration made it; made again where a test with real transactions emptied the tables."""
    found = Group.objects.filter(name=name).first()
    if found is None:
        migration = importlib.import_module("preprocessing.migrations.0002_groups")
        migration.create_groups(apps, connection.schema_editor())
        found = Group.objects.get(name=name)
    return found


class UserFactory(DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"user{n}")
    first_name = "Ada"
    last_name = factory.Sequence(lambda n: f"Person{n}")
    email = factory.LazyAttribute(lambda user: f"{user.username}@example.org")

    @factory.post_generation
    def password(self, create, extracted, **kwargs):
        """Only hashed when asked for: hashing is slow and most tests use force_login."""
        if extracted:
            self.set_password(extracted)
            self.save(update_fields=["password"])


class StaffFactory(UserFactory):
    """A member of the facility's staff as the site makes them: is_staff and in the group."""

    username = factory.Sequence(lambda n: f"staff{n}")
    is_staff = True

    @factory.post_generation
    def group(self, create, extracted, **kwargs):
        self.groups.add(_group(STAFF_GROUP))


class ServiceUserFactory(UserFactory):
    username = factory.Sequence(lambda n: f"pipeline{n}")
    email = ""
    is_service = True

    @factory.post_generation
    def group(self, create, extracted, **kwargs):
        self.groups.add(_group(PIPELINE_GROUP))


class LabFactory(DjangoModelFactory):
    class Meta:
        model = Lab

    name = factory.Sequence(lambda n: f"Lab {n}")
    pi = factory.SubFactory(UserFactory)


class MembershipFactory(DjangoModelFactory):
    class Meta:
        model = Membership

    lab = factory.SubFactory(LabFactory)
    user = factory.SubFactory(UserFactory)


class DataServerFactory(DjangoModelFactory):
    class Meta:
        model = DataServer

    name = factory.Sequence(lambda n: f"server{n}")
    host = "data.example.org"


class MicroscopeFactory(DjangoModelFactory):
    class Meta:
        model = Microscope

    name = factory.Sequence(lambda n: f"Krios {n}")
    code = factory.Sequence(lambda n: f"krios{n}")


class CameraFactory(DjangoModelFactory):
    class Meta:
        model = Camera

    microscope = factory.SubFactory(MicroscopeFactory)
    name = factory.Sequence(lambda n: f"Falcon {n}")


class ApplicationFactory(DjangoModelFactory):
    class Meta:
        model = Application

    code = factory.Sequence(lambda n: f"APP-{n}")
    title = "A study"
    status = Application.Status.ACTIVE


class BookingFactory(DjangoModelFactory):
    """Runs now, for eight hours, on a microscope of its own."""

    class Meta:
        model = Booking

    microscope = factory.SubFactory(MicroscopeFactory)
    owner = factory.SubFactory(UserFactory)
    creator = factory.SelfAttribute("owner")
    lab = factory.SubFactory(LabFactory)
    start = factory.LazyFunction(lambda: timezone.now() - datetime.timedelta(hours=1))
    end = factory.LazyAttribute(lambda booking: booking.start + datetime.timedelta(hours=8))


class SampleFactory(DjangoModelFactory):
    class Meta:
        model = Sample

    lab = factory.SubFactory(LabFactory)
    name = factory.Sequence(lambda n: f"apoferritin {n}")


class SessionFactory(DjangoModelFactory):
    class Meta:
        model = Session

    booking = factory.SubFactory(BookingFactory)
    name = factory.Sequence(lambda n: f"krios-20261123-{n:03d}")
    creator = factory.SelfAttribute("booking.owner")
    start = factory.SelfAttribute("booking.start")


class FinishedSessionFactory(SessionFactory):
    status = Session.Status.FINISHED
    end = factory.LazyAttribute(lambda session: session.start + datetime.timedelta(hours=4))


class ExposureFactory(DjangoModelFactory):
    class Meta:
        model = Exposure

    session = factory.SubFactory(SessionFactory)
    name = factory.Sequence(lambda n: f"FoilHole_{n}_Data_1_2_20261123_101500_fractions.tiff")
    identity = factory.LazyAttribute(lambda exposure: exposure.name.split("_fractions")[0])


class RunFactory(DjangoModelFactory):
    class Meta:
        model = ProcessingRun

    session = factory.SubFactory(SessionFactory)
    key = factory.Sequence(lambda n: f"project{n}")
    software = "RELION"


class MicrographFactory(DjangoModelFactory):
    """A bare row: ingestion's counters do not know of it. Use ingestion where counts matter."""

    class Meta:
        model = Micrograph

    run = factory.SubFactory(RunFactory)
    exposure = factory.SubFactory(ExposureFactory, session=factory.SelfAttribute("..run.session"))
    name = factory.SelfAttribute("exposure.name")


class ClassAverageFactory(DjangoModelFactory):
    class Meta:
        model = ClassAverage

    run = factory.SubFactory(RunFactory)
    job = "Class2D/job010"
    iteration = 25
    number = factory.Sequence(lambda n: n + 1)


class RunEventFactory(DjangoModelFactory):
    class Meta:
        model = RunEvent

    run = factory.SubFactory(RunFactory)
    text = "Motion correction started."


class AlertFactory(DjangoModelFactory):
    """An open alert; pages read open ones from the session's summary, which `preprocessing.alerts` writes."""

    class Meta:
        model = Alert

    session = factory.SubFactory(SessionFactory)
    kind = Alert.Kind.RESOLUTION
    text = "CTF resolution above 6 Å in 23 of the last 25 micrographs"
    since = factory.LazyFunction(timezone.now)
    raised_at = factory.SelfAttribute("since")


def make_token(*microscopes, user=None, **fields) -> tuple[PipelineToken, str]:
    """A pipeline token for these microscopes (none given: for all) and its plain key."""
    token, key = PipelineToken.objects.create_key(
        name=fields.pop("name", "relion"),
        user=user or ServiceUserFactory(),
        all_microscopes=not microscopes,
        **fields,
    )
    token.microscopes.set(microscopes)
    return token, key
