"""What charts get of many rows, the packed table they come from, and the verdict on them."""

import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.management import call_command
from django.utils import timezone

from preprocessing import ingest, packed, reduction, row_arrays, verdict
from preprocessing.histograms import MEASURED_FIELDS, MEASURES
from preprocessing.identity import identity
from preprocessing.models import Micrograph, PackedColumns, ProcessingRun
from preprocessing.reduction import View
from preprocessing.state import RELATED, state_of
from preprocessing.verdict import bounds_of
from sessions_app.models import Session
from tests.factories import ExposureFactory, FinishedSessionFactory, MicrographFactory, SessionFactory

NAN = float("nan")
NO_LIMITS = SimpleNamespace(
    ctf_resolution_max=None,
    motion_total_max=None,
    astigmatism_max=None,
    ice_thickness_max=None,
    particles_min=None,
    particles_max=None,
)


def table(**columns):
    """A table of these columns; exposures and ids count from 1, a second apart."""
    count = len(next(iter(columns.values())))
    rows = np.zeros(count, dtype=packed.DTYPE)
    for name in packed.DTYPE.names:
        if packed.DTYPE[name].kind == "f":
            rows[name] = NAN
    rows["id"] = rows["exposure"] = np.arange(1, count + 1)
    rows["reported"] = 1_000_000 + np.arange(count)
    for name, values in columns.items():
        rows[name] = values
    return packed.Table(1, rows)


def limits(**values):
    return bounds_of(SimpleNamespace(**(vars(NO_LIMITS) | values)))


class TestChosen:
    def rows(self, count=20_000):
        rng = np.random.default_rng(2)
        return table(ctf_resolution=rng.normal(4, 0.3, count), motion_total=rng.normal(9, 1, count))

    def test_few_rows_are_all_sent(self):
        found = self.rows(reduction.WHOLE)
        assert len(reduction.chosen(found, found.order, ["ctf_resolution"])) == reduction.WHOLE

    def test_of_many_a_few_thousand_with_every_extreme_the_ends_and_the_newest(self):
        found = self.rows()
        found.rows["ctf_resolution"][7_777] = 30
        found.rows["motion_total"][12_345] = 0.1
        keys = ["ctf_resolution", "motion_total"]
        chosen = reduction.chosen(found, found.order, keys)
        assert reduction.WHOLE > len(chosen) > 1000
        assert {0, 7_777, 12_345, 19_999} <= set(chosen.tolist())
        assert set(range(20_000 - reduction.TAIL, 20_000)) <= set(chosen.tolist())
        # The least and greatest of every stretch as wide as a pixel or two are there.
        for key in keys:
            values = found.measure(key)
            sent = np.full(len(values), NAN)
            sent[chosen] = values[chosen]
            for start in range(0, 19_000, 500):
                part, own = values[start : start + 500], sent[start : start + 500]
                assert np.nanmax(own) == part.max()
                assert np.nanmin(own) == part.min()

    def test_a_stretch_without_values_sends_no_invented_extreme(self):
        found = self.rows()
        found.rows["motion_total"][5_000:10_000] = NAN
        chosen = reduction.chosen(found, found.order, ["motion_total"])
        inside = chosen[(chosen >= 5_200) & (chosen < 9_800)]
        # First and last of each bucket only.
        assert 0 < len(inside) < 500

    def test_medians_are_of_all_rows_not_of_those_sent(self):
        found = self.rows()
        found.rows["ctf_resolution"][::100] = 50
        line = reduction.medians(found, found.order, np.arange(1, 20_001), ["ctf_resolution"])
        assert len(line["x"]) <= 240
        assert np.abs(line["series"]["ctf_resolution"] - 4).max() < 0.3

    def test_medians_leave_out_what_is_not_known(self):
        rows = np.array([[1.0, NAN, 3.0, NAN], [NAN] * 4, [4.0, 1.0, 2.0, 3.0], [NAN, 7.0, NAN, NAN]])
        found = reduction._medians(rows)
        assert found[[0, 2, 3]].tolist() == [2.0, 2.5, 7.0]
        assert np.isnan(found[1])


