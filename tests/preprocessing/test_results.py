"""Pages of 2D classes and of runs beside each other."""

import io
import re

import numpy as np
import pytest
from django.urls import reverse
from PIL import Image

from preprocessing import images, ingest, packed
from preprocessing.compare import common, parameters
from preprocessing.identity import identity
from preprocessing.models import ClassAverage, ProcessingRun, RunEvent
from tests.factories import MembershipFactory, SessionFactory, StaffFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(settings, tmp_path):
    """Two runs of the same forty exposures, of which the second saw thirty and measures 0.5 Å more."""
    settings.MEDIA_ROOT = tmp_path
    packed.forget()
    session = SessionFactory()
    for key, software, count, offset in (("one", "RELION", 40, 0.0), ("two", "CryoSPARC", 30, 0.5)):
        run, _ = ingest.open_run(
            session.pk, key=key, software=software, parameters={"dose": 1.2, "box": 256 if offset else 300}
        )
        reports = [
            ingest.Report(
                f"mov{n:03d}.tiff",
                identity(f"mov{n:03d}.tiff"),
                {"ctf_resolution": 3 + n / 20 + offset, "particles": n}
                | ({} if offset else {"motion_total": 4.0}),
            )
            for n in range(count)
        ]
        ingest.record_micrographs(session.pk, run.pk, reports)
    RunEvent.objects.create(run=run, level="error", text="The disk was full.")
    return session


@pytest.fixture
def classes(session):
    """Of the first run: three classes of iteration 10 and three of 25, the latter with pictures."""
    run = ProcessingRun.objects.get(key="one")
    for iteration in (10, 25):
        ingest.record_classes(
            session.pk,
            run.pk,
            job="Class2D/job008",
            iteration=iteration,
            classes=[
                {"number": 1, "particles": 500, "resolution": 9.0},
                {"number": 2, "particles": 1500},
                {"number": 3, "particles": 1000, "resolution": 7.0},
            ],
        )
    for row in ClassAverage.objects.filter(iteration=25):
        file = io.BytesIO()
        Image.new("L", (32, 32), 80 * row.number).save(file, "PNG")
        file.seek(0)
        row.image = images.store(session, images.encode(file))
        row.save()
    return session


def get(client, session, name, person=None, **query):
    client.force_login(person or session.owner)
    return client.get(reverse(f"preprocessing:{name}", args=[session.name]), query)


def shown(answer):
    """Numbers of the classes in the order in which they stand."""
    return [int(found) for found in re.findall(r'class-line"><strong>(\d+)<', answer.content.decode())]


def test_the_newest_set_of_classes_by_particles_with_shares(client, classes):
    answer = get(client, classes, "classes")
    text = answer.content.decode()
    assert shown(answer) == [2, 3, 1]
    assert "Class2D/job008, iteration 25: 3 classes, 3,000 particles." in text
    assert ">50%<" in text
    assert 'alt="Class 2"' in text
    assert shown(get(client, classes, "classes", sort="resolution")) == [3, 1, 2]
    assert shown(get(client, classes, "classes", sort="number")) == [1, 2, 3]
    earlier = get(client, classes, "classes", job="Class2D/job008", iteration="10").content.decode()
    assert "iteration 10: 3 classes" in earlier
    assert 'alt="Class 2"' not in earlier


def test_a_set_is_chosen_from_a_list_the_newest_job_first(client, classes):
    run = classes.runs.order_by("pk").first()
    for iteration in (1, 2):
        ingest.record_classes(
            classes.pk, run.pk, job="J9", iteration=iteration, classes=[{"number": 1, "particles": 7}]
        )
    text = get(client, classes, "classes").content.decode()
    assert re.findall(r'<option value="(\d+:[^"]+)" (selected)?>', text) == [
        ("2:J9", "selected"),
        ("1:J9", ""),
        ("25:Class2D/job008", ""),
        ("10:Class2D/job008", ""),
    ]
    assert "J9, iteration 2: 1 class, 7 particles." in text
    earlier = get(client, classes, "classes", run=run.pk, set="10:Class2D/job008", sort="number")
    text = earlier.content.decode()
    assert "Class2D/job008, iteration 10: 3 classes" in text
    assert "set=" not in re.search(r'href="([^"]*montage[^"]*)"', text)[1]
    for unknown in ("77:J9", "x", ""):
        assert "J9, iteration 2:" in get(client, classes, "classes", set=unknown).content.decode()


