"""Tables of programs nobody has heard of."""

import csv
import io
import json
import math
import os
import random
import time

import pytest
from emhub_agent.readers import table
from emhub_agent.readers.base import ReaderError
from emhub_agent.readers.table import TableReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .growing import assert_ends_as_one_clean_pass, grow, settle
from .scipion_project import image

MAP = {
    "name": "movie",
    "columns": {"defocus_u": "df1", "defocus_v": "df2", "ctf_resolution": "fit", "particles": "picks"},
    "scale": {"defocus_u": 10000, "defocus_v": 10000},
}
ROWS = [
    {
        "movie": f"Movies/grid_{number:03d}.tiff",
        "df1": 1.2 + number / 8,
        "df2": 1.1,
        "fit": 3.5,
        "picks": number,
    }
    for number in range(1, 8)
]


def expected(row):
    return {
        "defocus_u": row["df1"] * 10000,
        "defocus_v": row["df2"] * 10000,
        "ctf_resolution": row["fit"],
        "particles": row["picks"],
    }


def as_csv(rows=ROWS, delimiter=",", ending="\n", header=True):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter, lineterminator=ending)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_json(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def reader(path, data=None, **more):
    if data is not None:
        path.write_bytes(data)
    return TableReader(str(path), settings={**MAP, **more})


def look(found):
    [news] = found.look()
    return news


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.csv"


# what is read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_delimiter_is_found_out(path, delimiter, ending):
    news = look(reader(path, as_csv(delimiter=delimiter, ending=ending)))
    assert news.micrographs == {row["movie"]: expected(row) for row in ROWS}
    assert news.key == "results"
    assert news.status == "running"


@pytest.mark.parametrize("name", ["results.jsonl", "results.ndjson", "results.txt"])
def test_json_lines(tmp_path, name):
    more = {"format": "jsonl"} if name.endswith("txt") else {}
    news = look(reader(tmp_path / name, as_json(), **more))
    assert news.micrographs == {row["movie"]: expected(row) for row in ROWS}


def test_a_value_within_an_object_is_named_with_dots(tmp_path):
    line = {"movie": {"name": "a.tiff"}, "ctf": {"df": [1], "df1": 2}, "picks": [[1, 2.5], [3, 4]]}
    settings = {
        "name": "movie.name",
        "columns": {"defocus_u": "ctf.df1", "defocus_v": "ctf.df.x", "coordinates": "picks"},
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    news = look(TableReader(str(tmp_path / "a.jsonl"), settings=settings))
    assert news.micrographs == {
        "a.tiff": {"defocus_u": 2.0, "coordinates": [[1.0, 2.5], [3.0, 4.0]], "particles": 2}
    }


def test_quotes_marks_and_blank_lines(path):
    data = (
        b"\xef\xbb\xbf# made by some program\n\nfit,movie,df1,df2,note\n"
        b'3.5,"odd, name.tiff",1.5,1.25,"over\ntwo lines"\n'
        b'4.5,plain.tiff,1D0,.5,5" of ice\n'
    )
    news = look(reader(path, data, comment="#"))
    assert news.micrographs == {
        "odd, name.tiff": {"defocus_u": 15000.0, "defocus_v": 12500.0, "ctf_resolution": 3.5},
        "plain.tiff": {"defocus_u": 10000.0, "defocus_v": 5000.0, "ctf_resolution": 4.5},
    }


def test_a_table_without_a_header(path):
    news = look(reader(path, as_csv(header=False, delimiter=";"), header=list(ROWS[0])))
    assert list(news.micrographs) == [row["movie"] for row in ROWS]
    assert news.micrographs[ROWS[1]["movie"]] == expected(ROWS[1])


def test_the_run_is_described_by_the_settings(path):
    told = {
        "software": "Focus",
        "version": 1.1,
        "label": "on the fly",
        "parameters": {"box": 512},
        "pixel_size": 0.885,
        "width": 3710,
        "height": 3838,
        "particle_diameter": 180,
    }
    info = look(TableReader(str(path), "focus", {**MAP, **told}) if path.write_bytes(as_csv()) else None).info
    assert {name: info[name] for name in told} == {**told, "version": "1.1"}
    assert info["host"]


def test_a_run_without_a_new_line_for_long_is_finished_and_its_last_line_counts(path):
    found = reader(path, as_csv()[:-1], finished_after=10)
    news = look(found)
    assert news.status == "running"
    assert len(news.micrographs) == 6  # the last line has not ended
    old = time.time() - 3600
    os.utime(path, (old, old))
    news = look(found)
    assert news.status == "finished"
    assert list(news.micrographs) == [ROWS[-1]["movie"]]


def test_leginons_names_tell_square_and_hole(path):
    path.write_text("movie,df1\n24dec03a_00034gr_00003sq_v01_00002hl_00002ex.tif,1\nplain.tif,2\n")
    _, acquisition = TableReader(
        str(path), settings={"name": "movie", "columns": {"defocus_u": "df1"}}
    ).look()
    assert acquisition.fields == {}
    assert acquisition.exposures == {
        "24dec03a_00034gr_00003sq_v01_00002hl_00002ex.tif": {
            "grid_square": "00034gr_00003sq",
            "foil_hole": "00034gr_00003sq_00002hl",
        }
    }


def test_words_for_yes_no_and_unknown(path):
    data = b"movie,df1,out\na.tif,,yes\nb.tif,nan,0\nc.tif,n/a,maybe\nd.tif,inf,-\n"
    settings = {"name": "movie", "columns": {"defocus_u": "df1", "rejected": "out"}}
    path.write_bytes(data)
    news = look(TableReader(str(path), settings=settings))
    assert news.micrographs == {
        "a.tif": {"rejected": True},
        "b.tif": {"rejected": False},
        "c.tif": {},
        "d.tif": {},
    }


def test_pictures_are_found_beside_the_table_and_not_outside(tmp_path, caplog):
    image(tmp_path / "data/mic/a.mrc", 1)
    image(tmp_path / "outside.mrc", 1)
    (tmp_path / "data/t.csv").write_text(
        "movie,df1,mic\na.tif,1,mic/a.mrc\nb.tif,1,../outside.mrc\nc.tif,1,mic/c.mrc\n"
    )
    settings = {"name": "movie", "columns": {"defocus_u": "df1"}, "pictures": {"micrograph": "mic"}}
    found = TableReader(str(tmp_path / "data/t.csv"), settings=settings)
    assert [picture.micrograph for picture in look(found).pictures] == ["a.tif"]
    assert "lies outside of" in caplog.text
    assert look(found).pictures == []
    image(tmp_path / "data/mic/c.mrc", 1)  # drawn later than its line was written
    assert [picture.micrograph for picture in look(found).pictures] == ["c.tif"]


# what is not right


def test_a_value_that_is_no_number_is_named_once_by_line_and_column(path, caplog):
    rows = [{**row, "df1": "bad"} if number in (1, 2) else row for number, row in enumerate(ROWS)]
    news = look(reader(path, as_csv(rows)))
    assert "defocus_u" not in news.micrographs[ROWS[1]["movie"]]
    assert news.micrographs[ROWS[1]["movie"]]["ctf_resolution"] == 3.5
    assert news.micrographs[ROWS[3]["movie"]] == expected(ROWS[3])
    [record] = caplog.records
    assert "line 3, column df1: 'bad' is no number" in record.getMessage()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("particles", "1.5"),
        ("particles", "-1"),
        ("defocus_u", "1_000"),
        ("defocus_u", "1e999"),
        ("defocus_u", "0x10"),
    ],
)
def test_values_that_look_like_numbers_and_are_none(path, caplog, field, value):
    path.write_text(f"movie,value\na.tif,{value}\n")
    news = look(TableReader(str(path), settings={"name": "movie", "columns": {field: "value"}}))
    assert news.micrographs == {"a.tif": {}}
    assert "line 2, column value" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"colums": {}}, "no setting colums; the nearest is columns"),
        ({"columns": {"defocusu": "df1"}}, "names defocusu, which is no field; the nearest is defocus_u"),
        ({"columns": {}}, "Say which columns the table has"),
        ({"columns": ["df1"]}, "The setting columns is a map"),
        ({"columns": {"defocus_u": 3}}, "gives no column for defocus_u"),
        ({"name": None}, "which column holds the movie's name"),
        ({"scale": {"defocus_u": "10 000"}}, "gives no factor for defocus_u"),
        ({"scale": {"defocus_u": True}}, "gives no factor for defocus_u"),
        ({"scale": {"motion_total": 2}}, "motion_total, for which there is no column"),
        ({"scale": {"rejected": 2}}, "rejected, which is no field"),
        ({"format": "xml"}, "format is csv or jsonl, not xml"),
        ({"delimiter": "::"}, "delimiter is one character, tab or whitespace"),
        ({"header": "movie"}, "header is a list"),
        ({"pixel_size": "small"}, "pixel_size is a number, not 'small'"),
        ({"pixel_size": -1}, "pixel_size is above 0"),
        ({"width": 1.5}, "width is a whole number"),
        ({"parameters": 3}, "parameters is a map"),
        ({"finished_after": 0}, "finished_after is a number of minutes above 0"),
        ({"follow_links": "no"}, "follow_links is 'no'; it must be true or false"),
        ({"pictures": {"classes": "x"}}, "names classes, which is no field"),
    ],
)
def test_a_setting_that_is_not_right_is_named(path, wrong, message):
    with pytest.raises(ReaderError, match=message):
        reader(path, as_csv(), **wrong)


