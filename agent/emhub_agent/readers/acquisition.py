"""The microscope's folder: movies as they come, and what EPU, SerialEM or Tomo5 write beside them.

No pipeline is needed. The session's acquisition, its data counters and one exposure for each movie come from
here. What is where:

- EPU: ``GridSquare_<id>/Data/FoilHole_<id>_Data_..._<date>_<time>[_Fractions].{tiff,mrc,eer,xml}``;
- SerialEM and Tomo5: an ``.mdoc`` beside each movie, or one for a series;
- any other program: files that end as movies do.

Looking again costs a stat of each folder and of the files written lately; only folders that changed are
listed, only what is new in them is opened.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, ClassVar, NamedTuple

from .. import epu, mdoc, movies
from ..client import moment
from ..clock import Clock
from ..names import place as place_in
from .base import Complaints, Reader, ReaderError, SessionNews, flag

log = logging.getLogger(__name__)

#: What an exposure may tell, in the order in which a Shot holds it (all but its time).
PLACE = ("grid_square", "foil_hole", "stage_x", "stage_y", "beam_shift_x", "beam_shift_y")

#: The session's values that come from the metadata; people correct them, so they are only filled in.
ACQUISITION = (
    "voltage_kv",
    "magnification",
    "pixel_size",
    "dose_per_frame",
    "total_dose",
    "frames",
    "exposure_time",
    "energy_slit",
    "spot_size",
)

#: A file is looked at again for so long (s) after its last change, even when it counts as finished.
WATCHED = 600.0
#: A folder that changed so shortly (s) before it was listed may change again within one tick of its clock.
TICK = 3.0
#: Every folder is listed anew after so long (s): some network shares do not tell of changes.
SWEEP = 900.0
#: A file that could not be opened is tried again after so long (s).
RETRY = 60.0
DEEPEST = 40
#: Of each value so many that exposures gave are kept, to know again what was told of them before a restart.
KNOWN_VALUES = 2000

_UNFINISHED = re.compile(r"(?:\.(?:tmp|temp|part|partial|filepart|crdownload|incomplete)|~)$", re.IGNORECASE)
#: Whose folder it is when it holds one of these: not the microscope's.
_PROJECTS = ("default_pipeline.star", "project.sqlite", "workspaces.json", "cs.lock")
_EARLIEST = datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp()


class File(NamedTuple):
    """A file as it was when last looked at."""

    bytes: int
    changed: int  # ns since 1970


class Watch:
    """A file that changed lately; ``is_done`` once nothing more is to be read in it unless it changes."""

    __slots__ = ("is_done", "name", "place", "since")

    def __init__(self, place: Place, name: str, since: float):
        self.place, self.name, self.since, self.is_done = place, name, since, False


class Place:
    """One folder that is watched: its name in the root (empty for the root) and its files by name."""

    __slots__ = ("changed", "files", "is_counted", "listed", "name", "path", "swept")

    def __init__(self, path: str, name: str, is_counted: bool):
        self.path, self.name, self.is_counted = path, name, is_counted
        self.files: dict[str, File] = {}
        self.changed: int | None = None  # its own time of change when it was last listed
        self.listed = 0.0
        self.swept = 0.0


class Shot:
    """One exposure: its movie, what its metadata tell, and what was told of it already."""

    __slots__ = (
        "acquired",
        "field",
        "file",
        "folder",
        "is_counted",
        "name",
        "place",
        "source",
        "stem",
        "told",
        "written",
    )

    def __init__(self, stem: str):
        self.stem = stem
        self.name: str | None = None  # as posted; None: not to be posted yet
        self.folder: str | None = None  # of the movie, once that is finished and as long as it is there
        self.file: str | None = None
        self.written: float | None = None  # when the movie was last written
        self.source: str | None = None  # the folder of its metadata
        self.acquired: str | None = None
        self.place: tuple = (None,) * len(PLACE)
        self.field: float | None = None  # width of the camera's field in Å
        self.told: tuple | None = None
        self.is_counted = False  # among the movies


class Facts(NamedTuple):
    """What a metadata file tells of one exposure; ``settings`` are the session's values by name."""

    acquired: datetime | None = None
    written: float | None = None
    place: tuple = (None,) * len(PLACE)
    settings: Mapping[str, Any] = {}
    field: float | None = None


