"""From files to the site: everything once, whatever fails in between."""

import builtins
import io
import random
import time

import numpy as np
import pytest
from emhub_agent import Client, Conflict, NotAuthorised, Unreachable
from emhub_agent.readers.base import Picture, Reader, RunNews, SessionNews
from emhub_agent.readers.relion import RelionReader
from emhub_agent.sync import Sync
from PIL import Image

from . import growing, project
from .growing import assert_ends_as_one_clean_pass, grow, state
from .site import SESSION, TOKEN, Site


def agent(site, root, **options):
    return Sync(RelionReader(str(root), key="p"), Client(site.url, TOKEN, attempts=50), SESSION, **options)


def settle(site, root):
    """Look, as often as it takes for files written this moment to be believed."""
    return growing.settle(lambda: RelionReader(str(root), key="p"), site)


@pytest.fixture
def clean():
    """The state after one undisturbed pass over a project."""
    sites = []

    def passed(root):
        site = Site().start()
        sites.append(site)
        settle(site, root)
        return state(site)

    yield passed
    for site in sites:
        site.stop()


def test_one_pass_sends_everything(site, tmp_path):
    root = project.write(tmp_path, project.files(count=6, status="Succeeded"))
    sync = agent(site, root)
    sync.numbers()
    assert not site.runs[1].images
    sync.pictures()
    [run] = site.runs.values()
    assert run.fields["status"] == "finished"
    assert len(run.micrographs) == 6
    assert len(run.classes) == 3
    assert len(run.images) == 6 + 6 + 3
    assert all(row["micrograph_image"] and row["psd_image"] for row in run.micrographs.values())
    assert [row["particles"] for row in run.micrographs.values()] == [4] * 6
    assert sync.counts.rows["micrographs"] == {"created": 6, "updated": 0, "unchanged": 0, "refused": 0}


def test_numbers_go_before_pictures(site, tmp_path):
    sync = agent(site, project.write(tmp_path, project.files()), batch=2)
    sync.numbers()
    sync.pictures()
    kinds = [path.rstrip("/").rsplit("/", 1)[1] for _, path in site.calls]
    posts = [kind for (method, _), kind in zip(site.calls, kinds, strict=True) if method == "POST"]
    assert posts.count("micrographs") == 3
    assert "micrographs" not in posts[posts.index("images") :]


def test_a_second_start_changes_nothing_and_draws_nothing(site, tmp_path):
    root = project.write(tmp_path, project.files(status="Succeeded"))
    settle(site, root)
    before = state(site)
    site.calls.clear()
    sync = settle(site, root)
    assert state(site) == before
    assert not [path for method, path in site.calls if path.endswith("/images/")]
    assert sync.counts.rows["micrographs"] == {"created": 0, "updated": 0, "unchanged": 6, "refused": 0}
    assert sync.counts.rows["images"]["unchanged"] == 6 + 6 + 3


def test_an_idle_look_asks_the_site_nothing(site, tmp_path):
    sync = settle(site, project.write(tmp_path, project.files(status="Succeeded")))
    asked = site.asked
    for _ in range(5):
        sync.numbers()
        sync.pictures()
    assert site.asked == asked


def test_a_running_run_is_kept_alive(site, tmp_path, monkeypatch):
    sync = settle(site, project.write(tmp_path, project.files(status="Running")))
    asked = site.asked
    monkeypatch.setattr("emhub_agent.sync.HEARTBEAT", -1)
    sync.numbers()
    assert site.asked == asked + 1
    assert site.calls[-1] == ("PATCH", "/api/v1/runs/1/")


def test_a_refused_item_is_reported_and_the_rest_goes_on(site, tmp_path, caplog):
    root = project.write(tmp_path, project.files(count=9, status="Succeeded", images=False))
    site.refused_names = {project.movie(2), project.movie(7)}
    sync = settle(site, root)
    [run] = site.runs.values()
    assert set(run.micrographs) == {project.movie(number) for number in (1, 3, 4, 5, 6, 8, 9)}
    assert sync.counts.rows["micrographs"]["refused"] == 2
    assert sorted(event["text"] for event in run.events) == [
        f"The site refused {project.movie(number)}: name: not a name" for number in (2, 7)
    ]
    settle(site, root)
    assert len(run.events) == 2  # said once, not at every start


