"""Scipion's ``project.sqlite``: the tree of its objects, and the protocols in it.

The tree is followed by parent ids. What a protocol is comes from what it makes and takes, not from its class,
so that plugins nobody has heard of are read too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import sqlite, star

STATUSES = {
    "saved": "queued",
    "new": "queued",
    "launched": "queued",
    "scheduled": "queued",
    "waiting": "running",
    "running": "running",
    "interactive": "queued",
    "finished": "finished",
    "failed": "failed",
    "aborted": "stopped",
}
OVER = ("finished", "failed", "stopped")

# What a protocol does, where it has made nothing yet to tell it by.
ROLES = (
    ("import", re.compile(r"Import(Movies|Micrographs)")),
    ("extract", re.compile(r"Extract(Particles|_?Boxes)")),
    ("class2d", re.compile(r"Classify2D|Cl2d|CL2D|Cryo2D|Class2D", re.IGNORECASE)),
    ("picking", re.compile(r"Pick|Boxing|Boxer", re.IGNORECASE)),
    ("ctf", re.compile(r"CTF", re.IGNORECASE)),
    ("motion", re.compile(r"Motion|Flexalign|OpticalAlign|MovieAlign|AlignMovies", re.IGNORECASE)),
)
NAMED = (
    ("Micrographs", "SetOfMicrographs"),
    ("Movies", "SetOfMovies"),
    ("CTF", "SetOfCTF"),
    ("Coordinates", "SetOfCoordinates"),
    ("Particles", "SetOfParticles"),
    ("Classes", "SetOfClasses2D"),
)
# Pickers that a person sits at: what they leave out was not looked at, and any program counts before them.
BY_HAND = re.compile(r"^XmippProtParticlePicking$|^EmanProtBoxing$|Manual|ImportCoordinates")
SUBSET = "ProtUserSubSet"

# Of a protocol's attributes those that say how it was run rather than what it did.
BOOKKEEPING = frozenset(
    re.findall(
        r"\w+",
        """
        status initTime endTime interactive workingDir expertLevel runName runMode lastUpdateTimeStamp
        numberOfMpi numberOfThreads binThreads hostName hostFullName allowHeader summaryVar methodsVar
        forceSchedule gpuList useGpu doGpu gpusToUse GPUs scratchDir useParallelDisk pooledParticles
        allParticlesRam combineItersDisc streamingWarning streamingSleepOnWait streamingBatchSize
        acquisitionWizard sqliteFile isFirstTime continueMsg timeout fileTimeout copyFiles useRegexps
        importFrom stackFrames writeMoviesInProject movieSuffix deleteFrames inputIndividualFrames
        recalculate inputType isClassify is2D numCpus compute_use_ssd compute_lane
        """,
    )
)
PLAIN = ("Integer", "Float", "Boolean", "String")

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]+")


class Output(NamedTuple):
    """A set that a protocol made: its attribute's name, its class, its file and the prefix of its tables."""

    name: str
    kind: str
    file: str
    prefix: str
    micrographs: int | None = None  # the protocol that made the micrographs it lies on
    pixel_size: float | None = None  # Å
    size: tuple[int, int] | None = None  # width and height in pixels


class Protocol(NamedTuple):
    """One protocol of the project.

    ``inputs`` are (id of the protocol it takes from, class of what it takes), ``relatives`` the ids of all
    protocols that it or its outputs point to.
    """

    id: int
    classname: str
    label: str
    status: str
    folder: str
    error: str
    ended: str
    attributes: dict[str, Any]
    outputs: tuple[Output, ...]
    inputs: tuple[tuple[int, str], ...]
    relatives: frozenset[int]

    @property
    def name(self) -> str:
        return f"{self.id:06d}_{self.classname}"

    @property
    def is_over(self) -> bool:
        return STATUSES.get(self.status) in OVER

    def makes(self, kind: str) -> bool:
        return any(output.kind == kind for output in self.outputs)

    def takes(self, *kinds: str) -> bool:
        return any(kind.startswith(kinds) for _, kind in self.inputs)

    @property
    def estimates_ctf(self) -> bool:
        """Whether it makes CTFs of micrographs, as opposed to choosing among those of another protocol."""
        return self.makes("SetOfCTF") and self.takes("SetOfMicrographs", "SetOfMovies")

    @property
    def picks(self) -> bool:
        """Whether it makes coordinates, and not out of particles that were picked before."""
        return self.makes("SetOfCoordinates") and not self.takes("SetOfParticles", "SetOfClasses")

    @property
    def by_hand(self) -> bool:
        return self.attributes.get("interactive") is True or bool(BY_HAND.search(self.classname))

    @property
    def role(self) -> str:
        if self.classname == SUBSET:
            return "other"
        if self.makes("SetOfClasses2D"):
            return "class2d"
        if self.estimates_ctf:
            return "ctf"
        if self.picks:
            return "picking"
        if self.makes("SetOfCTF") or self.makes("SetOfCoordinates"):
            return "other"
        if self.makes("SetOfParticles"):
            return "extract" if self.takes("SetOfCoordinates") else "other"
        if not self.inputs and (self.makes("SetOfMovies") or self.makes("SetOfMicrographs")):
            return "import"
        return next((role for role, sign in ROLES if sign.search(self.classname)), "other")


