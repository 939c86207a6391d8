"""Alerts and limits on pages, in the admin and by the API: who sees and changes what, and what it costs."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from people.models import AuditEntry
from preprocessing import alerts, ingest, polls
from preprocessing.models import Alert, MicroscopeLimits, SessionLimits
from sessions_app.models import Session, SessionSummary
from tests.factories import (
    AlertFactory,
    FinishedSessionFactory,
    MembershipFactory,
    MicroscopeFactory,
    RunFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def session():
    """Its watcher has been silent for half an hour, and an alert says so."""
    half_an_hour_ago = timezone.now() - 30 * MINUTE
    session = SessionFactory(watcher_seen_at=half_an_hour_ago, last_file_at=half_an_hour_ago)
    alerts.check()
    return session


SILENT = "The watcher has been silent for more than 10 min"


def live_alerts(session):
    """Where the live page says its session's alerts."""
    return reverse("preprocessing:live", args=[session.name]) + "#live-alerts"


def page(client, session, user, **data):
    client.force_login(user)
    return client.get(reverse("preprocessing:alerts", args=[session.name]), data)


def shown(form) -> dict:
    """What a browser would send back: every field as it is, and what it showed beside it."""
    data = {}
    for name in form.fields:
        value = form[name].value()
        data[name] = data[form.add_initial_prefix(name)] = "" if value is None else f"{value:g}"
    return data


def save(client, session, user, **changes):
    form = page(client, session, user).context["form"]
    return client.post(reverse("preprocessing:alerts", args=[session.name]), shown(form) | changes)


class TestWhoSees:
    def people(self, session):
        return {
            "owner": session.booking.owner,
            "colleague": MembershipFactory(lab=session.lab).user,
            "stranger": UserFactory(),
        }

    @pytest.mark.parametrize(
        ("who", "status"), [("owner", 200), ("colleague", 200), ("staff", 200), ("stranger", 404)]
    )
    def test_the_sessions_own_page(self, client, session, staff, who, status):
        answer = page(client, session, (self.people(session) | {"staff": staff})[who])
        assert answer.status_code == status
        if status == 200:
            assert SILENT in answer.content.decode()

    @pytest.mark.parametrize(
        ("who", "count"), [("owner", 1), ("colleague", 1), ("staff", 2), ("stranger", 0)]
    )
    def test_the_list_of_all(self, client, session, staff, who, count):
        AlertFactory()
        client.force_login((self.people(session) | {"staff": staff})[who])
        answer = client.get(reverse("preprocessing:all-alerts"))
        assert len(answer.context["alerts"]) == count
        assert answer.content.decode().count("<tr data-alert") == count

    @pytest.mark.parametrize(
        ("who", "count"), [("owner", 1), ("colleague", 1), ("staff", 2), ("stranger", 0), ("pipeline", 1)]
    )
    def test_the_api(self, api, session, staff, who, count):
        AlertFactory()
        callers = {name: api(user) for name, user in self.people(session).items()}
        callers |= {"staff": api(staff), "pipeline": api(microscopes=[session.microscope])}
        assert callers[who].get("/api/v1/alerts/").json()["count"] == count

    def test_nobody_else(self, client, session):
        for name in ("preprocessing:all-alerts", "preprocessing:alerts"):
            args = [session.name] if name.endswith(":alerts") else []
            assert client.get(reverse(name, args=args)).status_code == 302

    def test_the_dashboard_and_the_sessions_pages_say_it(self, client, session):
        client.force_login(session.booking.owner)
        for name in ("sessions:detail", "sessions:data", "preprocessing:live"):
            text = client.get(reverse(name, args=[session.name])).content.decode()
            assert text.count('data-alert="watcher_silent"') == 1
            assert "Alerts (1)" in text
        dashboard = client.get(reverse("sessions:dashboard")).content.decode()
        assert dashboard.count('data-alert="watcher_silent"') == 1
        Session.objects.filter(pk=session.pk).update(
            watcher_seen_at=timezone.now(), last_file_at=timezone.now()
        )
        alerts.check()
        for url in (reverse("sessions:dashboard"), reverse("sessions:detail", args=[session.name])):
            assert "data-alert" not in client.get(url).content.decode()

    def test_a_stranger_learns_nothing_from_the_dashboard(self, client, session):
        client.force_login(UserFactory())
        text = client.get(reverse("sessions:dashboard")).content.decode()
        assert session.name not in text
        assert "data-alert" not in text

    @pytest.mark.parametrize("name", ["sessions:list", "sessions:dashboard"])
    def test_lists_of_sessions_count_them_for_who_sees_the_session(self, client, session, staff, name):
        badge = f'data-open-alerts="1" data-level="warning" href="{live_alerts(session)}" title="{SILENT}"'
        people = self.people(session)
        for who, user in (people | {"staff": staff}).items():
            client.force_login(user)
            text = client.get(reverse(name)).content.decode()
            assert text.count(badge) == (0 if who == "stranger" else 1), who
            assert session.name in text or who == "stranger"
        run = RunFactory(session=session)
        ingest.change_run(session.pk, run.pk, status="failed")
        alerts.check()
        text = client.get(reverse(name)).content.decode()
        assert 'data-open-alerts="2" data-level="bad"' in text
        assert f"The pipeline failed ({run.label or run.software}); {SILENT}" in text
        assert '2<span class="alert-word"> alerts</span>' in text
        SessionSummary.objects.filter(session=session).update(alerts=[])
        assert "data-open-alerts" not in client.get(reverse(name)).content.decode()

    @pytest.mark.parametrize("name", ["sessions:list", "sessions:dashboard"])
    @pytest.mark.parametrize("who", ["owner", "staff"])
    def test_many_alerts_cost_no_more_queries(self, client, session, staff, name, who):
        client.force_login(staff if who == "staff" else session.booking.owner)
        SessionSummary.objects.update(alerts=[])
        with CaptureQueriesContext(connection) as none:
            assert "data-open-alerts" not in client.get(reverse(name)).content.decode()
        quiet = {
            "watcher_seen_at": timezone.now() - 30 * MINUTE,
            "last_file_at": timezone.now() - 30 * MINUTE,
        }
        SessionFactory.create_batch(5, booking=session.booking, **quiet)
        alerts.check()
        SessionSummary.objects.filter(session=session).update(
            alerts=[alerts.told(AlertFactory(session=session))]
        )
        with CaptureQueriesContext(connection) as many:
            assert client.get(reverse(name)).content.decode().count("data-open-alerts") == 6
        assert len(many) == len(none)

    def test_the_live_page_hears_of_it_as_of_everything(self, client, session, monkeypatch):
        monkeypatch.setattr(polls, "FRESH", 0)
        client.force_login(session.booking.owner)
        url = reverse("preprocessing:live-data", args=[session.name])
        first = client.get(url)
        assert [each["text"] for each in first.json()["alerts"]] == [SILENT]
        assert client.get(url, headers={"If-None-Match": first["ETag"]}).status_code == 304
        SessionSummary.objects.filter(session=session).update(alerts=[])
        then = client.get(url, headers={"If-None-Match": first["ETag"]})
        assert then.json()["alerts"] == []