class AcquisitionReader(Reader):
    """Follows one session's folder on the microscope or where its files are transferred to."""

    software = "EPU, SerialEM or Tomo5"

    SETTINGS: ClassVar[Mapping[str, str]] = {
        "time_zone": "zone of the microscope's clock, as Europe/Stockholm (default: this machine's)",
        "overwrite": "true: acquisition values replace those on the site (default: only fill what is empty)",
        "counters": "seen: what was taken away stays counted (default); present: only what is there now",
        "names": "file: exposures are named by their file (default); path: by their path in the folder",
        "metadata": "list of further folders in which the xml or mdoc files lie",
        "skip": "list of folder names or patterns that are not looked into",
        "settled": "seconds without change after which a file counts as finished (default 30)",
        "follow_links": "true: follow symbolic links, also out of the folder (default false)",
        "file_times": "false: a movie without metadata has no time (default: when its file was last written)",
        "data_path": "the path to show people as the data's (default: the folder, where the site has none)",
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        self._read_settings(self.checked(settings))
        self.root = os.path.abspath(place)
        if not os.path.isdir(self.root):
            raise ReaderError(f"{place} is no folder that can be read.")
        self._places = [Place(self.root, "", True)]
        for path in self._metadata:
            if not os.path.isdir(path):
                raise ReaderError(f"{path} (a folder with metadata) is no folder that can be read.")
            self._places.append(Place(os.path.abspath(path), "", False))
        self._known_places = {place.path for place in self._places}
        self._real_places: set[tuple[int, int]] = set()
        self._watched: dict[tuple[str, str], Watch] = {}
        self._failed: dict[tuple[str, str], tuple[Place, str, float]] = {}  # and when to try again
        self._gone: Counter = Counter()  # (bytes, time of change) of files that went away
        self._shots: dict[str, list[Shot]] = {}
        self._spare: dict[str, dict[str, Facts]] = {}  # by stem and folder: of movies that are not there yet
        self._images: set[tuple[str, str]] = set()  # stacks that are no movies
        self._dirty: dict[int, Shot] = {}
        self._settings: dict[str, tuple] = {}  # name -> (rank, time, stem, value): the earliest exposure's
        self._values: dict[str, dict[Any, None]] = {name: {} for name in ACQUISITION}
        self.warn = Complaints(log)
        self.files = self.movies = self.bytes = 0
        self._last_file: float | None = None
        self._before: Mapping[str, Any] | None = None  # the site's counters, until they were compared
        self._is_away = False

    def _read_settings(self, settings: dict[str, Any]) -> None:
        def one_of(name: str, *choices: str) -> str:
            value = settings.get(name, choices[0])
            if value not in choices:
                raise ReaderError(f"{name} is {value!r}; it must be {' or '.join(choices)}.")
            return value

        def texts(name: str) -> list[str]:
            value = settings.get(name, [])
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
                raise ReaderError(f"{name} must be a list of texts.")
            return value

        try:
            self.clock = Clock(settings.get("time_zone"))
        except (ValueError, TypeError) as error:
            raise ReaderError(f"time_zone: {error}") from error
        self._overwrites = flag(settings, "overwrite")
        self._keeps_gone = one_of("counters", "seen", "present") == "seen"
        self._by_path = one_of("names", "file", "path") == "path"
        self._follows_links = flag(settings, "follow_links")
        self._uses_file_times = flag(settings, "file_times", True)
        self._metadata, self._skipped = texts("metadata"), texts("skip")
        self._settled = settings.get("settled", 30)
        if isinstance(self._settled, bool) or not isinstance(self._settled, (int, float)):
            raise ReaderError("settled must be a number of seconds.")
        if not 0 <= self._settled <= WATCHED:
            raise ReaderError(f"settled must be between 0 and {WATCHED:.0f} seconds.")
        self._data_path = settings.get("data_path")
        if self._data_path is not None and not isinstance(self._data_path, str):
            raise ReaderError("data_path must be a text.")

    # one look

    def resume(self, session: Mapping[str, Any]) -> None:
        if self._keeps_gone:
            self._before = session

    def look(self) -> list[SessionNews]:
        self._scan()
        if self._before is not None and not self._is_away:
            self._count_what_went(self._before)
            self._before = None
        exposures = {}
        for shot in self._dirty.values():
            fields = self._news_of(shot)
            if fields is not None:
                exposures[shot.name] = fields
        self._dirty.clear()
        return [self._session(exposures)]

    def forget(self, key: str) -> None:
        for shots in self._shots.values():
            for shot in shots:
                shot.told = None
                self._dirty[id(shot)] = shot

    def _session(self, exposures: dict[str, dict[str, Any]]) -> SessionNews:
        fields: dict[str, Any] = {
            "data_files": self.files,
            "data_movies": self.movies,
            "data_bytes": self.bytes,
        }
        if self._last_file is not None:
            fields["last_file_at"] = _text(datetime.fromtimestamp(int(self._last_file), timezone.utc))
        fields["data_path"] = (self._data_path or self.root)[:500]
        fields.update({name: self._settings[name][-1] for name in ACQUISITION if name in self._settings})
        fill: dict[str, tuple] = {}
        if not self._overwrites:
            fill = {name: tuple(self._values[name]) for name in ACQUISITION if name in fields}
        if self._data_path is None:
            fill["data_path"] = ()
        never_lower = ("last_file_at",)
        if self._keeps_gone:
            never_lower += ("data_files", "data_movies", "data_bytes")
        return SessionNews(fields, exposures, fill=fill, never_lower=never_lower)

    # files

    def _scan(self) -> None:
        now, wall = time.monotonic(), time.time()
        if not self._is_there():
            return
        found: list[tuple[Place, str, os.stat_result | None]] = []
        index = 0
        while index < len(self._places):  # grows as folders are found
            place = self._places[index]
            if self._has_gone(place, found, now, wall):
                del self._places[index]
                self._known_places.discard(place.path)
            else:
                index += 1
        for watch in list(self._watched.values()):
            self._look_at(watch, found, now, wall)
        for place, name, again in list(self._failed.values()):
            if now >= again:
                del self._failed[place.path, name]
                if name in place.files:
                    found.append((place, name, None))
        changed = [self._count(place, name, state, now, wall) for place, name, state in found]
        # Metadata first, so that a movie knows at once what it is; oldest first, so that names that come
        # twice are given in the order in which the movies were taken.
        for is_movie in (False, True):
            ready = [item for item in changed if (_extension(item[1]) in movies.EXTENSIONS) == is_movie]
            for place, name, is_finished in sorted(
                ready, key=lambda item: (item[0].files[item[1]].changed, item[0].name, item[1])
            ):
                self._open(place, name, is_finished)

    def _is_there(self) -> bool:
        """Whether the folder can be read; a share that went away must not look like an empty folder."""
        reason: object
        try:
            with os.scandir(self.root) as entries:
                is_there = next(entries, None) is not None or not self.files
        except OSError as error:
            is_there, reason = False, error.strerror
        else:
            reason = "it is empty all of a sudden"
        if not is_there and not self._is_away:
            log.warning("%s cannot be read (%s); waiting for it to come back.", self.root, reason)
        elif is_there and self._is_away:
            log.info("%s is back.", self.root)
        self._is_away = not is_there
        return is_there

    def _has_gone(self, place: Place, found: list, now: float, wall: float) -> bool:
        """List a folder if it changed, adding to ``found`` what is new; return whether it is no more."""
        try:
            state = os.stat(place.path)
            changed = state.st_mtime_ns
            is_fresh = (
                place.changed == changed and place.listed - changed / 1e9 > TICK and now - place.swept < SWEEP
            )
            if is_fresh:
                return False
            names, new, folders = self._entries(place)
        except (FileNotFoundError, NotADirectoryError):
            if place.name == "" and not place.is_counted:
                self.warn(place.path, "the folder with metadata is not there")
                return False
            if place.name == "" or not self._is_there():
                return False  # it went with the whole share, and will come back with it
            self._take_away(place, list(place.files))
            return True
        except OSError as error:
            self.warn(place.path, error)
            return False
        for name, path in folders:
            inside = f"{place.name}/{name}" if place.name else name
            if path not in self._known_places and inside.count("/") < DEEPEST:
                self._known_places.add(path)
                self._places.append(Place(path, inside, place.is_counted))
        gone = [name for name in place.files if name not in names]
        if gone:
            self._take_away(place, gone)
        for entry in new:
            try:
                state = entry.stat(follow_symlinks=self._follows_links)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.warn(entry.path, error)
                continue
            if stat.S_ISREG(state.st_mode):
                found.append((place, entry.name, state))
        place.changed, place.listed, place.swept = changed, wall, now
        return False

    def _look_at(self, watch: Watch, found: list, now: float, wall: float) -> None:
        """Look at a young file again: has it changed, is it finished, does it need watching any more?"""
        place, name = watch.place, watch.name
        try:
            state = os.stat(os.path.join(place.path, name), follow_symlinks=self._follows_links)
        except FileNotFoundError:
            return  # its folder's listing tells
        except OSError as error:
            self.warn(os.path.join(place.path, name), error)
            return
        known = place.files.get(name)
        if known is None or (known.bytes, known.changed) != (state.st_size, state.st_mtime_ns):
            found.append((place, name, state))
            return
        if not watch.is_done and self._is_finished(watch, state.st_mtime_ns, now, wall):
            watch.is_done = True
            found.append((place, name, None))
        if watch.is_done and max(wall - state.st_mtime_ns / 1e9, now - watch.since) >= WATCHED:
            del self._watched[place.path, name]

    def _entries(self, place: Place) -> tuple[set[str], list[os.DirEntry], list[tuple[str, str]]]:
        """Return a folder's files: all names, and those that are new; and its folders as (name, path).

        Left out are hidden ones, files still under a temporary name, links, and other programs' projects.
        """
        names: set[str] = set()
        new: list[os.DirEntry] = []
        folders: list[tuple[str, str]] = []
        with os.scandir(place.path) as entries:
            for entry in entries:
                name = entry.name
                if name in place.files:
                    names.add(name)
                    continue
                if name in _PROJECTS and place.name:
                    self.warn(place.path, f"a project of another program ({name}): not looked into")
                    return set(), [], []
                if name.startswith(".") or not name.isprintable():
                    continue
                try:
                    if entry.is_symlink() and not self._follows_links:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=self._follows_links)
                except OSError as error:
                    self.warn(entry.path, error)
                    continue
                if not is_folder:
                    if not _UNFINISHED.search(name):
                        names.add(name)
                        new.append(entry)
                elif not self._is_skipped(place, name) and self._is_first(entry):
                    folders.append((name, entry.path))
        folders.sort()
        return names, new, folders

    def _is_skipped(self, place: Place, name: str) -> bool:
        inside = f"{place.name}/{name}" if place.name else name
        return any(fnmatch.fnmatch(name, item) or fnmatch.fnmatch(inside, item) for item in self._skipped)

    def _is_first(self, entry: os.DirEntry) -> bool:
        """Whether a folder is met for the first time where links are followed, which may lead in a circle."""
        if not self._follows_links or entry.path in self._known_places:
            return True
        try:
            state = os.stat(entry.path)
        except OSError as error:
            self.warn(entry.path, error)
            return False
        identity = (state.st_dev, state.st_ino)
        if not self._real_places:
            for place in self._places[:1]:
                real = os.stat(place.path)
                self._real_places.add((real.st_dev, real.st_ino))
        if identity in self._real_places:
            return False
        self._real_places.add(identity)
        return True

    def _count(
        self, place: Place, name: str, state: os.stat_result | None, now: float, wall: float
    ) -> tuple[Place, str, bool]:
        """Take a new or changed file into the counters; return it with whether it is finished."""
        if state is None:
            return place, name, True
        known = place.files.get(name)
        size, changed = state.st_size, state.st_mtime_ns
        place.files[name] = File(size, changed)
        if place.is_counted:
            if known is not None:
                self.bytes += size - known.bytes
            elif self._gone.get((size, changed), 0) > 0:
                self._gone[size, changed] -= 1  # it was moved here, or came back: counted already
            else:
                self.files += 1
                self.bytes += size
            written = changed / 1e9
            if _EARLIEST < written < wall + 86400 and written > (self._last_file or 0):
                self._last_file = written
        watch = Watch(place, name, now)
        watch.is_done = self._is_finished(watch, changed, now, wall)
        if not watch.is_done or wall - changed / 1e9 < WATCHED:
            self._watched[place.path, name] = watch
        return place, name, watch.is_done

    def _is_finished(self, watch: Watch, changed: int, now: float, wall: float) -> bool:
        """Whether a file has not changed for long enough: by its own time, or by how long it was seen
        unchanged, because the clocks of two machines may differ."""
        seen = now - watch.since
        return wall - changed / 1e9 >= self._settled or 0 < seen >= self._settled

    def _count_what_went(self, before: Mapping[str, Any]) -> None:
        """Go on from the site's counters where files went away before we started.

        What was written after the last file the site was told of is new; the rest of what is here it counted.
        """
        last = moment(before.get("last_file_at"))
        if last is None:
            return
        new = [
            file
            for place in self._places
            if place.is_counted
            for file in place.files.values()
            if file.changed // 10**9 > last
        ]
        movies_new = sum(
            shot.is_counted and int(shot.written or 0) > last
            for shots in self._shots.values()
            for shot in shots
        )
        for name, count in (
            ("files", len(new)),
            ("bytes", sum(f.bytes for f in new)),
            ("movies", movies_new),
        ):
            told = before.get(f"data_{name}")
            if isinstance(told, int):
                setattr(self, name, max(getattr(self, name), told + count))

    def _take_away(self, place: Place, names: list[str]) -> None:
        """Files are not there any more: moved, deleted, or their folder gone."""
        for name in names:
            file = place.files.pop(name)
            self._watched.pop((place.path, name), None)
            if not place.is_counted:
                continue
            if self._keeps_gone:
                self._gone[file.bytes, file.changed] += 1
            else:
                self.files -= 1
                self.bytes -= file.bytes
            if _extension(name) in movies.EXTENSIONS:
                path = os.path.join(place.path, name)
                for shot in self._shots.get(_key(_without_extension(name)), ()):
                    if shot.file == path:
                        shot.folder = shot.file = None
                        if not self._keeps_gone and shot.is_counted:
                            shot.is_counted = False
                            self.movies -= 1

    # what is in them

    def _open(self, place: Place, name: str, is_finished: bool) -> None:
        extension = _extension(name)
        try:
            if extension == ".xml":
                self._read_xml(place, name)
            elif extension == ".mdoc":
                self._read_mdoc(place, name)
            elif extension in movies.EXTENSIONS and place.is_counted and is_finished:
                self._take_movie(place, name)
            if extension == ".xml" and (place.path, name) in self._watched:
                self._watched[place.path, name].is_done = True  # an XML file that can be read is whole
        except OSError as error:
            self.warn(os.path.join(place.path, name), error)
            self._failed[place.path, name] = (place, name, time.monotonic() + RETRY)
        except ValueError as error:
            # Half-written files are expected; what is still so when it is finished is worth a word.
            if is_finished:
                self.warn(os.path.join(place.path, name), error)

    def _read_xml(self, place: Place, name: str) -> None:
        raw = name[: -len(".xml")]
        if epu.is_survey(raw):
            return
        stem = _key(raw)
        try:
            image = epu.read(os.path.join(place.path, name))
        except epu.EpuError:
            if epu.is_exposure(raw):
                raise
            return  # some other program's
        file = place.files[name]
        settings = {
            "voltage_kv": image.voltage_kv,
            "magnification": image.magnification,
            "pixel_size": image.movie_pixel_size,
            "total_dose": image.total_dose,
            "frames": image.frames,
            "exposure_time": image.exposure_time,
            "energy_slit": image.energy_slit,
            "spot_size": image.spot_size,
        }
        if image.total_dose and image.frames:
            settings["dose_per_frame"] = float(f"{image.total_dose / image.frames:.6g}")
        if image.is_movie:
            # Of the movie itself, and so before what the settings say; its time is in its name.
            self._learn(0, self._time_in(stem, None), stem, {"frames": image.frames})
            return
        square = epu.grid_square(f"{place.name}/{raw}")
        where = (square, epu.foil_hole(raw), image.stage_x, image.stage_y)
        field = None
        if image.movie_pixel_size is None and image.pixel_size and image.width:
            field = image.pixel_size * image.width
        facts = Facts(
            image.acquired_at,
            file.changed / 1e9,
            (*where, image.beam_shift_x, image.beam_shift_y),
            {key: value for key, value in settings.items() if value is not None},
            field,
        )
        self._describe(place.name, stem, facts, stem if _stands_alone(raw) else None)

    def _read_mdoc(self, place: Place, name: str) -> None:
        path = os.path.join(place.path, name)
        # SerialEM ends its last line too: one without an end was cut, however long ago.
        document = mdoc.read(path, complete=False)
        image = name[: -len(".mdoc")]
        if mdoc.is_image(document):
            self._images.add((place.path, image))
            self._is_no_movie(place, image)
        shots = mdoc.shots(document)
        written = place.files[name].changed / 1e9
        for shot in shots:
            # A FrameSet's file is named after its movie, which may have been renamed since.
            movie = shot.movie or (image if len(shots) == 1 else None)
            if len(shots) == 1 and _extension(image) in movies.EXTENSIONS and not mdoc.is_image(document):
                movie = image
            if movie is None:
                continue
            settings = {
                "voltage_kv": shot.voltage_kv,
                "magnification": shot.magnification,
                "pixel_size": shot.movie_pixel_size if not mdoc.is_image(document) else None,
                "total_dose": shot.total_dose,
                "dose_per_frame": shot.dose_per_frame,
                "frames": shot.frames,
                "exposure_time": shot.exposure_time,
                "energy_slit": shot.energy_slit,
                "spot_size": shot.spot_size,
            }
            where = (shot.hole, shot.stage_x, shot.stage_y, shot.shift_x, shot.shift_y)
            facts = Facts(
                shot.acquired_at,
                # The time of a whole series' file tells nothing of one of its images.
                written if len(shots) == 1 else None,
                (None, *where),
                {key: value for key, value in settings.items() if value is not None},
            )
            self._describe(place.name, _key(_without_extension(movie)), facts, movie)

    def _describe(self, folder: str, stem: str, facts: Facts, name: str | None) -> None:
        """Give an exposure what its metadata tell.

        ``name`` is what to post it as where its movie is not here; None where it is only believed once its
        movie has come.
        """
        shots = self._shots.setdefault(stem, [])
        is_epu = epu.is_exposure(stem)
        shot = next((shot for shot in shots if folder in (shot.source, shot.folder)), None)
        if shot is None and shots and is_epu:
            shot = shots[0]
        if shot is None:
            # Metadata may lie in a folder of their own; those beside the movie count before them.
            shot = next((shot for shot in shots if shot.source is None), None)
        if shot is None and (shots or name is None or self._by_path):
            self._spare.setdefault(stem, {})[folder] = facts
            if not shots:
                del self._shots[stem]
            return
        if shot is None:
            shot = Shot(stem)
            shot.name = name
            shots.append(shot)
        self._apply(shot, folder, facts)

    def _apply(self, shot: Shot, folder: str, facts: Facts) -> None:
        shot.source = folder
        at = None
        if facts.acquired is not None:
            at = self.clock.moment(facts.acquired, facts.written)
        shot.acquired = _text(at) if at else None
        shot.place = facts.place
        shot.field = facts.field
        if shot.folder is not None:
            self._complete_place(shot, shot.folder)
        self._learn(1, shot.acquired or self._time_in(shot.stem, facts.written), shot.stem, facts.settings)
        self._measure(shot)
        self._dirty[id(shot)] = shot

    def _take_movie(self, place: Place, name: str) -> None:
        path = os.path.join(place.path, name)
        file = place.files[name]
        raw = _without_extension(name)
        if not self._is_movie(place, name, raw, path):
            return
        stem, folder = _key(raw), place.name
        shots = self._shots.setdefault(stem, [])
        shot = next((shot for shot in shots if shot.folder == folder), None)
        if shot is None and shots and epu.is_exposure(stem):
            shot = shots[0]  # its name holds the hole and the second: wherever it lies it is the same
        if shot is not None and shot.file not in (None, path):
            return  # a second file of the same movie
        if shot is None:
            waiting = [shot for shot in shots if shot.folder is None]
            shot = next((shot for shot in waiting if shot.source == folder), waiting[0] if waiting else None)
        if shot is None:
            shot = Shot(stem)
            shots.append(shot)
        if not shot.is_counted:
            shot.is_counted = True
            self.movies += 1
        shot.name = self._name(shots, shot, folder, name, raw)
        shot.folder, shot.file, shot.written = folder, path, file.changed / 1e9
        self._take_spare(shot, shots)
        self._complete_place(shot, folder)
        self._measure(shot)
        self._dirty[id(shot)] = shot

    def _take_spare(self, shot: Shot, shots: list[Shot]) -> None:
        """Give a movie the metadata that came before it: those beside it, else the only ones of its stem."""
        spare = self._spare.get(shot.stem)
        if not spare:
            return
        source = shot.folder if shot.folder in spare else None
        if source is None and shot.source is None and len(shots) == 1:
            source = next(iter(spare))
        if source is not None:
            facts = spare.pop(source)
            if not spare:
                del self._spare[shot.stem]
            self._apply(shot, source, facts)

    def _name(self, shots: list[Shot], shot: Shot, folder: str, name: str, raw: str) -> str:
        """Return what a movie is posted as: its file's name, with its folder where another has the same name.

        Files of EPU go by what all files of an exposure have in common, so that it does not matter which of
        them came first.
        """
        if epu.is_exposure(raw):
            return epu.stem_of(raw)
        inside = f"{folder}/{name}" if folder else name
        if self._by_path or (shots[0] is not shot):
            return inside[-500:]
        return shot.name or name

    def _is_movie(self, place: Place, name: str, raw: str, path: str) -> bool:
        """Whether a file that ends as movies do is one: it has frames, and is no image of another kind."""
        if (place.path, name) in self._images or epu.is_survey(raw):
            return False
        if f"{name}.mdoc" in place.files and _extension(name) == ".mrc":
            return self._frames_told(place, name)
        if (epu.is_exposure(raw) and epu.is_fractions(raw)) or _extension(name) in (".eer", ".mrcs"):
            return True
        return movies.read(path, count=False).frames > 1

    def _frames_told(self, place: Place, name: str) -> bool:
        """Whether the mdoc beside an MRC file says that it is a movie; ask again while it says nothing."""
        document = mdoc.read(os.path.join(place.path, f"{name}.mdoc"), complete=False)
        if not document.sections:
            raise ValueError("its mdoc is not whole yet")
        return not mdoc.is_image(document)

    def _is_no_movie(self, place: Place, name: str) -> None:
        """Take back a stack that was taken for a movie before its metadata came."""
        path = os.path.join(place.path, name)
        for shot in self._shots.get(_key(_without_extension(name)), ()):
            if shot.file == path:
                shot.folder = shot.file = None
                if shot.is_counted:
                    shot.is_counted = False
                    self.movies -= 1
                if shot.told is None:
                    shot.name = None

    @staticmethod
    def _complete_place(shot: Shot, folder: str) -> None:
        """Take grid square and foil hole from the movie's folder and name where its metadata tell none."""
        square, hole, *rest = shot.place
        told = place_in(shot.stem) or {}
        square = square or epu.grid_square(f"{folder}/") or told.get("grid_square")
        hole = hole or epu.foil_hole(shot.stem) or told.get("foil_hole")
        shot.place = (square, hole, *rest)

    # the session's own values

    def _learn(self, rank: int, at: str | None, stem: str, settings: Mapping[str, Any]) -> None:
        """Take the session's values from its earliest exposure that tells them; a lower rank goes first."""
        for name, value in settings.items():
            known = self._values[name]
            if len(known) < KNOWN_VALUES:
                known.setdefault(value)
            order = (rank, at or "9", stem)
            if name not in self._settings or order <= self._settings[name][:3]:
                self._settings[name] = (*order, value)

    def _measure(self, shot: Shot) -> None:
        """Take pixel size and frames from the movie's own header where its metadata leave them open."""
        if shot.file is None:
            return
        at = shot.acquired or self._time_in(shot.stem, shot.written)
        wanted = [
            name
            for name, is_wanted in (("pixel_size", shot.field is not None), ("frames", True))
            if is_wanted and self._is_earlier(name, 2, at, shot.stem)
        ]
        if not wanted:
            return
        try:
            movie = movies.read(shot.file, count="frames" in wanted)
        except (OSError, ValueError) as error:
            self.warn(shot.file, error)
            return
        found: dict[str, Any] = {}
        if "frames" in wanted and movie.frames > 1 and _extension(shot.file) != ".eer":
            # The raw frames of an EER file are not what a pipeline makes of them.
            found["frames"] = movie.frames
        if shot.field is not None:
            size = shot.field / movie.width
            if 0 < size <= 1000:
                found["pixel_size"] = float(f"{size:.6g}")
        self._learn(2, at, shot.stem, found)

    def _is_earlier(self, name: str, rank: int, at: str | None, stem: str) -> bool:
        return name not in self._settings or (rank, at or "9", stem) < self._settings[name][:3]

    def _time_in(self, stem: str, near: float | None) -> str | None:
        local = epu.taken(stem)
        at = self.clock.moment(local, near) if local else None
        return _text(at) if at else None

    def _news_of(self, shot: Shot) -> dict[str, Any] | None:
        """Return what of an exposure is new since it was last told; None where nothing is."""
        if shot.name is None:
            return None
        acquired = shot.acquired or self._time_in(shot.stem, shot.written)
        if acquired is None and self._uses_file_times and (shot.written or 0) > _EARLIEST:
            acquired = _text(datetime.fromtimestamp(int(shot.written), timezone.utc))
        now = (acquired, *shot.place)
        before = shot.told
        if now == before:
            return None
        shot.told = now
        names = ("acquired_at", *PLACE)
        return {
            name: value
            for name, value, old in zip(names, now, before or (None,) * len(now))
            if value is not None and value != old
        }


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _without_extension(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in movies.EXTENSIONS else name


_SERIAL = re.compile(r"(_\d{8}_\d{4}(?:\d\d)?)-\d+$")


def _key(raw: str) -> str:
    """Return what a movie and its metadata have in common: the stem, without a serial number of older EPU."""
    stem = epu.stem_of(raw)
    return _SERIAL.sub(r"\1", stem) if epu.is_exposure(stem) else stem


def _stands_alone(raw: str) -> bool:
    """Whether an EPU xml's name is surely its movie's: names without seconds may lack the movie's serial."""
    return bool(re.search(r"_\d{8}_\d{6}$", epu.stem_of(raw))) and epu.is_exposure(raw)


def _text(at: datetime) -> str:
    return at.astimezone(timezone.utc).isoformat()