def test_a_refused_value_is_left_out_and_its_micrograph_goes_on(site, tmp_path):
    made = project.files(count=3, status="Succeeded", images=False, iterations=())
    path = "CtfFind/job003/micrographs_ctf.star"
    root = project.write(tmp_path, {**made, path: made[path].replace(b"3.142857", b"1000.0")})
    settle(site, root)
    row = site.runs[1].micrographs[project.movie(2)]
    assert "ctf_resolution" not in row
    assert (row["defocus_u"], row["particles"]) == (12137, 4)
    [event] = site.runs[1].events
    assert event["text"] == f"The site refused {project.movie(2)}: ctf_resolution: out of range"


def test_a_site_that_does_not_say_which_item_is_found_out(site, tmp_path):
    root = project.write(tmp_path, project.files(count=9, status="Succeeded", images=False))
    site.refused_names, site.is_vague = {project.movie(5)}, True
    settle(site, root)
    assert len(site.runs[1].micrographs) == 8


class TestSecondNames:
    """The site keeps the first name it is told of a movie; after a restart the agent may know another."""

    def guessed(self, site, tmp_path, monkeypatch, count=9):
        """Post micrographs under guessed names; return the project, in which their movies are named now."""
        made = project.files(count=count, iterations=())
        later = {
            path: made.pop(path)
            for path in list(made)
            if path.startswith(("Import", "CtfFind/job003/Movies"))
            or (path.startswith("MotionCorr/job002/Movies") and path.endswith(".star"))
        }
        with monkeypatch.context() as patch:
            patch.setattr("emhub_agent.readers.relion.GUESS_AFTER", 0.0)
            settle(site, project.write(tmp_path, made))
        [run] = site.runs.values()
        assert list(run.micrographs) == [f"Movies/grid_{number:03d}.mrc" for number in range(1, count + 1)]
        return project.write(tmp_path, later), made

    def test_no_micrograph_is_lost_and_none_is_there_twice(self, site, tmp_path, monkeypatch, clean, caplog):
        root, _ = self.guessed(site, tmp_path, monkeypatch)
        sync = settle(site, root)
        found, expected = state(site)["runs"]["p/Import/job001"], clean(root)["runs"]["p/Import/job001"]
        by_movie = {name.replace(".mrc", ".tiff"): row for name, row in found["micrographs"].items()}
        for row in by_movie.values():
            row["name"] = row["name"].replace(".mrc", ".tiff")
        assert by_movie == expected["micrographs"]
        assert all(row["micrograph_image"] and row["psd_image"] for row in by_movie.values())
        [run] = site.runs.values()
        assert [len(sent) for sent in run.images.values()] == [1] * len(run.images)
        assert sync.counts.refused == 0
        assert run.events == []
        told = [line for line in caplog.messages if "grid_" in line]
        assert len(told) == 1
        assert "Movies/grid_001.tiff as Movies/grid_001.mrc" in told[0]

    def test_what_comes_later_goes_under_the_same_name(self, site, tmp_path, monkeypatch):
        root, made = self.guessed(site, tmp_path, monkeypatch)
        sync = settle(site, root)
        path = "CtfFind/job003/micrographs_ctf.star"
        project.write(root, {path: made[path].replace(b"12137.000000", b"12138.000000")})
        site.calls.clear()
        sync.numbers()
        [run] = site.runs.values()
        assert run.micrographs["Movies/grid_002.mrc"]["defocus_u"] == 12138
        assert site.calls == [("POST", "/api/v1/runs/1/micrographs/")]

    def test_the_other_way_round(self, site, tmp_path, monkeypatch):
        """The movies' names were known, and the files that told them are gone."""
        made = project.files(count=6, images=False, iterations=())
        settle(site, project.write(tmp_path, made))
        for path in made:
            if path.startswith(("Import", "MotionCorr/job002/Movies")):
                (tmp_path / path).unlink()
        path = "CtfFind/job003/micrographs_ctf.star"
        project.write(tmp_path, {path: made[path].replace(b"12137.000000", b"12138.000000")})
        monkeypatch.setattr("emhub_agent.readers.relion.GUESS_AFTER", 0.0)
        settle(site, tmp_path)
        [run] = site.runs.values()
        assert list(run.micrographs) == [project.movie(number) for number in range(1, 7)]
        assert run.micrographs[project.movie(2)]["defocus_u"] == 12138

    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_is_lost_while_a_project_grows_and_names_are_guessed(
        self, site, tmp_path, monkeypatch, clean, seed
    ):
        monkeypatch.setattr("emhub_agent.readers.relion.GUESS_AFTER", 0.0)
        chance = random.Random(seed)
        site.fail_every = 3
        sync = None
        made = project.files(count=8, images=False, iterations=())
        for _ in grow(made, tmp_path, seed, first=["default_pipeline.star"], window=8):
            if sync is None or chance.random() < 0.3:
                sync = agent(site, tmp_path)  # started anew
            sync.numbers()
        site.fail_every = 0
        sync = settle(site, tmp_path)

        def by_movie(found):
            rows = found["runs"]["p/Import/job001"]["micrographs"].values()
            return {row["name"].rsplit(".", 1)[0]: {**row, "name": None} for row in rows}

        assert by_movie(state(site)) == by_movie(clean(tmp_path))
        [run] = site.runs.values()
        assert len(run.micrographs) == 8
        assert sync.counts.refused == 0
        assert run.events == []

    def test_two_movies_that_the_site_takes_for_one_are_not_mixed_up(self, site):
        """Both are in the project, so that neither is another name of the other."""
        movies = {"Movies/a.tiff": {"defocus_u": 1.0}, "Movies/a.eer": {"defocus_u": 2.0}}

        def follow(names):
            news = RunNews("p", {"software": "Tests"}, "running", {name: movies[name] for name in names})
            sync = Sync(Giving([news]), Client(site.url, TOKEN), SESSION)
            sync.numbers()
            return sync

        follow(["Movies/a.tiff"])
        sync = follow(["Movies/a.eer", "Movies/a.tiff"])
        [run] = site.runs.values()
        assert {name: row["defocus_u"] for name, row in run.micrographs.items()} == {"Movies/a.tiff": 1.0}
        assert sync.counts.rows["micrographs"]["refused"] == 1
        assert [event["text"] for event in run.events] == [
            "The site refused Movies/a.eer: name: This name means the same exposure as 'Movies/a.tiff'."
        ]

    def test_a_micrograph_that_is_renamed_is_not_lost(self, site):
        run = {"key": "p", "info": {"software": "Tests"}, "status": "running"}
        looks = [
            [RunNews(**run, micrographs={"Movies/a.mrc": {"defocus_u": 1.0, "defocus_v": 1.0}})],
            [RunNews(**run, micrographs={"Movies/a.mrc": {"defocus_u": None, "defocus_v": None}})],
            [RunNews(**run, micrographs={"Movies/a.tiff": {"defocus_u": 2.0}})],
        ]
        sync = Sync(Giving(*looks), Client(site.url, TOKEN), SESSION)
        for _ in looks:
            sync.numbers()
        [row] = site.runs[1].micrographs.values()
        assert (row["name"], row["defocus_u"], row["defocus_v"]) == ("Movies/a.mrc", 2.0, None)
        assert sync.counts.refused == 0

    def test_a_name_is_given_back_to_the_movie_that_turns_up(self, site):
        """Its row came late: until then another movie passed for it."""
        run = {"key": "p", "info": {"software": "Tests"}, "status": "running"}
        first = Sync(
            Giving([RunNews(**run, micrographs={"Movies/a.tiff": {"defocus_u": 1.0}})]),
            Client(site.url, TOKEN),
            SESSION,
        )
        first.numbers()
        looks = [
            [RunNews(**run, micrographs={"Movies/a.eer": {"defocus_u": 2.0}})],
            [RunNews(**run, micrographs={"Movies/a.tiff": {"defocus_u": 1.0}})],
            [RunNews(**run, micrographs={"Movies/a.eer": {"defocus_u": 3.0}})],
        ]
        sync = Sync(Giving(*looks), Client(site.url, TOKEN), SESSION)
        for _ in looks:
            sync.numbers()
        [kept] = site.runs.values()
        assert {name: row["defocus_u"] for name, row in kept.micrographs.items()} == {"Movies/a.tiff": 1.0}
        assert sync.counts.rows["micrographs"]["refused"] == 1