class TestPages:
    def test_open_ones_come_first_then_what_was_over_last(self, client, session):
        now = timezone.now()
        for minutes, over in ((50, 45), (40, 10), (20, 15)):
            AlertFactory(
                session=session,
                text=f"raised {minutes} min ago",
                since=now - minutes * MINUTE,
                resolved_at=now - over * MINUTE,
            )
        answer = page(client, session, session.booking.owner)
        assert [alert.text for alert in answer.context["alerts"]] == [
            SILENT,
            "raised 40 min ago",
            "raised 20 min ago",
            "raised 50 min ago",
        ]
        text = answer.content.decode()
        assert text.count("data-open") == 1
        assert "Watcher silent since" in text

    def test_empty_pages_say_so(self, client):
        session = SessionFactory()
        answer = page(client, session, session.booking.owner)
        assert "No alerts so far" in answer.content.decode()
        over = FinishedSessionFactory()
        assert "There were no alerts" in page(client, over, over.booking.owner).content.decode()
        assert "Nothing needs a look" in client.get(reverse("preprocessing:all-alerts")).content.decode()

    def test_the_list_is_narrowed(self, client, staff):
        krios, glacios = (
            SessionFactory(booking__microscope=MicroscopeFactory(code=code)) for code in ("krios", "glacios")
        )
        old = timezone.now() - 60 * MINUTE
        AlertFactory(session=krios, text="one")
        AlertFactory(session=krios, text="two", since=old, resolved_at=timezone.now())
        AlertFactory(session=glacios, text="three")
        client.force_login(staff)

        def texts(**query):
            found = client.get(reverse("preprocessing:all-alerts"), query).context["alerts"]
            return {alert.text for alert in found}

        assert texts() == {"one", "three"}
        assert texts(show="all") == {"one", "two", "three"}
        assert texts(show="all", microscope="krios") == {"one", "two"}
        assert texts(microscope="nonsense", page="x", show="x") == {"one", "three"}

    def test_pages_of_the_list(self, client, staff):
        session = SessionFactory()
        now = timezone.now()
        for n in range(51):
            AlertFactory(session=session, text=f"no {n}", since=now - n * MINUTE, resolved_at=now)
        client.force_login(staff)
        url = reverse("preprocessing:all-alerts")
        first = client.get(url, {"show": "all"})
        assert len(first.context["alerts"]) == 50
        assert "page=2" in first.content.decode()
        second = client.get(url, {"show": "all", "page": 2})
        assert [alert.text for alert in second.context["alerts"]] == ["no 50"]
        assert "page=3" not in second.content.decode()
        assert "No more alerts" in client.get(url, {"show": "all", "page": 3}).content.decode()

    @pytest.mark.parametrize("who", ["staff", "owner"])
    def test_lists_cost_the_same_at_any_length(self, client, session, staff, api, who):
        user = staff if who == "staff" else session.booking.owner
        client.force_login(user)
        urls = [reverse("preprocessing:alerts", args=[session.name])]
        urls += [f"{reverse('preprocessing:all-alerts')}?show=all", "/api/v1/alerts/"]

        def costs():
            found = []
            for url in urls:
                with CaptureQueriesContext(connection) as captured:
                    assert client.get(url).status_code == 200
                found.append(len(captured))
            return found

        costs()
        few = costs()
        for _ in range(12):
            AlertFactory(session=session, resolved_at=timezone.now() + MINUTE)
            AlertFactory()
        assert costs() == few


