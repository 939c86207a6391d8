"""Many projects at once: found through the site, kept apart, taken up and dropped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from emhub_agent import Client, watching
from emhub_agent.cli import main
from emhub_agent.config import parse
from emhub_agent.readers import READERS
from emhub_agent.readers.base import Reader, RunNews
from emhub_agent.watching import Followers, filled, found

from . import project
from .site import SESSION, TOKEN, Site
from .test_cli import said_until, wait_for


def configured(site, *watches, **top):
    return parse({"site": site.url, "interval": 0.1, **top, "watch": list(watches)})


@pytest.fixture
def write(tmp_path, site):
    """Writes a configuration file and returns its path."""

    def one(text, **top):
        path = tmp_path / "emhub-agent.toml"
        path.write_text(f'site = "{site.url}"\ninterval = 0.1\n{text}')
        return str(path)

    return one


def relion(place, session=SESSION, **more):
    watch = {"program": "relion", "place": str(place), **more}
    return {**watch, "session": session} if session else watch


class Following:
    """Followers in a thread, for tests that look on."""

    def __init__(self, config):
        from emhub_agent.logs import Display

        self.followers = Followers(config, Display())
        self.thread = threading.Thread(target=self.followers.run)
        self.thread.start()

    def stop(self):
        self.followers.stopping.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def follow(monkeypatch):
    monkeypatch.setattr(watching, "ASK_AGAIN", 0.1)
    monkeypatch.setattr(watching, "RETRY", 0.1)
    started = []

    def start(config):
        started.append(Following(config))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class TestFinding:
    def sessions(self, site, **rows):
        site.sessions = {name: site.session(name, **fields) for name, fields in rows.items()}

    def names(self, site, *watches, **top):
        with Client(site.url, TOKEN) as client:
            return [watch.session for watch in found(client, configured(site, *watches, **top))]

    def test_sessions_that_run_are_found(self, site):
        self.sessions(site, a={}, b={"status": "pending"}, c={"status": "archived"})
        assert self.names(site, relion("/data/{session}", None)) == ["a", "b"]

    def test_those_of_the_named_microscopes(self, site):
        self.sessions(site, a={}, b={"microscope": "glacios"})
        assert self.names(site, relion("/data/{session}", None, microscopes=["Glacios"])) == ["b"]

    def test_those_that_ended_lately_still_are(self, site):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.sessions(
            site,
            a={"status": "finished", "end": now},
            b={"status": "finished", "end": "2020-01-01T00:00:00Z"},
            c={"status": "failed", "end": now},
        )
        assert self.names(site, relion("/data/{session}", None)) == ["a", "c"]
        assert self.names(site, relion("/data/{session}", None), finished_days=0) == []

    def test_beside_those_that_are_given(self, site):
        self.sessions(site, a={})
        assert self.names(site, relion("/x", "z"), relion("/data/{session}", None)) == ["z", "a"]

    def test_places_are_filled_in(self):
        row = {"name": "s-1", "microscope": "krios1", "data_path": "/data/k/s-1", "start": None}
        assert filled("/data/{microscope}/{session}/relion", row) == "/data/krios1/s-1/relion"
        assert filled("{data_path}/relion", row) == "/data/k/s-1/relion"
        assert filled("/data/{date}/{session}", row) is None
        row["start"] = "2026-11-23T12:00:00Z"
        assert filled("/data/{date}/{session}", row) == "/data/2026-11-23/s-1"

    @pytest.mark.parametrize("name", ["../other", "a/b", "..", "", None])
    def test_what_the_site_says_leads_nowhere_else(self, name):
        assert filled("/data/{session}", {"name": name}) is None
        assert filled("{data_path}/x", {"data_path": "/data/../etc"}) is None


class TestFollowing:
    def test_several_projects_are_followed_at_once(self, site, tmp_path, follow):
        site.sessions["other"] = site.session("other")
        for name in (SESSION, "other"):
            project.write(tmp_path / name, project.files(count=3, images=False, iterations=()))
        follow(configured(site, relion(tmp_path / SESSION), relion(tmp_path / "other", "other")))
        wait_for(lambda: sorted(len(run.micrographs) for run in list(site.runs.values())) == [3, 3])

    def test_new_sessions_are_taken_up_and_archived_ones_dropped(self, site, tmp_path, follow):
        made = project.files(count=2, images=False, iterations=())
        project.write(tmp_path / SESSION, made)
        one = follow(configured(site, relion(tmp_path / "{session}", None)))
        wait_for(lambda: site.runs and len(site.runs[1].micrographs) == 2)
        project.write(tmp_path / "later", made)
        site.sessions["later"] = site.session("later")
        wait_for(lambda: len(site.runs) == 2 and len(site.runs[2].micrographs) == 2)
        site.sessions[SESSION]["status"] = "archived"
        wait_for(lambda: [f.watch.session for f in one.followers.followers.values()] == ["later"])

    def test_a_project_that_does_not_exist_yet_is_waited_for(self, site, tmp_path, follow):
        follow(configured(site, relion(tmp_path / "later")))
        time.sleep(0.3)
        assert not site.runs
        project.write(tmp_path / "later", project.files(count=2, images=False, iterations=()))
        wait_for(lambda: site.runs and len(site.runs[1].micrographs) == 2)

    def test_a_folder_that_hangs_holds_up_no_other(self, site, tmp_path, follow, monkeypatch):
        free = threading.Event()

        class Hanging(Reader):
            software = "Hanging"

            def __init__(self, place, key=None, settings=None):
                pass

            def look(self):
                free.wait(30)
                return []

            def forget(self, key):
                pass

        monkeypatch.setitem(READERS, "hanging", Hanging)
        root = project.write(tmp_path / "p", project.files(count=2, images=False, iterations=()))
        watches = [{**relion("/dead"), "program": "hanging"}, relion(root)]
        follow(configured(site, *watches))
        try:
            wait_for(lambda: site.runs and len(site.runs[1].micrographs) == 2)
        finally:
            free.set()

    def test_a_mistake_in_a_reader_is_logged_and_it_is_begun_anew(self, site, follow, monkeypatch, caplog):
        looks = []

        class Faulty(Reader):
            software = "Faulty"

            def __init__(self, place, key=None, settings=None):
                pass

            def look(self):
                looks.append(1)
                if len(looks) == 1:
                    raise KeyError("oh")
                return [RunNews("k", {"software": "Faulty"}, "running", {"a": {"defocus_u": 1.0}})]

            def forget(self, key):
                pass

        monkeypatch.setitem(READERS, "faulty", Faulty)
        follow(configured(site, {**relion("/x"), "program": "faulty"}))
        wait_for(lambda: site.runs and site.runs[1].micrographs)
        assert "Something went wrong that should not" in caplog.text

    def test_a_new_token_counts_without_a_restart(self, site, tmp_path, follow):
        root = project.write(tmp_path / "p", project.files(count=2, images=False, iterations=()))
        (tmp_path / "token").write_text("expired")
        follow(configured(site, relion(root), token_file=str(tmp_path / "token")))
        wait_for(lambda: site.asked > 1)
        assert not site.runs
        (tmp_path / "token").write_text(TOKEN)
        wait_for(lambda: site.runs and len(site.runs[1].micrographs) == 2)

    def test_an_archived_session_ends_its_watch_and_the_last_one_the_agent(self, site, tmp_path, follow):
        site.sessions[SESSION]["status"] = "archived"
        root = project.write(tmp_path / "p", project.files(count=2))
        one = follow(configured(site, relion(root)))
        wait_for(lambda: not one.thread.is_alive())
        assert not site.runs


def run(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "emhub_agent", *arguments],
        env={**os.environ, "EMHUB_TOKEN": TOKEN},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


class TestCommands:
    def test_once_sends_everything_and_ends(self, site, tmp_path, write, capsys):
        root = project.write(tmp_path / "p", project.files(status="Succeeded"))
        assert main(["once", write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"{SESSION} (relion {root})"
        assert out[1] == "  micrographs: 6 created, 0 updated, 0 unchanged"
        assert len(site.runs[1].images) == 15

    def test_once_goes_on_after_a_watch_that_fails(self, site, tmp_path, write, capsys):
        root = project.write(tmp_path / "p", project.files(status="Succeeded", images=False))
        text = '[[watch]]\nprogram="relion"\nplace="/nowhere"\nsession="{0}"\n'
        text += '[[watch]]\nprogram="relion"\nplace="{1}"\nsession="{0}"\n'
        assert main(["once", write(text.format(SESSION, root))]) == 3
        assert "no folder /nowhere" in capsys.readouterr().err
        assert len(site.runs[1].micrographs) == 6

    def test_run_watches_until_a_signal_and_logs_for_machines(self, site, tmp_path, write):
        root = project.write(tmp_path / "p", project.files(count=2, images=False, iterations=()))
        agent = run(
            "run", "--log", "json", write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')
        )
        lines = said_until(agent, "Sent")
        agent.send_signal(signal.SIGTERM)
        _out, err = agent.communicate(timeout=20)
        assert agent.returncode == 0, err
        rows = [json.loads(line) for line in [*lines, *err.splitlines()]]
        assert {"time", "level", "message"} <= set(rows[0])
        [sent] = [row for row in rows if row["message"] == "Sent 2 micrographs."]
        assert (sent["session"], sent["watch"]) == (SESSION, f"relion {root}")
        assert rows[-1]["message"] == "Stopped."

    def test_lines_for_people_say_what_they_are_about(self, site, tmp_path, write):
        root = project.write(tmp_path / "p", project.files(count=2, images=False, iterations=()))
        agent = run("run", write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"'))
        lines = said_until(agent, "Sent")
        agent.terminate()
        agent.communicate(timeout=20)
        assert f"INFO {SESSION} (relion {root}): Sent 2 micrographs." in lines[-1]

    def test_a_wrong_configuration_is_said_line_by_line(self, site, write, capsys):
        assert main(["run", write('[[watch]]\nprogram="relon"\nplace="/x"\n')]) == 2
        err = capsys.readouterr().err.splitlines()
        assert err[0] == "emhub-agent: watch 1: there is no program relon; the nearest is relion."
        assert len(err) == 2

    @pytest.mark.parametrize("command", ["run", "once", "check"])
    def test_a_missing_token_is_said(self, site, write, capsys, monkeypatch, command):
        monkeypatch.delenv("EMHUB_TOKEN")
        assert main([command, write('[[watch]]\nprogram="relion"\nplace="/x"\nsession="s"\n')]) == 2
        assert "EMHUB_TOKEN" in capsys.readouterr().err

    def test_killed_again_and_again_nothing_is_lost_or_doubled(self, site, tmp_path, write):
        """SIGKILL on the real process at whatever moment, while the project grows and the site fails."""
        made = project.files(count=12, status="Succeeded")
        root = tmp_path / "p"
        config = write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')
        site.fail_every = 4
        paths = list(made)
        for part in range(4):
            project.write(root, {path: made[path] for path in paths[: (part + 1) * len(paths) // 4 + 1]})
            agent = run("run", config)
            enough = site.asked + 2 + part
            wait_for(lambda enough=enough: site.asked >= enough)
            agent.kill()
            agent.communicate()
        project.write(root, made)
        site.fail_every = 0
        assert main(["once", config]) == 0
        [one] = site.runs.values()
        assert len(one.micrographs) == 12
        assert all(row["particles"] == 4 for row in one.micrographs.values())
        assert len(one.images) == 12 + 12 + 3
        assert one.events == []


class TestCheck:
    def test_it_says_what_would_be_sent_and_stores_nothing(self, site, tmp_path, write, capsys):
        root = project.write(tmp_path / "p", project.files(status="Succeeded"))
        config = write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')
        assert main(["check", config]) == 0
        out = capsys.readouterr().out
        assert "takes the token; running sessions that it sees: 1." in out
        assert "6 micrographs, 6 with picks in files, 15 pictures, 0 events" in out
        assert "Class2D/job006, iteration 2: 3 classes" in out
        assert f"{project.movie(1)}: motion_total 5, " in out
        assert "coordinates (4 points), particles 4" in out
        assert "and 3 more" in out
        assert "Nothing was stored. All is well." in out
        assert not site.runs
        assert not site.exposures

    def test_of_a_run_that_is_known_the_values_are_tried(self, site, tmp_path, write, capsys):
        made = project.files(count=3, status="Succeeded", images=False, iterations=())
        root = project.write(tmp_path / "p", made)
        config = write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')
        assert main(["once", config]) == 0
        path = "CtfFind/job003/micrographs_ctf.star"
        project.write(root, {path: made[path].replace(b"3.142857", b"1000.0")})
        capsys.readouterr()
        revision = site.runs[1].revision
        assert main(["check", config]) == 1
        out = capsys.readouterr().out
        assert f"PROBLEM: the site would refuse {project.movie(2)}: ctf_resolution: out of range" in out
        assert "Problems: 1." in out
        assert site.runs[1].revision == revision

    def test_other_names_of_what_the_site_has_are_no_problem(self, site, tmp_path, write, capsys):
        made = project.files(count=7, status="Succeeded", images=False, iterations=())
        movies = {
            path: made.pop(path)
            for path in list(made)
            if path.startswith(("Import", "MotionCorr/job002/Movies"))
        }
        root = project.write(tmp_path / "p", made)
        config = write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')
        assert main(["once", config]) == 0
        assert "Movies/grid_001.mrc" in site.runs[1].micrographs
        project.write(root, movies)
        capsys.readouterr()
        assert main(["check", config]) == 0
        out = capsys.readouterr().out
        assert "the site would have micrographs: 0 created, 0 updated, 7 unchanged" in out
        assert "All is well." in out

    def test_wrong_names_are_found_before_there_is_a_run(self, site, tmp_path, write, capsys):
        root = project.write(tmp_path / "p", project.files(count=3, images=False, iterations=()))
        site.refused_names = {project.movie(2)}
        assert (
            main(["check", write(f'[[watch]]\nprogram="relion"\nplace="{root}"\nsession="{SESSION}"')]) == 1
        )
        assert f"would refuse {project.movie(2)}: name: not a name" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("place", "session", "said"),
        [("/nowhere", SESSION, "There is no folder /nowhere"), ("/tmp", "nothing", "no such session")],
    )
    def test_what_is_not_there_is_a_problem(self, site, write, capsys, place, session, said):
        config = write(f'[[watch]]\nprogram="relion"\nplace="{place}"\nsession="{session}"')
        assert main(["check", config]) == 1
        assert said in capsys.readouterr().out

    def test_a_site_that_is_away_is_said(self, write, capsys, site):
        site.stop()
        assert main(["check", write('[[watch]]\nprogram="relion"\nplace="/x"\nsession="s"')]) == 6
        assert "cannot be reached" in capsys.readouterr().err
        site.start()

    def test_a_refused_token_is_said(self, write, capsys, site):
        site.is_refusing_token = True
        assert main(["check", write('[[watch]]\nprogram="relion"\nplace="/x"\nsession="s"')]) == 4
        assert "refused the token" in capsys.readouterr().err


def test_settings_come_from_the_command_line(site, monkeypatch, tmp_path):
    given = {}

    class Settled(Reader):
        software = "Settled"
        SETTINGS = {"pattern": "which files", "depth": "how deep"}

        def __init__(self, place, key=None, settings=None):
            given.update(settings, place=place)

        def look(self):
            return []

        def forget(self, key):
            pass

    monkeypatch.setitem(READERS, "settled", Settled)
    command = ["settled", str(Path("x")), "--url", site.url, "--session", SESSION, "--once"]
    assert main([*command, "--set", "pattern=*.tif", "--set", "depth=3"]) == 0
    assert given == {"place": "x", "pattern": "*.tif", "depth": 3}
    with pytest.raises(SystemExit) as end:
        main([*command, "--set", "pattern"])
    assert end.value.code == 2


def test_a_site_that_comes_back_is_said_once_for_all_watches(tmp_path, follow, caplog):
    site = Site().start()
    site.stop()
    for name in ("a", "b", "c"):
        project.write(tmp_path / name, project.files(count=1, images=False, iterations=()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMHUB_TOKEN", TOKEN)
        follow(configured(site, *(relion(tmp_path / name, key=name) for name in ("a", "b", "c"))))
        wait_for(lambda: "cannot be reached" in caplog.text)
        site.start()
        wait_for(lambda: len(site.runs) == 3 and all(run.micrographs for run in list(site.runs.values())))
    assert caplog.text.count("cannot be reached") == 1
    wait_for(lambda: caplog.text.count("The site answers again.") == 1)
    site.stop()
