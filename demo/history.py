"""Finished sessions of the past months: what they would look like had pipelines reported them at the time.

Results go in through `preprocessing.ingest` like those of any pipeline, so that counters, histograms and summaries
are those of the rows. Only the clock is turned back afterwards.
"""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass

import numpy as np
from django.db.models import F, OuterRef, Subquery
from django.utils import timezone
from PIL import Image

from demo import values
from demo.classification import ITERATIONS, iterate
from demo.facility import Facility, book, local
from demo.images import CLASSES, ctf_diagnostic, micrograph, power_spectrum
from demo.past_alerts import raise_past
from demo.values import Acquisition, Instrument
from preprocessing import images, ingest
from preprocessing.curation import judge
from preprocessing.identity import identity
from preprocessing.ingest import Report
from preprocessing.models import ClassAverage, CurationAct, Exposure, Micrograph, ProcessingRun
from sessions_app.lifecycle import session_archive, session_finish
from sessions_app.models import Session, SessionSummary
from sessions_app.services import session_create

MOVIE_BYTES = 412_000_000
INTERVAL = datetime.timedelta(seconds=38)  # between exposures
LAG = datetime.timedelta(minutes=12)  # until the last result is in and the session is finished
PAUSE = datetime.timedelta(minutes=43)  # for which a session that is interrupted takes no images
GRACE = datetime.timedelta(days=2)  # until images past their date are really deleted
PICTURES = 4  # of micrographs, in a session that has many
RECENT = 30  # days: sessions since have 2D classes and at least the picture of their last micrograph
FAILED_FROM = 0.7  # of a failed session's micrographs have no more than their motion
WORST = 8  # Å: fits worse than this are rejected by hand where people browsed the pictures
BATCH = 500
CLASS_JOB = "Class2D/job006"


@dataclass(frozen=True)
class Use:
    """How a microscope is used: what its sessions have in common."""

    instrument: Instrument
    magnification: int
    exposure_time: float  # s
    slit: float | None  # eV
    spot: int


USES = {
    "krios1": Use(Instrument(), 130_000, 4.2, 10, 6),
    "glacios": Use(
        Instrument(voltage=200.0, pixel_size=0.948, frames=36, dose_per_frame=1.15), 150_000, 5.1, None, 5
    ),
    "cryoarm": Use(Instrument(pixel_size=0.88, frames=50, dose_per_frame=0.9), 60_000, 3.6, 20, 4),
}


@dataclass(frozen=True)
class Past:
    """One session to tell of: it ended ``ago`` days before today; lab and owner by their place in the facility."""

    microscope: int
    ago: int
    lab: int
    owner: int
    sample: int
    micrographs: int
    pictures: bool = False  # many, and picks
    failed: bool = False
    interrupted: bool = False  # halfway through
    archived: bool = False

    def times(self, start: datetime.datetime) -> list[datetime.datetime]:
        """When the session that began then took its images."""
        halfway = self.micrographs // 2 if self.interrupted else self.micrographs
        return [start + (k + 1) * INTERVAL + (k >= halfway) * PAUSE for k in range(self.micrographs)]


# On the first microscope images are kept 60 days: one session is a day past that, others have 2, 12 and 40 left.
PASTS = (
    Past(0, 61, 0, 0, 0, 310),
    Past(0, 58, 1, 1, 0, 280),
    Past(0, 48, 0, 1, 1, 340, pictures=True),
    Past(0, 37, 1, 0, 1, 260),
    Past(0, 31, 0, 2, 2, 190),
    Past(0, 20, 1, 1, 0, 410, pictures=True),
    Past(0, 11, 0, 1, 0, 370, interrupted=True),
    Past(0, 6, 1, 2, 2, 240),
    Past(0, 2, 0, 1, 1, 420, pictures=True),
    Past(1, 112, 0, 1, 2, 130),
    Past(1, 97, 1, 1, 1, 150, pictures=True, archived=True),
    Past(1, 84, 1, 2, 0, 110),
    Past(1, 63, 0, 2, 0, 170),
    Past(1, 52, 1, 1, 2, 120),
    Past(1, 40, 0, 0, 1, 160),
    Past(1, 27, 1, 2, 1, 60, failed=True),
    Past(1, 18, 0, 1, 2, 140),
    Past(1, 9, 1, 1, 0, 180, pictures=True),
    Past(1, 4, 0, 2, 1, 150),
    Past(1, 1, 1, 0, 2, 165),
    Past(2, 76, 1, 0, 0, 220),
    Past(2, 44, 0, 1, 1, 240),
    Past(2, 24, 1, 1, 1, 290),
    Past(2, 13, 0, 2, 0, 330, pictures=True),
    Past(2, 5, 1, 2, 2, 260),
)
NOTES = (
    "Grid 3 has the best ice; squares near the edge are thick.",
    "Good particle distribution. Defocus range as discussed.",
    "Stage drifted for the first twenty minutes.",
    "",
)


