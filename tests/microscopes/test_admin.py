"""Staff keep microscopes, cameras, data servers and tokens in the admin."""

import datetime
import io

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from PIL import Image

from microscopes.models import Camera, DataServer, Microscope, PipelineToken
from people.models import AuditEntry
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    MicroscopeFactory,
    UserFactory,
    make_token,
)

pytestmark = pytest.mark.django_db
MICROSCOPES = "/admin/microscopes/microscope/"
CAMERAS = "/admin/microscopes/camera/"
SERVERS = "/admin/microscopes/dataserver/"
TOKENS = "/admin/microscopes/pipelinetoken/"


@pytest.fixture
def admin_page(client, staff):
    client.force_login(staff)
    return client


def act(client, address, action, *records, **fields):
    data = {"action": action, "_selected_action": [record.pk for record in records], **fields}
    return client.post(address, data, follow=True)


def messages(answer) -> str:
    return " ".join(str(message) for message in answer.context["messages"])


def filled(microscope=None, **fields) -> dict:
    value = microscope or MicroscopeFactory.build(name="Krios 1", code="krios1")
    data = {
        name: getattr(value, name)
        for name in ("name", "code", "model", "location", "status", "status_note", "colour", "position")
    }
    data |= {"voltage_kv": "300", "cs_mm": "2.7", "data_server": "", "retention_days": ""}
    cameras = {"cameras-TOTAL_FORMS": "0", "cameras-INITIAL_FORMS": "0"}
    return data | cameras | fields


def picture(kind="PNG", size=(40, 30), mode="RGB", name="krios.png") -> SimpleUploadedFile:
    data = io.BytesIO()
    Image.new(mode, size, "red").save(data, kind)
    return SimpleUploadedFile(name, data.getvalue())


# -- microscopes -------------------------------------------------------------------------------------------


def test_a_microscope_is_made_with_its_cameras(admin_page):
    camera = {"name": "Falcon 4i", "width": 4096, "height": 4096, "is_active": "on", "position": 0}
    data = filled() | {f"cameras-0-{name}": value for name, value in camera.items()}
    admin_page.post(f"{MICROSCOPES}add/", data | {"cameras-TOTAL_FORMS": "1"})
    assert Microscope.objects.get().cameras.get().name == "Falcon 4i"


def test_a_code_that_differs_in_case_alone_is_told(admin_page):
    MicroscopeFactory(code="krios1", name="First")
    page = admin_page.post(f"{MICROSCOPES}add/", filled(code="KRIOS1", name="Second"))
    assert "Another microscope has this code." in page.content.decode()


def test_only_what_was_changed_is_saved(admin_page):
    microscope = MicroscopeFactory(location="Room 1")
    shown = filled(microscope)
    shown |= {f"initial-{name}": value for name, value in shown.items()}
    Microscope.objects.update(status="maintenance")
    admin_page.post(f"{MICROSCOPES}{microscope.pk}/change/", shown | {"location": "Room 2"})
    microscope.refresh_from_db()
    assert (microscope.location, microscope.status) == ("Room 2", "maintenance")


def test_a_microscope_with_bookings_cannot_be_deleted_and_it_says_what_to_do(admin_page):
    microscope = BookingFactory().microscope
    address = f"{MICROSCOPES}{microscope.pk}/delete/"
    for answer in (
        admin_page.get(address, follow=True),
        admin_page.post(address, {"post": "yes"}, follow=True),
        act(admin_page, MICROSCOPES, "delete_selected", microscope, MicroscopeFactory()),
        act(admin_page, MICROSCOPES, "delete_selected", microscope, post="yes"),
    ):
        assert "1 booking" in messages(answer)
        assert "Retire it instead" in messages(answer)
    assert Microscope.objects.count() == 2


def test_one_that_was_never_used_is_deleted_with_its_cameras(admin_page):
    microscope = CameraFactory().microscope
    admin_page.post(f"{MICROSCOPES}{microscope.pk}/delete/", {"post": "yes"})
    assert not Microscope.objects.exists()
    assert not Camera.objects.exists()
    assert AuditEntry.objects.get().action == "microscope deleted"


def test_a_camera_and_a_server_in_use_cannot_be_deleted(admin_page):
    microscope = MicroscopeFactory(data_server=DataServerFactory())
    camera = CameraFactory(microscope=microscope)
    FinishedSessionFactory(booking__microscope=microscope, camera=camera)
    answer = admin_page.post(f"{CAMERAS}{camera.pk}/delete/", {"post": "yes"}, follow=True)
    assert "Make it inactive instead" in messages(answer)
    answer = admin_page.post(f"{SERVERS}{microscope.data_server_id}/delete/", {"post": "yes"}, follow=True)
    assert "another data server" in messages(answer)
    assert (Camera.objects.count(), DataServer.objects.count()) == (1, 1)


