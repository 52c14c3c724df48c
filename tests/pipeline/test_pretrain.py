from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
from training_material import write_photos

from diffvqa.pipeline._cli import main
from diffvqa.stages._denoiser_training.journal import CHECKPOINT_FILE, LOSSES_FILE, read_losses
from diffvqa.stages._diffusion.model_folder import load_model_folder

TINY = {
    "architecture.widths": "[16, 16]",
    "architecture.attention": "[false, true]",
    "pretrain.steps": "6",
    "pretrain.batch_size": "2",
    "pretrain.crop_size": "32",
    "pretrain.held_out": "2",
}


def pretrain(*arguments: str, **changed: str) -> int:
    return main(command_line(*arguments, **changed))


def command_line(*arguments: str, **changed: str) -> list[str]:
    settings = {**TINY, **{name.replace("__", "."): value for name, value in changed.items()}}
    assignments = (part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
    return ["pretrain", *arguments, "--workers", "1", "--threads", "1", *assignments]


class Starter:
    """Starts commands in processes of their own, forked from one that has imported what takes them longest.

    That one is new and runs no thread that a fork could lose, unlike the process that runs the tests.
    """

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._orders, orders = spawn.Pipe()
        self._forked = spawn.Process(target=_start_commands, args=(orders,))
        self._forked.start()
        orders.close()

    def start(self, arguments: list[str], **environment: str) -> psutil.Process:
        self._orders.send((arguments, environment))
        return psutil.Process(self._orders.recv())

    def wait(self, process: psutil.Process) -> int:
        """Return the exit code of a process, or the negative number of the signal that ended it."""
        self._orders.send(process.pid)
        code: int = self._orders.recv()
        return code

    def close(self) -> None:
        self._orders.close()
        self._forked.join()


def _start_commands(orders: Connection) -> None:
    from diffvqa.stages._denoiser_training import fit  # noqa: F401
    from diffvqa.stages._diffusion import model_folder  # noqa: F401

    fork = multiprocessing.get_context("fork")
    started: dict[int | None, ForkProcess] = {}
    with contextlib.suppress(EOFError):
        while True:
            order = orders.recv()
            if isinstance(order, int):
                started[order].join()
                orders.send(started[order].exitcode)
            else:
                process = fork.Process(target=_run_command, args=order)
                process.start()
                started[process.pid] = process
                orders.send(process.pid)


def _run_command(arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    with contextlib.closing(Starter()) as starter:
        yield starter


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_pretrain_makes_a_model_of_photographs_and_videos_and_goes_on_where_it_stopped(
    photos: Path, carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert pretrain(str(photos), str(carphone), "--out", str(out), "--max-minutes", "0") == 0
    printed = capsys.readouterr()
    assert "steps: 1 of 6" in printed.out
    assert "run the same command again to go on" in printed.out
    assert pretrain(str(photos), str(carphone), "--out", str(out)) == 0
    assert "steps: 6 of 6, 5 now" in capsys.readouterr().out
    assert [row.step for row in read_losses(tmp_path / "model-training/pretrain")] == list(range(6))
    assert load_model_folder(out, start_controller=True).unet.config.block_out_channels == [16, 16]
    assert pretrain(str(photos), str(carphone), "--out", str(out), "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert pretrain(str(photos), str(carphone), "--out", str(out), pretrain__steps="8") == 2
    assert "recipe.steps was 6 and is now 8" in capsys.readouterr().err


def test_a_training_that_was_killed_ends_bit_for_bit_as_one_that_was_not(
    starter: Starter, photos: Path, tmp_path: Path
) -> None:
    settings = {"pretrain__steps": "30", "pretrain__checkpoint_every": "4"}
    assert pretrain(str(photos), "--out", str(tmp_path / "whole"), **settings) == 0
    process = starter.start(command_line(str(photos), "--out", str(tmp_path / "killed"), **settings))
    whole, killed = (tmp_path / f"{name}-training/pretrain" for name in ("whole", "killed"))
    while not (killed / CHECKPOINT_FILE).exists():
        assert process.status() != psutil.STATUS_ZOMBIE
        time.sleep(0.01)
    process.kill()
    assert starter.wait(process) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert pretrain(str(photos), "--out", str(tmp_path / "killed"), **settings) == 0
    for name in (LOSSES_FILE, CHECKPOINT_FILE):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize("verb", ["pretrain", "align"])
def test_two_processes_share_each_batch_and_learn_what_one_does(
    verb: str, starter: Starter, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    model = ["--model", str(tiny_model)] if verb == "align" else []
    one, two = (
        [
            *(part.replace("pretrain", verb) for part in command_line(str(photos), "--out", str(tmp_path / name))),
            *("--device", "cpu", *model),
        ]
        for name in ("one", "two")
    )
    processes = [starter.start(two, RANK=rank, LOCAL_RANK=rank, ACCELERATE_USE_CPU="true", **both) for rank in "01"]
    assert main(one) == 0
    assert [starter.wait(process) for process in processes] == [0, 0]
    alone, shared = (read_losses(tmp_path / f"{name}-training" / verb) for name in ("one", "two"))
    assert len(alone) == len(shared) == 6
    np.testing.assert_allclose([row.loss for row in shared], [row.loss for row in alone], rtol=1e-3)
    measured = [[row.held_out_loss for row in rows if row.held_out_loss] for rows in (alone, shared)]
    np.testing.assert_allclose(measured[0], measured[1], rtol=1e-3)


def test_what_is_wrong_is_said_in_one_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "model")
    for arguments, changed, expected in (
        ((str(tmp_path / "nowhere"),), {}, "nowhere is not there"),
        ((str(photos),), {"pretrain__crop_size": "128"}, "at least 128 pixels"),
        ((str(photos),), {"pretrain__degradations": "['fog']"}, "there is no degradation 'fog'"),
        ((str(photos),), {"pretrain__stepps": "1"}, "Did you mean 'steps'?"),
        ((str(photos),), {"architecture__widths": "[16, 20]"}, "width 20 is no multiple"),
        ((str(photos), "--start-from", "mega"), {}, "There is no model 'mega'"),
    ):
        assert pretrain(*arguments, "--out", out, **changed) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert expected in line
        assert not Path(out).exists()


def test_show_config_writes_a_recipe_that_can_be_given_back(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(str(photos), "--out", "x", "--show-config") == 0
    shown = capsys.readouterr().out
    (tmp_path / "recipe.toml").write_text(shown)
    assert (
        main(["pretrain", str(photos), "--out", "x", "--config", str(tmp_path / "recipe.toml"), "--show-config"]) == 0
    )
    assert capsys.readouterr().out == shown