class TestLimits:
    def test_who_runs_the_session_changes_one_and_keeps_the_rest(self, client, session):
        MicroscopeLimits.objects.create(microscope=session.microscope, motion_total_max=33, size_tb=None)
        owner = session.booking.owner
        answer = save(client, session, owner, ctf_resolution_max="4.5", watcher_minutes="")
        assert answer.status_code == 302
        row = SessionLimits.objects.get(session=session)
        assert (row.ctf_resolution_max, row.watcher_minutes) == (4.5, None)
        assert (row.motion_total_max, row.size_tb, row.file_minutes) == (33, None, 15)
        assert row.changed_by == owner
        assert AuditEntry.objects.get(action="session limits changed").details == {
            "ctf_resolution_max": {"from": 6.0, "to": 4.5},
            "watcher_minutes": {"from": 10, "to": None},
        }
        alerts.check()
        assert not Alert.objects.open().exists()

    def test_nothing_changed_makes_no_limits(self, client, session):
        assert save(client, session, session.booking.owner).status_code == 302
        assert not SessionLimits.objects.exists()

    def test_a_page_opened_before_does_not_undo_what_others_changed(self, client, session):
        form = page(client, session, session.booking.owner).context["form"]
        SessionLimits.objects.create(session=session, motion_total_max=20)
        client.post(
            reverse("preprocessing:alerts", args=[session.name]), shown(form) | {"ctf_resolution_max": "5"}
        )
        row = SessionLimits.objects.get()
        assert (row.ctf_resolution_max, row.motion_total_max) == (5, 20)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"ctf_resolution_max": "-1"}, "ctf_resolution_max"),
            ({"ctf_resolution_max": "nan"}, "ctf_resolution_max"),
            ({"motion_total_max": "1e9"}, "motion_total_max"),
            ({"file_minutes": "1"}, "file_minutes"),
            ({"file_minutes": "2.5"}, "file_minutes"),
            ({"particles_min": "50", "particles_max": "20"}, "particles_max"),
        ],
    )
    def test_what_makes_no_sense_is_refused_at_its_field(self, client, session, changes, field):
        answer = save(client, session, session.booking.owner, **changes)
        assert answer.status_code == 422
        assert list(answer.context["form"].errors) == [field]
        assert not SessionLimits.objects.exists()

    def test_those_of_the_microscope_again(self, client, session, staff):
        SessionLimits.objects.create(session=session, size_tb=3)
        client.force_login(staff)
        url = reverse("preprocessing:limits-forget", args=[session.name])
        assert client.get(url).status_code == 405
        assert client.post(url).status_code == 302
        assert client.post(url).status_code == 302
        assert not SessionLimits.objects.exists()
        entry = AuditEntry.objects.get(action="session limits forgotten")
        assert entry.details["size_tb"] == {"from": 3.0, "to": None}

    def test_readers_read(self, client, session):
        """Once the session is over, its owner may see the limits and not change them."""
        over = FinishedSessionFactory()
        answer = page(client, over, over.booking.owner)
        assert answer.context["form"] is None
        assert "CTF resolution above" in answer.content.decode()
        for url in ("preprocessing:alerts", "preprocessing:limits-forget"):
            assert client.post(reverse(url, args=[over.name]), {"size_tb": "1"}).status_code == 403
        client.force_login(UserFactory())
        for url in ("preprocessing:alerts", "preprocessing:limits-forget"):
            assert client.post(reverse(url, args=[session.name])).status_code == 404

    def test_staff_find_those_of_the_microscope(self, client, session, staff):
        add = page(client, session, staff).context["microscope_url"]
        form = client.get(add)
        assert form.status_code == 200
        data = {"microscope": session.microscope.pk, "ctf_resolution_max": "4", "size_tb": ""}
        assert client.post(add, data).status_code == 302
        row = MicroscopeLimits.objects.get()
        assert (row.microscope, row.ctf_resolution_max, row.size_tb) == (session.microscope, 4, None)
        change = page(client, session, staff).context["microscope_url"]
        assert change != add
        assert client.get(change).status_code == 200
        assert client.post(change, {"ctf_resolution_max": "5", "file_minutes": "30"}).status_code == 302
        row.refresh_from_db()
        assert row.ctf_resolution_max == 5
        assert page(client, session, session.booking.owner).context["microscope_url"] == ""

    def test_the_admin_shows_sessions_limits_and_alerts(self, client, session, staff):
        row = SessionLimits.objects.create(session=session, size_tb=3)
        client.force_login(staff)
        for model in ("alert", "sessionlimits", "microscopelimits"):
            url = reverse(f"admin:preprocessing_{model}_changelist")
            assert client.get(url, {"q": session.name}).status_code == 200
        url = reverse("admin:preprocessing_sessionlimits_change", args=[row.pk])
        data = {"size_tb": "4", "initial-size_tb": "3.0"}
        assert client.post(url, data).status_code == 302
        row.refresh_from_db()
        assert (row.size_tb, row.changed_by) == (4, staff)
        assert client.get(reverse("admin:preprocessing_sessionlimits_add")).status_code == 403
        alert = reverse("admin:preprocessing_alert_change", args=[Alert.objects.get().pk])
        assert client.get(alert).status_code == 200
        assert client.post(alert, {"text": "x"}).status_code == 403