def test_retiring_is_asked_first_and_counts(admin_page, staff):
    booking = BookingFactory()
    page = act(admin_page, MICROSCOPES, "retire", booking.microscope)
    assert "1 booking running or to come" in page.content.decode()
    assert Microscope.objects.get().status == "active"
    page = act(admin_page, MICROSCOPES, "retire", booking.microscope, confirmed="yes")
    assert "1 microscope retired." in messages(page)
    assert Microscope.objects.get().status == "retired"
    assert AuditEntry.objects.get().actor == staff


# -- pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode", "stored"),
    [
        ("PNG", "RGB", "image/jpeg"),
        ("PNG", "RGBA", "image/png"),
        ("JPEG", "RGB", "image/jpeg"),
        ("WEBP", "RGB", "image/jpeg"),
    ],
)
def test_a_picture_is_written_anew_and_shown_to_whoever_is_logged_in(
    admin_page, client, user, kind, mode, stored
):
    admin_page.post(f"{MICROSCOPES}add/", filled(picture=picture(kind, (3200, 1200), mode)))
    address = "/microscopes/krios1/picture/"
    client.force_login(user)
    answer = client.get(address)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, stored)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(b"".join(answer.streaming_content))) as shown:
        assert shown.size == (1600, 600)
    client.logout()
    assert client.get(address).status_code == 302


def test_what_is_hidden_in_a_picture_is_not_kept(admin_page):
    data = picture().read() + b"<script>alert(1)</script>"
    admin_page.post(f"{MICROSCOPES}add/", filled(picture=SimpleUploadedFile("krios.png", data)))
    assert b"script" not in Microscope.objects.get().picture.read()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    "upload",
    [
        SimpleUploadedFile("krios.svg", SVG, "image/svg+xml"),
        SimpleUploadedFile("krios.png", SVG),
        SimpleUploadedFile("krios.png", b"not a picture"),
        picture("GIF", name="krios.gif"),
        SimpleUploadedFile("krios.png", picture(size=(300, 300)).read()[:60]),
    ],
    ids=["svg", "svg as png", "text", "gif", "cut"],
)
def test_what_is_no_picture_is_refused_at_its_field(admin_page, upload):
    upload.seek(0)
    page = admin_page.post(f"{MICROSCOPES}add/", filled(picture=upload))
    assert list(page.context["adminform"].form.errors) == ["picture"]
    assert not Microscope.objects.exists()


def test_a_picture_that_is_too_large_is_refused(admin_page, settings):
    settings.IMAGE_MAX_PIXELS = 100
    page = admin_page.post(f"{MICROSCOPES}add/", filled(picture=picture()))
    assert "40 x 30 pixels" in page.context["adminform"].form.errors["picture"][0]


def test_a_replaced_picture_is_removed(admin_page, django_capture_on_commit_callbacks):
    admin_page.post(f"{MICROSCOPES}add/", filled(picture=picture()))
    microscope = Microscope.objects.get()
    first = microscope.picture
    with django_capture_on_commit_callbacks(execute=True):
        address = f"{MICROSCOPES}{microscope.pk}/change/"
        admin_page.post(address, filled(microscope, picture=picture(size=(20, 20))))
    microscope.refresh_from_db()
    assert microscope.picture.name != first.name
    assert not first.storage.exists(first.name)
    assert microscope.picture.storage.exists(microscope.picture.name)


def test_no_picture_and_a_lost_file_are_404(client, user):
    client.force_login(user)
    MicroscopeFactory(code="bare"), MicroscopeFactory(code="lost", picture="microscopes/gone.jpg")
    MicroscopeFactory(code="odd", picture="microscopes/page.html")
    for code in ("bare", "lost", "odd", "unknown"):
        assert client.get(f"/microscopes/{code}/picture/").status_code == 404


# -- tokens ------------------------------------------------------------------------------------------------


def test_adding_a_token_shows_its_key_once(admin_page, api, staff):
    microscope = MicroscopeFactory()
    page = admin_page.post(f"{TOKENS}add/", {"name": "relion", "microscopes": [microscope.pk]})
    assert page.status_code == 200
    assert "no-store" in page.headers["Cache-Control"]
    key = page.context["key"]
    assert key in page.content.decode()
    assert "Copy this key now" in page.content.decode()
    token = PipelineToken.objects.get()
    assert token.created_by == staff
    rows = api(key=key).get("/api/v1/microscopes/").json()["results"]
    assert [row["code"] for row in rows] == [microscope.code]
    for address in (TOKENS, f"{TOKENS}{token.pk}/change/", f"{TOKENS}{token.pk}/history/"):
        text = admin_page.get(address).content.decode()
        assert key.partition(".")[2] not in text
        assert token.hashed_key not in text


