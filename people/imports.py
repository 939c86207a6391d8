"""People and labs from a CSV file: read and judged as a whole, then taken in as a whole or not at all.

One line for each person and lab: `email`, `first_name`, `last_name`, `lab`, `role` (member or pi), `institution`.
Who is in several labs has several lines. Who is known by the address keeps name and account, and is only added to
the lab; a lab that is not known is made, and needs one line that says who leads it.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models.functions import Lower

from people import access, invitations, services
from people.models import AuditEntry, Lab, Membership, User

COLUMNS = ["email", "first_name", "last_name", "lab", "role", "institution"]
LONGEST_FILE = 1_000_000
MOST_LINES = 2_000
MEMBER, PI = "member", "pi"
DELIMITERS = ",;\t"


@dataclass
class Line:
    """One line of the file, `number` as an editor counts it; what will happen, or what is wrong."""

    number: int
    email: str
    first_name: str
    last_name: str
    lab: str
    role: str
    institution: str
    effects: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """What a file would do. It may be carried out only without errors."""

    lines: list[Line]
    people: dict[str, User | Line]
    labs: dict[str, Lab | Line]

    @property
    def wrong(self) -> list[Line]:
        return [line for line in self.lines if line.errors]

    @property
    def new_people(self) -> list[Line]:
        return [found for found in self.people.values() if isinstance(found, Line)]

    @property
    def new_labs(self) -> list[Line]:
        return [found for found in self.labs.values() if isinstance(found, Line)]

    @property
    def joins(self) -> list[Line]:
        return [line for line in self.lines if any("joins" in effect for effect in line.effects)]

    @property
    def does_something(self) -> bool:
        return any(line.effects for line in self.lines)

    @property
    def digest(self) -> str:
        """The same for the same file with the same effects: what was shown is what is done."""
        shown = [(line.number, line.email, line.lab, line.effects) for line in self.lines]
        return hashlib.sha256(repr(shown).encode()).hexdigest()


def decode(content: bytes) -> str:
    """The file's text. Raises ValidationError for what is no CSV in UTF-8 of a reasonable size."""
    if len(content) > LONGEST_FILE:
        raise ValidationError("The file is larger than 1 MB. Import it in parts.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError(
            "The file is not in UTF-8. In a spreadsheet choose “CSV UTF-8” when saving it."
        ) from None
    if "\0" in text:
        raise ValidationError("This is no text file. Save the table as CSV.")
    return text


def plan(text: str) -> Plan:
    """Read the file and say of each line what it would do or what is wrong with it; writes nothing.

    Raises ValidationError where the file as a whole cannot be read.
    """
    lines = _read(text)
    # Addresses are compared ignoring case, which a query for a list of them cannot.
    wanted = {line.email.lower() for line in lines} - {""}
    known = {
        user.email.lower(): user
        for user in User.objects.annotate(address=Lower("email")).filter(address__in=sorted(wanted))
    }
    labs: dict[str, Lab | Line] = {lab.name.lower(): lab for lab in Lab.objects.select_related("pi")}
    memberships = set(
        Membership.objects.filter(user__in=[user.pk for user in known.values()]).values_list(
            "lab_id", "user_id"
        )
    )
    made = Plan(lines, {}, {})
    seen: dict[tuple[str, str], int] = {}
    heads: dict[str, Line] = {}
    for line in lines:
        if line.lab and line.role == PI and line.lab.lower() not in labs:
            first = heads.setdefault(line.lab.lower(), line)
            if first.email.lower() != line.email.lower():
                line.errors.append(f"Line {first.number} says that {first.email} leads {line.lab}.")
    for line in lines:
        _judge_person(line, known, made)
        _judge_lab(line, known, labs, memberships, heads, made)
        key = (line.email.lower(), line.lab.lower())
        if line.email and key in seen:
            line.errors.append(f"Line {seen[key]} says the same.")
        seen.setdefault(key, line.number)
    return made


def _read(text: str) -> list[Line]:
    rows = _rows(text)
    header = [name.strip().lower().replace(" ", "_").replace("-", "") for name in rows[0][1]] if rows else []
    while header and not header[-1]:  # Spreadsheets write columns that were once used.
        header.pop()
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or "email" not in header or len(set(header)) < len(header):
        why = f"“{unknown[0]}” is none of them" if unknown else "email is missing or one of them comes twice"
        raise ValidationError(f"The first line must name the columns {', '.join(COLUMNS)}: {why}.")
    if len(rows) - 1 > MOST_LINES:
        raise ValidationError(f"The file has more than {MOST_LINES:,} lines. Import it in parts.")
    lines = []
    for number, row in rows[1:]:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells):
            continue
        values = dict.fromkeys(COLUMNS, "") | dict(zip(header, cells, strict=False))
        line = Line(number, **values)
        line.role = line.role.lower() or MEMBER
        if len(cells) > len(header) and any(cells[len(header) :]):
            line.errors.append(f"There are more than {len(header)} columns.")
        lines.append(line)
    if not lines:
        raise ValidationError("The file names nobody.")
    return lines


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """The table's rows with the line on which each begins: a cell in quotes may have several."""
    lines = text.splitlines()
    # A spreadsheet may say before the table what parts its columns.
    told = re.fullmatch(r'"?sep=(.)"?,*', lines[0]) if lines else None
    first = lines[1 if told and len(lines) > 1 else 0] if lines else ""
    delimiter = told[1] if told and told[1] in DELIMITERS else max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, begins = [], 1
    try:
        for row in reader:
            rows.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValidationError(f"This cannot be read as CSV: line {reader.line_num}: {error}.") from None
    return rows[1:] if told else rows