def test_a_table_without_its_columns_is_said_with_the_nearest(path, caplog):
    with pytest.raises(ReaderError, match="no column movie to name the movies; the nearest is Movie"):
        reader(path, as_csv().replace(b"movie", b"Movie", 1)).look()
    assert len(look(reader(path, as_csv().replace(b"fit", b"fit_A", 1))).micrographs) == 7
    assert "it has no column fit for ctf_resolution; the nearest is fit_A" in caplog.text
    with pytest.raises(ReaderError, match="There is no file"):
        TableReader(str(path) + "x", settings=MAP)


def test_lines_that_are_no_records_are_named_and_the_rest_is_read(tmp_path, caplog):
    lines = (
        as_json(ROWS[:1])
        + b'[1, 2]\n{"movie": \nnull\n{"df1": 3}\n'
        + b"[" * 5000
        + b"\n"
        + as_json(ROWS[1:2])
    )
    news = look(reader(tmp_path / "a.jsonl", lines))
    assert list(news.micrographs) == [ROWS[0]["movie"], ROWS[1]["movie"]]
    assert "line 2 is left out: it is not a JSON object" in caplog.text
    assert "line 3 is left out: it is not JSON" in caplog.text
    assert "line 5 is left out: it has no movie" in caplog.text


def test_a_line_of_too_few_cells_and_a_lone_quote_cost_only_themselves(path, caplog):
    lines = as_csv().splitlines(keepends=True)
    lines[2] = b"short,1\n"
    lines[4] = b'"never closed,1,2,3,4\n'
    found = reader(
        path, b"".join(lines) + as_csv([{**ROWS[0], "movie": f"m{n}"} for n in range(250)], header=False)
    )
    news = look(found)
    assert len(news.micrographs) == 7 - 2 + 250
    assert "line 3 is left out: it has 2 columns and the header 5" in caplog.text
    assert "line 5 is left out: a quote is opened and not closed" in caplog.text


