"""CryoSPARC's files, parser by parser; whatever is in them, nothing worse than a named error."""

import contextlib
import io
import json
import tracemalloc

import numpy as np
import pytest
from cryosparc.dataset import CSDAT_FORMAT, Dataset
from emhub_agent import bson, cs
from hypothesis import given, settings
from hypothesis import strategies as st

from . import cryosparc_project as project

TABLE = {
    "uid": np.array([3, 2**64 - 1, 5], dtype="u8"),
    "ctf/df1_A": np.array([12000.5, -3.25, 7.0], dtype="f4"),
    "location/micrograph_shape": np.array([[1, 2], [3, 4], [5, 6]], dtype="u4"),
    "movie_blob/path": np.array(["J1/imported/a.tif", "", "J1/imported/Å long one.tif"]),
}


@contextlib.contextmanager
def read_or_named():
    """What may come of any input: it is read, or there is an error that says what is wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        if not str(error):
            raise AssertionError("an error without a word") from error


def written(tmp_path, data, name="a.cs"):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def packed(found):
    return project.table(found, packed=True)


def plain(found):
    return project.table(
        {
            name: np.array([text.encode() for text in values.tolist()])
            if values.dtype.kind == "U"
            else values
            for name, values in found.items()
        }
    )


FORMATS = pytest.mark.parametrize("write", [plain, packed], ids=["numpy", "csdat"])


@FORMATS
def test_both_formats_give_the_same_rows(tmp_path, write):
    path = written(tmp_path, write(TABLE))
    rows = cs.read(path)
    assert sorted(rows) == sorted(TABLE) == sorted(cs.columns(path))
    for name, values in TABLE.items():
        if values.dtype.kind == "U":
            assert [text.decode() for text in rows[name].tolist()] == values.tolist()
        else:
            assert rows[name].dtype == values.dtype
            assert np.array_equal(rows[name], values)
    assert list(cs.read(path, lambda name: name == "uid")) == ["uid"]


@FORMATS
def test_a_table_of_many_rows_comes_in_parts(tmp_path, write, monkeypatch):
    monkeypatch.setattr(cs, "CHUNK", 1000)
    random = np.random.default_rng(1)
    found = {
        "uid": np.arange(3500, dtype="u8"),
        "location/micrograph_uid": np.repeat(random.integers(1, 2**62, 7, dtype="u8"), 500),
        "location/center_x_frac": random.uniform(size=3500).astype("f4"),
        "blob/path": np.array([f"J1/{number // 100}.mrc" for number in range(3500)]),
    }
    path = written(tmp_path, write(found))
    parts = list(cs.chunks(path, lambda name: True))
    assert [len(part["uid"]) for part in parts] == [1000, 1000, 1000, 500]
    rows = cs.read(path)
    for name in ("uid", "location/micrograph_uid", "location/center_x_frac"):
        assert np.array_equal(rows[name], found[name])
    assert [text.decode() for text in rows["blob/path"].tolist()] == found["blob/path"].tolist()


@FORMATS
def test_a_column_of_one_value_comes_whole(tmp_path, write, monkeypatch):
    monkeypatch.setattr(cs, "CHUNK", 1000)
    found = {
        "uid": np.arange(2500, dtype="u8"),
        "ctf/df1_A": np.full(2500, 12000.5, "f4"),
        "location/micrograph_shape": np.tile(np.array([64, 96], dtype="u4"), (2500, 1)),
        "movie_blob/path": np.array(["J1/imported/a.tif"] * 2500),
    }
    parts = list(cs.chunks(written(tmp_path, write(found)), lambda name: True))
    assert [len(part["uid"]) for part in parts] == [1000, 1000, 500]
    assert parts[1]["uid"].tolist() == list(range(1000, 2000))
    for part in parts:
        assert set(part["ctf/df1_A"].tolist()) == {12000.5}
        assert part["location/micrograph_shape"].tolist() == [[64, 96]] * len(part["uid"])
        assert set(part["movie_blob/path"].tolist()) == {b"J1/imported/a.tif"}


@FORMATS
def test_the_columns_without_their_rows(tmp_path, write):
    path = written(tmp_path, write(TABLE))
    empty, [rows] = cs.without_rows(path), cs.chunks(path, lambda name: True)
    assert list(empty) == cs.columns(path) == list(TABLE)
    for name, values in empty.items():
        assert values.shape == (0, *rows[name].shape[1:])
        assert values.dtype.kind == rows[name].dtype.kind


@FORMATS
def test_an_empty_table(tmp_path, write):
    path = written(tmp_path, write({name: values[:0] for name, values in TABLE.items()}))
    assert cs.read(path) == {}


@FORMATS
def test_a_table_cut_anywhere_is_not_read(tmp_path, write):
    data = write(TABLE)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            cs.read(written(tmp_path, data[:length]))


def test_a_table_that_is_longer_than_it_says_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="longer"):
        cs.read(written(tmp_path, plain(TABLE) + b"\0"))


def test_nothing_is_unpickled(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([(1, {})], dtype=[("uid", "u8"), ("a", "O")]), allow_pickle=True)
    with pytest.raises(ValueError):
        cs.read(written(tmp_path, stream.getvalue()))
    stream = io.BytesIO()
    np.save(stream, np.arange(3))
    with pytest.raises(ValueError, match="no table"):
        cs.read(written(tmp_path, stream.getvalue()))
    with pytest.raises(ValueError, match="not a table"):
        cs.read(written(tmp_path, b"PK\x03\x04 something else"))


def header(**changes):
    found = {
        "length": 1,
        "dtype": [["uid", "<u8"], ["a", "<f4"]],
        "compression": "lz4",
        "compressed_fields": ["a"],
        **changes,
    }
    text = json.dumps(found).encode()
    return cs.CSDAT + len(text).to_bytes(4, "little") + text


def block(data):
    return len(data).to_bytes(4, "little") + data


LIES = [
    header(length=2**31) + block(b"\0" * 8) + block(b"\x1f\0\x01\0" + b"\xff" * 200 + b"\0"),
    header(length=2**40),
    header(length=-1),
    header(length=True),
    header(length=1, dtype=[["uid", "<u8", [2**40]]]),
    header(length=1, dtype=[["uid", "|S99999999"]]),
    header(dtype=[["uid", "|O", [3]]]) + block(b"\xff" * 24),
    header(dtype=7),
    header(compression="zip"),
    header(compressed_fields={"a": 1}),
    cs.CSDAT + b"\xff\xff\xff\xff{}",
    b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    cs.NUMPY
    + b"\x01\x00"
    + block(b"{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': (99999999999,), }")[:2]
    + b"\0\0",
    cs.NUMPY
    + b"\x01\x00\x56\x00"
    + b"{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': (9999999999999,), }".ljust(0x56),
]


@pytest.mark.parametrize("data", LIES)
def test_a_lying_header_costs_no_memory(tmp_path, data):
    path = written(tmp_path, data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            cs.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_lz4_against_the_vendors_library():
    random = np.random.default_rng(5)
    for values in (
        np.zeros(70_000, dtype="u1"),
        np.tile(np.array([1, 2, 3], dtype="u1"), 5000),
        random.integers(0, 4, 9000, dtype="u1"),
        random.integers(0, 256, 9000, dtype="u1"),
    ):
        stream = io.BytesIO()
        Dataset({"uid": np.arange(len(values)), "a": values}).save(stream, format=CSDAT_FORMAT)
        data = stream.getvalue()
        place = 10 + int.from_bytes(data[6:10], "little")
        place += 4 + int.from_bytes(data[place : place + 4], "little")
        size = int.from_bytes(data[place : place + 4], "little")
        assert cs.lz4_block(data[place + 4 : place + 4 + size], len(values)) == values.tobytes()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1000))
def test_any_lz4_block(data, size):
    with read_or_named():
        assert len(cs.lz4_block(data, size)) == size


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("broken")


def damage(draw_from):
    """Bytes that were right once: some changed, some taken out, some put in."""

    @st.composite
    def damaged(draw):
        data = bytearray(draw(st.sampled_from(draw_from)))
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, max(0, len(data) - 1)))
            what = draw(st.sampled_from(("change", "cut", "insert", "take")))
            if what == "change" and data:
                data[place] = draw(st.integers(0, 255))
            elif what == "cut":
                del data[place:]
            elif what == "insert":
                data[place:place] = draw(st.binary(max_size=12))
            else:
                del data[place : place + draw(st.integers(1, 12))]
        return bytes(data)

    return damaged()


TABLES = [plain(TABLE), packed(TABLE)]


@settings(max_examples=250, deadline=None)
@given(st.one_of(damage(TABLES), st.binary(max_size=300), st.binary(max_size=60).map(cs.CSDAT.__add__)))
def test_any_table_is_read_or_named(scratch, data):
    path = written(scratch, data)
    with read_or_named():
        assert len({len(values) for values in cs.read(path).values()}) <= 1


ARRAYS = [
    project.array(project.trajectory(1)),
    project.array(np.asfortranarray(np.ones((3, 2), dtype=">f8"))),
]


@settings(max_examples=100, deadline=None)
@given(st.one_of(damage(ARRAYS), st.binary(max_size=300)))
def test_any_array_is_read_or_named(scratch, data):
    with read_or_named():
        cs.read_array(written(scratch, data))


def test_arrays_of_either_order(tmp_path):
    for values in (project.trajectory(2), np.asfortranarray(np.arange(6.0).reshape(3, 2))):
        assert np.array_equal(cs.read_array(written(tmp_path, project.array(values))), values)


# .csg

CSG = b"""created: 2021-06-10 00:55:14.794530
group:
  description: All particles that were processed, including alignments, in a text so long
    that it goes on in the next line
  name: particles
  title: 'All: particles'
  type: particle
