"""A run's rows as one table in memory, so that the live page costs the same at 100 and at 50,000 micrographs.

`table(run)` answers every row as of the run's revision or later. Each server process keeps the tables of the runs
that were looked at last, within MEMORY, and brings them up to date with the rows that changed since: one query by
revision. A process that has none yet starts from packed chunks in the database (models.PackedColumns), which are
written now and then by whoever reads, never by who posts: they are a cache that may be emptied at any time. Of an
archived session the rows are gone, and the table is what archive.py kept of them.

Times are seconds since 1970 (UTC), stage positions µm, measured values as the rows have them; NaN is unknown.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Max
from django.db.models.functions import Coalesce

from preprocessing import row_arrays
from preprocessing.histograms import MEASURED_FIELDS, MEASURES
from preprocessing.models import ArchivedRows, PackedColumns, ProcessingRun
from sessions_app.models import Session

#: Rows of a chunk, and how many rows may have changed before somebody packs them.
CHUNK = 1024
UNPACKED = 512
#: Bytes of tables that a process keeps.
MEMORY = 64 * 2**20
#: How many things made of a table are kept with it.
KEPT = 100
#: Changed whenever DTYPE is: chunks of another layout are not read.
LAYOUT = 1

DTYPE = np.dtype(
    [
        ("id", "<i8"),
        ("exposure", "<i8"),
        ("revision", "<i8"),
        ("acquired", "<f8"),
        ("reported", "<f8"),
        ("flags", "u1"),
        ("grid_square", "<i4"),
        ("foil_hole", "<i4"),
        *((name, "<f4") for name in (*row_arrays.PLACES, *MEASURED_FIELDS)),
    ]
)
TEXTS = ("grid_square", "foil_hole")
# Bits of `flags`.
PICTURE, SPECTRUM, REJECTED = row_arrays.PICTURE, row_arrays.SPECTRUM, row_arrays.REJECTED
ACCEPTED_BY_HAND, REJECTED_BY_HAND = row_arrays.ACCEPTED_BY_HAND, row_arrays.REJECTED_BY_HAND
# What float32 keeps of a value: so that 2.8 is 2.8 again and falls into the same bin as the row's own.
_DECIMALS = {"defocus_u": 2, "defocus_v": 2}
_USUAL_DECIMALS = 4


@dataclass(frozen=True)
class Table:
    """A run's rows (DTYPE, in the order of their making) with the texts that their codes mean."""

    revision: int
    rows: np.ndarray
    texts: tuple[str, ...] = ("",)
    # What the database's chunks do not have yet: numbers of chunks, and how many rows changed since `packed`.
    dirty: frozenset[int] = frozenset()
    unpacked: int = 0
    packed: int = -1
    kept: dict = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def wants_packing(self) -> bool:
        return self.unpacked >= UNPACKED and "packing tried" not in self.kept

    @property
    def nbytes(self) -> int:
        # Twice: the columns that are made from the rows.
        return 2 * self.rows.nbytes + sum(map(len, self.texts)) + 60 * len(self.texts)

    def keep(self, key, make: Callable[[], Any]) -> Any:
        """What was made of these rows before, or is made now."""
        value = self.kept.get(key)
        if value is None:
            value = make()
            # A session that is over has one table for days: what many readers asked of it is not kept for ever.
            if len(self.kept) >= KEPT:
                self.kept.clear()
            self.kept[key] = value
        return value

    def place(self, pk: int) -> int | None:
        """Where the micrograph of this id is among the rows."""
        ids = self.rows["id"]
        place = int(ids.searchsorted(pk))
        return place if place < len(ids) and ids[place] == pk else None

    @property
    def order(self) -> np.ndarray:
        """Places of the rows in the order of their exposures; image numbers count along it from 1."""
        return self.keep("order", lambda: np.argsort(self.rows["exposure"], kind="stable"))

    @property
    def number(self) -> np.ndarray:
        """Each row's image number."""

        def make():
            numbers = np.empty(len(self), dtype=np.int64)
            numbers[self.order] = np.arange(1, len(self) + 1)
            return numbers

        return self.keep("number", make)

    @property
    def time(self) -> np.ndarray:
        """When each was acquired, or first reported where that is not known."""

        def make():
            acquired = self.rows["acquired"]
            return np.where(np.isnan(acquired), self.rows["reported"], acquired)

        return self.keep("time", make)

    def column(self, name: str) -> np.ndarray:
        """A stored column as float64."""
        decimals = _DECIMALS.get(name, _USUAL_DECIMALS)
        return self.keep(("column", name), lambda: np.round(self.rows[name].astype(np.float64), decimals))

    def measure(self, name: str) -> np.ndarray:
        """A measure of histograms.MEASURES in the unit shown, NaN where unknown."""
        measure = MEASURES[name]
        return self.keep(
            ("measure", name),
            lambda: measure.values({column: self.column(column) for column in measure.fields}),
        )

    @property
    def sent(self) -> tuple[str, ...]:
        """The measures that any row has."""
        return self.keep(
            "sent", lambda: tuple(name for name in MEASURES if not np.isnan(self.measure(name)).all())
        )

    def text(self, codes: np.ndarray) -> list[str]:
        return [self.texts[code] for code in codes]


