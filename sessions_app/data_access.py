"""Where a session's images lie on the facility's data server."""

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import slugify


def data_path(booking, session_name: str, start) -> str:
    """The server's path template filled in; empty where the microscope has no data server.

    Labs and owners come in as slugs, so that a path never holds a space or a slash of theirs. Raises
    ValidationError if the template cannot be filled in.
    """
    server = booking.microscope.data_server
    if server is None:
        return ""
    local = timezone.localtime(start)
    try:
        path = server.path_template.format(
            microscope=booking.microscope.code,
            session=session_name,
            lab=slugify(booking.lab.name) if booking.lab else "no-lab",
            owner=slugify(booking.owner.username) or str(booking.owner_id),
            year=f"{local:%Y}",
            month=f"{local:%m}",
        )
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValidationError(
            f"The path template of data server {server} cannot be filled in ({error}). Ask the facility's staff "
            "to correct it."
        ) from error
    return path[:500]


def check_path(path: str) -> None:
    """Raises ValidationError for characters that no path of a microscope has and no shell command should get."""
    if not path.isprintable():
        raise ValidationError("A path has no line breaks and no control characters.")