def test_an_archived_session_ends_it(site, tmp_path):
    sync = agent(site, project.write(tmp_path, project.files()))
    site.is_archived = True
    with pytest.raises(Conflict, match="archived"):
        sync.numbers()


def test_a_run_deleted_on_the_site_is_posted_anew(site, tmp_path, clean):
    root = project.write(tmp_path, project.files(status="Succeeded"))
    sync = settle(site, root)
    site.runs.clear()
    path = root / "CtfFind/job003/micrographs_ctf.star"
    path.write_bytes(path.read_bytes().replace(b"12000.000000", b"12001.000000"))
    for _ in range(3):
        sync.numbers()
        sync.pictures()
    assert state(site) == clean(root)


def test_batches_hold_at_most_what_was_asked(site, tmp_path):
    root = project.write(tmp_path, project.files(count=23, images=False, iterations=()))
    agent(site, root, batch=5).numbers()
    assert site.largest_batch == 5
    assert len(site.runs[1].micrographs) == 23


def test_many_picks_make_smaller_batches(site, tmp_path, monkeypatch):
    monkeypatch.setattr("emhub_agent.sync.PICKS_PER_BATCH", 10)
    root = project.write(tmp_path, project.files(count=9, picks=4, images=False, iterations=()))
    agent(site, root).numbers()
    assert site.largest_batch == 3
    assert len(site.runs[1].micrographs) == 9