def test_the_key_cannot_be_missed(admin_page):
    page = admin_page.get(f"{TOKENS}add/").content.decode()
    assert 'name="_save"' in page
    assert "_addanother" not in page
    assert "_continue" not in page
    assert "for instance relion-krios1" in page


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"name": "relion"}, "microscopes"),
        ({"name": "", "all_microscopes": "on"}, "name"),
        ({"name": "taken", "all_microscopes": "on"}, "name"),
        (
            {
                "name": "relion",
                "all_microscopes": "on",
                "expiry_date_0": "2020-01-01",
                "expiry_date_1": "00:00",
            },
            "expiry_date",
        ),
    ],
)
def test_what_cannot_be_is_told_at_its_field(admin_page, data, field):
    make_token(name="taken")
    page = admin_page.post(f"{TOKENS}add/", data)
    assert list(page.context["adminform"].form.errors) == [field]
    assert PipelineToken.objects.count() == 1


def test_microscopes_of_a_token_can_be_changed(admin_page):
    one, two = MicroscopeFactory(), MicroscopeFactory()
    token, _ = make_token(one)
    admin_page.post(f"{TOKENS}{token.pk}/change/", {"microscopes": [two.pk]})
    assert list(token.microscopes.all()) == [two]


def test_revoking_is_asked_first_and_cannot_be_undone(admin_page, api):
    token, key = make_token()
    assert "cannot be undone" in act(admin_page, TOKENS, "revoke", token).content.decode()
    assert not PipelineToken.objects.get().revoked
    assert "1 token revoked." in messages(act(admin_page, TOKENS, "revoke", token, confirmed="yes"))
    assert api(key=key).get("/api/v1/microscopes/").status_code == 401
    page = admin_page.get(f"{TOKENS}{token.pk}/change/").content.decode()
    assert 'name="expiry_date_0"' not in page
    assert "revoked already" in messages(act(admin_page, TOKENS, "revoke", token))


def test_tokens_are_found_by_their_state(admin_page):
    make_token(name="valid")
    make_token(name="expired", expiry_date=timezone.now() - datetime.timedelta(days=1))
    make_token(name="revoked", revoked=True)
    for state in ("valid", "expired", "revoked"):
        found = admin_page.get(f"{TOKENS}?state={state}").context["cl"].result_list
        assert [token.name for token in found] == [state]


def test_the_packages_own_keys_are_not_offered(admin_page):
    assert "API key" not in admin_page.get("/admin/").content.decode()


# -- permissions and cost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["microscope", "camera", "dataserver", "pipelinetoken"])
def test_without_the_permission_there_is_no_button_and_403(client, model):
    viewer = UserFactory(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename=f"view_{model}"))
    client.force_login(viewer)
    records = {
        "microscope": MicroscopeFactory,
        "camera": CameraFactory,
        "dataserver": DataServerFactory,
        "pipelinetoken": lambda: make_token()[0],
    }
    record = records[model]()
    address = f"/admin/microscopes/{model}/"
    page = client.get(address).content.decode()
    for button in ("delete_selected", 'value="retire"', 'value="revoke"', f"{address}add/"):
        assert button not in page
    for action in ("add/", f"{record.pk}/delete/"):
        assert client.get(address + action).status_code == 403
        assert client.post(address + action, {"post": "yes"}).status_code == 403
    assert client.post(f"{address}{record.pk}/change/", {"name": "x"}).status_code == 403
    for action in ("retire", "revoke", "delete_selected"):
        act(client, address, action, record, confirmed="yes", post="yes")
    record.refresh_from_db()
    assert getattr(record, "revoked", False) is False
    assert getattr(record, "status", "active") == "active"


@pytest.mark.parametrize("address", [MICROSCOPES, CAMERAS, SERVERS, TOKENS])
def test_a_list_costs_the_same_for_one_and_for_ten(admin_page, address):
    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert admin_page.get(address).status_code == 200
        return len(queries)

    def another():
        microscope = CameraFactory(microscope__data_server=DataServerFactory()).microscope
        make_token(microscope, MicroscopeFactory())

    another()
    one = cost()
    for _ in range(9):
        another()
    assert cost() == one


def test_a_microscopes_page_tells_what_it_is_and_when_it_is_taken(client, user):
    client.force_login(user)
    microscope = CameraFactory(name="K3", microscope__name="Krios 1", microscope__code="krios1").microscope
    other = BookingFactory(microscope=microscope, title="Secret")
    page = client.get("/microscopes/krios1/").content.decode()
    for words in ("Krios 1", "K3", "Booked"):
        assert words in page
    for secret in ("Secret", other.owner.last_name, other.lab.name):
        assert secret not in page
    assert client.get("/microscopes/unknown/").status_code == 404


def test_a_microscopes_page_costs_the_same_for_one_and_for_ten_bookings(client, user):
    client.force_login(user)
    microscope = MicroscopeFactory()

    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"/microscopes/{microscope.code}/").status_code == 200
        return len(queries)

    now = timezone.now()
    hour = datetime.timedelta(hours=1)
    BookingFactory(microscope=microscope, owner=user, start=now, end=now + hour)
    one = cost()
    for n in range(1, 10):
        BookingFactory(microscope=microscope, owner=user, start=now + n * hour, end=now + (n + 1) * hour)
    assert cost() == one <= 10