class Node(NamedTuple):
    """One row of the project's tree of objects."""

    id: int
    parent: int | None
    name: str
    classname: str
    value: str | None
    label: str


class Tree:
    """The objects of a project database, by id and by parent."""

    def __init__(self, path: str, patience: float = 0.25):
        """Raises what ``sqlite.opened`` raises, ValueError also where it is no project's database."""
        self.nodes: dict[int, Node] = {}
        self.children: dict[int | None, list[Node]] = {}
        wanted = ("id", "parent_id", "name", "classname", "value", "label")
        with sqlite.opened(path, patience) as database:
            columns = database.columns("Objects")
            if not columns.issuperset(wanted[:5]):
                raise ValueError("it has no table of a Scipion project's objects")
            names = ", ".join(name if name in columns else "NULL" for name in wanted)
            rows = database.query(f"SELECT {names} FROM Objects ORDER BY id")
        for id_, parent, name, classname, value, label in rows:
            if not isinstance(id_, int) or not isinstance(classname, str):
                continue
            node = Node(
                id_,
                parent if isinstance(parent, int) else None,
                str(name or "").rsplit(".", 1)[-1],
                classname,
                None if value is None else str(value),
                str(label or ""),
            )
            self.nodes[id_] = node
            self.children.setdefault(node.parent, []).append(node)

    def protocols(self) -> dict[int, Protocol]:
        found = {}
        for root in self.children.get(None, ()):
            protocol = self.protocol(root.id)
            if protocol is not None:
                found[root.id] = protocol
        return found

    def protocol(self, id_: int) -> Protocol | None:
        """Return the protocol of this id, None where there is none."""
        root = self.nodes.get(id_)
        own = {node.name: node for node in self.children.get(id_, ())}
        if root is None or "status" not in own or "workingDir" not in own:
            return None
        outputs = []
        for node in own.values():
            if node.classname.startswith("SetOf"):
                output = self._output(node)
                if output is not None:
                    outputs.append(output)

        def text(name: str) -> str:
            return (own[name].value or "") if name in own else ""

        return Protocol(
            id=id_,
            classname=root.classname,
            label=root.label or root.classname,
            status=text("status"),
            folder=text("workingDir"),
            error=text("_error"),
            ended=text("endTime"),
            attributes=self._attributes(own.values()),
            outputs=tuple(outputs),
            inputs=tuple(self._inputs(id_)),
            relatives=frozenset(
                source for source, _ in self._pointers(id_, with_outputs=True) if source != id_
            ),
        )

    @staticmethod
    def _attributes(nodes: Iterable[Node]) -> dict[str, Any]:
        found = {}
        for node in nodes:
            if node.classname in PLAIN and not node.name.startswith("_"):
                value = _attribute(node)
                if value is not None and (node.name == "interactive" or node.name not in BOOKKEEPING):
                    found[node.name] = value
        return found

    def _output(self, node: Node) -> Output | None:
        place = next((child for child in self.children.get(node.id, ()) if child.name == "_mapperPath"), None)
        if place is None or not place.value:
            return None
        file, comma, prefix = place.value.rpartition(",")
        file, prefix = (file.strip(), prefix.strip()) if comma else (prefix.strip(), "")
        if not file or "\0" in file:
            return None
        children = {child.name: child for child in self.children.get(node.id, ())}
        lies_on = children.get("_micrographsPointer")
        pixel, size = children.get("_samplingRate"), children.get("_firstDim")
        return Output(
            node.name,
            node.classname,
            file,
            prefix,
            self._owner(integer(lies_on.value)) if lies_on is not None else None,
            number(pixel.value) if pixel is not None else None,
            size_of(size.value) if size is not None else None,
        )

    def _inputs(self, id_: int) -> Iterator[tuple[int, str]]:
        for source, kind in self._pointers(id_):
            if source != id_:
                yield source, kind

    def _pointers(self, id_: int, with_outputs: bool = False) -> Iterator[tuple[int, str]]:
        """Yield (protocol, class of the object) for what the objects under this one point to."""
        todo = [id_]
        seen = {id_}
        while todo:
            for node in self.children.get(todo.pop(), ()):
                if node.id in seen:
                    continue
                seen.add(node.id)
                if node.classname == "Pointer":
                    target = integer(node.value)
                    owner = self._owner(target)
                    if owner is not None and target is not None:
                        yield owner, self._class_of(target, node)
                elif with_outputs or not node.classname.startswith("SetOf"):
                    todo.append(node.id)

    def _class_of(self, target: int, pointer: Node) -> str:
        """Return the class of what a pointer means: an object itself, or a protocol's output by its name."""
        extended = next(
            (child.value for child in self.children.get(pointer.id, ()) if child.name == "_extended"), None
        )
        if not extended:
            return self.nodes[target].classname
        name = extended.split(".")[0]
        found = next((node.classname for node in self.children.get(target, ()) if node.name == name), None)
        # What is being done anew has no outputs for a while; their names tell what they will be.
        return found or next((kind for sign, kind in NAMED if sign in name), "")

    def _owner(self, id_: int | None) -> int | None:
        """Return the root that an object lies under: its protocol."""
        for _ in range(100):  # a broken tree may go round in circles
            node = self.nodes.get(id_) if id_ is not None else None
            if node is None:
                return None
            if node.parent is None:
                return node.id
            id_ = node.parent
        return None


