"""What leaves the site as a file: CSV, STAR, JSON, OSC-EM and the report, live and archived alike."""

import csv
import io
import json
from pathlib import Path

import gemmi
import jsonschema
import numpy as np
import pytest
from django.urls import reverse
from pypdf import PdfReader

from preprocessing import completion, ingest, packed
from preprocessing.export import accepted
from preprocessing.identity import identity
from preprocessing.models import ClassAverage, Exposure, Micrograph, ProcessingRun
from sessions_app.lifecycle import session_archive, session_finish
from sessions_app.models import SessionSummary
from tests.factories import (
    AlertFactory,
    BookingFactory,
    CameraFactory,
    LabFactory,
    SampleFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
OSCEM = Path(__file__).parents[2].parent / "shared" / "data" / "oscem" / "spa.schema.json"
COUNT = 12


@pytest.fixture
def session():
    """Twelve micrographs; the first rejected by its pipeline, the second by hand, the third by the pipeline but
    accepted by hand, the last without CTF."""
    packed.forget()
    lab = LabFactory(name="Żółw & Hall")
    booking = BookingFactory(lab=lab)
    session = SessionFactory(
        booking=booking,
        sample=SampleFactory(lab=lab, name="apoferritin"),
        camera=CameraFactory(microscope=booking.microscope, name="Falcon 4i"),
        voltage_kv=300,
        cs_mm=2.7,
        pixel_size=0.83,
        total_dose=40,
        frames=50,
        magnification=165000,
        energy_slit=10,
        notes="Ice was thin.",
    )
    run, _ = ingest.open_run(session.pk, key="relion", software="RELION", version="5.0", pixel_size=0.83)
    reports = []
    for n in range(COUNT):
        name = f"GridSquare_77/Data/FoilHole_{n}_Data_1_2_20261120_1015{n:02d}.tiff"
        values = {"motion_total": 4.5 + n, "particles": 100 + n}
        if n < COUNT - 1:
            values |= {
                "defocus_u": 12000.25 + n,
                "defocus_v": 11000.0,
                "defocus_angle": 45.5,
                "ctf_resolution": 3 + n / 10,
                "ctf_score": 0.1,
            }
        if n in (0, 2):
            values["rejected"] = True
        reports.append(ingest.Report(name, identity(name), values))
    ingest.record_micrographs(session.pk, run.pk, reports)
    ingest.change_exposures(
        session.pk, {reports[1].identity: {"verdict": "rejected", "verdict_reason": "ice"}}
    )
    ingest.change_exposures(session.pk, {reports[2].identity: {"verdict": "accepted"}})
    ClassAverage.objects.create(run=run, job="Class2D/job008", iteration=25, number=1, particles=500)
    return session


@pytest.fixture
def member(session):
    return session.lab.pi


def get(client, person, session, what, **query):
    client.force_login(person)
    answer = client.get(reverse(f"preprocessing:{what}", args=[session.name]), query)
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return answer, content


def archive(session):
    staff = StaffFactory()
    session_finish(session, staff)
    session_archive(session, staff)
    packed.forget()


def test_a_persons_word_counts_more_than_a_pipelines():
    flags = np.array(
        [
            0,
            packed.REJECTED,
            packed.REJECTED | packed.ACCEPTED_BY_HAND,
            packed.REJECTED_BY_HAND,
            packed.ACCEPTED_BY_HAND,
            packed.PICTURE | packed.SPECTRUM,
        ],
        np.uint8,
    )
    assert accepted(flags).tolist() == [True, False, True, False, True, True]


@pytest.mark.parametrize("is_archived", [False, True])
def test_the_csv_has_every_value_of_the_rows(client, member, session, is_archived):
    rows = list(
        Micrograph.objects.order_by("pk").values_list("name", "motion_total", "defocus_u", "ctf_resolution")
    )
    if is_archived:
        archive(session)
    answer, content = get(client, member, session, "csv")
    assert "attachment" in answer["Content-Disposition"]
    found = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert len(found) == COUNT
    for row, (name, motion, defocus, resolution) in zip(found, rows, strict=True):
        assert row["name"] == name
        assert float(row["motion_total_A"]) == motion
        assert row["defocus_u_A"] == (
            "" if defocus is None else f"{defocus:g}" if defocus % 1 == 0 else str(defocus)
        )
        assert row["ctf_resolution_A"] == ("" if resolution is None else f"{resolution:g}")
        assert row["grid_square"] == "77"
    assert [row["accepted"] for row in found[:4]] == ["no", "no", "yes", "yes"]
    assert [row["verdict"] for row in found[:3]] == ["", "rejected", "accepted"]
    _, content = get(client, member, session, "csv", which="accepted")
    assert len(list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))) == COUNT - 2


