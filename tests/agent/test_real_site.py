"""The agent against the site itself: real projects in, the summary out, compared with an independent reading."""

import statistics

import pytest
from emhub_agent import Client
from emhub_agent.cli import main

from tests.factories import MicroscopeFactory, SessionFactory, make_token

from . import project
from .test_relion import table

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def session():
    return SessionFactory()


@pytest.fixture
def post(live_server, session, monkeypatch, capsys):
    """Posts a project with --once and returns the lines it printed."""
    monkeypatch.setenv("EMHUB_TOKEN", make_token(session.booking.microscope)[1])

    def run(root, expected=0):
        code = main(["relion", str(root), "--url", live_server.url, "--session", session.name, "--once"])
        assert code == expected
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def summary(live_server, session):
    def ask():
        with Client(live_server.url, make_token()[1]) as client:
            return client.request("GET", f"/sessions/{session.name}/summary/")

    return ask


def columns(rows, scale=1.0, **labels):
    return {field: [float(row[label]) * scale for row in rows] for field, label in labels.items()}


def test_a_relion5_project(relion5, post, summary):
    assert post(relion5) == [
        "micrographs: 24 created, 0 updated, 0 unchanged",
        "classes:     50 created, 0 updated, 0 unchanged",
        "images:      48 created, 0 updated, 0 unchanged",
        "events:      0 created, 0 updated, 0 unchanged",
    ]
    answer = summary()
    picks = table(relion5 / "AutoPick/job008/summary.star", "")
    assert answer["micrographs"] == answer["motion_corrected"] == answer["ctf_estimated"] == 24
    assert answer["picked"] == len(picks)
    assert answer["particles"] == sum(int(row["rlnGroupNrParticles"]) for row in picks)
    assert answer["classes"] == 50
    assert answer["processing"] == "finished"
    expected = columns(
        table(relion5 / "MotionCorr/job002/corrected_micrographs.star", "micrographs"),
        0.885,  # written in pixels
        motion_total="rlnAccumMotionTotal",
        motion_early="rlnAccumMotionEarly",
        motion_late="rlnAccumMotionLate",
    )
    expected |= columns(
        table(relion5 / "CtfFind/job005/micrographs_ctf.star", "micrographs"),
        defocus_u="rlnDefocusU",
        defocus_v="rlnDefocusV",
        ctf_resolution="rlnCtfMaxResolution",
        ctf_score="rlnCtfFigureOfMerit",
        ice_thickness="rlnCtfIceRingDensity",
    )
    [run] = answer["runs"]
    check(run, expected)
    assert post(relion5) == [
        "micrographs: 0 created, 0 updated, 24 unchanged",
        "classes:     0 created, 0 updated, 50 unchanged",
        "images:      0 created, 0 updated, 48 unchanged",
        "events:      0 created, 0 updated, 0 unchanged",
    ]
    assert summary()["runs"][0]["revision"] == run["revision"]


def check(run, expected):
    for field, values in expected.items():
        found = run["fields"][field]
        assert found["n"] == len(values)
        assert found["min"] == pytest.approx(min(values))
        assert found["median"] == pytest.approx(statistics.median(values))
        assert found["max"] == pytest.approx(max(values))


def test_the_files_of_a_31_project(relion31_project, post, summary):
    """As far as they go: no movies' table, picks of one micrograph, classes without their images."""
    root = relion31_project
    assert post(root)[:3] == [
        "micrographs: 24 created, 0 updated, 0 unchanged",
        "classes:     50 created, 0 updated, 0 unchanged",
        "images:      0 created, 0 updated, 0 unchanged",
    ]
    answer = summary()
    [run] = answer["runs"]
    check(
        run,
        columns(
            table(root / "MotionCorr/job002/corrected_micrographs.star", "micrographs"),
            0.885,
            motion_total="rlnAccumMotionTotal",
        )
        | columns(
            table(root / "CtfFind/job003/micrographs_ctf.star", "micrographs"),
            defocus_u="rlnDefocusU",
            ctf_resolution="rlnCtfMaxResolution",
        ),
    )
    assert post(root)[0] == "micrographs: 0 created, 0 updated, 24 unchanged"


def test_another_microscopes_token_posts_nothing(post, session, tmp_path, monkeypatch, capsys):
    root = project.write(tmp_path / "relion", project.files(count=2))
    monkeypatch.setenv("EMHUB_TOKEN", make_token(MicroscopeFactory())[1])
    assert post(root, expected=5) == []
    assert not session.runs.exists()


def test_pictures_picks_and_failures_arrive(post, session, tmp_path):
    root = project.write(tmp_path / "relion", project.files(count=3))
    project.write(
        root, {"CtfFind/job003/RELION_JOB_EXIT_FAILURE": b"", "CtfFind/job003/run.err": b"no licence\n"}
    )
    for _ in range(2):
        post(root)
    run = session.runs.get()
    rows = run.micrograph_rows.order_by("pk")
    assert [row.name for row in rows] == [project.movie(number) for number in (1, 2, 3)]
    assert all(row.micrograph_image and row.psd_image for row in rows)
    assert [row.particles for row in rows] == [4, 4, 4]
    assert [len(row.coordinates_row.points) for row in rows] == [4 * 8] * 3
    assert [event.text for event in run.events.all()] == ["CtfFind/job003 failed: no licence"]