_tables: OrderedDict[tuple, Table] = OrderedDict()
_lock = threading.Lock()
# One run is read by one thread at a time; the others then find what it read.
_turns = [threading.Lock() for _ in range(64)]


def table(run: ProcessingRun, *, pack: bool = True) -> Table:
    """The run's rows as of its revision, as `run` was read, or later.

    With `pack` the database's chunks are brought up to date where that is due; who answers a waiting reader leaves
    it for after the answer.
    """
    # A number may be given anew after a database was restored; the moment of its making is not.
    key = (connection.alias, run.pk, run.created_at)
    found = _recall(key)
    current = found is not None and found.revision >= run.revision and len(found) >= run.micrographs
    if current and not (pack and found.wants_packing):
        return found
    with _turns[run.pk % len(_turns)]:
        found = _recall(key)
        if found is None or found.revision < run.revision:
            found = _updated(found or _load(run), run)
        if len(found) != run.micrographs and found.revision <= run.revision:
            # Rows went, which only a restore or somebody at the database's own prompt does.
            found = _updated(Table(-1, np.empty(0, DTYPE)), run)
        if pack and found.wants_packing:
            # Once: where another process has gone further, what it wrote is as good.
            found.kept["packing tried"] = True
            found = _pack(run, found)
        _keep(key, found)
    return found


def from_rows(run: ProcessingRun) -> Table:
    """The run's rows as they are in the database now, whatever was kept of them before."""
    return _updated(Table(-1, np.empty(0, DTYPE)), run)


def catch_up() -> int:
    """Pack the rows of running sessions that nobody has looked at for a while; answers of how many runs.

    For whoever looks at them every minute anyway (manage.py check_alerts): so the first reader of a long session does
    not wait until all of its rows are read.
    """
    runs = ProcessingRun.objects.filter(session__status__in=[Session.Status.PENDING, Session.Status.ACTIVE])
    runs = runs.annotate(head=Coalesce(Max("packed__revision"), -1))
    behind = runs.filter(revision__gte=F("head") + UNPACKED).defer("parameters", "histograms")
    for run in behind:
        table(run)
    return len(behind)


def forget() -> None:
    """Empty this process's memory."""
    with _lock:
        _tables.clear()


def _recall(key: tuple) -> Table | None:
    with _lock:
        found = _tables.get(key)
        if found is not None:
            _tables.move_to_end(key)
        return found


def _keep(key: tuple, found: Table) -> None:
    with _lock:
        _tables[key] = found
        _tables.move_to_end(key)
        total = sum(each.nbytes for each in _tables.values())
        while total > MEMORY and len(_tables) > 1:
            total -= _tables.popitem(last=False)[1].nbytes