@pytest.mark.parametrize("is_archived", [False, True])
def test_the_star_file_is_read_by_gemmi(client, member, session, is_archived):
    if is_archived:
        archive(session)
    _, content = get(client, member, session, "star", which="accepted")
    document = gemmi.cif.read_string(content.decode())
    optics, micrographs = document.find_block("optics"), document.find_block("micrographs")
    assert [float(value) for value in optics.find_loop("_rlnVoltage")] == [300]
    assert [float(value) for value in optics.find_loop("_rlnMicrographPixelSize")] == [0.83]
    names = list(micrographs.find_loop("_rlnMicrographName"))
    assert len(names) == COUNT - 3  # two rejected, one without CTF
    assert "_rlnPhaseShift" not in micrographs.find_loop("_rlnDefocusU").get_loop().tags
    wanted = [12000.25 + n for n in range(2, COUNT - 1)]
    assert [float(value) for value in micrographs.find_loop("_rlnDefocusU")] == pytest.approx(
        wanted, abs=0.01
    )
    assert "left out because not all of these values are known: 1" in content.decode()


def test_before_any_ctf_the_star_file_lists_the_micrographs(client, member, session):
    run, _ = ingest.open_run(session.pk, key="early", software="RELION")
    ingest.record_micrographs(session.pk, run.pk, [ingest.Report("a b.tiff", identity("a b.tiff"), {})])
    _, content = get(client, member, session, "star", run=run.pk)
    block = gemmi.cif.read_string(content.decode()).find_block("micrographs")
    assert [gemmi.cif.as_string(name) for name in block.find_loop("_rlnMicrographName")] == ["a b.tiff"]


def test_a_formula_in_a_name_is_none_in_a_spreadsheet(client, member, session):
    Exposure.objects.filter(pk=Exposure.objects.earliest("pk").pk).update(grid_square="=1+1")
    run = ProcessingRun.objects.get()
    Micrograph.objects.filter(pk=Micrograph.objects.earliest("pk").pk).update(revision=run.revision + 1)
    ProcessingRun.objects.update(revision=run.revision + 1)
    _, content = get(client, member, session, "csv")
    assert "'=1+1" in content.decode()


@pytest.mark.parametrize("what", ["csv", "star", "summary-json", "oscem", "report"])
def test_exports_pass_the_sessions_gate(client, session, what):
    assert get(client, session.lab.pi, session, what)[0].status_code == 200
    assert get(client, StaffFactory(), session, what)[0].status_code == 200
    assert get(client, UserFactory(), session, what)[0].status_code == 404
    client.logout()
    assert client.get(reverse(f"preprocessing:{what}", args=[session.name])).status_code == 302


@pytest.mark.parametrize("what", ["csv", "star"])
def test_a_run_of_another_session_or_none_is_not_found(client, member, session, what):
    other, _ = ingest.open_run(SessionFactory().pk, key="other", software="RELION")
    for asked in (other.pk, "abc", "9" * 30, "-1"):
        assert get(client, member, session, what, run=asked)[0].status_code == 404
    empty = SessionFactory(booking=session.booking)
    assert get(client, member, empty, what)[0].status_code == 404


