"""Who sees a session is one rule, however it is asked."""

import pytest

from sessions_app.models import Session
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    ServiceUserFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
    make_token,
)

pytestmark = pytest.mark.django_db


def ways_to_be_involved(person) -> dict[str, Session]:
    """One session for each way in which it is the person's."""
    collaborated = BookingFactory()
    collaborated.collaborators.add(person)
    return {
        "creator": SessionFactory(creator=person),
        "operator": SessionFactory(operator=person),
        "booking's owner": SessionFactory(booking=BookingFactory(owner=person), creator=UserFactory()),
        "booking's operator": SessionFactory(booking=BookingFactory(operator=person)),
        "booking's creator": SessionFactory(booking=BookingFactory(creator=person)),
        "collaborator": SessionFactory(booking=collaborated),
        "member": SessionFactory(booking=BookingFactory(lab=MembershipFactory(user=person).lab)),
        "head of lab": SessionFactory(booking=BookingFactory(lab=LabFactory(pi=person))),
    }


@pytest.mark.parametrize("among_few", [False, True])
def test_each_way_of_being_involved_shows_the_session_and_only_it(among_few):
    person = UserFactory()
    mine = ways_to_be_involved(person)
    SessionFactory()
    assert set(Session.objects.visible_to(person, among_few=among_few)) == set(mine.values())


@pytest.mark.parametrize("among_few", [False, True])
def test_staff_pipelines_and_strangers(among_few):
    session, other = SessionFactory(), SessionFactory()
    pipeline = ServiceUserFactory()
    seen = {
        "staff": Session.objects.visible_to(StaffFactory(), among_few=among_few),
        "stranger": Session.objects.visible_to(UserFactory(), among_few=among_few),
        "no token": Session.objects.visible_to(pipeline, among_few=among_few),
    }
    assert {who: set(rows) for who, rows in seen.items()} == {
        "staff": {session, other},
        "stranger": set(),
        "no token": set(),
    }
    pipeline.pipeline_token = make_token(session.microscope, user=pipeline)[0]
    assert set(Session.objects.visible_to(pipeline, among_few=among_few)) == {session}
