"""From files to the site: everything once, whatever fails in between."""

import random

import pytest
from emhub_agent import Client, Conflict, Unreachable, star
from emhub_agent.readers.relion import RelionReader
from emhub_agent.sync import Sync

from . import project
from .site import SESSION, TOKEN, Site


def agent(site, root, **options):
    return Sync(RelionReader(str(root), key="p"), Client(site.url, TOKEN, attempts=50), SESSION, **options)


def settle(site, root):
    """Look, as often as it takes for files written this moment to be believed."""
    sync = agent(site, root)
    for _ in range(3):
        sync.numbers()
        sync.pictures()
    assert sync.waiting == 0
    return sync


def state(site):
    """What people see in the end, without how it came to be."""
    runs = {}
    for run in site.runs.values():
        rows = {}
        for name, row in run.micrographs.items():
            rows[name] = {key: value for key, value in row.items() if key != "revision"}
        classes = {
            key: {name: value for name, value in row.items() if name != "revision"}
            for key, row in run.classes.items()
            if key[1] == max(other[1] for other in run.classes)
        }
        fields = {key: value for key, value in run.fields.items() if key != "id"}
        events = sorted((event["level"], event["text"], event["at"]) for event in run.events)
        runs[run.fields["key"]] = (fields, rows, classes, events)
    return runs


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


def grow(made, root, seed):
    """Write the files a piece at a time, ending in the middle of rows and bytes; yield after each piece."""
    chance = random.Random(seed)
    project.write(root, {"default_pipeline.star": made["default_pipeline.star"]})
    left = [(path, data) for path, data in made.items() if path != "default_pipeline.star"]
    # Tables grow beside each other, as they do while a pipeline runs; each file itself grows from its start.
    written = dict.fromkeys(made, 0)
    window = 4
    while left:
        path, data = left[chance.randrange(min(window, len(left)))]
        written[path] += chance.randint(1, max(200, len(data) // 2))
        project.write(root, {path: data[: written[path]]})
        if written[path] >= len(data):
            left.remove((path, data))
        yield


@pytest.mark.parametrize("seed", range(3))
def test_a_growing_project_ends_as_after_one_clean_pass(site, tmp_path, clean, seed):
    """Cuts in the middle of rows, restarts, and a site that fails one call in three."""
    made = project.files(count=5, classes=2)
    root = tmp_path / "project"
    chance = random.Random(100 + seed)
    site.fail_every = 3
    sync = None
    for _ in grow(made, root, seed):
        if sync is None or chance.random() < 0.1:
            sync = agent(site, root)  # killed and started again
        sync.numbers()
        if chance.random() < 0.3:
            sync.pictures(until=None if chance.random() < 0.5 else 0)
    for _ in range(3):
        sync.numbers()
        sync.pictures()
    site.fail_every = 0
    assert state(site) == clean(root)


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


def test_an_idle_look_opens_no_file(site, tmp_path, monkeypatch):
    sync = settle(site, project.write(tmp_path, project.files(status="Succeeded")))
    opened = []
    original = star.whole_lines
    monkeypatch.setattr(star, "whole_lines", lambda path, *more: opened.append(path) or original(path, *more))
    sync.numbers()
    assert opened == []
    path = tmp_path / "CtfFind/job003/micrographs_ctf.star"
    path.write_bytes(path.read_bytes() + b"\n")
    sync.numbers()
    assert opened == [str(path)]
