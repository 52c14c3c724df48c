"""Running ffmpeg: found, started with an argument list, its complaints turned into errors."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import DatasetError, FfmpegError

_TIME_LIMIT_S = 600.0
_VMAF_LOG = "vmaf.json"


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg program.

    Attributes:
        executable: The program.
    """

    executable: str

    def run(self, arguments: Sequence[str], *, purpose: str, data: bytes = b"", folder: Path | None = None) -> None:
        """Run it and wait for its end.

        Args:
            arguments: All after the general ones; an existing output is overwritten.
            purpose: Begins the error's message, as in "bikes/pristine.mp4 cannot be made".
            data: What it reads from ``pipe:0``.
            folder: The working directory, the current one by default.

        Raises:
            FfmpegError: It cannot be started, takes over ten minutes, or fails; the message quotes it.
        """
        command = [self.executable, "-hide_banner", "-nostdin", "-loglevel", "error", "-y", *arguments]
        try:
            subprocess.run(command, input=data, capture_output=True, cwd=folder, timeout=_TIME_LIMIT_S, check=True)
        except OSError as error:
            raise FfmpegError(
                f"{purpose}: {self.executable} cannot be started: {error.strerror or error}.", _INSTALL_HINT
            ) from error
        except subprocess.TimeoutExpired as error:
            raise FfmpegError(f"{purpose}: ffmpeg took over {_TIME_LIMIT_S:.0f} s and was ended.") from error
        except subprocess.CalledProcessError as error:
            raise FfmpegError(f"{purpose}: ffmpeg failed: {_summarise(error)}") from error


@dataclass(frozen=True)
class VmafResult:
    """How close a video is to its reference.

    Attributes:
        mean: VMAF (model v0.6.1), the mean over the frames, in [0, 100]; 100 is best.
        frames: Number of frames that were compared.
    """

    mean: float
    frames: int


def find_ffmpeg() -> Ffmpeg:
    """Return the ffmpeg that the package imageio-ffmpeg brings along, or the one it is told to use.

    Raises:
        DatasetError: The package is not installed, or has no program for this system.
    """
    try:
        import imageio_ffmpeg

        return Ffmpeg(str(imageio_ffmpeg.get_ffmpeg_exe()))
    except (ImportError, RuntimeError) as error:
        raise DatasetError("There is no ffmpeg to make videos with.", _INSTALL_HINT) from error


def measure_vmaf(ffmpeg: Ffmpeg, distorted: Path, reference: Path) -> VmafResult:
    """Measure the VMAF of a video against its reference, frame n against frame n.

    Args:
        ffmpeg: A program with the filter libvmaf.
        distorted: The video.
        reference: What it was made from, of the same size; comparison ends with the shorter of the two.

    Raises:
        FfmpegError: It fails: a file is unreadable, the sizes differ, or the program has no libvmaf.
    """
    # Numbering the frames pairs them whatever their containers' clocks say.
    number = "settb=1/1000,setpts=N"
    graph = f"[0:v]{number}[d];[1:v]{number}[r];[d][r]libvmaf=log_fmt=json:log_path={_VMAF_LOG}:n_threads=1:shortest=1"
    inputs = [*_input(distorted), *_input(reference)]
    # The log's path is part of the filter's syntax; a plain name in a folder of its own needs no escaping.
    with tempfile.TemporaryDirectory(prefix="diffvqa-vmaf-") as folder:
        ffmpeg.run(
            [*inputs, "-lavfi", graph, "-f", "null", "-"],
            purpose=f"VMAF of {distorted} cannot be measured",
            folder=Path(folder),
        )
        log = json.loads(Path(folder, _VMAF_LOG).read_text(encoding="utf-8"))
    return VmafResult(mean=float(log["pooled_metrics"]["vmaf"]["mean"]), frames=len(log["frames"]))


_INSTALL_HINT = "Install one with `pip install 'diffvqa[demo]'`."


def _input(video: Path) -> tuple[str, ...]:
    return ("-threads", "1", "-i", str(video.absolute()))


def _summarise(error: subprocess.CalledProcessError) -> str:
    """Return ffmpeg's last line, after its first where that differs: the first often names the cause."""
    lines = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {error.returncode}"]
    return lines[0] if lines[0] == lines[-1] else f"{lines[0]} ... {lines[-1]}"
