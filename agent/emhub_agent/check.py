"""``emhub-agent check``: whether a configuration would do what it is meant to, without storing anything."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Callable

from .client import AnswerError, Client, ItemError, NotFound
from .config import Config, Watch
from .readers.base import Deferred, ReaderError, RunNews, SessionNews
from .sync import RunSync, described, renamed
from .watching import RUNNING, found

#: So many rows of each run are shown, and so many complaints of the site.
SHOWN = 3
#: Tried at once: few enough for any number of picks.
BATCH = 100


class Check:
    """Goes through a configuration and says what it finds; ``problems`` counts what is wrong."""

    def __init__(self, config: Config, client: Client, say: Callable[[str], None] = print):
        self.config, self.client, self.say = config, client, say
        self.problems = 0
        self._unreadable: set[tuple[str, str]] = set()

    def run(self) -> int:
        """Return the number of problems. Raises what the client raises about site and token."""
        count = sum(1 for _ in self.client.sessions(status=list(RUNNING)))
        self.say(f"{self.client.site} answers and takes the token; running sessions that it sees: {count}.")
        watches = found(self.client, self.config)
        for template in self.config.watches:
            if template.session is None:
                names = [watch.session for watch in watches if _came_of(watch, template)]
                self.say(f"{template}: {_listed(names) if names else 'no session at present'}")
        for watch in watches:
            self.say("")
            self.say(f"{watch.session} ({watch})")
            self.watch(watch)
        self.say("")
        self.say(
            "Nothing was stored. " + (f"Problems: {self.problems}." if self.problems else "All is well.")
        )
        return self.problems

    def problem(self, text: str) -> None:
        self.problems += 1
        self.say(f"  PROBLEM: {text}")

    def watch(self, watch: Watch) -> None:
        name = watch.session or ""
        try:
            session = self.client.get_session(name)
        except NotFound:
            self.problem("there is no such session on the site, or the token may not see it.")
            return
        if session.get("status") == "archived":
            self.problem("the session is archived and takes nothing more.")
        try:
            reader = watch.reader()
            reader.is_patient = False
            news = reader.look()
        except ReaderError as error:
            self.problem(str(error))
            return
        runs = {row.get("key"): row for row in self.client.runs(name)}
        if not news:
            self.say("  nothing to send yet")
        for item in news:
            if isinstance(item, SessionNews):
                self.session(session, item)
            else:
                self.one_run(name, item, runs.get(item.key))

    def session(self, session: dict[str, Any], news: SessionNews) -> None:
        name = str(session["name"])
        for field, value in news.fields.items():
            if session.get(field) != value:
                self.say(f"  {field}: {_shown(session.get(field))} on the site, {_shown(value)} here")
        self.say(f"  {len(news.exposures)} exposures")
        self.rows(news.exposures)
        self.try_out(
            news.exposures, lambda batch: self.client.post_exposures(name, batch, dry_run=True), "exposures"
        )

    def one_run(self, session: str, news: RunNews, known: dict[str, Any] | None) -> None:
        rows = news.micrographs.values()
        with_picks = sum(any(isinstance(value, Deferred) for value in row.values()) for row in rows)
        self.say(f"  run {news.key}: {news.status}, {described(news.info)}")
        text = f"    {len(news.micrographs)} micrographs, {with_picks} with picks in files, "
        text += f"{len(news.pictures)} pictures, {len(news.events)} events"
        self.say(text)
        for found_classes in news.classes:
            count = len(found_classes.classes)
            self.say(f"    {found_classes.job}, iteration {found_classes.iteration}: {count} classes")
        self.rows(news.micrographs, indent="    ")
        if known is not None:
            run = RunSync(news.key)
            run.take(news)
            self.try_out(
                news.micrographs,
                lambda batch: self.client.post_micrographs(known["id"], batch, dry_run=True),
                "micrographs",
                run.adopt,
            )
        else:
            # There is no run to try them on; their names can be tried all the same.
            self.say("    the run is new; only the names of its micrographs can be tried")
            self.try_out(
                {name: {} for name in news.micrographs},
                lambda batch: self.client.post_exposures(session, batch, dry_run=True),
                "names",
            )

    def rows(self, rows: dict[str, dict[str, Any]], indent: str = "  ") -> None:
        for name, fields in islice(rows.items(), SHOWN):
            values = [f"{field} {_shown(value)}" for field, value in self.loaded(name, fields).items()]
            self.say(f"{indent}{name}: {', '.join(values) or 'its name alone'}")
        if len(rows) > SHOWN:
            self.say(f"{indent}and {len(rows) - SHOWN} more")

    def loaded(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for field, value in fields.items():
            if isinstance(value, Deferred):
                try:
                    row.update(value.load())
                except (OSError, ValueError) as error:
                    if (name, field) not in self._unreadable:
                        self._unreadable.add((name, field))
                        self.problem(f"{name}: {field} cannot be read: {error}")
            else:
                row[field] = value
        return row

    def try_out(
        self,
        rows: dict[str, dict[str, Any]],
        post: Callable[[list[dict[str, Any]]], dict[str, int]],
        kind: str,
        adopt: Callable[[list[ItemError]], dict[str, str]] = lambda items: {},
    ) -> None:
        """Let the site say what it would make of these rows; nothing is stored.

        ``adopt`` says of refused items which go by another name, as ``RunSync.adopt`` does.
        """
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        complaints: list[str] = []
        for names in _batches(rows):
            batch = [{"name": name, **self.loaded(name, rows[name])} for name in names]
            while True:
                try:
                    answer = post(batch)
                except AnswerError as error:
                    called = adopt(error.items)
                    if called:
                        batch = renamed(batch, called)
                        continue
                    complaints += [str(item) for item in error.items] or [error.detail]
                else:
                    for outcome in counts:
                        counts[outcome] += answer.get(outcome) or 0
                break
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        if rows:
            self.say(f"    the site would have {kind}: {words}")
        for text in complaints[:SHOWN]:
            self.problem(f"the site would refuse {text}")
        if len(complaints) > SHOWN:
            self.problems += len(complaints) - SHOWN
            self.say(f"    and {len(complaints) - SHOWN} more")


def _batches(rows: Iterable[str]) -> Iterable[list[str]]:
    names = iter(rows)
    while batch := list(islice(names, BATCH)):
        yield batch


def _came_of(watch: Watch, template: Watch) -> bool:
    return (watch.program, watch.key, watch.microscopes) == (
        template.program,
        template.key,
        template.microscopes,
    ) and watch.session is not None


def _listed(names: list[Any]) -> str:
    text = ", ".join(str(name) for name in names[:10])
    return text + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"({len(value)} points)"
    return str(value)
