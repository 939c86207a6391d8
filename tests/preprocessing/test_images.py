"""Pictures: what is taken, how it is kept, and who sees it."""

import io
import os
import stat

import pytest
from PIL import Image, PngImagePlugin

from preprocessing import images
from preprocessing.models import Micrograph
from sessions_app.images import session_image_dir
from tests.factories import MicroscopeFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def upload(pipeline):
    pipeline.post({"name": "Movies/a.tiff"})

    def send(file, kind="micrograph", **of):
        of = of or {"micrograph": "Movies/a.tiff"}
        return pipeline.client.post(
            f"{pipeline.url}images/", {"kind": kind, "file": file} | of, format="multipart"
        )

    return send


def content(client, url) -> bytes:
    return b"".join(client.get(url).streaming_content)


def test_a_picture_is_shown_by_its_row_and_served_for_good(pipeline, upload, picture):
    before = pipeline.run.revision
    answer = upload(picture())
    assert answer.status_code == 201
    url = pipeline.rows()["Movies/a.tiff"]["micrograph_image"]
    assert answer.json()["image"] == url
    assert answer.json()["revision"] == before + 1 == pipeline.rows()["Movies/a.tiff"]["revision"]
    shown = pipeline.client.get(url)
    assert shown.status_code == 200
    assert shown["Content-Type"] == "image/webp"
    assert shown["X-Content-Type-Options"] == "nosniff"
    assert shown["Cache-Control"] == "private, max-age=31536000, immutable"
    image = Image.open(io.BytesIO(b"".join(shown.streaming_content)))
    assert (image.format, image.size) == ("WEBP", (64, 48))
    assert pipeline.client.get(url, HTTP_IF_NONE_MATCH=shown["ETag"]).status_code == 304


def test_the_same_picture_again_changes_nothing(pipeline, upload, picture):
    first = upload(picture()).json()
    again = upload(picture())
    assert again.status_code == 200
    assert again.json() == first | {"unchanged": True}
    assert len(list(session_image_dir(pipeline.session).iterdir())) == 1


def test_another_picture_gets_another_address(pipeline, upload, picture):
    first = upload(picture()).json()
    second = upload(picture(colour=78)).json()
    assert second["image"] != first["image"]
    assert second["revision"] > first["revision"]


@pytest.mark.parametrize(
    ("mode", "format", "colour"),
    [
        ("RGB", "JPEG", (200, 10, 10)),
        ("RGBA", "PNG", (1, 2, 3, 128)),
        ("P", "PNG", 3),
        ("I;16", "PNG", 60000),
        ("1", "PNG", 1),
        ("RGB", "WEBP", (1, 2, 3)),
        ("CMYK", "JPEG", (1, 2, 3, 4)),
    ],
)
def test_every_usual_kind_of_picture_is_taken(upload, picture, mode, format, colour):
    assert upload(picture(mode=mode, format=format, colour=colour), kind="psd").status_code == 201


def test_grey_of_sixteen_bits_keeps_its_contrast(pipeline, upload):
    image = Image.new("I;16", (64, 64))
    image.putdata([100 + column for _ in range(64) for column in range(64)])
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    file.name = "micrograph.png"
    url = upload(file).json()["image"]
    low, high = Image.open(io.BytesIO(content(pipeline.client, url))).convert("L").getextrema()
    assert low < 20
    assert high > 235


def test_nothing_that_rode_along_is_kept(pipeline, upload):
    file = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret position")
    Image.new("RGB", (32, 32)).save(file, "PNG", pnginfo=text, icc_profile=b"secret profile")
    file.seek(0)
    file.name = "a.png"
    stored = content(pipeline.client, upload(file).json()["image"])
    assert b"secret" not in stored
    assert b"ICCP" not in stored


def test_large_pictures_are_made_smaller(pipeline, upload, picture):
    url = upload(picture(size=(4096, 1024))).json()["image"]
    assert Image.open(io.BytesIO(content(pipeline.client, url))).size == (2048, 512)


def test_a_large_picture_is_made_small_before_anything_else_is_done_with_it(upload, picture, monkeypatch):
    """What comes after needs several times its memory."""
    sizes = []
    eight_bits = images._eight_bits
    monkeypatch.setattr(images, "_eight_bits", lambda image: sizes.append(image.size) or eight_bits(image))
    for mode, colour in (("L", 77), ("I;16", 60000), ("P", 3), ("1", 1), ("RGBA", (1, 2, 3, 4))):
        assert upload(picture(size=(4096, 1024), mode=mode, colour=colour)).status_code < 300
    assert set(sizes) == {(2048, 512)}


def test_a_large_picture_is_turned_as_its_camera_was(pipeline, upload):
    turned = Image.Exif()
    turned[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (4096, 1024)).save(file, "JPEG", exif=turned)
    url = upload(named(file.getvalue(), "a.jpg")).json()["image"]
    image = Image.open(io.BytesIO(content(pipeline.client, url)))
    assert image.size == (512, 2048)
    assert not image.getexif()


def named(data: bytes, name="a.png"):
    file = io.BytesIO(data)
    file.name = name
    return file


def test_what_is_no_picture_by_content_is_415(pipeline, upload, picture):
    for file in (
        named(b"GIF89a not a picture"),
        named(b""),
        named(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "a.svg"),
        picture(format="GIF"),
        picture(format="TIFF"),
        picture(format="BMP"),
    ):
        answer = upload(file)
        assert answer.status_code == 415
        assert "file" in answer.json()
    assert pipeline.rows()["Movies/a.tiff"]["micrograph_image"] is None