def test_pictures_stop_when_their_time_is_up(site, tmp_path):
    sync = agent(site, project.write(tmp_path, project.files(status="Succeeded")))
    sync.numbers()
    assert sync.pictures(until=0) is False
    assert not site.runs[1].images
    assert sync.pictures() is True
    assert len(site.runs[1].images) == 15


def test_a_broken_picture_is_left_out_until_its_file_changes(site, tmp_path):
    made = project.files(count=3, status="Succeeded")
    path = "MotionCorr/job002/Movies/grid_002.mrc"
    root = project.write(tmp_path, {**made, path: made[path][:1500]})
    sync = settle(site, root)
    rows = site.runs[1].micrographs
    assert [bool(row["micrograph_image"]) for row in rows.values()] == [True, False, True]
    project.write(root, {path: made[path]})
    sync.numbers()
    sync.pictures()
    assert all(row["micrograph_image"] for row in rows.values())


def test_a_failure_is_told_once_however_often_the_agent_starts(site, tmp_path):
    root = project.write(tmp_path, project.files(count=1, images=False, iterations=()))
    project.write(
        root, {"AutoPick/job004/RELION_JOB_EXIT_FAILURE": b"", "AutoPick/job004/run.err": b"out of memory\n"}
    )
    for _ in range(3):
        settle(site, root)
    [event] = site.runs[1].events
    assert event["text"] == "AutoPick/job004 failed: out of memory"


