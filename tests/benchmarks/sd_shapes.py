"""A model of Stable Diffusion 2.1's full size: import of its Controller, loading, and one step on the CPU.

The weights are random, made here; the layout, the shapes and the names are the original's. Every task runs in a process
of its own, whose peak resident size counts. Exit status 1: a tensor of the imported Controller differs from the
checkpoint's, an up-block's map has another shape than documented, or loading takes more memory than the weights in
float32, the largest file (which is mapped while it is read) and 1 GB for Python and torch.

It takes 10 GB of disk and up to 9 GB of memory, and some minutes.

    python -m tests.benchmarks.sd_shapes [--quick] [--view 512] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from diffvqa.pipeline._import_controller import import_controller
from diffvqa.stages._diffusion.autoencoder import to_model_range
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.denoising import denoise, noise_generators
from diffvqa.stages._diffusion.folder_files import hash_model_folder
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._diffusion.null_prompt import NULL_PROMPT_FILE, write_null_prompt
from diffvqa.stages._diffusion.schedule import ddpm_schedule
from diffvqa.stages._diffusion.weight_files import stored_tensors, weight_files
from diffvqa.stages._diffusion.weights import write_network

from .ldm_material import below, ldm_controller
from .stable_diffusion_material import FULL_2, NARROW_2, Shape, build_autoencoder, build_unet, give_a_say
from .whole.measuring import peak_resident_size

OVERHEAD = 10**9
NETWORKS = ("unet", "controller", "vae")


def main() -> int:
    """Run every task in its own process, print what each took, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same layout, narrow: some seconds")
    parser.add_argument("--view", type=int, default=512, help="side of the view, a multiple of 64")
    parser.add_argument("--folder", type=Path, help="keep the model here, and use it again if it is there")
    parser.add_argument("--only-build", action="store_true", help="make the model and stop")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return run_task(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        results = {}
        if not (folder / "controller.ckpt").is_file():
            results["build"] = measure("build", folder, options)
        if options.only_build:
            return 0
        results |= {task: measure(task, folder, options) for task in TASKS if task != "build"}
    return report(results, FULL_2 if not options.quick else NARROW_2, options.view)


def measure(task: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a task tells of itself, its seconds and its peak memory in bytes."""
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        "--task",
        task,
        "--folder",
        str(folder),
        "--view",
        str(options.view),
    ]
    command += ["--quick"] if options.quick else []
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


def run_task(options: argparse.Namespace) -> int:
    """Run one task in this process and write what came of it as JSON."""
    begun, before = time.perf_counter(), time.process_time()
    found = TASKS[options.task](options.folder, NARROW_2 if options.quick else FULL_2, options.view)
    spent = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - before}
    sys.stdout.write(json.dumps({**found, **spent, "peak": peak_resident_size()}))
    return 0


def build(folder: Path, shape: Shape, _: int) -> dict[str, Any]:
    """Write a base model in half precision, and an official checkpoint of a Controller for it in single precision."""
    torch.manual_seed(0)
    write_network(build_autoencoder(shape), folder / "base/vae", half=True)
    ddpm_schedule(0.00085, 0.012, "scaled_linear").save_pretrained(folder / "base/scheduler")
    write_null_prompt(torch.randn(1, 77, shape.text_width), folder / "base" / NULL_PROMPT_FILE)
    unet = build_unet(shape)
    write_network(unet, folder / "base/unet", half=True)
    controller = Controller.from_unet(unet, conditioning_channels=4)
    del unet
    give_a_say(controller)
    write_network(controller, folder / "expected")
    torch.save({"state_dict": below("control_model", ldm_controller(controller))}, folder / "controller.ckpt")
    return {}


def take_over(folder: Path, *_: object) -> dict[str, Any]:
    """Import the Controller into the base model's folder."""
    for path in (folder / "base/controller").glob("*"):
        path.unlink()
    import_controller(folder / "controller.ckpt", folder / "base", base=str(folder / "base"))
    return {}


def compare(folder: Path, *_: object) -> dict[str, Any]:
    """Count the tensors of the imported Controller, and those that differ from the expected ones in any bit."""
    from safetensors import safe_open

    imported, expected = stored_tensors(folder / "base/controller"), stored_tensors(folder / "expected")
    differing = sorted(imported.keys() ^ expected.keys())
    for name in imported.keys() & expected.keys():
        pair = []
        for tensor in (imported[name], expected[name]):
            with safe_open(tensor.file, framework="pt") as file:
                pair.append(file.get_tensor(tensor.name))
        differing += [] if torch.equal(*pair) and pair[0].dtype == pair[1].dtype else [name]
    return {"tensors": len(expected), "differing": differing}


def hash_it(folder: Path, *_: object) -> dict[str, Any]:
    """Hash the folder as every extraction does."""
    hash_model_folder(folder / "base")
    return {"bytes": sum(path.stat().st_size for path in weight_paths(folder))}


def load(folder: Path, *_: object) -> dict[str, Any]:
    """Load the folder; tell the bytes of its weights in float32, and of its largest file."""
    model = load_model_folder(folder / "base")
    networks = (model.unet, model.controller, model.autoencoder.network)
    weights = [tensor for network in networks for tensor in network.state_dict().values()]
    return {
        "weights": sum(tensor.numel() * tensor.element_size() for tensor in weights),
        "parameters": {
            name: sum(tensor.numel() for tensor in network.parameters())
            for name, network in zip(NETWORKS, networks, strict=True)
        },
        "largest_file": max(path.stat().st_size for path in weight_paths(folder)),
    }


def step(folder: Path, _: Shape, view: int) -> dict[str, Any]:
    """Load, encode one view, take one step; tell the seconds of each and the shapes of the up-blocks' maps."""
    model = load_model_folder(folder / "base")
    shapes: list[list[int]] = []
    for block in model.unet.up_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: shapes.append(list(output.shape)))
    pixels = torch.randint(0, 256, (1, 3, view, view), dtype=torch.uint8)
    with torch.inference_mode():
        begun = time.perf_counter()
        z_0 = model.autoencoder.encode(to_model_range(pixels))
        encoded = time.perf_counter()
        latent = denoise(model, z_0, [0], noise_generators([0]))
    return {
        "encode": encoded - begun,
        "step": time.perf_counter() - encoded,
        "latent": list(latent.shape),
        "maps": shapes,
        "finite": bool(latent.isfinite().all()),
    }


def report(results: dict[str, dict[str, Any]], shape: Shape, view: int) -> int:
    """Print the table and the verdicts; return the exit status."""
    table = Table("task", "seconds", "CPU seconds", "peak, GB", title="Stable Diffusion 2.1's layout, random weights")
    for task, result in results.items():
        cells = [f"{result['seconds']:.1f}", f"{result['cpu_seconds']:.1f}", f"{result['peak'] / 1e9:.2f}"]
        table.add_row(task, *cells)
    console = Console()
    console.print(table)
    loaded, stepped = results["load"], results["step"]
    allowed = loaded["weights"] + loaded["largest_file"] + OVERHEAD
    grid, (first, second, third, fourth) = view // 8, shape.widths
    documented = [
        [1, fourth, grid // 4, grid // 4],
        [1, third, grid // 2, grid // 2],
        [1, second, grid, grid],
        [1, first, grid, grid],
    ]
    console.print(
        "parameters:", ", ".join(f"{name} {number / 1e6:.1f} M" for name, number in loaded["parameters"].items())
    )
    console.print(f"hashed at {results['hash']['bytes'] / results['hash']['seconds'] / 1e9:.2f} GB/s")
    console.print(f"a view of {view} pixels: encoded in {stepped['encode']:.1f} s, one step {stepped['step']:.1f} s")
    console.print(f"latent {stepped['latent']}, maps {stepped['maps']}")
    compared = results["compare"]
    verdicts = {
        f"all {compared['tensors']} tensors of the imported Controller are the checkpoint's": not compared["differing"],
        f"loading peaks at {loaded['peak'] / 1e9:.2f} GB; at most {allowed / 1e9:.2f} GB, of which "
        f"{loaded['weights'] / 1e9:.2f} GB are the weights in float32": loaded["peak"] <= allowed,
        "the maps have the documented shapes": stepped["maps"] == documented,
        "the latent is finite": stepped["finite"] and stepped["latent"] == [1, 4, grid, grid],
    }
    for line, met in verdicts.items():
        console.print(f"{'met' if met else 'MISSED'}: {line}")
    return int(not all(verdicts.values()))


def weight_paths(folder: Path) -> list[Path]:
    """Return the files that hold the model's weights."""
    return [path for name in NETWORKS for path in weight_files(folder / "base" / name)]


TASKS: dict[str, Callable[[Path, Shape, int], dict[str, Any]]] = {
    "build": build,
    "import": take_over,
    "compare": compare,
    "hash": hash_it,
    "load": load,
    "step": step,
}


if __name__ == "__main__":
    sys.exit(main())
