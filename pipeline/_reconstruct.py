"""``diffvqa reconstruct``: see whether a model folder reconstructs the frames that it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from diffvqa.stages._decoding import DecodedVideo
    from diffvqa.stages._diffusion.model import DiffusionModel


@dataclass(frozen=True)
class Trajectory:
    """How frames are reconstructed.

    Attributes:
        steps: Denoising steps.
        start_timestep: Where they start, in [0, 999]; 999 is pure noise.
        seed: Of the noise.
    """

    steps: int = 20
    start_timestep: int = 999
    seed: int = 0


@dataclass(frozen=True)
class ReconstructionReport:
    """How well the frames of one video were reconstructed.

    Attributes:
        out: The picture or video that shows it.
        frames: Indices of the frames.
        psnr: Of each frame, in dB; infinite where it is the same.
        ssim: Of each frame's luma, in [-1, 1].
    """

    out: Path
    frames: tuple[int, ...]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]


def reconstruct(
    video: Path,
    model: str,
    out: Path,
    trajectory: Trajectory,
    *,
    frames: int = 4,
    size: int = 512,
    device: str | None = None,
) -> ReconstructionReport:
    """Reconstruct frames of a video or a photograph, and show input, reconstruction and error map side by side.

    Args:
        video: The video or photograph.
        model: Model folder, or the name of a shipped one.
        out: What to write: a picture with a row per frame, or a video, by its suffix.
        trajectory: Steps, start and seed.
        frames: At most so many, spread over the video.
        size: Longest side of a frame in pixels; larger ones are shrunk to it.
        device: Where to compute; None for a GPU where there is one.

    Raises:
        ConfigError: ``out`` has an unknown suffix, or there is no such device.
        DatasetError: The video cannot be used.
        ModelFolderError: The model cannot be loaded, or has no Controller.
        OutputError: ``out`` cannot be written.
    """
    from diffvqa.pipeline._backbone import choose_device
    from diffvqa.stages._diffusion.folder_files import locate_model_folder
    from diffvqa.stages._diffusion.model_folder import load_model_folder
    from diffvqa.stages._picture_metrics import peak_signal_to_noise_ratio, structural_similarity

    _require_known_format(out)
    chosen: torch.device = choose_device(device or "auto")
    loaded = load_model_folder(locate_model_folder(model)).to(chosen)
    decoded = _decode(video, frames, size)
    shown = _cut_to_fit(decoded.crop[:, 0], loaded, video)
    made = _reconstruct_one_by_one(loaded, shown, decoded, trajectory)
    pairs = list(zip(shown, made, strict=True))
    _write(out, pairs, decoded)
    return ReconstructionReport(
        out=out,
        frames=tuple(decoded.frame_indices.tolist()),
        psnr=tuple(peak_signal_to_noise_ratio(each, frame) for frame, each in pairs),
        ssim=tuple(structural_similarity(each, frame) for frame, each in pairs),
    )


def _require_known_format(out: Path) -> None:
    from diffvqa.pipeline._errors import ConfigError
    from diffvqa.stages._picture_files import PICTURE_FORMATS, VIDEO_FORMATS

    known = PICTURE_FORMATS | VIDEO_FORMATS
    if out.suffix.lower() not in known:
        raise ConfigError(f"{out} is neither a picture nor a video.", f"End it in one of: {' '.join(sorted(known))}.")


def _decode(video: Path, frames: int, size: int) -> DecodedVideo:
    from diffvqa.pipeline._config import Runtime
    from diffvqa.pipeline._errors import DatasetError
    from diffvqa.stages._decode_pool import DecodePool
    from diffvqa.stages._decoding import FailedVideo, VideoSource
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._whole_frames import decode_whole_frames

    runtime = Runtime()
    recipe = ExtractRecipe(frames=frames, view_size=size, good_frames=1 / frames)
    timeout, memory = runtime.decode_timeout, runtime.decode_memory
    with DecodePool(recipe, workers=1, timeout=timeout, memory=memory, decode=decode_whole_frames) as pool:
        (decoded,) = pool.run([VideoSource(video.name, video)])
    if isinstance(decoded, FailedVideo):
        raise DatasetError(f"{video} cannot be used: {decoded.reason}: {decoded.detail}.", "Give another file.")
    return decoded


def _cut_to_fit(frames: NDArray[np.uint8], model: DiffusionModel, video: Path) -> NDArray[np.uint8]:
    """Leave out what is over at the right and at the bottom, so that every level of the U-Net fits."""
    from diffvqa.pipeline._errors import DatasetError

    multiple = model.frame_multiple
    height, width = (side // multiple * multiple for side in frames.shape[1:3])
    if not height or not width:
        smaller = f"{frames.shape[2]} x {frames.shape[1]} pixels are too few for the model."
        raise DatasetError(f"{video}: {smaller}", f"It needs at least {multiple} x {multiple}.")
    return frames[:, :height, :width]


def _reconstruct_one_by_one(
    model: DiffusionModel, frames: NDArray[np.uint8], decoded: DecodedVideo, trajectory: Trajectory
) -> list[NDArray[np.uint8]]:
    from diffvqa.pipeline._console import progress
    from diffvqa.stages._diffusion.reconstruction import reconstruct_frames
    from diffvqa.stages._seeding import derive_seed

    made = []
    with progress("reconstruct", len(frames)) as report:
        for frame, index in zip(frames, decoded.frame_indices.tolist(), strict=True):
            seeds = [derive_seed(trajectory.seed, decoded.source.video_id, index)]
            (one,) = reconstruct_frames(
                model, frame[None], seeds, steps=trajectory.steps, start_timestep=trajectory.start_timestep
            )
            made.append(one)
            report.advance()
    return made


def _write(out: Path, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], decoded: DecodedVideo) -> None:
    from diffvqa.stages._picture_files import VIDEO_FORMATS, save_picture, save_video
    from diffvqa.stages._side_by_side import picture_grid, side_by_side

    if out.suffix.lower() in VIDEO_FORMATS:
        rate = len(pairs) / decoded.duration if decoded.duration else 1.0
        save_video(out, [side_by_side(frame, made) for frame, made in pairs], rate)
    else:
        save_picture(out, picture_grid(pairs))


def command(
    video: Annotated[Path, typer.Argument(help="A video or a photograph.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", help="Model folder, or a shipped one's name (default: nano).", show_default=False)
    ] = "nano",
    out: Annotated[
        Path, typer.Option("--out", help="Picture or video to write (default: reconstruction.png).", show_default=False)
    ] = Path("reconstruction.png"),
    frames: Annotated[
        int, typer.Option("--frames", min=1, help="Frames, spread over the video (default: 4).", show_default=False)
    ] = 4,
    size: Annotated[
        int,
        typer.Option(
            "--size", min=16, help="Longest side; larger frames are shrunk to it (default: 512).", show_default=False
        ),
    ] = 512,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1000, help="Denoising steps (default: 20).", show_default=False)
    ] = 20,
    start: Annotated[
        int,
        typer.Option(
            "--start",
            min=0,
            max=999,
            help="Timestep to start from, 999 is pure noise (default: 999).",
            show_default=False,
        ),
    ] = 999,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise (default: 0).", show_default=False)] = 0,
    device: options.Device = None,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Show frames, what the model reconstructs of them, and where the two differ."""
    from diffvqa.pipeline._console import show_json, tell
    from diffvqa.stages._json_values import without_nan

    report = reconstruct(video, model, out, Trajectory(steps, start, seed), frames=frames, size=size, device=device)
    if as_json:
        document = {
            "video": str(video),
            "model": model,
            "steps": steps,
            "start_timestep": start,
            "frames": report.frames,
            "psnr": report.psnr,
            "ssim": report.ssim,
            "out": str(report.out),
        }
        show_json(without_nan(document))
        return
    for index, psnr, ssim in zip(report.frames, report.psnr, report.ssim, strict=True):
        tell(f"frame {index}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    tell(f"input, reconstruction, error x4: {report.out}")