def test_a_line_without_an_end_is_not_read_into_memory_for_ever(path, monkeypatch, caplog):
    monkeypatch.setattr(table, "LONGEST", 1000)
    data = as_csv(ROWS[:1]) + b"x" * 5000
    found = reader(path, data)
    assert len(look(found).micrographs) == 1
    path.write_bytes(data + b"\n" + as_csv(ROWS[1:2], header=False))
    assert list(look(found).micrographs) == [ROWS[1]["movie"]]
    assert "line 3 is longer than" in caplog.text


# growing


def test_only_what_is_new_is_read_and_told(path, monkeypatch):
    found = reader(path, as_csv(ROWS[:3]))
    assert len(look(found).micrographs) == 3
    found._next_whole = math.inf
    taken = []
    original = TableReader._take
    monkeypatch.setattr(
        TableReader,
        "_take",
        lambda self, fresh, number, *rest: taken.append(number) or original(self, fresh, number, *rest),
    )
    assert look(found).micrographs == {}
    line = as_csv(ROWS[3:4], header=False)
    with open(path, "ab") as handle:
        handle.write(line[:-4])
    assert look(found).micrographs == {}
    with open(path, "ab") as handle:
        handle.write(line[-4:])
    assert look(found).micrographs == {ROWS[3]["movie"]: expected(ROWS[3])}
    assert taken == [5]