def begin(facility: Facility, past: Past, number: int) -> Session:
    """Book the time and record the session; ``number`` is its place in the list."""
    microscope = facility.microscopes[past.microscope]
    lab = facility.labs[past.lab]
    sample = facility.samples[lab][past.sample]
    day = timezone.localdate() - datetime.timedelta(days=past.ago)
    if past.microscope == 0:  # overnight: booked from the morning before
        booked = local(day, 9) - datetime.timedelta(days=1), local(day, 9)
        start = local(day, 0) + datetime.timedelta(minutes=11 * (number % 4) + 5)
    else:
        booked = local(day, 9), local(day, 18)
        start = local(day, 10) + datetime.timedelta(minutes=13 * (number % 4) + 5)
    booking = book(
        facility,
        microscope,
        *booked,
        lab=lab,
        owner=facility.people[lab][past.owner],
        title="Screening" if past.microscope == 1 else sample.name,
    )
    use = USES[microscope.code]
    instrument = use.instrument
    return session_create(
        booking=booking,
        creator=facility.staff[number % 2],
        operator=facility.staff[1] if number % 3 == 0 else booking.owner,
        sample=sample,
        notes=NOTES[number % len(NOTES)],
        start=start,
        any_time=True,
        voltage_kv=instrument.voltage,
        cs_mm=instrument.cs,
        magnification=use.magnification,
        pixel_size=instrument.pixel_size,
        dose_per_frame=instrument.dose_per_frame,
        total_dose=round(instrument.dose_per_frame * instrument.frames, 2),
        frames=instrument.frames,
        exposure_time=use.exposure_time,
        energy_slit=use.slit,
        spot_size=use.spot,
    )


def tell(facility: Facility, session: Session, past: Past, number: int) -> None:
    """Report the session's results, finish it, and archive it where that was long ago."""
    run = _report(session, Acquisition(100 + number, USES[session.microscope.code].instrument), past)
    if past.pictures:
        _curate(session, run)
    _finish(facility, session, past)
    raise_past(session, run)
    if past.archived:
        session_archive(session, facility.admin)


def _report(session: Session, acquisition: Acquisition, past: Past) -> ProcessingRun:
    """Everything the watcher and the pipeline would have posted, in the order of the REST calls."""
    instrument = acquisition.instrument
    times = past.times(session.start)
    names = [
        f"Movies/{acquisition.exposure(k).movie(timezone.localtime(when))}" for k, when in enumerate(times)
    ]
    exposures = [
        Report(name, identity(name), _exposure_values(acquisition.exposure(k), when))
        for k, (name, when) in enumerate(zip(names, times, strict=True))
    ]
    ingest.record_exposures(session.pk, exposures)
    run, _ = ingest.open_run(
        session.pk,
        key=f"{session.name}/Import/job001",
        software="RELION",
        version="5.0-demo",
        host="processing1",
        label=session.name,
        pixel_size=instrument.micrograph_pixel_size,
        width=instrument.micrograph_size,
        height=instrument.micrograph_size,
        particle_diameter=instrument.particle_diameter,
        parameters={
            "import.angpix": instrument.pixel_size,
            "import.kV": instrument.voltage,
            "import.Cs": instrument.cs,
            "motioncorr.bin_factor": instrument.binning,
            "motioncorr.dose_per_frame": instrument.dose_per_frame,
            "class2d.nr_classes": CLASSES,
        },
    )
    rows = []
    for k, (name, report) in enumerate(zip(names, exposures, strict=True)):
        fields = _micrograph_values(acquisition, k, with_picks=past.pictures)
        if past.failed and k >= FAILED_FROM * past.micrographs:
            fields = {name: fields[name] for name in ("motion_total", "motion_early", "motion_late")}
        rows.append(Report(name, report.identity, fields))
    for first in range(0, len(rows), BATCH):
        ingest.record_micrographs(session.pk, run.pk, rows[first : first + BATCH])
    if past.failed:
        ingest.record_event(
            session.pk,
            run.pk,
            level="error",
            text="CtfFind/job003 failed: no space left on device.",
            at=times[-1] + datetime.timedelta(minutes=5),
        )
        ingest.change_run(session.pk, run.pk, status=ProcessingRun.Status.FAILED)
    else:
        if past.ago <= RECENT or past.pictures:
            _classify(session, run, acquisition, sum(report.values["particles"] for report in rows))
        ingest.change_run(session.pk, run.pk, status=ProcessingRun.Status.FINISHED)
    pictures = PICTURES if past.pictures else 1 if past.ago <= RECENT else 0
    for k in range(past.micrographs - pictures, past.micrographs):
        _pictures(session, run, acquisition, k, names[k])
    _turn_back(session, run, times)
    run.refresh_from_db()
    return run


def _exposure_values(exposure: values.Exposure, when: datetime.datetime) -> dict:
    return {
        "acquired_at": when,
        "grid_square": exposure.grid_square,
        "foil_hole": exposure.foil_hole,
        "stage_x": exposure.stage_x,
        "stage_y": exposure.stage_y,
        "beam_shift_x": exposure.beam_shift_x,
        "beam_shift_y": exposure.beam_shift_y,
    }


