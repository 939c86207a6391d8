"""Importing people and labs: the dry run writes nothing, errors name their line, and it is all or nothing."""

import re

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile

from people import imports
from people.models import AuditEntry, Lab, Membership, OutgoingMail, User
from tests.factories import LabFactory, MembershipFactory, UserFactory

pytestmark = pytest.mark.django_db
IMPORT = "/people/import/"
GOOD = """email,first_name,last_name,lab,role,institution
jane@example.org,Jane,Hall,Hall lab,pi,University of the North
ada@example.org,Ada,Byron,Hall lab,,
ADA@example.org,,,Berg lab,member,
zoë@example.org,Zoë,Ångström,,,
"""


@pytest.fixture
def berg():
    return LabFactory(name="Berg lab")


def upload(client, text, **fields):
    content = text if isinstance(text, bytes) else text.encode()
    return client.post(IMPORT, {"file": SimpleUploadedFile("people.csv", content), **fields})


def confirm(client, answer, **fields):
    text = re.search(r"<textarea name=\"text\" hidden>\n(.*?)</textarea>", answer.text, re.DOTALL)[1]
    digest = re.search(r'name="digest" value="(\w+)"', answer.text)[1]
    sent = {"confirmed": "1", "text": text.replace("\n", "\r\n"), "digest": digest} | fields
    return client.post(IMPORT, sent, follow=True)


def errors(text) -> dict:
    return {line.number: " ".join(line.errors) for line in imports.plan(text).wrong}


def with_lines(*lines):
    return "\n".join(["email,first_name,last_name,lab,role,institution", *lines])


GOOD = GOOD.replace("zoë@", "zoe@")


def test_the_dry_run_writes_nothing_and_says_what_would_be(client, staff, berg):
    client.force_login(staff)
    before = User.objects.count()
    text = upload(client, GOOD).text
    assert "would make 3 accounts and 1 lab, and add 2 people to a lab" in text
    assert "new lab Hall lab, led by this person" in text
    assert (User.objects.count(), Lab.objects.count()) == (before, 1)
    assert not AuditEntry.objects.exists()


def test_confirming_does_what_was_shown(client, staff, berg):
    client.force_login(staff)
    answer = confirm(client, upload(client, GOOD))
    assert "New accounts: 3. New labs: 1. Added to a lab: 2." in answer.text
    ada = User.objects.get(email="ada@example.org")
    assert sorted(ada.labs.values_list("name", flat=True)) == ["Berg lab", "Hall lab"]
    assert Lab.objects.get(name="Hall lab").pi.email == "jane@example.org"
    assert str(User.objects.get(email="zoe@example.org")) == "Zoë Ångström"
    assert not OutgoingMail.objects.exists()
    assert not ada.has_usable_password()
    assert AuditEntry.objects.filter(actor=staff, action="lab imported").count() == 1


def test_the_same_file_again_does_nothing(client, staff, berg):
    client.force_login(staff)
    confirm(client, upload(client, GOOD))
    assert "there is nothing to do" in upload(client, GOOD).text


def test_invitations_are_mailed_where_asked_for(client, staff, berg):
    client.force_login(staff)
    confirm(client, upload(client, GOOD), invite="on")
    assert OutgoingMail.objects.count() == 3
    assert all("http://testserver/people/password/set/" in mail.body for mail in OutgoingMail.objects.all())


def test_one_wrong_line_and_nothing_can_be_imported(client, staff, berg):
    client.force_login(staff)
    text = upload(client, GOOD + "no address,X,Y,,,\n").text
    assert "1 line cannot be imported, so nothing is" in text
    assert "is no e-mail address" in text
    assert "Import all of it" not in text


