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


class TestTail:
    """A file that grows is parsed from where it was; one written anew is noticed, whatever differs."""

    HEAD = b"data_\n\nloop_\n_rlnName #1\n_rlnValue #2\n"

    def names(self, tail, path, **options):
        is_whole, items = tail.read(str(path), **options)
        return is_whole, [item.get("rlnName") for item in items]

    def test_what_was_added_is_all_that_is_told(self, tmp_path):
        path = tmp_path / "a.star"
        tail = star.Tail()
        path.write_bytes(self.HEAD + b"a 1\nb 2\nc")
        assert self.names(tail, path) == (True, ["a", "b"])
        path.write_bytes(self.HEAD + b"a 1\nb 2\ncc 3\nd 4\n")
        assert self.names(tail, path) == (False, ["cc", "d"])
        assert self.names(tail, path) == (False, [])

    def test_cut_at_every_byte_it_ends_as_read_at_once(self, tmp_path):
        path = tmp_path / "a.star"
        whole = self.HEAD + b"a 1\nb 2\n\ndata_other\n\n_rlnX 5\nloop_\n_rlnName\nc\nd\n"
        tail, told = star.Tail(), []
        for end in range(len(whole) + 1):
            path.write_bytes(whole[:end])
            told += tail.read(str(path))[1]
        assert told == list(star.read(str(path)))

    @pytest.mark.parametrize("after", [b"a 9\nb 2\n", b"a 9\nb 2\nc 3\n", b"b 2\n", b"", b"a 1\nb 3\nc 3\n"])
    def test_one_that_was_written_anew_is_read_anew(self, tmp_path, after):
        path = tmp_path / "a.star"
        tail = star.Tail()
        path.write_bytes(self.HEAD + b"a 1\nb 2\n")
        self.names(tail, path)
        path.write_bytes(self.HEAD + after)
        expected = [line.split()[0].decode() for line in after.splitlines()]
        assert self.names(tail, path) == (True, expected)

    def test_zeros_of_a_network_file_system_are_read_again(self, tmp_path):
        path = tmp_path / "a.star"
        tail = star.Tail()
        path.write_bytes(self.HEAD + b"a 1\n\0\0\0\n")
        assert self.names(tail, path) == (True, ["a"])
        path.write_bytes(self.HEAD + b"a 1\nb 2\n")
        assert self.names(tail, path) == (True, ["a", "b"])

    def test_a_last_line_without_its_end_counts_once_the_writer_is_done(self, tmp_path):
        path = tmp_path / "a.star"
        tail = star.Tail()
        path.write_bytes(self.HEAD + b"a 1\nb 2")
        assert self.names(tail, path) == (True, ["a"])
        assert self.names(tail, path, complete=True) == (False, ["b"])
        path.write_bytes(self.HEAD + b"a 1\nb 23\n")
        assert self.names(tail, path)[1] == ["a", "b"]

    def test_taking_only_some_of_the_items_loses_none(self, tmp_path):
        path = tmp_path / "a.star"
        path.write_bytes(self.HEAD + b"a 1\nb 2\n")
        tail = star.Tail()
        next(tail.read(str(path))[1])
        assert self.names(tail, path) == (True, ["a", "b"])

    @given(
        versions=st.lists(
            st.binary(max_size=30)
            | st.lists(
                st.sampled_from([b"data_x\n", b"loop_\n", b"_rlnA #1\n", b"a\n", b"b", b"\0\n", b"#\n"])
            ).map(b"".join),
            max_size=5,
        ),
        appended=st.lists(st.booleans(), min_size=5, max_size=5),
        complete=st.booleans(),
    )
    def test_however_a_file_changes_it_ends_as_read_at_once(
        self, tmp_path_factory, versions, appended, complete
    ):
        path = tmp_path_factory.mktemp("tail") / "a.star"
        tail, data, told = star.Tail(), b"", []
        for version, is_appended in zip(versions, appended, strict=False):
            data = data + version if is_appended else version
            path.write_bytes(data)
            is_whole, items = tail.read(str(path), complete)
            told = list(items) if is_whole else told + list(items)
        if versions:
            assert told == list(star.read(str(path), complete=complete))
