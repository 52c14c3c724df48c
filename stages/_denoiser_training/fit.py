"""Fitting a denoising network: one loop for the U-Net and the Controller, on one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffvqa.stages._accelerators import fresh_accelerator
from diffvqa.stages._denoiser_training.batches import HeldOutLoss, Step, StepSource
from diffvqa.stages._denoiser_training.journal import FitJournal, FitRow
from diffvqa.stages._denoiser_training.objective import Denoising
from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import AdaptRecipe, FitRecipe
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._fit_state import optimizer_tensors, prefixed, restore_optimizer
from diffvqa.stages._prefetching import prefetched
from diffvqa.stages._tensor_file import TensorFile

_ROWS_WRITTEN_AT_ONCE = 10
_Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class FitRuntime:
    """Where and how fast a network is fitted; changes its results by no more than rounding.

    Attributes:
        device: Where to compute.
        accumulate: Parts that a process computes its share of a batch in, to need less memory.
        max_seconds: When to stop at a checkpoint, to go on another time; None for never.
    """

    device: torch.device
    accumulate: int = 1
    max_seconds: float | None = None


@dataclass(frozen=True)
class FitOutcome:
    """How far a fit has come.

    Attributes:
        steps: Done, earlier runs included.
        is_finished: Whether these are all.
        seconds: Spent on steps by this run.
        waited: Seconds of these in which the next crops were not ready.
        steps_now: Done by this run.
    """

    steps: int
    is_finished: bool
    seconds: float
    waited: float
    steps_now: int


def fit_denoiser(
    denoising: Denoising,
    pictures: TrainingPictures,
    recipe: FitRecipe,
    journal: FitJournal,
    runtime: FitRuntime,
    on_rows: Callable[[list[FitRow]], None] = lambda _rows: None,
) -> FitOutcome:
    """Fit the network that learns, from the journal's checkpoint if there is one, and leave its average in the model.

    Every random choice is a function of the recipe's seed and the step. So a fit that was interrupted, however it was,
    goes on exactly as if it had not been, and neither the number of processes nor ``accumulate`` changes what is
    learned by more than rounding.

    Args:
        denoising: The network and its model, on the runtime's device.
        pictures: To learn from, and to measure on.
        recipe: Of the training.
        journal: Where checkpoints and losses are kept.
        runtime: Where to compute, and for how long.
        on_rows: Called now and then with the latest losses.
    """
    return _Fit(denoising, pictures, recipe, journal, runtime, on_rows).run()


class _Fit:
    """One fit on its way: the network, its optimiser, its average, and the step that comes next."""

    def __init__(
        self,
        denoising: Denoising,
        pictures: TrainingPictures,
        recipe: FitRecipe,
        journal: FitJournal,
        runtime: FitRuntime,
        on_rows: Callable[[list[FitRow]], None],
    ) -> None:
        self.denoising, self.recipe, self.journal, self.runtime = denoising, recipe, journal, runtime
        self.on_rows = on_rows
        self.accelerator = fresh_accelerator(runtime.device, recipe.precision)
        # A step takes 6 to 14 % less time with the channels last (measured on a CPU).
        denoising.model.unet.to(memory_format=torch.channels_last)
        network = denoising.network.requires_grad_(True).train()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        if recipe.gradient_checkpointing:
            for part in (denoising.model.unet, *network.modules()):
                if isinstance(part, ModelMixin):
                    part.enable_gradient_checkpointing()
        self.average = AveragedModel(network, multi_avg_fn=_growing_average(recipe.ema))
        groups = _parameter_groups(network, recipe)
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.source = StepSource(denoising, pictures, recipe, self._parts())
        self.held_out = HeldOutLoss(denoising, pictures, recipe, self.accelerator.device)
        self.next_step = 0
        self.seconds = self.waited = 0.0

    def run(self) -> FitOutcome:
        self._resume()
        first, limit = self.next_step, self.runtime.max_seconds
        deadline = math.inf if limit is None else time.monotonic() + limit
        unwritten: list[tuple[int, Tensor]] = []
        ready = prefetched(self.source.prepare, range(first, self.recipe.steps))
        while self.next_step < self.recipe.steps:
            unwritten.append((self.next_step, self._timed_step(ready)))
            self.next_step += 1
            stops = self._agreed(time.monotonic() > deadline)
            keeps = stops or self._is_due(self.recipe.checkpoint_every)
            measures = self._is_due(self.recipe.validate_every)
            if keeps or measures or len(unwritten) >= _ROWS_WRITTEN_AT_ONCE:
                self._record(unwritten, measures=measures)
                unwritten = []
            if keeps:
                self._keep()
            if stops:
                break
        ready.close()
        self.journal.close()
        network = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        network.load_state_dict(self.average.module.state_dict())
        network.requires_grad_(False).eval().to(memory_format=torch.contiguous_format)
        self.denoising.model.unet.to(memory_format=torch.contiguous_format)
        return FitOutcome(
            steps=self.next_step,
            is_finished=self.next_step == self.recipe.steps,
            steps_now=self.next_step - first,
            seconds=self.seconds,
            waited=self.waited,
        )

    def _timed_step(self, ready: Generator[Step, None, None]) -> Tensor:
        asked = time.perf_counter()
        step = next(ready)
        begun = time.perf_counter()
        loss = self._take(step)
        self.waited += begun - asked
        self.seconds += time.perf_counter() - asked
        return loss

    def _take(self, step: Step) -> Tensor:
        """Take one step of the optimiser and return this process's share of its loss."""
        rate = self.recipe.learning_rate * self.recipe.rate_at(self.next_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        total = torch.zeros((), device=self.accelerator.device)
        for number, part in enumerate(step.parts):
            is_last = number == len(step.parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.network), self.accelerator.autocast():
                drawn = step.drawn.at(part.places, self.accelerator.device)
                crops = torch.from_numpy(part.crops).to(self.accelerator.device)
                errors = self.denoising.weighted_errors(self.network, crops, drawn, self.recipe)
                # Gradients are averaged over the processes, and each has an equal share of the batch or nearly so.
                loss = errors.sum() * (self.accelerator.num_processes / self.recipe.batch_size)
                self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False))
        return total

    def _parts(self) -> tuple[range, ...]:
        """Return which of a step's crops this process takes, and in which parts."""
        parts = self.accelerator.num_processes * self.runtime.accumulate
        if parts > self.recipe.batch_size:
            raise TrainingDataError(
                f"A batch of {self.recipe.batch_size} crops cannot be divided into {parts} parts.",
                "Take a larger batch_size, fewer processes or less --accumulate.",
            )
        first = self.accelerator.process_index * self.runtime.accumulate
        return tuple(range(first + part, self.recipe.batch_size, parts) for part in range(self.runtime.accumulate))

    def _is_due(self, every: int) -> bool:
        return self.next_step % every == 0 or self.next_step == self.recipe.steps

    def _agreed(self, is_late: bool) -> bool:
        """Return whether any process is late, so that all of them stop at the same step."""
        if self.accelerator.num_processes == 1:
            return is_late
        late = torch.tensor(float(is_late), device=self.accelerator.device)
        return bool(self.accelerator.reduce(late, reduction="sum").item())

    def _record(self, unwritten: Sequence[tuple[int, Tensor]], *, measures: bool) -> None:
        losses = self.accelerator.reduce(torch.stack([loss for _, loss in unwritten]), reduction="mean").tolist()
        if not self.journal.writes:
            return
        rows = [
            FitRow(step, loss, self.recipe.learning_rate * self.recipe.rate_at(step))
            for (step, _), loss in zip(unwritten, losses, strict=True)
        ]
        if measures:
            with self.accelerator.autocast():
                rows[-1] = replace(rows[-1], held_out_loss=self.held_out(self.average.module))
        self.journal.record(rows)
        self.on_rows(rows)

    def _keep(self) -> None:
        if not self.journal.writes:
            return
        network = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        scaler = self.accelerator.scaler
        tensors = {
            **prefixed("network", network.state_dict()),
            **prefixed("average", self.average.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer.optimizer)),
        }
        values = {"step": self.next_step, "scaler": scaler.state_dict() if scaler else {}}
        self.journal.keep(TensorFile(tensors, values))

    def _resume(self) -> None:
        self.accelerator.wait_for_everyone()
        checkpoint = self.journal.resume()
        if checkpoint is None:
            return
        network = self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        network.load_state_dict(checkpoint.part("network"))
        self.average.load_state_dict(checkpoint.part("average"))
        restore_optimizer(self.optimizer.optimizer, checkpoint.part("optimizer"))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.values["scaler"])
        self.next_step = int(checkpoint.values["step"])


def _growing_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return the update of an exponential moving average whose decay grows to ``decay``, soon forgetting the start."""

    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + count) / (10 + count)))

    return update


def _parameter_groups(network: nn.Module, recipe: FitRecipe) -> list[dict[str, Any]]:
    """Decay the weight matrices alone; what starts at zero in a Controller has a learning rate of its own."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    zero_conv_rate = recipe.zero_conv_rate if isinstance(recipe, AdaptRecipe) else 1.0
    for name, parameter in network.named_parameters():
        share = zero_conv_rate if name.startswith("controlnet_") else 1.0
        groups.setdefault((share, recipe.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for (share, decay), parameters in groups.items()
    ]