def test_good_classes_are_chosen_and_summed_up(client, classes):
    client.force_login(classes.owner)
    url = reverse("preprocessing:classes-select", args=[classes.name])
    client.post(url, {"selected": ["2", "3", "77", "x"]})
    assert set(ClassAverage.objects.filter(selected=True).values_list("iteration", "number")) == {
        (25, 2),
        (25, 3),
    }
    assert "2 good: 2,500 particles (83%)." in get(client, classes, "classes").content.decode()
    client.post(url, {"selected": ["1"]})
    assert list(ClassAverage.objects.filter(selected=True).values_list("number", flat=True)) == [1]
    # What a pipeline posts later leaves the choice alone.
    run = ProcessingRun.objects.get(key="one")
    ingest.record_classes(
        classes.pk, run.pk, job="Class2D/job008", iteration=25, classes=[{"number": 1, "particles": 510}]
    )
    assert list(ClassAverage.objects.filter(selected=True).values_list("number", "particles")) == [(1, 510)]


def test_a_montage_of_all_or_of_the_good_ones(client, classes):
    answer = get(client, classes, "montage")
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("PNG", (320, 320))
    # The largest class first: its grey is in the middle of the first tile.
    assert picture.getpixel((80, 80)) == pytest.approx(160, abs=3)
    assert get(client, classes, "montage", which="selected").status_code == 404
    ClassAverage.objects.filter(iteration=25, number=1).update(selected=True)
    picture = Image.open(io.BytesIO(get(client, classes, "montage", which="selected").content))
    assert picture.size == (160, 160)


def test_runs_stand_beside_each_other(client, session):
    text = get(client, session, "runs").content.decode()
    assert "RELION" in text
    assert "CryoSPARC" in text
    assert "The disk was full." in text
    assert text.count('class="differs"') == 1
    assert "have 30 exposures in common" in text
    assert "higher by 0.5 in the median" in text
    assert text.count('r="1"') == 60  # resolution and particles of thirty


def test_two_runs_are_compared_on_the_exposures_that_both_measured(session):
    one, two = (ProcessingRun.objects.get(key=key) for key in ("one", "two"))
    shared, found = common(one, two)
    by_name = {each.name: each for each in found}
    assert shared == 30
    assert set(by_name) == {"ctf_resolution", "particles"}
    resolution = by_name["ctf_resolution"]
    assert (resolution.n, resolution.difference) == (30, pytest.approx(0.5))
    assert resolution.median_one == pytest.approx(np.median([3 + n / 20 for n in range(30)]))
    assert resolution.spread == pytest.approx(0, abs=1e-6)
    assert resolution.correlation == pytest.approx(1)
    assert by_name["particles"].difference == 0
    rows = {row["name"]: row for row in parameters([one, two])}
    assert rows["box"] == {"name": "box", "values": ["300", "256"], "differ": True}
    assert not rows["dose"]["differ"]


def test_pages_without_anything_say_so(client):
    session = SessionFactory()
    assert "There are no 2D classes yet" in get(client, session, "classes").content.decode()
    assert "No pipeline has reported yet" in get(client, session, "runs").content.decode()
    assert get(client, session, "montage").status_code == 404
    client.post(reverse("preprocessing:classes-select", args=[session.name]), {"selected": "1"})


def test_one_run_alone_is_shown_without_a_comparison(client, session):
    ProcessingRun.objects.filter(key="two").delete()
    text = get(client, session, "runs").content.decode()
    assert "The same micrographs" not in text
    assert "RELION" in text


def test_pages_pass_the_sessions_gate(client, classes):
    colleague = MembershipFactory(lab=classes.lab).user
    guest = UserFactory()
    classes.booking.collaborators.add(guest)
    select = reverse("preprocessing:classes-select", args=[classes.name])
    for person, page, choice in (
        (colleague, 200, 302),
        (StaffFactory(), 200, 302),
        (guest, 200, 403),
        (UserFactory(), 404, 404),
    ):
        for name in ("classes", "runs", "montage"):
            assert get(client, classes, name, person).status_code == page
        assert client.post(select, {"selected": "1"}).status_code == choice
    for name in ("classes", "runs"):
        assert get(client, classes, name, run="x", one="x").status_code == 404


def test_pages_cost_the_same_for_few_and_many(client, classes, django_assert_num_queries):
    for name in ("classes", "runs"):
        get(client, classes, name)
    url = {name: reverse(f"preprocessing:{name}", args=[classes.name]) for name in ("classes", "runs")}
    with django_assert_num_queries(13):
        client.get(url["classes"])
    with django_assert_num_queries(10):
        client.get(url["runs"])
    run = ProcessingRun.objects.get(key="one")
    many = [{"number": n, "particles": n} for n in range(1, 60)]
    ingest.record_classes(classes.pk, run.pk, job="Class2D/job008", iteration=25, classes=many)
    RunEvent.objects.bulk_create(RunEvent(run=run, text=f"{n}") for n in range(20))
    client.get(url["runs"])  # Takes up what changed.
    with django_assert_num_queries(13):
        client.get(url["classes"])
    with django_assert_num_queries(10):
        client.get(url["runs"])
