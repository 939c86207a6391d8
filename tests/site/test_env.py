"""Settings are read strictly: what is misspelt stops the start and is named."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import ImproperlyConfigured

from emhub_site import env


@pytest.fixture
def variable(monkeypatch):
    return lambda value: monkeypatch.setenv("SOMETHING", value)


@pytest.mark.parametrize("word", ["true", "True", "YES", "on", "1", " true "])
def test_words_for_true(variable, word):
    variable(word)
    assert env.boolean("SOMETHING", False) is True


@pytest.mark.parametrize("word", ["false", "No", "OFF", "0"])
def test_words_for_false(variable, word):
    variable(word)
    assert env.boolean("SOMETHING", True) is False


@pytest.mark.parametrize("word", ["flase", "2", "y", "none", "tru e", "-"])
def test_any_other_word_is_refused_by_name(variable, word):
    variable(word)
    with pytest.raises(ImproperlyConfigured, match="SOMETHING"):
        env.boolean("SOMETHING", True)


@pytest.mark.parametrize("default", [True, False])
def test_an_empty_variable_is_as_none(variable, default):
    variable("  ")
    assert env.boolean("SOMETHING", default) is default


@pytest.mark.parametrize("value", ["sixty", "6O", "1.5", "1e3", "0x10", "--1"])
def test_a_number_that_is_none_is_refused_by_name(variable, value):
    variable(value)
    with pytest.raises(ImproperlyConfigured, match="SOMETHING"):
        env.integer("SOMETHING", 5)


def test_a_number_out_of_bounds_is_refused_with_the_bounds(variable):
    variable("0")
    with pytest.raises(ImproperlyConfigured, match=r"SOMETHING.*between 1 and 9"):
        env.integer("SOMETHING", 5, minimum=1, maximum=9)
    variable("10")
    with pytest.raises(ImproperlyConfigured, match="SOMETHING"):
        env.integer("SOMETHING", 5, minimum=1, maximum=9)
    variable("9")
    assert env.integer("SOMETHING", 5, minimum=1, maximum=9) == 9


def test_a_choice_is_taken_in_any_case_and_nothing_else(variable):
    variable("warning")
    assert env.choice("SOMETHING", "INFO", ["INFO", "WARNING"]) == "WARNING"
    variable("warn")
    with pytest.raises(ImproperlyConfigured, match=r"SOMETHING='warn'.*INFO, WARNING"):
        env.choice("SOMETHING", "INFO", ["INFO", "WARNING"])


def test_words_between_commas(variable):
    variable("a.example.org, b.example.org,,")
    assert env.words("SOMETHING") == ["a.example.org", "b.example.org"]


@pytest.mark.parametrize(
    "pattern", ["{microscope}-{date:%Y%m%d}-{n:02d}", "{date:%y%m%d}_{microscope}_{n}", "s{n:05d}"]
)
def test_a_pattern_that_makes_names_is_taken(variable, pattern):
    variable(pattern)
    assert env.name_pattern("SOMETHING", "x") == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "{microscop}-{n}",
        "{microscope}-{n",
        "{}-{n}",
        "{n:zz}",
        "{date.nothing}{n}",
        "{microscope}",
        "{n} {date}",
        "-{n}",
    ],
)
def test_a_pattern_that_makes_none_is_refused_by_name(variable, pattern):
    variable(pattern)
    with pytest.raises(ImproperlyConfigured, match="SOMETHING"):
        env.name_pattern("SOMETHING", "x")


class TestSecretKey:
    def test_the_environment_says_it(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SECRET_KEY", "from outside")
        assert env.secret_key(tmp_path, may_generate=True) == "from outside"
        assert not list(tmp_path.iterdir())

    def test_one_is_made_once_for_nobody_elses_eyes(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SECRET_KEY", raising=False)
        key = env.secret_key(tmp_path, may_generate=True)
        assert len(key) >= 50
        assert env.secret_key(tmp_path, may_generate=True) == key
        (file,) = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_of_many_processes_at_once_all_get_the_same(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SECRET_KEY", raising=False)
        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(lambda _: env.secret_key(tmp_path, may_generate=True), range(8)))
        assert len(set(keys)) == 1

    def test_a_file_without_a_key_stops_the_start(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SECRET_KEY", raising=False)
        (tmp_path / "secret_key").write_text("")
        with pytest.raises(ImproperlyConfigured, match="secret_key"):
            env.secret_key(tmp_path, may_generate=True)

    def test_none_is_made_for_production(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SECRET_KEY", raising=False)
        with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
            env.secret_key(tmp_path, may_generate=False)
        assert not list(tmp_path.iterdir())


class TestFolder:
    def test_it_is_made(self, variable, tmp_path):
        variable(str(tmp_path / "a/b"))
        assert env.folder("SOMETHING", tmp_path) == tmp_path / "a/b"
        assert (tmp_path / "a/b").is_dir()

    def test_what_cannot_be_made_is_refused_by_name(self, variable, tmp_path):
        (tmp_path / "file").write_text("")
        variable(str(tmp_path / "file/b"))
        with pytest.raises(ImproperlyConfigured, match="SOMETHING"):
            env.folder("SOMETHING", tmp_path)


class TestFile:
    def test_it_adds_what_the_environment_leaves_out(self, monkeypatch, tmp_path):
        (tmp_path / "site").write_text("# a remark\nSOMETHING=from the file\nLOGO=from the file\n")
        monkeypatch.setenv("EMHUB_ENV_FILE", str(tmp_path / "site"))
        monkeypatch.setenv("LOGO", "from outside")
        # So that what the file sets is taken back after the test.
        monkeypatch.setenv("SOMETHING", "")
        monkeypatch.delenv("SOMETHING")
        env.read_file()
        assert (env.text("SOMETHING"), env.text("LOGO")) == ("from the file", "from outside")

    def test_a_named_file_that_is_missing_stops_the_start(self, monkeypatch, tmp_path):
        monkeypatch.setenv("EMHUB_ENV_FILE", str(tmp_path / "nowhere"))
        with pytest.raises(ImproperlyConfigured, match="EMHUB_ENV_FILE"):
            env.read_file()