results:
  blob:
    metafile: '>P9_J209_passthrough_particles.cs'
    num_items: 95796
    type: particle.blob
  ctf:
    metafile: ">cryosparc_P9_J209_005_particles.cs"
    num_items: 95796
    type: particle.ctf
version: v2.15.0
"""


def test_a_group_file(tmp_path):
    group = cs.read_group(written(tmp_path, CSG))
    assert (group.name, group.type) == ("particles", "particle")
    assert group.metafiles == {
        "blob": "P9_J209_passthrough_particles.cs",
        "ctf": "cryosparc_P9_J209_005_particles.cs",
    }


@settings(max_examples=100, deadline=None)
@given(st.one_of(damage([CSG]), st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_group_file_is_read_or_named(scratch, data):
    with read_or_named():
        assert cs.read_group(written(scratch, data)).metafiles


# job.json

JOBS = [
    project.job4("J3", "patch_ctf", ["J2"], [("exposures", "exposure", "ctf", False, ["J3/a.cs"])]),
    project.job5("J3", "patch_ctf", ["J2"], [("exposures", "exposure", "ctf", False, ["J3/a.cs"])]),
]


@pytest.mark.parametrize("data", JOBS, ids=["v4", "v5"])
def test_a_job_of_either_shape(tmp_path, data):
    job = cs.read_job(written(tmp_path, data))
    assert (job.uid, job.number, job.project, job.type, job.status) == (
        "J3",
        3,
        "P3",
        "patch_ctf",
        "completed",
    )
    assert job.parents == {"J2"}
    assert job.results == [cs.Result("exposures", "exposure", "ctf", False, [(0, "J3/a.cs")])]
    assert (job.ended or "").endswith("+00:00")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*json.loads(JOBS[0]), *json.loads(JOBS[1])]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8), st.sampled_from(JOBS))
def test_any_document_is_a_job_or_named(found, good):
    with read_or_named():
        job = cs.parse_job({**json.loads(good), **found})
        assert json.loads(json.dumps(job.parameters)) == job.parameters


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(damage(JOBS), st.binary(max_size=100), st.integers(1, 100_000).map(lambda deep: b"[" * deep))
)
def test_any_job_file_is_read_or_named(scratch, data):
    with read_or_named():
        cs.read_job(written(scratch, data))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$date": 1623286514792}, "2021-06-10T00:55:14+00:00"),
        ("2026-11-23T08:00:00.123000+01:00", "2026-11-23T07:00:00+00:00"),
        ("2026-11-23T07:00:00Z", "2026-11-23T07:00:00+00:00"),
        ("2026-11-23T07:00:00", "2026-11-23T07:00:00+00:00"),
        ({"$date": 1e300}, None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_moments(value, expected):
    assert cs.moment(value) == expected


# exposures.bson


def encoded(value):
    """A document in BSON, by its specification."""

    def pair(name, item):
        start = name.encode() + b"\0"
        if isinstance(item, bool):
            return b"\x08" + start + bytes([item])
        if isinstance(item, float):
            return b"\x01" + start + np.float64(item).tobytes()
        if isinstance(item, int):
            return b"\x12" + start + item.to_bytes(8, "little", signed=True)
        if isinstance(item, str):
            text = item.encode() + b"\0"
            return b"\x02" + start + len(text).to_bytes(4, "little") + text
        if isinstance(item, dict):
            return b"\x03" + start + encoded(item)
        if isinstance(item, list):
            return b"\x04" + start + encoded({str(place): each for place, each in enumerate(item)})
        return b"\x0a" + start

    body = b"".join(pair(name, item) for name, item in value.items())
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


DOCUMENT = {
    "exposures": [{"uid": 7, "attributes": {"ctf_fit_to_A": 3.5}, "failed": False, "a": "Å", "b": None}]
}


def test_documents_in_bson():
    assert bson.documents(encoded(DOCUMENT) * 2) == [DOCUMENT, DOCUMENT]
    date = b"\x12\0\0\0\x09a\0" + (1623286514792).to_bytes(8, "little") + b"\0\0"
    assert (
        bson.documents(date[:16].replace(b"\x12", b"\x10", 1))[0]["a"]
        .isoformat()
        .startswith("2021-06-10T00:55:14")
    )


def test_documents_cut_anywhere_are_not_read():
    data = encoded(DOCUMENT)
    for length in range(1, len(data)):
        with pytest.raises(ValueError):
            bson.documents(data[:length])


@settings(max_examples=150, deadline=None)
@given(st.one_of(damage([encoded(DOCUMENT)]), st.binary(max_size=100)))
def test_any_bson_is_read_or_named(data):
    with read_or_named():
        bson.documents(data)