@pytest.mark.parametrize("seed", range(3))
def test_a_growing_project_ends_as_after_one_clean_pass(tmp_path, seed):
    """Cuts in the middle of rows, restarts, and a site that fails one call in three."""
    made = project.files(count=5, classes=2)
    steps = grow(made, tmp_path, seed, first=["default_pipeline.star"])
    assert_ends_as_one_clean_pass(lambda: RelionReader(str(tmp_path), key="p"), steps, seed)


class Watcher(Reader):
    """Tells of the session what the test puts into `news`."""

    software = "Watcher"

    def __init__(self, place="", key=None, settings=None):
        self.news = SessionNews({})

    def look(self):
        news, self.news = self.news, SessionNews(self.news.fields)
        return [news]

    def forget(self, key):
        raise AssertionError("there is no run")


class Giving(Reader):
    """Gives at each look what the test wrote down for it."""

    software = "Tests"

    def __init__(self, *looks):
        self.looks = list(looks)

    def look(self):
        return self.looks.pop(0)

    def forget(self, key):
        raise AssertionError("the run is there")


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
def watching(site, watcher):
    return Sync(watcher, Client(site.url, TOKEN, attempts=50), SESSION, batch=3)


def test_a_watcher_corrects_the_session_and_posts_exposures(site, watcher, watching):
    watcher.news = SessionNews(
        {"pixel_size": 0.83, "data_movies": 7},
        {f"Movies/a_{number}.tiff": {"stage_x": float(number)} for number in range(7)},
    )
    watching.numbers()
    assert (site.sessions[SESSION]["pixel_size"], site.sessions[SESSION]["data_movies"]) == (0.83, 7)
    assert [row["stage_x"] for row in site.exposures.values()] == [0, 1, 2, 3, 4, 5, 6]
    assert site.largest_batch == 3
    assert watching.counts.rows["exposures"]["created"] == 7
    assert not site.runs
    asked = site.asked
    watching.numbers()
    assert site.asked == asked


def test_of_a_session_only_what_changed_is_sent(site, watcher, watching):
    watcher.news = SessionNews({"pixel_size": 0.83, "last_file_at": "2026-11-23T05:00:00+01:00"})
    watching.numbers()
    site.sessions[SESSION]["pixel_size"] = 0.9  # corrected by people
    watcher.news = SessionNews({"pixel_size": 0.83, "last_file_at": "2026-11-23T06:00:00+01:00"})
    watching.numbers()
    assert site.sessions[SESSION]["pixel_size"] == 0.9
    assert site.sessions[SESSION]["last_file_at"] == "2026-11-23T06:00:00+01:00"


def test_what_the_site_knows_of_a_session_is_not_sent_again_after_a_start(site, watcher, watching):
    site.sessions[SESSION].update(pixel_size=0.83, last_file_at="2026-11-23T04:00:00Z")
    watcher.news = SessionNews({"pixel_size": 0.83, "last_file_at": "2026-11-23T05:00:00+01:00"})
    watching.acquisition.last_write = time.monotonic()
    watching.numbers()
    assert [method for method, _ in site.calls] == ["GET"]


def test_a_refused_field_of_the_session_does_not_keep_the_others_away(site, watcher, watching, caplog):
    site.refused_fields = {"total_dose"}
    watcher.news = SessionNews({"total_dose": -1, "pixel_size": 0.83, "frames": 50})
    for _ in range(3):
        watching.numbers()
    assert (site.sessions[SESSION]["pixel_size"], site.sessions[SESSION]["frames"]) == (0.83, 50)
    assert site.sessions[SESSION]["total_dose"] is None
    assert caplog.text.count("total_dose: out of range") == 1


def test_a_refused_exposure_is_reported_and_the_rest_goes_on(site, watcher, watching, caplog):
    site.refused_names = {"b"}
    watcher.news = SessionNews({}, {"a": {"stage_x": 1e9, "stage_y": 2.0}, "b": {}, "c": {"stage_x": 3.0}})
    watching.numbers()
    rows = {name: row for (_, name), row in site.exposures.items()}
    assert set(rows) == {"a", "c"}
    assert (rows["a"].get("stage_x"), rows["a"]["stage_y"]) == (None, 2.0)
    assert watching.counts.rows["exposures"] == {"created": 2, "updated": 0, "unchanged": 0, "refused": 2}
    assert "refused b: name: not a name" in caplog.text


