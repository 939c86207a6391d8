"""Whoever names a movie, it is the same exposure; what differs is not."""

import re
import sqlite3
from pathlib import Path

import pytest

from preprocessing.identity import foil_hole, grid_square, identity

DATA = Path(__file__).parents[2].parent / "shared" / "data"
EPU = "FoilHole_5493259_Data_5492520_10_20240106_181616"
LEGINON = "14sep05c_00024sq_00003hl_00002es_frames"

SAME = {
    EPU: [
        f"{EPU}.mrc",
        f"{EPU}_Fractions.mrc",
        f"{EPU}_fractions.tiff",
        f"{EPU}_EER.eer",
        f"{EPU}.xml",
        f"{EPU}_Fractions.tiff.bz2",
        f"Images-Disc1/GridSquare_5489441/Data/{EPU}_Fractions.mrc",
        f"Movies/GridSquare_5489441/Data/{EPU}_EER.eer",
        f"MotionCorr/job003/Movies/GridSquare_5489441/Data/{EPU}_EER.mrc",
        f"GridSquare_5489441_Data_{EPU}_fractions.tiff",
        f"Runs/000002_ProtImportMovies/extra/GridSquare_5489441_Data_{EPU}_fractions.tiff",
        f"J1/imported/000762140416835289736_{EPU}_fractions.tiff",
        f"J1/imported/762140416835289736_{EPU}_fractions.tiff",
        f"J2/motioncorrected/000762140416835289736_{EPU}_fractions_patch_aligned_doseweighted.mrc",
        f"J2/motioncorrected/762140416835289736_GridSquare_5489441_Data_{EPU}_EER_rigid_aligned.mrc",
        f"/data/krios1/session/{EPU}_EER.eer",
        rf"X:\EPU\session\Images-Disc1\GridSquare_5489441\Data\{EPU}_EER.eer",
    ],
    LEGINON: [
        "14sep05c_00024sq_00003hl_00002es.frames.tif",
        "Movies/14sep05c_00024sq_00003hl_00002es.frames.tif",
        "MotionCorr/job002/Movies/14sep05c_00024sq_00003hl_00002es_frames.mrc",
        "J1/imported/015762140416835289736_14sep05c_00024sq_00003hl_00002es.frames.tif",
        "J204/extract/015762140416835289736_14sep05c_00024sq_00003hl_00002es.frames"
        "_patch_aligned_doseweighted_particles.mrc",
    ],
    "20170629_00021_frameImage": [
        "Movies/20170629_00021_frameImage.tiff",
        "./Movies/20170629_00021_frameImage.tiff",
        "MotionCorr/job002/Movies/20170629_00021_frameImage.mrc",
        "20170629_00021_frameImage.tiff",
        "20170629_00021_frameImage",
    ],
    "TS_01_002_-3_0": [
        r"D:\DATA\Flo\HGK149_20151130\frames\TS_01_002_-3.0.mrc",
        "TS_01_002_-3.0.mrc",
        "MotionCorr/job002/frames/TS_01_002_-3_0.mrc",
        "TS_01_002_-3.0.mrc.mdoc",
    ],
    "grid1/frame_001": ["grid1/frame_001.tif", "Movies/grid1/frame_001.tiff", "grid1//frame_001.eer"],
}
DIFFERENT = [
    ["grid1/frame_001.tif", "grid2/frame_001.tif", "frame_001.tif", "grid1/sub/frame_001.tif"],
    [f"{EPU}.mrc", f"{EPU[:-1]}7.mrc", EPU.replace("_10_", "_11_"), EPU.replace("FoilHole_5", "FoilHole_6")],
    ["movie_001.tif", "movie_001_DW.mrc", "movie_01.tif", "Movie_001.tif"],
    ["20240106123456_a.tif", "a.tif"],
    ["TS_01_000_0.0.mrc", "TS_01_000_0.mrc"],
    ["a_particles.mrc", "a.mrc"],
]


@pytest.mark.parametrize(("expected", "name"), [(key, name) for key, names in SAME.items() for name in names])
def test_every_program_means_the_same_exposure(expected, name):
    assert identity(name) == expected


@pytest.mark.parametrize("names", DIFFERENT)
def test_what_differs_is_not_one(names):
    assert len({identity(name) for name in names}) == len(names)


@pytest.mark.parametrize("names", SAME.values(), ids=SAME)
def test_an_identity_is_its_own_identity(names):
    for name in names:
        assert identity(identity(name)) == identity(name)


def test_letters_written_in_one_part_or_two_are_the_same():
    """A Mac's file system takes é apart, Linux leaves it as it is."""
    assert identity("gr\u00e9.mrc") == identity("gre\u0301.mrc")


@pytest.mark.parametrize("name", [".mrc", "_Fractions.tiff", "...", "/data/x/.mrc", "n" * 300])
def test_a_name_that_means_nothing_is_refused(name):
    with pytest.raises(ValueError):
        identity(name)


@pytest.mark.parametrize(
    ("name", "square", "hole"),
    [
        (f"Images-Disc1/GridSquare_5489441/Data/{EPU}_Fractions.mrc", "5489441", "5493259"),
        (f"GridSquare_5489441_Data_{EPU}_fractions.tiff", "5489441", "5493259"),
        (f"{EPU}_EER.eer", "", "5493259"),
        ("20170629_00021_frameImage.tiff", "", ""),
    ],
)
def test_epu_names_tell_square_and_hole(name, square, hole):
    assert (grid_square(name), foil_hole(name)) == (square, hole)


