import pytest
from emhub_agent import star
from hypothesis import given
from hypothesis import strategies as st

TEXT = """
# version 50001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
opticsGroup1 1

data_micrographs

loop_
_rlnMicrographName #1
_rlnDefocusU #2
a.mrc\t  12345.678
b.mrc    23456.789
c.mrc    34567.891
"""


def rows(text, block="micrographs"):
    return [row.values for row in star.parse(text.splitlines()) if row.block == block]


def test_columns_go_by_name_whatever_their_number():
    for first, second in (
        (" #1", " #2"),
        (" #0", " #1"),
        ("", ""),
        (" #2", " #1"),
        ("  # a comment", "\t#2"),
    ):
        row = next(star.parse(["data_x", "loop_", f"_b{first}", f"_a{second}", "1 2"]))
        assert (row.get("a"), row.get("b"), row.get("c")) == ("2", "1", None)


def test_comments_tabs_and_empty_lines_between_rows():
    assert rows("data_micrographs\nloop_\n_a\n_b\n# one\n\t1\t2\n\n \n3 4\n#5 6\n") == [
        ["1", "2"],
        ["3", "4"],
    ]


def test_quotes():
    assert star.split_values('noquote "quote string" \' \' "" 4.0') == [
        "noquote",
        "quote string",
        " ",
        "",
        "4.0",
    ]
    assert star.split_values("CTFFIND's__Box 12 it's") == ["CTFFIND's__Box", "12", "it's"]
    assert star.split_values('say "it is "quoted" here" end') == ["say", 'it is "quoted', 'here"', "end"]
    assert star.split_values("never 'closed") == ["never", "'closed"]


def test_pairs():
    items = list(star.parse(["data_general", "_rlnA   12", "_rlnB 'two words'", "_rlnC"]))
    assert [(item.label, item.value) for item in items] == [
        ("rlnA", "12"),
        ("rlnB", "two words"),
        ("rlnC", ""),
    ]


def test_a_file_cut_anywhere_gives_only_rows_that_are_whole(tmp_path):
    path = tmp_path / "a.star"
    whole = rows(TEXT)
    for cut in range(len(TEXT)):
        path.write_text(TEXT[:cut])
        found = [row.values for row in star.read(path, ["micrographs"])]
        assert found == whole[: len(found)]
        ended = TEXT[:cut].split("\n")[:-1]
        assert len(found) == sum(".mrc" in line for line in ended)


def test_the_last_line_of_a_finished_file_needs_no_newline(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(TEXT.rstrip("\n"))
    assert len(list(star.read(path, ["micrographs"]))) == 2
    assert len(list(star.read(path, ["micrographs"], complete=True))) == 3


def test_a_line_with_zeros_where_data_have_not_arrived_is_left_out(tmp_path):
    path = tmp_path / "a.star"
    path.write_bytes(TEXT.encode().replace(b"b.mrc  ", b"b.mr\0\0\0"))
    assert [row.values[0] for row in star.read(path, ["micrographs"])] == ["a.mrc", "c.mrc"]


def test_a_row_with_too_few_or_too_many_values_is_left_out():
    assert rows("data_micrographs\nloop_\n_a\n_b\n1\n1 2\n1 2 3\n") == [["1", "2"]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.5", 1.5),
        ("-1e-4", -1e-4),
        ("inf", None),
        ("-nan", None),
        ("", None),
        ("None", None),
        ("1_000", None),
        (None, None),
    ],
)
def test_numbers_are_finite_or_unknown(value, expected):
    assert star.number(value) == expected


@given(
    st.binary(max_size=400) | st.text(alphabet="data_loop_ \n\t#'\"_abc123.;", max_size=400).map(str.encode)
)
def test_no_input_breaks_it(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("star") / "a.star"
    path.write_bytes(data)
    for item in star.read(path, complete=True):
        assert isinstance(item, (star.Pair, star.Row))