class Project:
    """The protocols and what each descends from."""

    def __init__(self, protocols: dict[int, Protocol]):
        self.protocols = protocols
        self.sources = {
            id_: {other for other in protocol.relatives if other in protocols}
            for id_, protocol in protocols.items()
        }
        self.children: dict[int, set[int]] = {}
        for id_, sources in self.sources.items():
            for source in sources:
                self.children.setdefault(source, set()).add(id_)

    def ancestors(self, id_: int) -> set[int]:
        return self._follow(id_, self.sources, stop=False)

    def descendants(self, id_: int) -> set[int]:
        """Return the protocols that work on this one's results, up to the next that estimates CTFs."""
        return self._follow(id_, self.children, stop=True)

    def _follow(self, id_: int, edges: Mapping[int, set[int]], stop: bool) -> set[int]:
        found: set[int] = set()
        todo = [id_]
        while todo:
            for other in edges.get(todo.pop(), ()):
                if other not in found and other != id_:
                    if stop and self.protocols[other].estimates_ctf:
                        continue
                    found.add(other)
                    todo.append(other)
        return found


def number(value: Any) -> float | None:
    """Return a finite number, or None where there is none."""
    if isinstance(value, str):
        return star.number(value.strip())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    return None


def size_of(text: Any) -> tuple[int, int] | None:
    """Return width and height of what Scipion writes as ``5760,4092,1``."""
    parts = [number(part) for part in str(text or "").split(",")[:2]]
    if len(parts) < 2 or not all(part and 1 <= part <= 1_000_000 for part in parts):
        return None
    return int(parts[0] or 0), int(parts[1] or 0)


def integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _attribute(node: Node) -> Any:
    """Return a plain attribute of a protocol as what its class says; None where it is empty."""
    value = node.value
    if value is None or value == "":
        return None
    if node.classname == "Boolean":
        return value.strip().lower() in ("1", "true")
    if node.classname == "String":
        return plain(value)[:200] or None
    found = number(value)
    if found is None:
        return None
    return int(found) if node.classname == "Integer" and found.is_integer() else found


def plain(text: str) -> str:
    return _ESCAPE.sub(" ", text).strip()