def _micrograph_values(acquisition: Acquisition, index: int, *, with_picks: bool) -> dict:
    """A micrograph's fields as the REST contract has them: lengths in Å."""
    exposure = acquisition.exposure(index)
    total, early, late = exposure.motion_angstrom(acquisition.instrument)
    fields = {
        "motion_total": total,
        "motion_early": early,
        "motion_late": late,
        "defocus_u": exposure.defocus_u,
        "defocus_v": exposure.defocus_v,
        "defocus_angle": exposure.defocus_angle,
        "ctf_resolution": exposure.ctf_resolution,
        "ctf_score": exposure.ctf_score,
        "ice_thickness": exposure.ice_ring,
        "particles": exposure.particles,
    }
    if with_picks:
        fields["coordinates"] = acquisition.picks(index)[0].astype("<f4").tobytes()
    return fields


def _classify(session: Session, run: ProcessingRun, acquisition: Acquisition, particles: int) -> None:
    pixel_size = acquisition.instrument.micrograph_pixel_size
    result = iterate(ITERATIONS, particles=particles, pixel_size=pixel_size, seed=acquisition.seed)
    ingest.record_classes(
        session.pk,
        run.pk,
        job=CLASS_JOB,
        iteration=ITERATIONS,
        classes=[
            {"number": number, "particles": int(count), "resolution": float(resolution)}
            for number, (count, resolution) in enumerate(
                zip(result.counts, result.resolutions, strict=True), 1
            )
        ],
    )
    for number, average in enumerate(result.averages(pixel_size, acquisition.seed), 1):
        if average.any():
            of = {"job": CLASS_JOB, "iteration": ITERATIONS, "number": number}
            _show(session, run, average, ingest.ImageOf(ClassAverage, "image", of))


def _pictures(session: Session, run: ProcessingRun, acquisition: Acquisition, index: int, name: str) -> None:
    image = micrograph(acquisition, index)
    half = image.shape[0] // 2
    small = image.reshape(half, 2, half, 2).mean(axis=(1, 3))
    _show(session, run, small, ingest.ImageOf(Micrograph, "micrograph_image", {"name": name}))
    fit = ctf_diagnostic(power_spectrum(acquisition, index), acquisition, index)[0]
    _show(session, run, fit, ingest.ImageOf(Micrograph, "psd_image", {"name": name}))


def _show(session: Session, run: ProcessingRun, data: np.ndarray, target: ingest.ImageOf) -> None:
    """Store an array as a grey picture, 1st percentile black and 99th white, and let its row show it."""
    low, high = np.percentile(data, (1, 99))
    grey = np.clip((data - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(grey).save(picture, "PNG", compress_level=1)
    picture.seek(0)
    ingest.attach_image(session.pk, run.pk, target, images.store(session, images.encode(picture)))


def _turn_back(session: Session, run: ProcessingRun, times: list[datetime.datetime]) -> None:
    """Let rows and run be as old as the session: ingestion writes the time at which it is told."""
    reported = times[-1] + LAG
    acquired = Exposure.objects.filter(pk=OuterRef("exposure")).values("acquired_at")[:1]
    Micrograph.objects.filter(run=run).update(created_at=Subquery(acquired))
    Exposure.objects.filter(session=session).update(created_at=F("acquired_at"))
    ProcessingRun.objects.filter(pk=run.pk).update(
        created_at=times[0], started_at=times[0], last_seen_at=reported, finished_at=reported
    )
    SessionSummary.objects.filter(session=session).update(last_seen_at=reported, last_exposure_at=times[-1])


def _curate(session: Session, run: ProcessingRun) -> None:
    """The owner's own verdict on the worst fits, in the evening."""
    worst = Micrograph.objects.filter(run=run, ctf_resolution__gt=WORST)
    act = judge(
        session,
        session.owner,
        list(worst.order_by("pk").values_list("exposure", flat=True)),
        "rejected",
        reason="Carbon or a crack in view",
        what=f"CTF resolution above {WORST} Å",
    )
    if act is not None:
        when = run.finished_at
        # The same moment for both: by it an undo knows what was not judged anew since.
        Exposure.objects.filter(session=session, verdict_at=act.at).update(verdict_at=when)
        CurationAct.objects.filter(pk=act.pk).update(at=when)


def _finish(facility: Facility, session: Session, past: Past) -> None:
    last = past.times(session.start)[-1]
    # A movie with its XML file and its preview, as the acquisition program leaves them.
    session.data_movies = past.micrographs
    session.data_files = 3 * past.micrographs
    session.data_bytes = past.micrographs * MOVIE_BYTES
    session.last_file_at = last
    session.save(update_fields=["data_movies", "data_files", "data_bytes", "last_file_at"])
    status = Session.Status.FAILED if past.failed else Session.Status.FINISHED
    session_finish(session, facility.staff[1], end=last + LAG, status=status)
    if session.delete_on + GRACE < timezone.localdate():
        Session.objects.filter(pk=session.pk).update(data_deleted_at=local(session.delete_on + GRACE, 3))