def test_an_idle_look_opens_no_file(path, monkeypatch):
    found = reader(path, as_csv())
    look(found)
    monkeypatch.setattr("builtins.open", lambda *arguments, **more: pytest.fail("opened"))
    assert look(found).micrographs == {}


def test_a_file_written_anew_is_noticed(path, monkeypatch):
    found = reader(path, as_csv())
    look(found)
    path.write_bytes(as_csv([{**ROWS[0], "fit": 9.5}]))
    # What is not there yet may come: the file was written this moment.
    assert look(found).micrographs == {ROWS[0]["movie"]: {"ctf_resolution": 9.5}}
    monkeypatch.setattr(table, "SETTLED", -1.0)
    found._next_whole = 0.0
    gone = look(found).micrographs
    assert set(gone) == {row["movie"] for row in ROWS[1:]}
    assert gone[ROWS[1]["movie"]] == dict.fromkeys(expected(ROWS[1]))


MANY = [{**ROWS[0], "movie": f"Movies/{number:03d}.tiff"} for number in range(60)]


def test_a_row_changed_in_place_is_noticed_though_the_file_also_grew(path):
    found = reader(path, as_csv(MANY[:50]))
    look(found)
    path.write_bytes(as_csv([{**MANY[0], "df1": 9.325}, *MANY[1:]]))
    found._next_whole = math.inf
    assert list(look(found).micrographs) == [row["movie"] for row in MANY[50:]]
    found._next_whole = 0.0  # now and then it is read from its start
    old = time.time() - 60
    os.utime(path, (old, old))
    assert look(found).micrographs == {MANY[0]["movie"]: {"defocus_u": 93250.0}}


def test_a_file_that_never_rests_is_read_from_its_start_too_now_and_then(path):
    found = reader(path, as_csv(MANY[:50]))
    look(found)
    found._next_whole = 0.0
    path.write_bytes(as_csv([{**MANY[0], "df1": 9.325}, *MANY[1:51]]))
    assert set(look(found).micrographs) == {MANY[0]["movie"], MANY[50]["movie"]}


def test_a_row_changed_in_place_to_the_same_length_is_noticed_at_once(path):
    found = reader(path, as_csv(MANY))
    look(found)
    found._next_whole = math.inf
    path.write_bytes(as_csv([{**MANY[0], "fit": 9.5}, *MANY[1:]]))
    assert look(found).micrographs == {MANY[0]["movie"]: {"ctf_resolution": 9.5}}


