"""What every decoder offers: single frames of one video, by index, upright."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class FrameDamagedError(Exception):
    """One frame cannot be decoded whole; others of the video may be.

    Args:
        detail: The decoder's own words.
        last_good: Index of the last frame before it that was decoded whole on the way there, if any was.
    """

    def __init__(self, detail: str, last_good: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.last_good = last_good


class DecoderUnfitError(Exception):
    """This decoder cannot give the frames of this video exactly; another may.

    Args:
        detail: Why, the decoder's own words where it had any.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class FrameReader(Protocol):
    """Reads frames of one video; a context manager that closes the file."""

    @property
    def decoder(self) -> str:
        """Name and version of the decoder, such as ``decord 0.6.0``."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one frame, (H, W, 3) uint8 RGB, upright; reading in ascending order is fast.

        Args:
            index: In presentation order, from 0.

        Raises:
            FrameDamagedError: The frame is lost or damaged; it is never replaced by another.
            DecoderUnfitError: The decoder cannot tell, or cannot go on.
            MemoryError: There is not enough memory for it.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