def test_movies_named_after_their_micrographs_were_posted(post, session, tmp_path):
    """The run keeps its names, and what the program tells of the movies by theirs is not lost."""
    made = project.files(count=3, status="Succeeded", iterations=())
    movies = {
        path: made.pop(path)
        for path in list(made)
        if path.startswith("Import") or (path.startswith("MotionCorr/job002/Mov") and path.endswith(".star"))
    }
    root = project.write(tmp_path / "relion", made)
    post(root)
    path = "CtfFind/job003/micrographs_ctf.star"
    project.write(root, {**movies, path: made[path].replace(b"12137.000000", b"12138.000000")})
    printed = post(root)
    assert printed[0] == "micrographs: 0 created, 1 updated, 2 unchanged"
    assert printed[2] == "images:      0 created, 0 updated, 6 unchanged"
    run = session.runs.get()
    rows = run.micrograph_rows.order_by("pk")
    assert [row.name for row in rows] == [f"Movies/grid_{number:03d}.mrc" for number in (1, 2, 3)]
    assert [row.defocus_u for row in rows] == [12000, 12138, 12274]
    assert not run.events.exists()


def test_an_archived_session_is_said(post, session, tmp_path):
    type(session).objects.filter(pk=session.pk).update(status="archived", end=session.start)
    root = project.write(tmp_path / "relion", project.files(count=1))
    assert post(root, expected=7) == []


@pytest.fixture
def configured(live_server, session, tmp_path):
    """Writes a configuration that finds the session's projects, and returns its path."""
    path = tmp_path / "emhub-agent.toml"
    path.write_text(
        f'site = "{live_server.url}"\n[[watch]]\nprogram = "relion"\n'
        f'place = "{tmp_path}/{{microscope}}/{{session}}"\n'
    )
    return str(path)


def test_check_stores_nothing_and_once_finds_what_runs(configured, session, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMHUB_TOKEN", make_token(session.booking.microscope)[1])
    # Another session, of a microscope that the token does not see, stays out of it.
    other = SessionFactory()
    for one in (session, other):
        files = project.files(count=3, status="Succeeded", images=False)
        project.write(tmp_path / one.booking.microscope.code / one.name, files)
    assert main(["check", configured]) == 0
    out = capsys.readouterr().out
    assert "running sessions that it sees: 1." in out
    assert "the site would have names: 3 created" in out
    assert not session.runs.exists()
    assert not session.exposures.exists()
    assert main(["once", configured]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1] == "  micrographs: 3 created, 0 updated, 0 unchanged"
    run = session.runs.get()
    assert (run.micrographs, run.particles) == (3, 12)
    assert not other.runs.exists()
    revision = run.revision
    assert main(["check", configured]) == 0
    out = capsys.readouterr().out
    assert "the site would have micrographs: 0 created, 0 updated, 3 unchanged" in out
    run.refresh_from_db()
    assert run.revision == revision


def test_selections_and_places_arrive(post, session, tmp_path):
    made = project.files(count=3, status="Succeeded", images=False, iterations=())
    made = {
        path.replace("grid_", "lattice_12_X+1Y+"): data.replace(b"grid_", b"lattice_12_X+1Y+")
        for path, data in made.items()
    }
    made["default_pipeline.star"] = (
        made["default_pipeline.star"]
        .replace(
            b"AutoPick/job004/ None",
            b"Select/job007/ None relion.select.onvalue Succeeded \nAutoPick/job004/ None",
        )
        .replace(
            b"CtfFind/job003/micrographs_ctf.star AutoPick/job004/",
            b"CtfFind/job003/micrographs_ctf.star AutoPick/job004/ \n"
            b"CtfFind/job003/micrographs_ctf.star Select/job007/",
        )
    )
    made["Select/job007/job.star"] = project.loop(
        "joboptions_values",
        ["rlnJobOptionVariable", "rlnJobOptionValue"],
        [("fn_mic", "CtfFind/job003/micrographs_ctf.star")],
    ).encode()
    made["Select/job007/micrographs.star"] = project.loop(
        "micrographs", ["rlnMicrographName"], [("MotionCorr/job002/Movies/lattice_12_X+1Y+002.mrc",)]
    ).encode()
    post(project.write(tmp_path / "relion", made))
    rows = session.runs.get().micrograph_rows.order_by("pk")
    assert [row.rejected for row in rows] == [True, False, True]
    assert [row.exposure.foil_hole for row in rows] == [f"lattice_12_X+1Y+00{number}" for number in (1, 2, 3)]