def test_a_broken_picture_is_400(upload, picture):
    whole = picture(size=(500, 500), mode="RGB", colour=(1, 2, 3), format="JPEG").read()
    answer = upload(named(whole[: len(whole) // 2], "a.jpg"))
    assert answer.status_code == 400
    assert "file" in answer.json()


def test_too_many_pixels_are_refused_before_they_are_decoded(settings, upload, picture, monkeypatch):
    settings.IMAGE_MAX_PIXELS = 10_000
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
    assert upload(picture(size=(101, 100))).status_code == 413


def test_a_decompression_bomb_is_refused(upload):
    # A header that promises 60,000 by 60,000 pixels.
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xea\x60\x00\x00\xea\x60\x08\x00\x00\x00\x00"
    import zlib

    header += zlib.crc32(header[12:]).to_bytes(4, "big")
    assert upload(named(header + b"\x00\x00\x00\x00IEND\xaeB`\x82")).status_code == 413


def test_too_many_bytes_are_refused(settings, upload):
    settings.IMAGE_MAX_MB = 1
    assert upload(named(os.urandom(1_200_000))).status_code == 413


def test_a_class_shows_its_picture(pipeline, upload, picture):
    pipeline.client.post(
        f"{pipeline.url}classes/", {"job": "Class2D/job008", "iteration": 25, "classes": [{"number": 3}]}
    )
    of = {"job": "Class2D/job008", "iteration": "25", "number": "3"}
    answer = upload(picture(), kind="class_average", **of)
    assert answer.status_code == 201
    (row,) = pipeline.client.get(f"{pipeline.url}classes/").json()["results"]
    assert row["image"] == answer.json()["image"]
    assert row["revision"] == answer.json()["revision"] == pipeline.run.revision


@pytest.mark.parametrize(
    ("kind", "of", "field"),
    [
        ("micrograph", {"micrograph": "unknown"}, "micrograph"),
        ("micrograph", {"micrograph": ""}, "micrograph"),
        ("micrograph", {"job": "x"}, "job"),
        ("picture", {"micrograph": "Movies/a.tiff"}, "kind"),
        ("class_average", {"job": "x", "iteration": "1", "number": "1"}, "number"),
        ("class_average", {"job": "x", "iteration": "1"}, "number"),
        ("class_average", {"job": "x", "iteration": "one", "number": "1"}, "iteration"),
        ("psd", {"micrograph": "Movies/a.tiff", "note": "x"}, "note"),
    ],
)
def test_a_picture_of_nothing_known_is_refused_by_field(upload, picture, kind, of, field):
    answer = upload(picture(), kind=kind, **of)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_the_micrograph_may_be_named_as_any_program_does_or_by_id(pipeline, upload, picture):
    assert upload(picture(), micrograph="a.mrc").status_code == 201
    assert upload(picture(), kind="psd", micrograph=str(Micrograph.objects.get().pk)).status_code == 201


def test_a_missing_file_is_refused(pipeline, upload):
    answer = pipeline.client.post(
        f"{pipeline.url}images/", {"kind": "psd", "micrograph": "Movies/a.tiff"}, format="multipart"
    )
    assert answer.status_code == 400
    assert "file" in answer.json()


@pytest.mark.parametrize("name", ["kind", "micrograph", "job", "iteration", "number"])
def test_a_field_that_comes_as_a_file_or_twice_is_refused_by_name(pipeline, picture, name):
    pipeline.client.post(f"{pipeline.url}classes/", {"job": "j", "classes": [{"number": 1}]})
    form = {"kind": "class_average", "job": "j", "iteration": "0", "number": "1", "file": picture()}
    for wrong in (picture(), [form.get(name, "a"), form.get(name, "a")]):
        form["file"].seek(0)
        answer = pipeline.client.post(f"{pipeline.url}images/", form | {name: wrong}, format="multipart")
        assert (answer.status_code, list(answer.json())) == (400, [name])


def test_two_pictures_at_once_are_refused(pipeline, upload, picture):
    answer = upload([picture(), picture(colour=5)])
    assert (answer.status_code, list(answer.json())) == (400, ["file"])
    assert pipeline.rows()["Movies/a.tiff"]["micrograph_image"] is None


def test_a_picture_is_on_disk_before_its_row_is(pipeline, upload, picture, monkeypatch):
    """File and folder are synced, and only then does the row name it."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        "preprocessing.images.os.fsync", lambda fd: (synced.append(os.fstat(fd).st_mode), real(fd))
    )

    def failing(*args):
        assert stat.S_ISREG(synced[-2])
        assert stat.S_ISDIR(synced[-1])
        raise RuntimeError("the power went")

    monkeypatch.setattr("preprocessing.ingest.attach_image", failing)
    with pytest.raises(RuntimeError):
        upload(picture())
    assert pipeline.rows()["Movies/a.tiff"]["micrograph_image"] is None
    assert len(list(session_image_dir(pipeline.session).iterdir())) == 1


def test_only_those_who_see_the_session_see_its_pictures(pipeline, upload, picture, api, staff):
    url = upload(picture()).json()["image"]
    assert api(pipeline.session.booking.owner).get(url).status_code == 200
    assert api(staff).get(url).status_code == 200
    assert api(UserFactory()).get(url).status_code == 404
    assert api(microscopes=[MicroscopeFactory()]).get(url).status_code == 404
    assert api().get(url).status_code == 401


def test_a_picture_is_not_reached_through_another_session(pipeline, upload, picture, api):
    from tests.factories import SessionFactory

    name = upload(picture()).json()["image"].rpartition("/")[2]
    other = SessionFactory()
    client = api(other.booking.owner)
    assert client.get(f"/sessions/{other.name}/images/{name}").status_code == 404
    for wild in ("..%2f..%2femhub.sqlite3", "x.webp", f"{'0' * 40}.webp", "%00", "....webp"):
        assert client.get(f"/sessions/{other.name}/images/{wild}").status_code == 404