class TestView:
    def test_a_part_has_both_its_ends(self):
        found = table(ctf_resolution=np.arange(10.0))
        order, x = reduction.seen(found, View("number", 3, 5))
        assert (order.tolist(), x.tolist()) == ([2, 3, 4], [3, 4, 5])

    def test_time_is_when_it_was_acquired_or_else_reported(self):
        found = table(acquired=[500.0, NAN, 300.0, 400.0])
        order, x = reduction.seen(found, View("time", 300, 450))
        assert (order.tolist(), x.tolist()) == ([2, 3], [300, 400])

    def test_counts_of_a_part_follow_the_same_edges(self):
        found = table(ctf_resolution=[3.0, 3.19, 3.2, 20.0, NAN])
        counts = reduction.counts(found, found.order[:3], ["ctf_resolution"])["ctf_resolution"]
        edges = MEASURES["ctf_resolution"].edges
        assert counts[edges.index(3.0) + 1] == 2
        assert counts[edges.index(3.2) + 1] == 1
        assert sum(counts) == 3


class TestScatter:
    def test_every_row_stands_in_one_cell_and_corners_are_kept(self):
        rng = np.random.default_rng(5)
        x, y = rng.normal(4, 1, 30_000), rng.normal(9, 1, 30_000)
        x[100], y[100] = 30, 50
        found = table(ctf_resolution=x, motion_total=y)
        spots = reduction.scatter(found, found.order, "ctf_resolution", "motion_total")
        assert spots["count"].sum() == spots["total"] == 30_000
        assert 100 in spots["places"]
        assert len(spots["places"]) < 8000

    def test_rows_without_one_of_the_values_are_left_out(self):
        found = table(ctf_resolution=[3.0, NAN, 5.0], motion_total=[9.0, 9.0, NAN])
        assert reduction.scatter(found, found.order, "ctf_resolution", "motion_total")["total"] == 1


class TestUsable:
    def test_what_breaks_a_limit_is_not_usable_and_unknown_breaks_none(self):
        found = table(ctf_resolution=[3.0, 7.0, NAN, NAN], particles=[100, 100, 0, NAN])
        judged, good = reduction.usable(found, limits(ctf_resolution_max=6, particles_min=1))
        assert judged.tolist() == [True, True, True, False]
        assert good.tolist() == [True, False, False, False]

    def test_the_limit_itself_is_good(self):
        found = table(ctf_resolution=[6.0, 6.1])
        assert reduction.usable(found, limits(ctf_resolution_max=6))[1].tolist() == [True, False]

    def test_a_person_has_the_last_word(self):
        found = table(ctf_resolution=[3.0, 9.0, 3.0, 3.0])
        found.rows["flags"] = [
            packed.REJECTED_BY_HAND,
            packed.ACCEPTED_BY_HAND,
            packed.REJECTED,
            packed.REJECTED | packed.ACCEPTED_BY_HAND,
        ]
        good = reduction.usable(found, limits(ctf_resolution_max=6))[1]
        assert good.tolist() == [False, True, False, True]


class TestRate:
    def test_of_the_last_hour_and_of_all(self):
        times = np.arange(0, 4 * 3600, 10.0)
        assert reduction.rate(times, times[-1]) == pytest.approx(360, rel=0.01)
        assert reduction.rate(times[: len(times) // 2], 4 * 3600) == 0
        assert reduction.rate(times, None) == pytest.approx(360, rel=0.01)

    def test_unknown_before_five_minutes(self):
        assert reduction.rate(np.arange(0, 200, 10.0), 200) is None
        assert reduction.rate(np.array([1.0]), None) is None

    def test_throughput_counts_everything_in_spans_that_people_read(self):
        found = reduction.throughput(np.arange(0, 8 * 3600, 6.0))
        assert (found["width"], len(found["counts"]), set(found["counts"])) == (600, 48, {100})
        week = reduction.throughput(np.arange(0, 7 * 86400, 600.0))
        assert sum(week["counts"]) == 7 * 144
        assert len(week["counts"]) <= reduction.MOST_BARS


class TestBeamShiftGroups:
    def test_clouds_are_told_apart_the_largest_first(self):
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.normal(0, 0.01, 300), rng.normal(1, 0.01, 200)])
        y = np.concatenate([rng.normal(0, 0.01, 300), rng.normal(1, 0.01, 200)])
        groups = reduction.beam_shift_groups(x, y)
        assert set(groups[:300]) == {0}
        assert set(groups[300:]) == {1}

    def test_one_place_is_one_group(self):
        assert reduction.beam_shift_groups(np.ones(5), np.ones(5)).tolist() == [0] * 5
        assert len(reduction.beam_shift_groups(np.empty(0), np.empty(0))) == 0


# -- The table of a run --------------------------------------------------------------------------------------


def report(run, *rows):
    reports = [ingest.Report(name, identity(name), values) for name, values in rows]
    ingest.record_micrographs(run.session_id, run.pk, reports)


def again(run):
    return ProcessingRun.objects.get(pk=run.pk)


@pytest.fixture
def run(db):
    packed.forget()
    return ingest.open_run(SessionFactory().pk, key="p1", software="RELION")[0]