def test_the_summary_as_json_is_the_apis(client, member, session, api):
    _, content = get(client, member, session, "summary-json")
    assert json.loads(content) == api(member).get(f"/api/v1/sessions/{session.name}/summary/").json()


@pytest.mark.skipif(not OSCEM.exists(), reason="the OSC-EM schema is not in ../shared/data")
@pytest.mark.parametrize("is_archived", [False, True])
def test_oscem_metadata_validates(client, member, session, is_archived):
    if is_archived:
        archive(session)
    _, content = get(client, member, session, "oscem")
    document = json.loads(content)
    schema = json.loads(OSCEM.read_text())
    jsonschema.validate(document, schema, format_checker=jsonschema.FormatChecker())
    assert document["acquisition"]["pixel_size"] == {"value": 0.83, "unit": "Å"}
    assert document["instrument"]["acceleration_voltage"]["value"] == 300
    assert document["processing"]["micrographs"]["number_micrographs"] == COUNT
    assert document["processing"]["ctfs"]["resolution"]["output_min_resolution"]["value"] == pytest.approx(3)
    assert document["processing"]["classes2D"] == {"particles_per_2Dclass": [500]}


@pytest.mark.skipif(not OSCEM.exists(), reason="the OSC-EM schema is not in ../shared/data")
def test_oscem_metadata_of_a_bare_session_validates_or_says_what_is_missing(client):
    session = SessionFactory()
    answer, content = get(client, session.owner, session, "oscem")
    assert answer.status_code == 409
    assert "the pixel size: enter it" in content.decode()
    session.pixel_size = 1.1
    session.save()
    _, content = get(client, session.owner, session, "oscem")
    jsonschema.validate(json.loads(content), json.loads(OSCEM.read_text()))


def words_of(content: bytes) -> str:
    return " ".join(" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(content)).pages)


@pytest.mark.parametrize("is_archived", [False, True])
def test_the_report_says_what_the_session_was(client, member, session, is_archived):
    AlertFactory(session=session, text="Resolution is beyond 6 Å in most.")
    if is_archived:
        archive(session)
    else:
        completion.complete(session.pk)
    answer, content = get(client, member, session, "report")
    assert answer["Content-Type"] == "application/pdf"
    text = words_of(content)
    for wanted in (
        session.name,
        "Żółw & Hall",
        "apoferritin",
        "Falcon 4i",
        "0.83 Å",
        "RELION 5.0",
        "Ice was thin.",
        "1 movie accepted and 1 rejected",
        # Astigmatism is beyond 100 nm where there is any CTF but for what was accepted by hand.
        "17% of 12 micrographs are usable by the session's limits (CTF resolution at most 6 Å",
        "Resolution is beyond 6 Å in most.",
        "a total dose of 40 e⁻/Å² in 50 frames",
        "CTF resolution",
        "Total motion",
    ):
        assert wanted in text, wanted


def test_the_report_of_a_session_without_a_pipeline_says_so(client):
    session = SessionFactory()
    _, content = get(client, session.owner, session, "report")
    assert "No pipeline reported on this session." in words_of(content)


def test_the_report_survives_pictures_that_are_gone(client, member, session):
    completion.complete(session.pk)
    SessionSummary.objects.filter(pk=session.pk).update(
        pictures=[{"name": "a", "image": "gone.webp", "psd": "", "defocus": None, "ctf_resolution": None}]
    )
    assert get(client, member, session, "report")[0].status_code == 200


def test_the_sessions_page_offers_them(client, member, session):
    client.force_login(member)
    text = client.get(reverse("sessions:detail", args=[session.name])).content.decode()
    for what in ("csv", "star", "summary-json", "oscem", "report"):
        assert reverse(f"preprocessing:{what}", args=[session.name]) in text
