"""Pictures of microscopes: what staff upload is read, turned and shrunk, and written anew."""

import hashlib
import io
import warnings
from pathlib import PurePosixPath

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ["PNG", "JPEG", "WEBP"]
LARGEST = (1600, 1200)
CONTENT_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}


def clean_picture(file) -> ContentFile:
    """The uploaded picture as a fresh JPEG, or PNG where it is transparent, at most 1600 x 1200 pixels.

    Nothing of the upload but its pixels is kept: no metadata, no script. The name is that of the content. Raises
    ValidationError when it is no PNG, JPEG or WebP, or too large.
    """
    if file.size > settings.IMAGE_MAX_MB * 1024 * 1024:
        raise ValidationError(
            f"This picture is larger than {settings.IMAGE_MAX_MB} MB. Choose a smaller one."
        )
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture so large that it may be an attack; our own limit is far below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
            if picture.width * picture.height > settings.IMAGE_MAX_PIXELS:
                raise ValidationError(
                    f"This picture has {picture.width} x {picture.height} pixels. Choose a smaller one."
                )
            picture = ImageOps.exif_transpose(picture)
            transparent = picture.has_transparency_data
            picture = picture.convert("RGBA" if transparent else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValidationError(
            "This is not a picture that can be read. Choose a PNG, JPEG or WebP."
        ) from error
    picture.thumbnail(LARGEST)
    data = io.BytesIO()
    if transparent:
        picture.save(data, "PNG", optimize=True)
    else:
        picture.save(data, "JPEG", quality=88)
    content = data.getvalue()
    suffix = ".png" if transparent else ".jpg"
    return ContentFile(content, name=hashlib.sha256(content).hexdigest()[:16] + suffix)


def content_type(name: str) -> str | None:
    """What a stored picture is served as; None for anything that `clean_picture` has not written."""
    return CONTENT_TYPES.get(PurePosixPath(name).suffix)