# -- Every movie name of the collected files -------------------------------------------------------------


def collected(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the collected files are not here ({path.name})")
    return path


def words(path: Path, pattern: str) -> set[str]:
    return set(re.findall(pattern, path.read_text(errors="replace")))


def test_relion_movies_and_their_micrographs_pair_up():
    project = collected("relion", "sppractice-relion5-tutorial")
    movies = words(project / "Import/job001/movies.star", r"Movies/\S+\.tiff")
    micrographs = words(
        project / "MotionCorr/job002/corrected_micrographs.star",
        r"MotionCorr/job002/Movies/\w+frameImage\.mrc",
    )
    assert len(movies) == len(micrographs) == 24
    assert {identity(name) for name in movies} == {identity(name) for name in micrographs}
    assert len({identity(name) for name in movies}) == len(movies)


def test_scipion_names_of_epu_movies_are_those_that_epu_gave():
    database = collected("scipion", "3dem-em-testdata-scipion3", "movies.sqlite")
    with sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True) as connection:
        rows = connection.execute("select * from Objects").fetchall()
    names = {value for row in rows for value in row if isinstance(value, str) and "FoilHole" in value}
    assert len(names) >= 30
    for name in names:
        epu = re.search(r"FoilHole_\d+_Data_\d+_\d+_\d{8}_\d{6}", name)[0]
        assert identity(name) == epu == identity(f"{epu}_fractions.tiff")
        assert grid_square(name) == re.search(r"GridSquare_(\d+)", name)[1]
    assert len({identity(name) for name in names}) == len(
        set(re.findall(r"FoilHole_\w+?_\d{8}_\d{6}", " ".join(names)))
    )


def test_cryosparc_movies_and_particles_pair_up():
    folder = collected("cryosparc", "cryosparc-tools-t20s-fixture")
    movies = {
        name.decode()
        for name in re.findall(
            rb"J1/imported/\d{15,21}_[\w.]+?\.tif", (folder / "J1_imported_movies.cs").read_bytes()
        )
    }
    stems = {re.sub(r"^J1/imported/\d+_", "", name).removesuffix(".tif") for name in movies}
    assert movies
    assert {identity(name) for name in movies} == {stem.replace(".", "_") for stem in stems}
    micrographs = {
        name.decode()
        for name in re.findall(
            rb"J\d+/extract/\d{15,21}_[\w.]+?_particles\.mrc",
            b"".join(path.read_bytes() for path in DATA.glob("cryosparc/**/*particles.cs")),
        )
    }
    assert micrographs
    for name in micrographs:
        stem = re.search(r"\d{15,21}_(.+?)_patch_aligned_doseweighted_particles", name)[1]
        assert identity(name) == stem.replace(".", "_") == identity(f"Movies/{stem}.tif")


def test_epu_names_of_a_whole_session_stay_apart():
    tree = collected("epu", "diamond-bi37708-28-tree", "bi37708-28_tree.txt")
    names = words(tree, r"FoilHole_\d+_Data_\w+\.(?:xml|jpg|mrc|tiff|eer)")
    stems = {name.rpartition(".")[0] for name in names}
    assert len(names) > len(stems) > 10
    assert {identity(name) for name in names} == {re.sub("(?i)_(fractions|eer)$", "", stem) for stem in stems}


def test_serialem_frames_are_found_by_their_base_name():
    found = 0
    for path in collected("serialem").rglob("*.mdoc"):
        for frame in words(path, r"SubFramePath\s*=\s*(\S+)"):
            found += 1
            base = frame.replace("\\", "/").rpartition("/")[2]
            assert identity(frame) == identity(base)
            assert "/" not in identity(frame)
            assert "." not in identity(frame)
    assert found


WORD = re.compile(rb"[\w./+-]{5,300}")
MOVIE = (b".tif", b".tiff", b".eer", b".mrc", b".mrcs")
HOLE = re.compile(r"FoilHole_\d+_Data_\d+_\d+_\d{8}_\d{6}")


def every_movie_name() -> set[str]:
    """Whatever ends like a movie or micrograph in any collected file of any program."""
    found = set()
    for path in collected().rglob("*"):
        if path.is_file() and path.stat().st_size < 5_000_000:
            words = set(WORD.findall(path.read_bytes()))
            found |= {word.decode() for word in words if word.lower().endswith(MOVIE)}
    # Patterns such as *_Fractions.mrc leave their end alone.
    return {name for name in found if not re.fullmatch(r"(?i)(?:_fractions|_eer)?\.\w+", name)}


def test_every_name_in_every_collected_file_means_one_exposure_and_keeps_meaning_it():
    names = every_movie_name()
    assert len(names) > 5000
    seen = 0
    for name in names:
        meant = identity(name)
        assert identity(meant) == meant, name
        assert "." not in meant, name
        assert not re.search(r"(?i)_(fractions|eer)$", meant), name
        hole = HOLE.findall(name)
        if hole and re.search(rf"{hole[-1]}(?:_fractions|_eer)?\.\w+$", name, re.IGNORECASE):
            seen += 1
            assert meant == hole[-1], name
    assert seen > 20
