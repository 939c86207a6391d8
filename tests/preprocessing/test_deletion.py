"""Deleting a session takes everything pipelines reported, in a few statements, and nothing of another's."""

import re

import pytest
from django.db import connection
from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from preprocessing import models
from sessions_app.lifecycle import losses, session_delete
from sessions_app.models import Session

pytestmark = pytest.mark.django_db
ALL = (
    models.Coordinates,
    models.Micrograph,
    models.ClassAverage,
    models.RunEvent,
    models.ProcessingRun,
    models.Exposure,
)


def fill(pipeline, picture, count):
    pipeline.expose({"name": "no pipeline saw it"})
    pipeline.post(*({"name": f"m{n}", "coordinates": [[1, 1]]} for n in range(count)))
    client, url = pipeline.client, pipeline.url
    client.post(f"{url}classes/", {"job": "j", "classes": [{"number": 1}]})
    client.post(f"{url}events/", {"level": "info", "text": "x"})
    for kind in ("micrograph", "psd"):
        client.post(
            f"{url}images/", {"kind": kind, "micrograph": "m0", "file": picture()}, format="multipart"
        )


def test_the_confirmation_counts_in_words_that_fit_one_and_many(pipeline, picture, staff, client):
    fill(pipeline, picture, 1)
    client.force_login(staff)
    page = client.get(reverse("sessions:delete", args=[pipeline.session.name])).content.decode()
    said = re.findall(r"<li>(\d+) ([^<]+)</li>", page)
    assert said == [("1", "processing run"), ("1", "micrograph"), ("2", "images")]


def test_it_says_what_goes_and_all_of_it_goes(pipeline, picture, staff):
    fill(pipeline, picture, 3)
    assert {loss.what: loss.count for loss in losses(pipeline.session)} == {
        "processing runs": 1,
        "micrographs": 3,
        "images": 2,
    }
    session_delete(pipeline.session, staff)
    assert [model.objects.count() for model in ALL] == [0] * len(ALL)
    assert not Session.objects.filter(pk=pipeline.session.pk).exists()


def test_another_session_keeps_its_own(pipeline, picture, staff, api):
    from tests.factories import SessionFactory
    from tests.preprocessing.conftest import Pipeline

    other = SessionFactory()
    kept = Pipeline(api(microscopes=[other.microscope]), other)
    fill(kept, picture, 2)
    fill(pipeline, picture, 2)
    before = [model.objects.count() for model in ALL]
    session_delete(pipeline.session, staff)
    assert [model.objects.count() * 2 for model in ALL] == before
    kept.assert_counted()


def test_the_number_of_statements_does_not_grow_with_the_rows(pipeline, picture, staff, api):
    from tests.factories import SessionFactory
    from tests.preprocessing.conftest import Pipeline

    other = SessionFactory()
    large = Pipeline(api(microscopes=[other.microscope]), other)
    fill(pipeline, picture, 1)
    fill(large, picture, 300)
    with CaptureQueriesContext(connection) as small:
        session_delete(pipeline.session, staff)
    with CaptureQueriesContext(connection) as many:
        session_delete(large.session, staff)
    assert len(many) == len(small)


def test_no_signal_is_attached_to_what_comes_in_tens_of_thousands():
    """Each would make Django read every row before it goes."""
    for model in ALL:
        assert not pre_delete.has_listeners(model)
        assert not post_delete.has_listeners(model)