def test_an_idle_watcher_finds_out_that_the_session_is_archived(site, watcher, watching, monkeypatch):
    watcher.news = SessionNews({"frames": 50})
    watching.numbers()
    site.is_archived = True
    watching.numbers()
    monkeypatch.setattr("emhub_agent.sync.HEARTBEAT", -1)
    with pytest.raises(Conflict, match="archived"):
        watching.numbers()


def test_refusals_by_the_thousand_do_not_fill_the_runs_events(site, tmp_path):
    root = project.write(tmp_path, project.files(count=60, status="Succeeded", images=False, iterations=()))
    site.refused_names = {project.movie(number) for number in range(1, 51)}
    for _ in range(2):
        sync = settle(site, root)
    assert sync.counts.rows["micrographs"]["refused"] == 50
    texts = [event["text"] for event in site.runs[1].events]
    assert len(texts) == 21
    assert "The site refused more items" in texts[-1]


class Fetcher(Watcher):
    """One run of a program that gives its pictures over the network."""

    def __init__(self, fetch):
        self.fetch = fetch

    def look(self):
        fetch, self.fetch = self.fetch, None
        news = RunNews("k", {"software": "Fetcher"}, "running", {"a": {}} if fetch else {})
        if fetch:
            news.pictures = [Picture("micrograph", "a.mrc", micrograph="a", fetch=fetch, section=2)]
        return [news]


def test_pictures_may_be_fetched(site):
    stack = project.mrc(np.stack([np.zeros((8, 8)), np.eye(8)]).astype(np.float32))
    sync = Sync(Fetcher(lambda: stack), Client(site.url, TOKEN), SESSION)
    sync.numbers()
    sync.pictures()
    [[data]] = site.runs[1].images.values()
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert drawn[0, 0] > drawn[0, 4]  # the second section


def test_a_picture_that_cannot_be_fetched_is_tried_a_few_times(site):
    asked = []

    def fetch():
        asked.append(1)
        raise OSError("the server is busy")

    sync = Sync(Fetcher(fetch), Client(site.url, TOKEN), SESSION)
    for _ in range(10):
        sync.numbers()
        sync.pictures()
    assert len(asked) == 3
    assert not site.runs[1].images
    assert sync.waiting == 0


class Forgetful(RelionReader):
    """Loses every third micrograph of a look after its first."""

    def look(self):
        news = super().look()
        looks = self.__dict__.setdefault("looks", [])
        looks.append(1)
        for run in news:
            if len(looks) > 1:
                for name in list(run.micrographs)[::3]:
                    del run.micrographs[name]
        return news


def test_the_harness_notices_a_reader_that_loses_something(tmp_path):
    made = project.files(count=5, classes=2, images=False)
    steps = grow(made, tmp_path, 1, first=["default_pipeline.star"])
    with pytest.raises(AssertionError):
        assert_ends_as_one_clean_pass(lambda: Forgetful(str(tmp_path), key="p"), steps, 1)


def test_rows_arrive_while_they_are_written(site, tmp_path):
    """Row by row, cut in the middle of each: a row is on the site as soon as its line has ended."""
    made = project.files(count=4, images=False, iterations=())
    path = "CtfFind/job003/micrographs_ctf.star"
    data = made.pop(path)
    root = project.write(tmp_path, made)
    sync = agent(site, root)
    starts = [data.index(f"MotionCorr/job002/Movies/grid_{number:03d}".encode()) for number in range(1, 5)]
    for done, start in enumerate(starts):
        project.write(root, {path: data[: start + 60]})
        sync.numbers()
        rows = site.runs[1].micrographs
        assert [name for name, row in rows.items() if "defocus_u" in row] == [
            project.movie(number) for number in range(1, done + 1)
        ]
    project.write(root, {path: data})
    sync.numbers()
    assert all("defocus_u" in row for row in site.runs[1].micrographs.values())