def _changed(run: ProcessingRun, after: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Rows changed since revision `after`, ascending by id, with their grid squares and foil holes."""
    return row_arrays.changed(run.pk, after)


def _updated(old: Table, run: ProcessingRun) -> Table:
    """The table with every row that changed since its revision."""
    changed, *of_changed = _changed(run, old.revision)
    if not len(changed):
        return Table(run.revision, old.rows, old.texts, old.dirty, old.unpacked, old.packed, kept=old.kept)
    texts = list(old.texts)
    codes = {text: code for code, text in enumerate(texts)}
    fresh = np.empty(len(changed), DTYPE)
    with np.errstate(over="ignore"):  # What is too much for float32 is infinite there.
        for name in changed.dtype.names:
            fresh[name] = changed[name]
    for name, own in zip(TEXTS, of_changed, strict=True):
        for text in dict.fromkeys(own):
            if text not in codes:
                codes[text] = len(texts)
                texts.append(text)
        fresh[name] = [codes[text] for text in own]
    known = old.rows["id"]
    places = np.searchsorted(known, fresh["id"])
    there = places < len(known)
    there[there] = known[places[there]] == fresh["id"][there]
    rows = old.rows.copy()
    rows[places[there]] = fresh[there]
    dirty = set(old.dirty) | set((places[there] // CHUNK).tolist())
    new = fresh[~there]
    if len(new):
        start = int(places[~there].min())
        rows = np.concatenate([rows, new])
        if start < len(known):
            rows = rows[np.argsort(rows["id"], kind="stable")]
        dirty |= set(range(start // CHUNK, (len(rows) - 1) // CHUNK + 1))
    # Revisions are taken under the run's lock: whoever sees one row of a revision sees all before it.
    revision = max(run.revision, int(fresh["revision"].max()))
    return Table(revision, rows, tuple(texts), frozenset(dirty), old.unpacked + len(fresh), old.packed)


# -- Chunks in the database --------------------------------------------------------------------------------


def _load(run: ProcessingRun) -> Table:
    """The table as it was packed last; empty where it never was."""
    parts, texts, codes = [], [""], {"": 0}
    head = -1
    stored = PackedColumns.objects.filter(run=run, layout=LAYOUT).order_by("number")
    for number, (found, revision, packed, words) in enumerate(
        stored.values_list("number", "revision", "data", "texts")
    ):
        if found != number:
            return Table(-1, np.empty(0, DTYPE))
        part = np.frombuffer(bytes(packed), dtype=DTYPE).copy()
        for name, own in zip(TEXTS, words, strict=True):
            for text in own:
                if text not in codes:
                    codes[text] = len(texts)
                    texts.append(text)
            part[name] = np.array([codes[text] for text in own], dtype=np.int32)[part[name]]
        parts.append(part)
        head = max(head, revision)
    if not parts:
        return _archived(run)
    return Table(head, np.concatenate(parts), tuple(texts), packed=head)


def _archived(run: ProcessingRun) -> Table:
    """What an archived session keeps of its rows; an empty table where it is not archived."""
    kept = ArchivedRows.objects.filter(run=run).defer("names").first()
    if kept is None:
        return Table(-1, np.empty(0, DTYPE))
    stored = np.frombuffer(zlib.decompress(kept.data), dtype=[tuple(column) for column in kept.columns])
    rows = np.zeros(len(stored), DTYPE)
    for name in DTYPE.names:
        if name in stored.dtype.names:
            rows[name] = stored[name]
        elif np.issubdtype(DTYPE[name], np.floating):
            rows[name] = np.nan  # Not measured yet when this was archived.
    return Table(run.revision, rows, tuple(kept.texts), packed=run.revision)


def _chunk(found: Table, number: int) -> tuple[bytes, list[list[str]]]:
    """A chunk's bytes, its codes being places in lists of its own texts."""
    part = found.rows[number * CHUNK : (number + 1) * CHUNK].copy()
    words = []
    for name in TEXTS:
        own, part[name] = np.unique(part[name], return_inverse=True)
        words.append(found.text(own))
    return part.tobytes(), words


def _pack(run: ProcessingRun, found: Table) -> Table:
    """Write the chunks that changed, unless somebody else does so now or has gone further."""
    skip = connection.features.has_select_for_update_skip_locked
    try:
        with transaction.atomic():
            # The run's own row belongs to who posts: whoever packs takes the first chunk's instead.
            first = PackedColumns.objects.filter(run=run, number=0)
            if not first.exists():
                empty = PackedColumns(run_id=run.pk, number=0, layout=0, revision=0, data=b"", texts=[])
                PackedColumns.objects.bulk_create([empty], ignore_conflicts=True)
            if not first.select_for_update(skip_locked=skip).values_list("pk"):
                return found
            heads = PackedColumns.objects.filter(run=run, layout=LAYOUT).values_list("revision", flat=True)
            head = max(heads, default=-1)
            if not found.packed <= head <= found.revision:
                return found
            PackedColumns.objects.bulk_create(
                [_packed_row(run, found, number) for number in sorted(found.dirty)],
                update_conflicts=True,
                unique_fields=["run", "number"],
                update_fields=["layout", "revision", "data", "texts"],
            )
    except DatabaseError:
        # The run went, or SQLite's one writer was busy for longer than anyone waits: packed another time.
        if connection.in_atomic_block:
            raise
        return found
    return Table(found.revision, found.rows, found.texts, packed=found.revision, kept=found.kept)


def _packed_row(run: ProcessingRun, found: Table, number: int) -> PackedColumns:
    data, words = _chunk(found, number)
    return PackedColumns(
        run_id=run.pk, number=number, layout=LAYOUT, revision=found.revision, data=data, texts=words
    )
