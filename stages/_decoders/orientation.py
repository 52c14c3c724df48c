"""The eight orientations in which a file may say that its frames are to be shown."""

from __future__ import annotations

import struct
from enum import Enum
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_UNIT = 1 << 16  # display matrices are in 16.16 fixed point


class Orientation(Enum):
    """What makes a stored frame upright, as the filters of libavfilter that do it."""

    UPRIGHT = ()
    CLOCKWISE = (("transpose", "clock"),)
    UPSIDE_DOWN = (("transpose", "clock"), ("transpose", "clock"))
    COUNTERCLOCKWISE = (("transpose", "cclock"),)
    MIRRORED = (("hflip", None),)
    MIRRORED_UPSIDE_DOWN = (("vflip", None),)
    TRANSPOSED = (("transpose", "cclock_flip"),)
    ANTITRANSPOSED = (("transpose", "clock_flip"),)

    @property
    def filters(self) -> tuple[tuple[str, str | None], ...]:
        """Filters of libavfilter and their arguments, in order."""
        # Python before 3.11.4 makes something else of a member's empty tuple.
        return () if self is Orientation.UPRIGHT else tuple(self.value)

    @property
    def swaps_sides(self) -> bool:
        """Whether an upright frame is as wide as the stored one is high."""
        return self in _SIDEWAYS

    @property
    def is_mirrored(self) -> bool:
        """Whether no rotation alone makes a frame upright."""
        return self in _MIRRORED


_SIDEWAYS = (
    Orientation.CLOCKWISE,
    Orientation.COUNTERCLOCKWISE,
    Orientation.TRANSPOSED,
    Orientation.ANTITRANSPOSED,
)
_MIRRORED = (
    Orientation.MIRRORED,
    Orientation.MIRRORED_UPSIDE_DOWN,
    Orientation.TRANSPOSED,
    Orientation.ANTITRANSPOSED,
)
_EXIF_TAG = 0x0112
_OF_EXIF = {
    2: Orientation.MIRRORED,
    3: Orientation.UPSIDE_DOWN,
    4: Orientation.MIRRORED_UPSIDE_DOWN,
    5: Orientation.TRANSPOSED,
    6: Orientation.CLOCKWISE,
    7: Orientation.ANTITRANSPOSED,
    8: Orientation.COUNTERCLOCKWISE,
}
# (a, b, c, d) of x' = a x + c y, y' = b x + d y, with y pointing down.
_OF_MATRIX = {
    (1, 0, 0, 1): Orientation.UPRIGHT,
    (0, 1, -1, 0): Orientation.CLOCKWISE,
    (-1, 0, 0, -1): Orientation.UPSIDE_DOWN,
    (0, -1, 1, 0): Orientation.COUNTERCLOCKWISE,
    (-1, 0, 0, 1): Orientation.MIRRORED,
    (1, 0, 0, -1): Orientation.MIRRORED_UPSIDE_DOWN,
    (0, 1, 1, 0): Orientation.TRANSPOSED,
    (0, -1, -1, 0): Orientation.ANTITRANSPOSED,
}


def orientation_of(display_matrix: bytes) -> Orientation:
    """Return the orientation that a display matrix asks for.

    Args:
        display_matrix: Nine 32-bit integers in native byte order, as libavutil keeps it.

    Returns:
        The orientation; upright for a matrix that is none of the eight (a slant, a scaling).
    """
    a, b, _, c, d = struct.unpack_from("=5i", display_matrix)
    turn = (round(a / _UNIT), round(b / _UNIT), round(c / _UNIT), round(d / _UNIT))
    return _OF_MATRIX.get(turn, Orientation.UPRIGHT)


def exif_orientation(picture: Path) -> Orientation:
    """Return the orientation that a photograph's EXIF block asks for; upright for whatever has none."""
    try:
        with Image.open(picture) as image:
            return _OF_EXIF.get(image.getexif().get(_EXIF_TAG, 1), Orientation.UPRIGHT)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return Orientation.UPRIGHT