def test_another_file_of_the_same_name_is_noticed_at_once(path):
    found = reader(path, as_csv(ROWS[:2]))
    look(found)
    found._next_whole = math.inf
    path.write_bytes(as_csv([{**row, "fit": 9.25} for row in ROWS]))
    changed = look(found).micrographs
    assert set(changed) == {row["movie"] for row in ROWS}
    assert changed[ROWS[0]["movie"]] == {"ctf_resolution": 9.25}


def test_pictures_are_given_as_there_is_room(tmp_path):
    for row in MANY:
        image(tmp_path / f"{row['movie']}.mrc", 1, (4, 4))
    lines = "".join(f"{row['movie']},{row['movie']}.mrc\n" for row in MANY)
    (tmp_path / "t.csv").write_text("movie,picture\n" + lines)
    more = {"name": "movie", "columns": {"defocus_u": "df1"}, "pictures": {"psd": "picture"}}
    found = TableReader(str(tmp_path / "t.csv"), settings=more)
    found.room = 25
    given = [[picture.micrograph for picture in look(found).pictures] for _ in range(3)]
    assert [len(names) for names in given] == [25, 25, 10]
    assert given[0] == [row["movie"] for row in MANY[35:]]  # the newest first, and of them the last
    assert found.backlog == 0


def test_later_lines_of_a_movie_add_to_earlier_ones(tmp_path):
    file = tmp_path / "a.jsonl"
    found = reader(file, b'{"movie": "a.tif", "df1": 1.5}\n')
    assert look(found).micrographs == {"a.tif": {"defocus_u": 15000.0}}
    with open(file, "ab") as handle:
        handle.write(b'{"movie": "a.tif", "fit": 3.5}\n{"movie": "a.tif", "df1": null}\n')
    assert look(found).micrographs == {"a.tif": {"defocus_u": None, "ctf_resolution": 3.5}}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["results.csv", "results.jsonl"])
def test_a_growing_table_ends_as_after_one_clean_pass(tmp_path, seed, name):
    """Cut in the middle of rows and bytes, with restarts and a site that fails one call in three."""
    rows = [{**row, "movie": row["movie"].replace("grid", "grille_à_trous")} for row in ROWS] * 2
    random.Random(seed).shuffle(rows)
    made = {name: as_csv(rows) if name.endswith("csv") else as_json(rows)}
    steps = grow(made, tmp_path, seed, pieces=12)
    site = assert_ends_as_one_clean_pass(lambda: reader(tmp_path / name), steps, seed)
    assert len(site.runs[1].micrographs) == 7


def test_a_second_start_changes_nothing(path, site):
    path.write_bytes(as_csv())
    settle(lambda: reader(path), site)
    revision = site.runs[1].revision
    sync = settle(lambda: reader(path), site)
    assert site.runs[1].revision == revision
    assert sync.counts.rows["micrographs"]["unchanged"] == 7


# no input does worse than a named error

PIECES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(
        [b"movie,df1,df2\n", b"a.tif,1,2\n", b'"', b'{"movie": "a", "df1": 1e999}\n', b"\0", b",,,\n"]
    ),
    st.sampled_from(
        [b'{"movie": "\\ud800", "picks": 99999999999999999999}\n', b"9" * 5000, b"\r", b"\xff\xfe\n"]
    ),
)


@given(
    pieces=st.lists(PIECES, max_size=20), cut=st.integers(0, 400), name=st.sampled_from(["a.csv", "a.jsonl"])
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_do_worse_than_a_named_error(tmp_path, pieces, cut, name):
    data = b"".join(pieces)
    path = tmp_path / name
    path.write_bytes(data[:cut])
    said = str(path)
    try:
        found = TableReader(
            str(path), settings={**MAP, "columns": {**MAP["columns"], "coordinates": "xy", "rejected": "out"}}
        )
        for content in (data[:cut], data):
            path.write_bytes(content)
            for fields in look(found).micrographs.values():
                for value in fields.values():
                    assert value is None or isinstance(value, (list, bool)) or math.isfinite(value)
    except ReaderError as error:
        said = str(error)
    assert str(path) in said
