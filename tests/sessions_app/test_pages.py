"""The dialog for a new session, a session's pages, and what is done from them."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from microscopes.models import DataServer
from people.models import AuditEntry
from sessions_app import lifecycle
from sessions_app.lifecycle import Loss
from sessions_app.models import Sample, Session, SessionSummary
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
CREATE = "/sessions/new"
HTMX = {"HX-Request": "true"}


def url(name, session):
    return reverse(f"sessions:{name}", args=[session.name])


def text(response):
    return response.content.decode()


@pytest.fixture
def staff_client(client, staff):
    client.force_login(staff)
    return client


# -- Creating ----------------------------------------------------------------------------------------------


def dialog(client, booking, **query):
    return client.get(CREATE, {"booking": booking.pk, **query})


def filled(booking, **fields):
    return {"booking": booking.pk, "operator": booking.owner_id} | fields


def test_the_dialog_confirms_what_will_be(client):
    server = DataServerFactory(path_template="/data/{microscope}/{session}")
    microscope = MicroscopeFactory(name="Krios 1", code="krios1", voltage_kv=200, data_server=server)
    camera = CameraFactory(microscope=microscope, name="Falcon 4i")
    owner = UserFactory(first_name="Eva", last_name="Hall")
    booking = BookingFactory(microscope=microscope, owner=owner, title="Screening")
    SampleFactory(lab=booking.lab, name="ribosome")
    SampleFactory(name="of another lab")
    client.force_login(owner)
    response = dialog(client, booking)
    html = text(response)
    name = f"krios1-{timezone.localtime():%Y%m%d}-01"
    for word in ("Krios 1", "Screening", "Eva Hall", name, f"/data/krios1/{name}", "ribosome", 'value="200"'):
        assert word in html
    assert "of another lab" not in html
    form = response.context["form"]
    assert form["operator"].value() == owner.pk
    assert form["camera"].value() == camera.pk


def test_creating_leads_to_the_dashboard_with_the_pill(client):
    booking = BookingFactory()
    client.force_login(booking.owner)
    response = client.post(CREATE, filled(booking, sample="virus", pixel_size="0.83"), follow=True)
    session = Session.objects.get()
    assert response.redirect_chain[-1][0] == "/"
    assert f"Session {session.name} is running" in next(str(m) for m in response.context["messages"])
    assert f'class="pill" href="{url("detail", session)}"' in text(response)
    assert (session.pixel_size, session.sample.name, session.creator) == (0.83, "virus", booking.owner)
    assert session.voltage_kv is None  # emptied on the form, so not known


def test_in_the_dialog_the_whole_page_goes_on(client):
    booking = BookingFactory()
    client.force_login(booking.owner)
    part = client.get(CREATE, {"booking": booking.pk}, headers=HTMX)
    assert "<html" not in text(part)
    assert 'hx-post="/sessions/new"' in text(part)
    assert "HX-Request" in part["Vary"]
    response = client.post(CREATE, filled(booking), headers=HTMX)
    assert response["HX-Redirect"] == "/"
    assert Session.objects.count() == 1


def test_a_booking_with_sessions_warns_names_them_and_asks(client):
    booking = BookingFactory()
    earlier = SessionFactory(booking=booking)
    client.force_login(booking.owner)
    html = text(dialog(client, booking))
    assert "This booking already has a session" in html
    assert earlier.name in html
    assert ">Yes</a>" in html
    assert ">No</a>" in html
    assert "Create session" not in html
    html = text(dialog(client, booking, another="yes"))
    assert "Create session" in html
    client.post(CREATE, filled(booking))
    assert booking.sessions.count() == 2


def test_two_who_press_at_once_get_two_names(client):
    booking = BookingFactory()
    client.force_login(booking.owner)
    first, second = dialog(client, booking), dialog(client, booking)
    assert first.context["proposed_name"] == second.context["proposed_name"]
    for _ in range(2):
        assert client.post(CREATE, filled(booking)).status_code == 302
    assert len(set(booking.sessions.values_list("name", flat=True))) == 2


def test_errors_are_at_their_field_and_nothing_is_lost(client):
    booking = BookingFactory()
    client.force_login(booking.owner)
    stranger = UserFactory()
    response = client.post(
        CREATE,
        filled(
            booking, operator=stranger.pk, pixel_size="-1", frames="many", notes="keep me", sample="virus"
        ),
    )
    assert response.status_code == 200
    assert set(response.context["form"].errors) >= {"operator", "frames"}
    assert "keep me" in text(response)
    response = client.post(CREATE, filled(booking, pixel_size="-1"))
    assert set(response.context["form"].errors) == {"pixel_size"}
    assert "above 0" in text(response)
    assert not Session.objects.exists()
    assert not Sample.objects.exists()


def test_a_booking_that_has_ended_says_so_and_takes_nothing(client):
    booking = BookingFactory(start=timezone.now() - 30 * HOUR)
    client.force_login(booking.owner)
    assert "This booking ended" in text(dialog(client, booking))
    response = client.post(CREATE, filled(booking))
    assert "This booking ended" in text(response)
    assert not Session.objects.exists()


def test_strangers_get_404_and_collaborators_403(client):
    booking = BookingFactory()
    collaborator = UserFactory()
    booking.collaborators.add(collaborator)
    client.force_login(UserFactory())
    assert dialog(client, booking).status_code == 404
    assert client.post(CREATE, filled(booking)).status_code == 404
    client.force_login(collaborator)
    assert dialog(client, booking).status_code == 403
    assert client.post(CREATE, filled(booking)).status_code == 403
    assert not Session.objects.exists()


@pytest.mark.parametrize("odd", ["", "x", "0", "9" * 40, "²"])
def test_a_booking_that_is_none_is_404(client, user, odd):
    client.force_login(user)
    assert client.get(CREATE, {"booking": odd}).status_code == 404


# -- Session page ------------------------------------------------------------------------------------------


def test_overview_shows_the_session(client):
    booking = BookingFactory(
        microscope=MicroscopeFactory(name="Krios 1"),
        title="Screening",
        owner=UserFactory(first_name="Eva", last_name="Hall"),
        lab=LabFactory(name="Hall lab"),
    )
    session = SessionFactory(
        booking=booking, pixel_size=0.83, magnification=105000, notes="Good ice", data_bytes=1_800_000_000_000
    )
    client.force_login(MembershipFactory(lab=booking.lab).user)
    html = text(client.get(url("detail", session)))
    for word in ("Krios 1", "Screening", "Eva Hall", "Hall lab", "0.83", "105,000", "Good ice", "1.8\xa0"):
        assert word in html
    assert reverse("bookings:detail", args=[booking.pk]) in html
    assert "No pipeline has reported on this session yet." in html
    SessionSummary.objects.filter(pk=session.pk).update(runs=1, processing="running", particles=12480)
    assert "12,480" in text(client.get(url("detail", session)))


def test_any_case_of_the_name_leads_to_it(staff_client):
    session = SessionFactory(name="Krios1-x")
    response = staff_client.get("/sessions/KRIOS1-X/")
    assert response.status_code == 302
    assert response["Location"] == url("detail", session)
    response = staff_client.get("/sessions/krios1-X/data/")
    assert response["Location"] == url("data", session)
    assert staff_client.get("/sessions/nobody/").status_code == 404


@pytest.mark.parametrize("page", ["detail", "data", "edit", "finish", "reopen", "extend", "delete"])
def test_strangers_get_404_everywhere(client, page):
    session = SessionFactory()
    client.force_login(UserFactory())
    assert client.get(url(page, session)).status_code == 404
    assert client.post(url(page, session)).status_code in (404, 405)


@pytest.mark.parametrize("page", ["detail", "data"])
def test_the_number_of_queries_stays(client, page):
    booking = BookingFactory()
    session = SessionFactory(booking=booking)
    client.force_login(booking.owner)
    with CaptureQueriesContext(connection) as one:
        client.get(url(page, session))
    SessionFactory.create_batch(5, booking=booking)
    with CaptureQueriesContext(connection) as many:
        client.get(url(page, session))
    assert len(one) == len(many)
    assert len(many) <= 12


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (30, "quiet", "30 days left"),
        (15, "quiet", "15 days left"),
        (14, "warning", "14 days left"),
        (4, "warning", "4 days left"),
        (3, "urgent", "3 days left"),
        (1, "urgent", "1 day left"),
        (0, "urgent", "today"),
        (-2, "due", "past their date"),
    ],
)
def test_the_reminder_gets_louder(client, days, level, words):
    session = FinishedSessionFactory(delete_on=timezone.localdate() + days * DAY)
    client.force_login(session.owner)
    response = client.get(url("data", session))
    assert response.context["retention"].level == level
    html = text(response)
    assert words in html
    day = session.delete_on
    if days:
        assert f"{day.day} {day:%b %Y}" in response.context["retention"].text
    colour = {"warning": "alert-warning", "urgent": "alert-danger", "due": "alert-danger"}.get(level)
    if colour:
        assert colour in html
    else:
        assert "retention-note" not in html


def test_after_deletion_the_page_says_so_and_offers_no_command(client):
    session = FinishedSessionFactory(
        data_deleted_at=timezone.now(), data_server=DataServerFactory(), data_path="/data/x"
    )
    client.force_login(session.owner)
    html = text(client.get(url("data", session)))
    assert "were deleted from the facility" in html
    assert "sftp -r" not in html


def test_commands_are_ready_to_copy_and_quoted(client):
    server = DataServerFactory(
        host="data.example.org",
        port=2222,
        protocol=DataServer.Protocol.RSYNC,
        globus_collection="c0ffee",
        smb_share="\\\\server\\share",
    )
    session = SessionFactory(data_server=server, data_path="/data/krios 1/it's; rm -rf ~")
    client.force_login(session.owner)
    commands = {way.title: way for way in client.get(url("data", session)).context["ways"]}
    quoted = "'USERNAME@data.example.org:/data/krios 1/it'\"'\"'s; rm -rf ~'"
    assert commands["rsync"].command == f"rsync -avs --partial --progress -e 'ssh -p 2222' {quoted} ."
    assert commands["sftp"].command == f"sftp -r -P 2222 {quoted} ."
    assert commands["scp"].command == f"scp -r -P 2222 {quoted} ."
    assert commands["Globus"].link.startswith(
        "https://app.globus.org/file-manager?origin_id=c0ffee&origin_path=%2Fdata"
    )
    assert commands["Windows share (SMB)"].command == "\\\\server\\share\\data\\krios 1\\it's; rm -rf ~"


def test_a_session_without_a_server_says_whom_to_ask(client):
    session = SessionFactory()
    client.force_login(session.owner)
    assert "Ask the facility&#x27;s staff" in text(client.get(url("data", session))).replace("'", "&#x27;")


def test_the_facilitys_instructions_are_markdown_without_danger(client):
    server = DataServerFactory(
        instructions="Use **rsync**\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))"
        "\n\n<img src=x onerror=alert(1)>\n\n<p style='position:fixed' onclick='x()'>hi</p>"
    )
    session = SessionFactory(data_server=server, data_path="/data/x")
    client.force_login(session.owner)
    html = text(client.get(url("data", session)))
    instructions = html.partition('class="instructions"')[2].partition("</section>")[0]
    assert "<strong>rsync</strong>" in instructions
    for bad in ("<script", "javascript", "onerror", "onclick", "style", "<img"):
        assert bad not in instructions


# -- Actions -----------------------------------------------------------------------------------------------


def test_who_sees_which_button(client, staff):
    session = SessionFactory()
    collaborator = UserFactory()
    session.booking.collaborators.add(collaborator)

    def buttons(person):
        client.force_login(person)
        html = text(client.get(url("detail", session)))
        pages = ("finish", "reopen", "edit", "extend", "delete")
        return {page for page in pages if f'href="{url(page, session)}"' in html}

    assert buttons(staff) == {"finish", "edit", "delete"}
    assert buttons(session.owner) == {"finish", "edit"}
    assert buttons(collaborator) == set()
    lifecycle.session_finish(session, staff)
    assert buttons(staff) == {"reopen", "edit", "extend", "delete"}
    assert buttons(session.owner) == set()


def test_whoever_lacks_the_permission_gets_403(client, staff):
    running, finished = SessionFactory(), FinishedSessionFactory(delete_on=timezone.localdate())
    bare = type(staff).objects.create(username="bare", is_staff=True)
    for person, session, pages in (
        (running.owner, running, ("delete", "reopen", "extend")),
        (finished.owner, finished, ("edit", "delete", "reopen", "extend")),
        (bare, running, ("finish", "edit", "delete")),
        (bare, finished, ("reopen", "extend", "delete")),
    ):
        client.force_login(person)
        for page in pages:
            assert client.get(url(page, session)).status_code == 403, (person, page)
            assert client.post(url(page, session)).status_code == 403, (person, page)
    assert Session.objects.count() == 2


def test_finish_asks_then_does_and_twice_is_once(client):
    session = SessionFactory()
    client.force_login(session.owner)
    assert f"Finish session {session.name}?" in text(client.get(url("finish", session)))
    session.refresh_from_db()
    assert session.is_running
    response = client.post(url("finish", session), follow=True)
    assert "is finished" in text(response) or any(
        "is finished" in str(m) for m in response.context["messages"]
    )
    assert client.post(url("finish", session)).status_code == 302
    session.refresh_from_db()
    assert session.status == Session.Status.FINISHED
    assert AuditEntry.objects.count() == 1


def test_staff_reopen(staff_client):
    session = FinishedSessionFactory(delete_on=timezone.localdate())
    staff_client.post(url("reopen", session))
    session.refresh_from_db()
    assert session.is_running


def test_staff_keep_images_longer(staff_client):
    today = timezone.localdate()
    session = FinishedSessionFactory(delete_on=today + 5 * DAY)
    refused = staff_client.post(url("extend", session), {"until": today})
    assert refused.status_code == 200
    assert "until" in refused.context["form"].errors
    staff_client.post(url("extend", session), {"until": today + 50 * DAY})
    session.refresh_from_db()
    assert session.delete_on == today + 50 * DAY


def test_delete_says_what_goes_and_what_stays_then_does(staff_client, monkeypatch):
    monkeypatch.setattr(
        lifecycle, "_loss_counters", [lambda session: [Loss("micrographs", 5114), Loss("runs", 0)]]
    )
    session = FinishedSessionFactory(name="krios1-20261122-02", data_path="/data/krios1/x")
    html = text(staff_client.get(url("delete", session)))
    assert "Delete session krios1-20261122-02 and 5,114 micrographs" in html
    assert "5,114 micrographs" in html
    assert "/data/krios1/x" in html
    assert "0 runs" not in html
    assert Session.objects.exists()
    back = "/sessions/?status=finished"
    response = staff_client.post(url("delete", session), {"next": back})
    assert response["Location"] == back
    assert not Session.objects.exists()
    assert AuditEntry.objects.get().target_name == "krios1-20261122-02"
    assert staff_client.post(url("delete", session)).status_code == 404


@pytest.mark.parametrize("evil", ["https://evil.example", "//evil.example", "javascript:alert(1)"])
def test_nobody_is_led_away(staff_client, evil):
    session = FinishedSessionFactory()
    response = staff_client.post(url("delete", session), {"next": evil})
    assert response["Location"] == reverse("sessions:list")


def test_an_archived_session_is_left_alone(staff_client):
    session = FinishedSessionFactory(status=Session.Status.ARCHIVED)
    assert staff_client.get(url("edit", session)).status_code == 403
    assert staff_client.get(url("reopen", session)).status_code == 403


# -- Editing -----------------------------------------------------------------------------------------------


def edit_data(client, session, **changes):
    """What a browser would send: the form as it was shown, with some fields changed."""
    form = client.get(url("edit", session)).context["form"]
    data = {}
    for bound in form:
        value = bound.value()
        data[bound.html_name] = "" if value is None else value
        if bound.field.show_hidden_initial:
            data[bound.html_initial_name] = data[bound.html_name]
    return data | changes


def test_editing_saves_only_what_was_changed(client):
    session = SessionFactory(frames=40, pixel_size=0.83, notes="old")
    client.force_login(session.owner)
    data = edit_data(client, session, notes="new", sample="virus")
    # Meanwhile the watcher corrects the acquisition.
    Session.objects.filter(pk=session.pk).update(frames=50, data_files=7)
    response = client.post(url("edit", session), data)
    assert response.status_code == 302
    session.refresh_from_db()
    assert (session.notes, session.frames, session.data_files) == ("new", 50, 7)
    assert session.sample.name == "virus"
    assert session.pixel_size == 0.83


def test_a_sample_can_be_taken_away(client):
    booking = BookingFactory()
    session = SessionFactory(booking=booking, sample=SampleFactory(lab=booking.lab))
    client.force_login(booking.owner)
    client.post(url("edit", session), edit_data(client, session, sample=""))
    session.refresh_from_db()
    assert session.sample is None


def test_editing_refuses_what_cannot_be_at_its_field(client):
    session = SessionFactory(frames=40)
    client.force_login(session.owner)
    response = client.post(url("edit", session), edit_data(client, session, frames="-3", pixel_size="0"))
    assert response.status_code == 200
    assert set(response.context["form"].errors) == {"frames", "pixel_size"}
    session.refresh_from_db()
    assert session.frames == 40


def test_an_operator_who_left_stays_until_changed(client):
    gone = UserFactory(is_active=False)
    session = SessionFactory(operator=gone)
    client.force_login(session.owner)
    client.post(url("edit", session), edit_data(client, session, notes="x"))
    session.refresh_from_db()
    assert (session.operator, session.notes) == (gone, "x")