def test_a_picture_of_what_the_site_does_not_know_is_refused_not_taken_for_a_lost_run(site, tmp_path):
    sync = agent(site, project.write(tmp_path, project.files(count=2, status="Succeeded")))
    sync.numbers()
    del site.runs[1].micrographs[project.movie(1)]
    sync.pictures()
    sync.numbers()
    assert sync.counts.rows["images"] == {"created": 2 + 3, "updated": 0, "unchanged": 0, "refused": 2}
    assert len(site.runs[1].micrographs) == 1


def test_what_was_not_acknowledged_is_still_to_be_sent(site, tmp_path, clean):
    """A caller that gives up on the site and comes back later, as opposed to one that waits in the call."""
    root = project.write(tmp_path, project.files(status="Succeeded"))
    sync = Sync(RelionReader(str(root), key="p"), Client(site.url, TOKEN, attempts=1), SESSION, batch=2)
    site.fail_every = 3
    failures = 0
    for _ in range(100):
        try:
            sync.numbers()
            sync.pictures()
        except Unreachable:
            failures += 1
        else:
            break
    assert failures > 5
    site.fail_every = 0
    assert state(site) == clean(root)


@pytest.fixture
def unreadable(monkeypatch):
    """Files whose names are in this set cannot be read, as on a share that is away."""
    names = set()
    original = builtins.open

    def refused(path, *more, **options):
        if any(str(path).endswith(name) for name in names):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *more, **options)

    monkeypatch.setattr(builtins, "open", refused)
    return names


@pytest.mark.parametrize(
    "name",
    [
        "CtfFind/job003/micrographs_ctf.star",
        "AutoPick/job004/Movies/grid_002_autopick.star",
        "AutoPick/job004/autopick.star",
        "MotionCorr/job002/Movies/grid_001.mrc",
        "Class2D/job006/run_it002_data.star",
        "AutoPick/job004/job.star",
    ],
)
def test_a_file_that_cannot_be_read_holds_up_no_other_and_is_read_once_it_can(
    site, tmp_path, clean, unreadable, name, monkeypatch
):
    monkeypatch.setattr("emhub_agent.sync.TRY_AGAIN", 0.0)
    root = project.write(tmp_path, project.files(count=4, status="Succeeded"))
    unreadable.add(name)
    sync = agent(site, root)
    for _ in range(2):
        sync.numbers()
        sync.pictures()
    assert len(site.runs[1].micrographs) == 4
    assert sum("motion_total" in row for row in site.runs[1].micrographs.values()) == 4
    unreadable.clear()
    for _ in range(2):
        sync.numbers()
        sync.pictures()
    assert state(site) == clean(root)


def test_a_token_that_expires_while_pictures_are_sent_loses_none(site, tmp_path):
    sync = agent(site, project.write(tmp_path, project.files(count=3, status="Succeeded")))
    sync.numbers()
    site.is_refusing_token = True
    for _ in range(3):
        with pytest.raises(NotAuthorised):
            sync.pictures()
    site.is_refusing_token = False
    sync.pictures()
    assert len(site.runs[1].images) == 3 + 3 + 3


def test_an_idle_look_opens_no_file(site, tmp_path, monkeypatch):
    sync = settle(site, project.write(tmp_path, project.files(status="Succeeded")))
    opened = []
    original = builtins.open

    def noted(path, *more, **options):
        opened.append(str(path))
        return original(path, *more, **options)

    monkeypatch.setattr(builtins, "open", noted)
    sync.numbers()
    assert opened == []
    path = tmp_path / "CtfFind/job003/micrographs_ctf.star"
    path.write_bytes(path.read_bytes() + b"\n")
    opened.clear()
    sync.numbers()
    assert set(opened) == {str(path)}
