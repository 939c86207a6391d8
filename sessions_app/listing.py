"""Pages of the list of sessions that cost the same however many there are."""

from dataclasses import dataclass

from sessions_app.models import Session

PAGE_SIZE = 50
COUNT_LIMIT = 10_000
MAX_PAGE = 1_000_000


@dataclass(frozen=True)
class SessionPage:
    """One page. `count` is exact up to COUNT_LIMIT, beyond which `is_capped` says that there are more."""

    rows: list[Session]
    number: int
    has_next: bool
    count: int
    is_capped: bool

    @property
    def first(self) -> int:
        return (self.number - 1) * PAGE_SIZE + 1

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1

    @property
    def has_previous(self) -> bool:
        return self.number > 1

    @property
    def pages(self) -> int | None:
        """How many there are, None if nobody counted that far."""
        return None if self.is_capped else max(1, -(-self.count // PAGE_SIZE))


def page_number(text: str | None) -> int:
    """A page's number as it came in the address; 1 for anything else."""
    return (
        min(max(int(text), 1), MAX_PAGE)
        if text and text.isascii() and text.isdigit() and len(text) < 9
        else 1
    )


def session_page(sessions, number: int, *, collected: bool = False) -> SessionPage:
    """The page of this number of an ordered queryset: ids first, by the order's index, then the rows of these.

    Counting stops at COUNT_LIMIT, and is left out where the last page tells. `collected` says that the database
    has to bring all of the queryset together anyway, as it does for those who see only their own: then it is asked
    once, for ids and count alike.
    """
    offset = (number - 1) * PAGE_SIZE
    ordered = sessions.values_list("pk", flat=True)
    counted = None
    if collected and offset + PAGE_SIZE <= COUNT_LIMIT:
        found = list(ordered[: COUNT_LIMIT + 1])
        ids, counted = found[offset : offset + PAGE_SIZE + 1], len(found)
    else:
        ids = list(ordered[offset : offset + PAGE_SIZE + 1])
    has_next = len(ids) > PAGE_SIZE
    ids = ids[:PAGE_SIZE]
    rows = Session.objects.filter(pk__in=ids).with_row().in_bulk() if ids else {}
    if counted is not None:
        count = counted
    elif has_next:
        count = sessions.order_by()[: COUNT_LIMIT + 1].count()
    elif ids or number == 1:
        count = offset + len(ids)
    else:
        count = sessions.order_by()[: COUNT_LIMIT + 1].count()
    return SessionPage(
        rows=[rows[pk] for pk in ids if pk in rows],
        number=number,
        has_next=has_next,
        count=min(count, COUNT_LIMIT) if has_next else count,
        is_capped=count > COUNT_LIMIT and has_next,
    )