class TestApi:
    def test_what_an_alert_tells(self, api, session):
        (told,) = api(session.booking.owner).get("/api/v1/alerts/").json()["results"]
        alert = Alert.objects.get()
        assert set(told) == {
            "id",
            "session",
            "microscope",
            "kind",
            "level",
            "text",
            "since",
            "raised_at",
            "resolved_at",
        }
        assert (told["session"], told["microscope"]) == (session.name, session.microscope.code)
        assert (told["kind"], told["level"], told["text"]) == ("watcher_silent", "warning", SILENT)
        assert told["resolved_at"] is None
        assert datetime.datetime.fromisoformat(told["raised_at"]) == alert.raised_at

    def test_filters(self, api, staff, session):
        old = timezone.now() - 300 * MINUTE
        other = AlertFactory(since=old, resolved_at=old + MINUTE)
        client = api(staff)

        def ids(**query):
            answer = client.get("/api/v1/alerts/", query)
            assert answer.status_code == 200, answer.content
            return [row["id"] for row in answer.json()["results"]]

        mine = Alert.objects.get(session=session).pk
        assert ids() == [mine, other.pk]
        assert ids(open="true") == ids(session=session.name.upper()) == [mine]
        assert ids(open="false") == ids(kind="resolution") == [other.pk]
        assert ids(microscope=session.microscope.code) == [mine]
        an_hour_ago = (timezone.now() - 60 * MINUTE).isoformat()
        assert (ids(after=an_hour_ago), ids(before=an_hour_ago)) == ([mine], [other.pk])

    @pytest.mark.parametrize(("name", "value"), [("open", "x"), ("kind", "x"), ("opened", "true")])
    def test_wrong_filters_are_refused_by_name(self, api, user, name, value):
        answer = api(user).get("/api/v1/alerts/", {name: value})
        assert (answer.status_code, list(answer.json())) == (400, [name])

    def test_nobody_writes(self, api, staff):
        assert api(staff).post("/api/v1/alerts/", {}).status_code == 405
