"""Pictures that pipelines send: checked by content, made anew without metadata, kept under names of our own.

A picture is stored as WebP named by the hash of its bytes in its session's folder, and is on disk for good, file
and folder, before any row names it. A name never means other bytes, so browsers may keep what they got.
"""

import hashlib
import os
import re
import uuid
import warnings
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from PIL import Image, ImageOps, UnidentifiedImageError

from sessions_app.images import session_image_dir

FORMATS = ("PNG", "JPEG", "WEBP")
LONGEST_SIDE = 2048
QUALITY = 88
NAME = re.compile(r"[0-9a-f]{40}\.webp")
CONTENT_TYPE = "image/webp"


class TooLarge(Exception):
    """The file has too many bytes or the picture too many pixels."""


class WrongType(Exception):
    """The content is no PNG, JPEG or WebP picture, whatever its name says."""


class Broken(Exception):
    """It begins as a picture and cannot be read to its end."""


def check_size(size: int) -> None:
    if size > settings.IMAGE_MAX_MB * 1024 * 1024:
        raise TooLarge(
            f"A picture may have at most {settings.IMAGE_MAX_MB} MB; this has {size / 1024**2:.1f} MB."
        )


def encode(file: BinaryIO) -> bytes:
    """The picture as WebP of at most 2,048 pixels a side, with no metadata; grey of 16 bits is scaled to 8.

    Raises TooLarge before anything is decoded, WrongType or Broken.
    """
    limit = settings.IMAGE_MAX_PIXELS
    try:
        with warnings.catch_warnings():
            # Pillow's own warning about large pictures: the facility's limit decides, a few lines on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if width * height > limit:
            raise TooLarge(
                f"A picture may have at most {limit // 1_000_000} megapixels; this has {width} by {height} pixels."
            )
        # A JPEG is decoded no larger than it is needed.
        image.draft(None, (LONGEST_SIDE, LONGEST_SIDE))
        image.load()
        # Made small first: what follows needs several times the memory of the picture.
        image = ImageOps.exif_transpose(_smaller(image))
    except Image.DecompressionBombError as error:
        raise TooLarge(f"A picture may have at most {limit // 1_000_000} megapixels.") from error
    except UnidentifiedImageError as error:
        raise WrongType("Send a PNG, JPEG or WebP picture; this is none by its content.") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise Broken(f"The picture cannot be read: {error}.") from error
    image = _eight_bits(image)
    packed = _Buffer()
    image.save(packed, "WEBP", quality=QUALITY, method=4)
    return packed.bytes()


def _smaller(image: Image.Image) -> Image.Image:
    """At most LONGEST_SIDE a side; in a mode whose values have an order, so that they can be mixed."""
    if max(image.size) <= LONGEST_SIDE:
        return image
    if image.mode in ("P", "PA", "1"):
        transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("L" if image.mode == "1" else "RGBA" if transparent else "RGB")
    elif image.mode.startswith("I;"):
        image = image.convert("I")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """In a mode that WebP has: RGB or RGBA, from palettes and any depth of grey."""
    if image.mode.startswith("I") or image.mode == "F":
        low, high = image.getextrema()
        scale = 255 / (high - low) if high > low else 0
        image = image.convert("F").point(lambda value: value * scale - low * scale).convert("L")
    if image.mode in ("RGB", "RGBA"):
        clean = image
    elif image.mode in ("LA", "PA") or "transparency" in image.info:
        clean = image.convert("RGBA")
    else:
        clean = image.convert("RGB")
    # What is not copied is not stored: comments, colour profiles, positions.
    bare = Image.new(clean.mode, clean.size)
    bare.paste(clean)
    return bare


class _Buffer:
    """The little of a file that Pillow's WebP writer needs."""

    def __init__(self):
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Nothing is held back."""

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def store(session, content: bytes) -> str:
    """Put an encoded picture into the session's folder, safe against a power cut; answers its name there."""
    name = f"{hashlib.sha256(content).hexdigest()[:40]}.webp"
    folder = session_image_dir(session)
    target = folder / name
    if target.exists():
        # It was made safe before it got this name.
        return name
    _make_folder(folder)
    temporary = folder / f".{uuid.uuid4().hex}"
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, settings.FILE_UPLOAD_PERMISSIONS
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    return name


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each entered for good in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def image_path(session, name: str) -> Path | None:
    """Where a picture of the session is; None if the name is none of ours or the file is not there."""
    if not NAME.fullmatch(name):
        return None
    path = session_image_dir(session) / name
    return path if path.is_file() else None