def stored(run) -> dict:
    """What the rows say, by name of the columns that a table has too."""
    rows = Micrograph.objects.filter(run=run).select_related("exposure").order_by("pk")
    return {
        "id": [row.pk for row in rows],
        "ctf_resolution": [row.ctf_resolution for row in rows],
        "defocus_u": [row.defocus_u for row in rows],
        "grid_square": [row.exposure.grid_square for row in rows],
        "foil_hole": [row.exposure.foil_hole for row in rows],
        "revision": [row.revision for row in rows],
    }


def held(found) -> dict:
    plain = {
        name: [None if np.isnan(value) else float(value) for value in found.column(name)]
        for name in ("ctf_resolution", "defocus_u")
    }
    texts = {name: found.text(found.rows[name]) for name in packed.TEXTS}
    return plain | texts | {"id": found.rows["id"].tolist(), "revision": found.rows["revision"].tolist()}


class TestRowArrays:
    """What the database packs is what the rows say, to the last bit."""

    PLACES = ("", "77", "Grid square ñ 7", "tab\there\\n", "x" * 60)

    def fill(self, run, count=60):
        random = np.random.default_rng(5)
        now = timezone.now().replace(microsecond=999_999)
        for number in range(count):
            exposure = ExposureFactory(
                session=run.session,
                acquired_at=None if number % 5 == 0 else now - datetime.timedelta(seconds=number / 3),
                grid_square=self.PLACES[number % 5],
                foil_hole=self.PLACES[number // 5 % 5],
                verdict=("", "accepted", "rejected")[number % 3],
                **{name: None if number % 4 == 0 else random.normal() * 100 for name in row_arrays.PLACES},
            )
            values = {
                name: None
                if random.random() < 0.3
                else float(random.normal() * 10.0 ** random.integers(-6, 7))
                for name in MEASURED_FIELDS
            }
            values["particles"] = None if number % 7 == 0 else number * 1000
            MicrographFactory(
                run=run,
                exposure=exposure,
                revision=number * 37 % count + 1,
                rejected=(None, True, False)[number % 3],
                micrograph_image="m.png" if number % 2 else "",
                psd_image="p.png" if number % 3 == 0 else "",
                **values,
            )

    def rows(self, run, after):
        found = Micrograph.objects.filter(run=run, revision__gt=after).select_related("exposure")
        for row in found.order_by("pk"):
            exposure = row.exposure
            flags = packed.PICTURE * bool(row.micrograph_image) + packed.SPECTRUM * bool(row.psd_image)
            flags += packed.REJECTED * bool(row.rejected)
            flags += {"accepted": packed.ACCEPTED_BY_HAND, "rejected": packed.REJECTED_BY_HAND}.get(
                exposure.verdict, 0
            )
            yield (
                {
                    "id": row.pk,
                    "exposure": exposure.pk,
                    "revision": row.revision,
                    "flags": flags,
                    "acquired": exposure.acquired_at and int(exposure.acquired_at.timestamp()),
                    "reported": int(row.created_at.timestamp()),
                    **{name: getattr(exposure, name) for name in row_arrays.PLACES},
                    **{name: getattr(row, name) for name in MEASURED_FIELDS},
                },
                (exposure.grid_square, exposure.foil_hole),
            )

    @pytest.mark.parametrize("after", [-1, 0, 41, 60])
    def test_every_column_of_every_changed_row(self, run, after):
        self.fill(run)
        self.fill(ingest.open_run(run.session_id, key="other", software="RELION")[0], 3)
        found, squares, holes = row_arrays.changed(run.pk, after)
        plain = [
            {
                name: None if value != value else value
                for name, value in zip(found.dtype.names, row, strict=True)
            }
            for row in found.tolist()
        ]
        stored = list(self.rows(run, after))
        assert len(plain) == 60 - max(after, 0)
        assert plain == [row for row, _ in stored]
        assert list(zip(squares, holes, strict=True)) == [texts for _, texts in stored]

    def test_what_float32_cannot_hold_spoils_no_table(self, run):
        MicrographFactory(run=run, revision=1, motion_total=1e300)
        MicrographFactory(run=run, revision=2, motion_total=3.5)
        assert packed.from_rows(again(run)).rows["motion_total"].tolist() == [np.inf, 3.5]

    def test_while_another_query_is_under_way(self, run):
        self.fill(run, 4)
        for _ in Micrograph.objects.iterator(chunk_size=1):
            assert len(row_arrays.changed(run.pk, 0)[0]) == 4


class TestTable:
    def post(self, run, first, count, **values):
        names = [f"FoilHole_{n // 3}_Data_1_2_{n:05}.tiff" for n in range(first, first + count)]
        report(run, *((name, {"ctf_resolution": 3.0 + n % 7 / 10} | values) for n, name in enumerate(names)))

    def test_it_follows_every_change(self, run):
        self.post(run, 0, 20)
        assert held(packed.table(again(run))) == stored(run)
        self.post(run, 5, 10, defocus_u=12345.67)
        self.post(run, 20, 3)
        name = "FoilHole_0_Data_1_2_00000"
        ingest.change_exposures(run.session_id, {identity(name + ".tiff"): {"grid_square": "A1"}})
        found = packed.table(again(run))
        assert held(found) == stored(run)
        assert "A1" in found.texts

    def test_one_query_brings_it_up_to_date_and_none_is_needed_without_news(
        self, run, django_assert_num_queries
    ):
        self.post(run, 0, 5)
        packed.table(again(run))
        self.post(run, 5, 1)
        now = again(run)
        with django_assert_num_queries(1):
            packed.table(now)
        with django_assert_num_queries(0):
            packed.table(now)

    def test_another_process_starts_from_chunks_and_reads_only_what_changed_since(self, run, monkeypatch):
        monkeypatch.setattr(packed, "CHUNK", 8)
        monkeypatch.setattr(packed, "UNPACKED", 10)
        self.post(run, 0, 30)
        packed.table(again(run))
        assert PackedColumns.objects.filter(run=run).count() == 4
        self.post(run, 3, 2, defocus_u=9000.0)
        self.post(run, 30, 2)
        packed.forget()
        read = []
        changed = packed._changed
        monkeypatch.setattr(packed, "_changed", lambda *args: read.append(changed(*args)) or read[-1])
        assert held(packed.table(again(run))) == stored(run)
        assert [len(rows) for rows, *_ in read] == [4]

    def test_chunks_are_written_again_only_where_rows_changed(self, run, monkeypatch):
        monkeypatch.setattr(packed, "CHUNK", 8)
        monkeypatch.setattr(packed, "UNPACKED", 4)
        self.post(run, 0, 30)
        packed.table(again(run))
        before = dict(PackedColumns.objects.values_list("number", "revision"))
        self.post(run, 8, 5, defocus_u=9000.0)
        packed.table(again(run))
        after = dict(PackedColumns.objects.values_list("number", "revision"))
        assert [number for number in after if after[number] != before[number]] == [1]
        packed.forget()
        assert held(packed.table(again(run))) == stored(run)

    def test_who_is_behind_does_not_overwrite_who_went_further(self, run, monkeypatch):
        monkeypatch.setattr(packed, "CHUNK", 8)
        monkeypatch.setattr(packed, "UNPACKED", 4)
        self.post(run, 0, 10)
        slow = packed._updated(packed._load(run), again(run))
        self.post(run, 0, 10, defocus_u=9000.0)
        packed.table(again(run))
        head = max(PackedColumns.objects.values_list("revision", flat=True))
        assert packed._pack(run, slow) is slow
        assert max(PackedColumns.objects.values_list("revision", flat=True)) == head
        packed.forget()
        assert held(packed.table(again(run))) == stored(run)

    def test_chunks_that_do_not_fit_are_done_without(self, run, monkeypatch):
        monkeypatch.setattr(packed, "CHUNK", 8)
        monkeypatch.setattr(packed, "UNPACKED", 4)
        self.post(run, 0, 20)
        packed.table(again(run))
        PackedColumns.objects.filter(number=1).delete()
        packed.forget()
        assert held(packed.table(again(run))) == stored(run)
        Micrograph.objects.filter(run=run).order_by("pk").first().delete()
        ProcessingRun.objects.filter(pk=run.pk).update(micrographs=19)
        packed.forget()
        assert held(packed.table(again(run))) == stored(run)

    def test_memory_is_bounded(self, run, monkeypatch):
        session = run.session
        monkeypatch.setattr(packed, "MEMORY", 3 * 2 * 50 * packed.DTYPE.itemsize)
        for number in range(6):
            other = ingest.open_run(session.pk, key=f"r{number}", software="RELION")[0]
            self.post(other, 0, 50)
            packed.table(again(other))
        assert len(packed._tables) <= 3

    def test_running_sessions_are_packed_before_anybody_looks(self, run, monkeypatch):
        monkeypatch.setattr(packed, "UNPACKED", 10)
        over = ingest.open_run(FinishedSessionFactory().pk, key="p1", software="RELION")[0]
        self.post(run, 0, 30)
        self.post(over, 0, 30)
        call_command("check_alerts")
        assert set(PackedColumns.objects.values_list("run", flat=True)) == {run.pk}
        assert packed.catch_up() == 0
        self.post(run, 30, 5)
        assert packed.catch_up() == 0
        self.post(run, 35, 5)
        assert packed.catch_up() == 1

    def test_what_is_packed_goes_with_its_run(self, run, monkeypatch):
        from preprocessing.deletion import delete_run

        monkeypatch.setattr(packed, "UNPACKED", 4)
        self.post(run, 0, 10)
        packed.table(again(run))
        assert PackedColumns.objects.exists()
        delete_run(run, None)
        assert not PackedColumns.objects.exists()

    def test_values_keep_their_bins(self, run):
        """Packed as float32, 2.8 must still be counted from 2.8 on."""
        report(run, *((f"m{n:03}.tiff", {"ctf_resolution": round(2 + n / 10, 1)}) for n in range(100)))
        now = again(run)
        found = packed.table(now)
        counts = reduction.counts(found, found.order, ["ctf_resolution"])
        assert counts["ctf_resolution"] == now.histograms["ctf_resolution"]


# -- The verdict ---------------------------------------------------------------------------------------------


class TestVerdict:
    def told(self, session, values, *, now=None, state=None, limits=NO_LIMITS):
        session = Session.objects.select_related(*RELATED).get(pk=session.pk)
        found = None
        if values:
            found = table(**values)
        now = now or timezone.now()
        state = state or state_of(session, now)
        return verdict.verdict(session, found, limits, state, 100, now=now)

    def collecting(self):
        return SimpleNamespace(code="collecting", level="ok", icon="record-circle", words="Collecting")

    def advice(self, session, resolution, state=None):
        limits = SimpleNamespace(**(vars(NO_LIMITS) | {"ctf_resolution_max": 6}))
        values = {"ctf_resolution": resolution}
        return self.told(session, values, state=state or self.collecting(), limits=limits)["advice"]

    def test_go_on_adjust_and_stop_follow_the_newest(self, db):
        session = SessionFactory()
        good, bad = [3.0] * 200, [9.0] * 200
        assert self.advice(session, good)["key"] == "go_on"
        half = self.advice(session, good + [9.0] * 30 + [3.0] * 20)
        assert (half["key"], half["level"]) == ("adjust", "warning")
        assert half["text"] == "Only 40% of the last 50 usable: CTF resolution above 6 Å in 30."
        assert self.advice(session, good + bad)["key"] == "stop"
        assert self.advice(session, bad + good)["key"] == "go_on"

    def test_too_few_are_no_ground_for_a_verdict(self, db):
        assert self.advice(SessionFactory(), [9.0] * 9)["key"] == "wait"
        assert self.told(SessionFactory(), None)["advice"]["key"] == "wait"

    def test_what_is_silent_or_failed_is_to_be_checked_whatever_the_numbers(self, db):
        state = SimpleNamespace(code="stalled", level="warning", icon="x", words="No new file for 18 min")
        advice = self.advice(SessionFactory(), [3.0] * 100, state)
        assert (advice["key"], advice["title"]) == ("check", "Check the microscope")

    def test_a_session_that_is_over_is_summed_up(self, db):
        limits = SimpleNamespace(**(vars(NO_LIMITS) | {"ctf_resolution_max": 6}))
        data = self.told(FinishedSessionFactory(), {"ctf_resolution": [3.0, 9.0, 3.0, 3.0]}, limits=limits)
        assert data["advice"]["key"] == "over"
        assert data["advice"]["text"] == "75% of 4 usable."
        assert (data["judged"], data["usable"], data["rate_now"]) == (4, 3, None)

    def test_the_count_at_the_bookings_end_goes_on_at_this_pace(self, db):
        session = SessionFactory()
        now = timezone.now()
        times = now.timestamp() - np.arange(3600, 0, -10.0)
        data = self.told(session, {"acquired": times}, now=now, state=self.collecting())
        hours = (session.booking.end - now) / datetime.timedelta(hours=1)
        assert data["rate_now"] == pytest.approx(360, rel=0.02)
        assert data["projected"] == pytest.approx(100 + 360 * hours, rel=0.02)
        over = session.booking.end + datetime.timedelta(minutes=1)
        assert self.told(session, {"acquired": times}, now=over, state=self.collecting())["projected"] is None

    def test_without_limits_everything_is_usable_that_nobody_rejected(self, db):
        data = self.told(SessionFactory(), {"ctf_resolution": [3.0, 9.0], "flags": [0, packed.REJECTED]})
        assert (data["judged"], data["usable"]) == (1, 0)