@pytest.mark.parametrize(
    ("lines", "number", "told"),
    [
        (["x@example.org,,,,,"], 2, "first and last name are needed"),
        ([",A,B,,,"], 2, "e-mail address is missing"),
        (["gone@example.org,,,Berg lab,,"], 2, "not active"),
        (["x@example.org,A,B,Nobody's lab,,"], 2, "no line says who leads it"),
        (["x@example.org,A,B,Berg lab,pi,"], 2, "Berg lab is led by"),
        (["x@example.org,A,B,Berg lab,boss,"], 2, "is no role"),
        (["x@example.org,A,B,,pi,"], 2, "The lab is missing"),
        (["x@example.org,A,B,Berg lab,,", "X@example.org,,,berg LAB,,"], 3, "Line 2 says the same"),
        (["x@example.org,A,B,,,", "x@example.org,C,D,Berg lab,,"], 3, "Line 2 gives this address to A B"),
        (
            ["x@example.org,A,B,New,pi,", "y@example.org,C,D,New,pi,"],
            3,
            "Line 2 says that x@example.org leads New",
        ),
        ([f"x@example.org,{'a' * 151},B,,,"], 2, "first name"),
        ([f"x@example.org,A,B,{'a' * 121},pi,"], 2, "name:"),
        (["", "x@example.org,A,B,,,,more"], 3, "more than 6 columns"),
    ],
)
def test_what_is_wrong_is_told_by_line(berg, lines, number, told):
    UserFactory(email="gone@example.org", is_active=False)
    found = errors(with_lines(*lines))
    assert list(found) == [number]
    assert told in found[number]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "submitted file is empty"),
        (b"email\n", "names nobody"),
        (b"name,phone\nA,1\n", "The first line must name the columns"),
        (b"first_name\nA\n", "email is missing"),
        ("email,first_name\nx@example.org,J\xf6rg\n".encode("latin-1"), "not in UTF-8"),
        (b"PK\x03\x04\0\0", "no text file"),
        (b"email\n" + b"x" * imports.LONGEST_FILE, "larger than 1 MB"),
        (b'email\n"x@example.org', "cannot be read as CSV"),
        (b"email\n" + b"a@example.org\n" * 2001, "more than 2,000 lines"),
    ],
)
def test_what_is_no_such_file_is_refused_in_words(client, staff, content, told):
    client.force_login(staff)
    answer = upload(client, content)
    assert answer.status_code == 200
    assert told in answer.text


def test_semicolons_and_a_byte_order_mark_are_read(berg):
    made = imports.plan(imports.decode("\ufeffE-mail;First name;Last name\nx@example.org;A;B\n".encode()))
    assert (made.wrong, len(made.new_people)) == ([], 1)


def test_what_changed_in_between_is_not_done_unseen(client, staff, berg):
    client.force_login(staff)
    shown = upload(client, GOOD)
    MembershipFactory(lab=berg, user=UserFactory(email="ada@example.org"))
    assert "Something has changed since" in confirm(client, shown).text
    assert not Lab.objects.filter(name="Hall lab").exists()


def test_nothing_is_half_done_when_a_later_step_fails(staff, berg, monkeypatch):
    before = User.objects.count()

    def fail(**fields):
        raise ValidationError("No.")

    monkeypatch.setattr(imports.invitations, "invitation_queue", fail)
    with pytest.raises(ValidationError):
        imports.carry_out(actor=staff, text=GOOD, digest=imports.plan(GOOD).digest, link_of=str)
    assert (User.objects.count(), Membership.objects.count(), Lab.objects.count()) == (before, 0, 1)


def test_it_is_for_staff_alone(client, user, berg):
    client.force_login(user)
    assert client.get(IMPORT).status_code == 403
    assert upload(client, GOOD).status_code == 403
    with pytest.raises(PermissionDenied):
        imports.carry_out(actor=berg.pi, text=GOOD, digest=imports.plan(GOOD).digest)


def test_what_spreadsheets_add_is_no_mistake(berg):
    text = imports.decode(
        "\ufeffsep=;\r\nE-mail;First name;Last name;Lab;;\r\nada@example.org;Ada;Byron;Berg lab;;\r\n;;;;;\r\n".encode()
    )
    (line,) = imports.plan(text).lines
    assert (line.number, line.errors, line.effects) == (3, [], ["new account", "joins Berg lab"])


def test_lines_are_numbered_as_an_editor_does_also_after_a_cell_of_several(berg):
    text = with_lines('jane@example.org,Jane,Hall,Hall lab,pi,"University\nof the North"', "nobody,,,,,")
    assert list(errors(text)) == [4]


def test_nobody_joins_a_lab_that_is_out_of_use(berg):
    Lab.objects.update(is_active=False)
    told = errors(with_lines("ada@example.org,Ada,Byron,Berg lab,,"))
    assert told == {2: "Berg lab is not active any more. Make it active first, in the admin."}