def _judge_person(line: Line, known: dict[str, User], made: Plan) -> None:
    key = line.email.lower()
    try:
        validate_email(line.email)
    except ValidationError:
        line.errors.append(
            f"“{line.email}” is no e-mail address." if line.email else "The e-mail address is missing."
        )
        return
    user = known.get(key)
    if user is not None:
        made.people[key] = user
        if user.is_service or not user.is_active:
            line.errors.append("This account is not active. Reactivate it first.")
        return
    first = made.people.setdefault(key, line)
    if first is not line:
        if (line.first_name, line.last_name) not in (("", ""), (first.first_name, first.last_name)):
            line.errors.append(
                f"Line {first.number} gives this address to {first.first_name} {first.last_name}."
            )
        return
    if not (line.first_name and line.last_name):
        line.errors.append("Nobody has this address yet: first and last name are needed.")
        return
    try:
        User(first_name=line.first_name, last_name=line.last_name, email=line.email).clean_fields(
            exclude=["username", "password"]
        )
    except ValidationError as error:
        line.errors += [
            f"{name.replace('_', ' ')}: {' '.join(said)}" for name, said in error.message_dict.items()
        ]
        return
    line.effects.append("new account")


def _judge_lab(line, known, labs, memberships, heads, made: Plan) -> None:
    key = line.lab.lower()
    if line.role not in (MEMBER, PI):
        line.errors.append(f"“{line.role}” is no role: write member or pi, or nothing.")
        return
    if not line.lab:
        if line.role == PI or line.institution:
            line.errors.append("The lab is missing.")
        return
    lab = labs.get(key)
    user = known.get(line.email.lower())
    if isinstance(lab, Lab):
        made.labs[key] = lab
        if not lab.is_active:
            line.errors.append(f"{lab} is not active any more. Make it active first, in the admin.")
            return
        leads = user is not None and user.pk == lab.pi_id
        if line.role == PI and not leads:
            line.errors.append(f"{lab} is led by {lab.pi}. Change that in the admin.")
        elif not leads and (user is None or (lab.pk, user.pk) not in memberships):
            line.effects.append(f"joins {lab}")
        return
    if key not in heads:
        line.errors.append(f"There is no lab “{line.lab}” yet, and no line says who leads it (role pi).")
        return
    head = made.labs.setdefault(key, heads[key])
    if line.role == PI:
        if head is line:
            try:
                Lab(name=line.lab, institution=line.institution).clean_fields(exclude=["pi"])
            except ValidationError as error:
                line.errors += [f"{name}: {' '.join(said)}" for name, said in error.message_dict.items()]
            line.effects.append(f"new lab {line.lab}, led by this person")
    else:
        line.effects.append(f"joins {line.lab}")


@transaction.atomic
def carry_out(
    *, actor: User, text: str, digest: str, link_of: Callable[[User], str] | None = None
) -> tuple[int, int, int]:
    """Do what the plan with this digest said; answers how many people and labs are new, and how many joined one.

    With `link_of`, which makes an absolute address of the page on which a person sets the password, each new person
    gets an invitation. Raises ValidationError where the file would do anything else by now, PermissionDenied for who
    may not invite.
    """
    if not (access.can_invite(actor) and access.can_manage_people(actor)):
        raise PermissionDenied("You may not import people.")
    made = plan(text)
    if made.wrong or made.digest != digest:
        raise ValidationError("Something has changed since the file was looked at. Look at it again.")
    people = {key: found for key, found in made.people.items() if isinstance(found, User)}
    for line in made.new_people:
        people[line.email.lower()] = services.user_invite(
            actor=actor, first_name=line.first_name, last_name=line.last_name, email=line.email
        )
    labs = {key: found for key, found in made.labs.items() if isinstance(found, Lab)}
    for line in made.new_labs:
        lab = Lab(name=line.lab, institution=line.institution, pi=people[line.email.lower()])
        lab.full_clean()
        lab.save()
        labs[line.lab.lower()] = lab
        AuditEntry.record(actor=actor, action="lab imported", target=lab, details={"pi": str(lab.pi)})
    for line in made.joins:
        lab, person = labs[line.lab.lower()], people[line.email.lower()]
        Membership.objects.create(lab=lab, user=person)
        AuditEntry.record(actor=actor, action="lab member added", target=lab, details={"person": str(person)})
    if link_of is not None:
        for line in made.new_people:
            person = people[line.email.lower()]
            invitations.invitation_queue(actor=actor, user=person, url=link_of(person))
    return len(made.new_people), len(made.new_labs), len(made.joins)
