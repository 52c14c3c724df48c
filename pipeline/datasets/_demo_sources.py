"""Where the demo's pictures come from: clips and photographs inside Python packages, which are not imported for it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import DatasetError


@dataclass(frozen=True)
class PackageFile:
    """A file that a Python package brings along.

    Attributes:
        package: The name it is imported by.
        path: Path from the package's folder, with forward slashes.
    """

    package: str
    path: str

    def locate(self) -> Path:
        """Return where the file lies; the package is not imported.

        Raises:
            DatasetError: The package is not installed, or a version of it without the file.
        """
        spec = importlib.util.find_spec(self.package)
        folders = (spec and spec.submodule_search_locations) or ()
        for folder in folders:
            if (path := Path(folder, self.path)).is_file():
                return path
        problem = f"{self.path} is missing in the package" if spec else "there is no package"
        raise DatasetError(
            f"The demo's pictures are incomplete: {problem} '{self.package}'.",
            "Install them with `pip install 'diffvqa[demo]'`.",
        )


@dataclass(frozen=True)
class Excerpt:
    """Some frames of a clip.

    Attributes:
        file: The clip.
        width: Of a frame, in pixels, even.
        height: Of a frame, in pixels, even.
        rate: Frames per second, as ffmpeg writes it.
        first: The first frame taken, counted from 0.
        frames: Number of frames taken.
    """

    file: PackageFile
    width: int
    height: int
    rate: str
    first: int
    frames: int


@dataclass(frozen=True)
class Window:
    """The part of a photograph that a frame shows; it has the frame's aspect ratio.

    Attributes:
        left: Its left edge, in pixels of the photograph.
        top: Its upper edge, in pixels of the photograph.
        width: Its width, in pixels of the photograph; falling over time, it zooms in.
    """

    left: float
    top: float
    width: float


@dataclass(frozen=True)
class Pan:
    """A camera's way over a photograph, at constant speed.

    Attributes:
        file: The photograph.
        width: Of a frame, in pixels, even.
        height: Of a frame, in pixels, even.
        rate: Frames per second, as ffmpeg writes it.
        start: What the first frame shows.
        end: What the last frame shows.
        frames: Number of frames, at least 2.
    """

    file: PackageFile
    width: int
    height: int
    rate: str
    start: Window
    end: Window
    frames: int

    def box(self, frame: int) -> tuple[float, float, float, float]:
        """Return what a frame shows: left, upper, right and lower edge, in fractions of the photograph's pixels."""
        progress = frame / (self.frames - 1)
        left, top, width = (
            first + progress * (last - first)
            for first, last in (
                (self.start.left, self.end.left),
                (self.start.top, self.end.top),
                (self.start.width, self.end.width),
            )
        )
        return left, top, left + width, top + width * self.height / self.width

    def render(self) -> bytes:
        """Return the frames one after the other, each (height, width, 3) uint8 RGB.

        Raises:
            DatasetError: The photograph is not installed, or smaller than the way goes.
        """
        from PIL import Image

        path = self.file.locate()
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        boxes = [self.box(frame) for frame in range(self.frames)]
        if any(left < 0 or top < 0 or right > photo.width or lower > photo.height for left, top, right, lower in boxes):
            raise DatasetError(
                f"{path} is {photo.width}x{photo.height}, too small for the demo.",
                "Install another version of its package with `pip install --upgrade 'diffvqa[demo]'`.",
            )
        size = (self.width, self.height)
        # resize() takes edges between pixels, so the way is smooth, and smooths where it scales down.
        return b"".join(photo.resize(size, Image.Resampling.BICUBIC, box).tobytes() for box in boxes)


Source = Excerpt | Pan


def input_arguments(source: Source) -> tuple[str, ...]:
    """Return ffmpeg's arguments that read a source's frames; those of a pan come as bytes through ``pipe:0``.

    Raises:
        DatasetError: The clip is not installed.
    """
    match source:
        case Excerpt(file=file, first=first, frames=frames):
            trim = f"trim=start_frame={first}:end_frame={first + frames},setpts=PTS-STARTPTS"
            return ("-threads", "1", "-i", str(file.locate().absolute()), "-vf", trim)
        case Pan(width=width, height=height, rate=rate):
            layout = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", rate)
            return (*layout, "-i", "pipe:0", "-vf", "scale=flags=bicubic+accurate_rnd+full_chroma_int+bitexact")
