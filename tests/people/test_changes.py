"""Forms and admin save only what the person changed, though others wrote the record meanwhile."""

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bookings.models import Application
from microscopes.models import Microscope
from people.changes import ChangedFieldsModelForm, add_errors
from tests.factories import ApplicationFactory, LabFactory, MicroscopeFactory

pytestmark = pytest.mark.django_db


class MicroscopeForm(ChangedFieldsModelForm):
    class Meta:
        model = Microscope
        fields = ["name", "model", "status", "location"]


class ApplicationForm(ChangedFieldsModelForm):
    class Meta:
        model = Application
        fields = ["title", "labs"]


def shown(form) -> dict:
    """What a browser sends back when the person changes nothing: the fields and what they carry along."""
    data = {}
    for field in form:
        value = field.value()
        data[field.html_name] = value if value is not None else ""
        if field.field.show_hidden_initial:
            data[field.html_initial_name] = data[field.html_name]
    return data


def test_a_field_left_alone_keeps_what_another_saved_meanwhile():
    microscope = MicroscopeFactory(name="Krios", status="active")
    page = shown(MicroscopeForm(instance=microscope))
    Microscope.objects.update(status="maintenance", model="Krios G4")
    form = MicroscopeForm(page | {"location": "Room 1"}, instance=Microscope.objects.get())
    assert form.save().status == "maintenance"
    microscope.refresh_from_db()
    assert (microscope.location, microscope.status, microscope.model) == ("Room 1", "maintenance", "Krios G4")


def test_only_changed_columns_are_written():
    microscope = MicroscopeFactory()
    form = MicroscopeForm(
        shown(MicroscopeForm(instance=microscope)) | {"location": "Room 1"}, instance=microscope
    )
    assert form.is_valid()
    with CaptureQueriesContext(connection) as queries:
        form.save()
    (update,) = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert '"location"' in update
    assert '"status"' not in update


def test_nothing_changed_writes_nothing():
    microscope = MicroscopeFactory()
    form = MicroscopeForm(shown(MicroscopeForm(instance=microscope)), instance=microscope)
    assert form.is_valid()
    with CaptureQueriesContext(connection) as queries:
        form.save()
    assert not [query for query in queries if query["sql"].startswith("UPDATE")]


def test_a_client_without_what_was_shown_is_compared_with_the_record():
    microscope = MicroscopeFactory(location="Room 1")
    form = MicroscopeForm(
        {"name": microscope.name, "status": "active", "model": "", "location": ""}, instance=microscope
    )
    assert form.changed_fields == ["location"]
    form.save()
    microscope.refresh_from_db()
    assert microscope.location == ""


def test_many_to_many_left_alone_keeps_what_another_added():
    application = ApplicationFactory()
    application.labs.add(LabFactory())
    page = shown(ApplicationForm(instance=application))
    page["labs"] = page["initial-labs"] = [lab.pk for lab in application.labs.all()]
    application.labs.add(LabFactory())
    ApplicationForm(page | {"title": "Another"}, instance=application).save()
    assert application.labs.count() == 2
    ApplicationForm(page | {"labs": []}, instance=application).save()
    assert application.labs.count() == 0


def test_a_new_record_is_saved_whole():
    lab = LabFactory()
    form = ApplicationForm({"title": "A study", "labs": [lab.pk]})
    form.instance.code = "A-1"
    application = form.save()
    assert list(application.labs.all()) == [lab]


def test_errors_of_fields_that_the_form_lacks_come_on_top():
    form = ApplicationForm({"title": "x"})
    add_errors(form, ValidationError({"title": "Too short.", "start": "Too early."}))
    assert form.errors == {"title": ["Too short."], "__all__": ["Too early."]}
    form = ApplicationForm({"title": "x"})
    add_errors(form, ValidationError("No."))
    assert form.non_field_errors() == ["No."]
