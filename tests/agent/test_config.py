"""The configuration file: everything wrong with it is named, and what is right means what it says."""

import contextlib
import re
from pathlib import Path

import pytest
from emhub_agent.config import ConfigError, load, parse
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "emhub-agent.toml"
        path.write_text(text)
        return str(path)

    return write


def problems(text, written):
    with pytest.raises(ConfigError) as refusal:
        load(written(text))
    return refusal.value.problems


WATCH = '[[watch]]\nprogram = "relion"\nplace = "/data/relion"\nsession = "s-1"\n'


def test_a_small_file_means_what_it_says(written):
    config = load(written('site = "emhub.example.org"\ninterval = 30\n' + WATCH))
    assert config.site == "emhub.example.org"
    [watch] = config.watches
    assert (watch.program, watch.place, watch.session) == ("relion", "/data/relion", "s-1")
    assert (watch.interval, watch.pictures) == (30.0, True)


def test_paths_are_relative_to_the_file(written, tmp_path):
    text = 'site = "x"\ntoken_file = "token"\n' + WATCH.replace("/data/relion", "relion")
    config = load(written(text))
    assert config.watches[0].place == str(tmp_path / "relion")
    (tmp_path / "token").write_text("abc.def\n")
    assert config.token() == "abc.def"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('sight = "x"', "there is no sight; the nearest is site"),
        ("interval = true", "interval must be a number"),
        ("interval = 0.01", "interval must be between 0.1 and 86400"),
        ('pictures = "yes"', "pictures must be true or false"),
        ('token_file = "a"\ntoken_env = "b"', "token_file or token_env, not both"),
        ("finished_days = -1", "finished_days must be between"),
    ],
)
def test_what_is_wrong_at_the_top_is_said(written, change, said):
    assert any(said in problem for problem in problems(f'site = "x"\n{change}\n{WATCH}', written))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("program", "programm"), "watch 1: there is no programm; the nearest is program"),
        (('"relion"', '"relon"'), "watch 1: there is no program relon; the nearest is relion"),
        (('"/data/relion"', '""'), "watch 1: place is missing"),
        (('"/data/relion"', "7"), "watch 1: place must be text in quotes"),
        (('session = "s-1"', ""), "watch 1: give the session, or a place with {session}"),
        (("/data/relion", "/data/{session}"), "place has {session}, but the session is given"),
        (("/data/relion", "/data/{sesion}"), "{sesion}, which nothing fills in; the nearest is session"),
        (('session = "s-1"', 'session = "s-1"\nmicroscopes = ["a"]'), "but the session is given"),
        (
            ('session = "s-1"', 'session = "s-1"\n[watch.settings]\nfollow_link = true'),
            "relion has no setting follow_link; the nearest is follow_links",
        ),
    ],
)
def test_what_is_wrong_with_a_watch_is_said(written, change, said):
    found = problems('site = "x"\n' + WATCH.replace(*change), written)
    assert any(said in problem for problem in found), found


def test_every_problem_is_named_at_once(written):
    found = problems('inteval = 5\n[[watch]]\nprogram = "relion"\n[[watch]]\nplace = "/a"\n', written)
    assert len(found) >= 4
    assert any("site is missing" in problem for problem in found)


def test_the_same_watch_twice_is_refused(written):
    assert problems(f'site = "x"\n{WATCH}{WATCH}', written) == ["watch 2 is the same as watch 1."]


def test_no_watch_at_all_is_refused(written):
    assert "There is no [[watch]]: nothing would be followed." in problems('site = "x"', written)


def test_what_is_no_toml_is_said_with_its_line(written):
    [problem] = problems('site = "x\n', written)
    assert "is not TOML" in problem
    assert "line 1" in problem


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        load(str(tmp_path / "nothing.toml"))


def test_a_missing_token_says_what_to_do(written, monkeypatch):
    monkeypatch.delenv("EMHUB_TOKEN", raising=False)
    config = load(written('site = "x"\n' + WATCH))
    with pytest.raises(ConfigError, match="set the environment variable EMHUB_TOKEN"):
        config.token()
    monkeypatch.setenv("EMHUB_TOKEN", " abc.def ")
    assert config.token() == "abc.def"
    config = load(written('site = "x"\ntoken_file = "nowhere"\n' + WATCH))
    with pytest.raises(ConfigError, match=r"nowhere cannot be read \(No such file"):
        config.token()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
KNOWN = ["site", "token_file", "token_env", "interval", "pictures", "finished_days", "watch"]
OF_WATCH = ["program", "place", "session", "key", "microscopes", "interval", "pictures", "settings"]
tables = st.dictionaries(st.sampled_from(OF_WATCH) | st.text(max_size=10), anything)


@settings(max_examples=40, deadline=None)
@given(
    found=st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=10), anything),
    watches=st.none() | st.lists(tables, max_size=3),
)
def test_nothing_does_worse_than_a_named_problem(found, watches):
    if watches is not None:
        found = {**found, "watch": watches}
    with contextlib.suppress(ConfigError):
        parse(found)


def test_the_documented_examples_are_right(written):
    text = "".join((ROOT / page).read_text() for page in ("docs/agent.md", "agent/README.md"))
    examples = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        if not example.startswith("site"):  # a part, shown without what stands above it
            example = f'site = "emhub.example.org"\n{example}'
        assert load(written(example)).watches
