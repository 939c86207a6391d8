"""What holds of every call alike: its errors are described, its pages are bounded, its addresses answer in JSON."""

import pytest
from drf_spectacular.generators import SchemaGenerator

pytestmark = pytest.mark.django_db

LISTS = ("/api/v1/sessions/", "/api/v1/microscopes/")


def test_every_call_says_which_errors_it_may_answer():
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    calls = {
        (method, path): set(map(str, call["responses"]))
        for path, methods in paths.items()
        if path.startswith("/api/v1/")
        for method, call in methods.items()
        if "responses" in call
    }
    assert len(calls) > 20
    for (method, path), codes in calls.items():
        missing = {"400", "401", "403", "404", "429"} - codes
        if method != "get":
            missing |= {"409", "413", "415"} - codes
        assert not missing, (method, path)


@pytest.mark.parametrize("address", LISTS)
@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=501", "page_size=x", "page_size=1&page_size=2", "page=1&page=2"]
)
def test_a_page_that_cannot_be_is_refused_and_not_bent(api, staff, address, query):
    answer = api(staff).get(f"{address}?{query}")
    assert answer.status_code == 400
    assert set(answer.json()) == {query.partition("=")[0]}


@pytest.mark.parametrize("address", LISTS)
def test_the_largest_page_can_be_asked_for(api, staff, address):
    assert api(staff).get(f"{address}?page_size=500&page=1").status_code == 200


@pytest.mark.parametrize("name", ["after", "before"])
def test_an_empty_time_is_refused(api, staff, name):
    answer = api(staff).get(f"/api/v1/sessions/?{name}=")
    assert answer.status_code == 400
    assert name in answer.json()


def test_addresses_with_a_line_break_answer_in_json_too(api, staff):
    answer = api(staff).get("/api/v1/runs/1%0A/")
    assert answer.status_code == 404
    assert answer.json()["detail"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("/api/v1/microscopes/?status=", "status"),
        ("/api/v1/microscopes/?voltage=300", "voltage"),
        ("/api/v1/sessions/?name=", "name"),
        ("/api/v1/sessions/?page=", "page"),
        ("/api/v1/sessions/?page=last", "page"),
    ],
)
def test_what_would_be_taken_for_no_filter_is_refused(api, staff, address, field):
    answer = api(staff).get(address)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
