"""What a fit has reached so far, on disk: its identity, its latest checkpoint and its losses, also for TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from diffvqa.cache._atomic import atomic_write_text, reporting_output_errors
from diffvqa.stages._errors import TrainingStateError
from diffvqa.stages._tensor_file import TensorFile

CHECKPOINT_FILE = "checkpoint.safetensors"
LOSSES_FILE = "losses.csv"
TENSORBOARD_FOLDER = "tensorboard"
_IDENTITY_FILE = "identity.json"
_COLUMNS = ("step", "loss", "learning_rate", "held_out_loss")
_AGAIN = "Give another --out, or --overwrite to begin anew."


@dataclass(frozen=True)
class FitRow:
    """One step of a fit.

    Attributes:
        step: From 0.
        loss: Mean over the step's crops, before the step.
        learning_rate: Of the step.
        held_out_loss: Of the averaged weights on the held-out crops after the step; None where it was not measured.
    """

    step: int
    loss: float
    learning_rate: float
    held_out_loss: float | None = None


class FitJournal:
    """A folder with the latest checkpoint of one fit, and all its losses.

    Args:
        folder: Where it lies; made if absent.
        identity: By name, JSON values of all that the result depends on.
        overwrite: Throw away what another fit left there.
        writes: Whether this process, of several that fit together, is the one that writes.

    Raises:
        TrainingStateError: The folder holds another fit.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False, writes: bool = True
    ) -> None:
        self.folder = folder
        self.writes = writes
        self._curves: SummaryWriter | None = None
        if not writes:
            return
        if overwrite and folder.exists():
            with reporting_output_errors(folder):
                shutil.rmtree(folder)
        stored = self._stored_identity()
        if stored is None:
            atomic_write_text(folder / _IDENTITY_FILE, json.dumps(identity, indent=2) + "\n")
        else:
            _require_same(folder, stored, json.loads(json.dumps(identity)))

    def resume(self) -> TensorFile | None:
        """Return the latest checkpoint and forget the losses after it; None where nothing was kept yet.

        Raises:
            TrainingStateError: The checkpoint is damaged.
            OutputError: The folder cannot be written.
        """
        path = self.folder / CHECKPOINT_FILE
        checkpoint = TensorFile.load(path)
        if checkpoint is None and path.exists():
            raise TrainingStateError(f"{path} is damaged.", _AGAIN)
        if self.writes:
            step = 0 if checkpoint is None else int(checkpoint.values["step"])
            rows = [row for row in read_losses(self.folder) if row.step < step]
            atomic_write_text(self.folder / LOSSES_FILE, _as_csv(rows, header=True))
            curves = self.folder / TENSORBOARD_FOLDER
            with reporting_output_errors(curves):
                shutil.rmtree(curves, ignore_errors=True)
                self._curves = SummaryWriter(str(curves))
            self._draw(rows)
        return checkpoint

    def keep(self, checkpoint: TensorFile) -> None:
        """Write a checkpoint in place of the one before, atomically.

        Raises:
            OutputError: It cannot be written.
        """
        checkpoint.save(self.folder / CHECKPOINT_FILE)

    def record(self, rows: Sequence[FitRow]) -> None:
        """Add steps to the losses.

        Raises:
            OutputError: They cannot be written.
        """
        path = self.folder / LOSSES_FILE
        with reporting_output_errors(path), path.open("a", encoding="utf-8", newline="") as file:
            file.write(_as_csv(rows))
        self._draw(rows)

    def close(self) -> None:
        """End the curves."""
        if self._curves is not None:
            self._curves.close()

    def _draw(self, rows: Sequence[FitRow]) -> None:
        assert self._curves is not None  # noqa: S101  # nothing is recorded before a fit begins or goes on
        for row in rows:
            self._curves.add_scalar("loss", row.loss, row.step)
            self._curves.add_scalar("learning_rate", row.learning_rate, row.step)
            if row.held_out_loss is not None:
                self._curves.add_scalar("held_out_loss", row.held_out_loss, row.step)
        self._curves.flush()

    def _stored_identity(self) -> dict[str, Any] | None:
        path = self.folder / _IDENTITY_FILE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TrainingStateError(f"{path} is damaged: {error}.", _AGAIN) from error
        if not isinstance(stored, dict):
            raise TrainingStateError(f"{path} is damaged.", _AGAIN)
        return stored


def read_losses(folder: Path) -> tuple[FitRow, ...]:
    """Return the losses that a fit has recorded in its folder; none where there are none.

    A last line that was cut short is left out.
    """
    try:
        lines = (folder / LOSSES_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return ()
    whole = [line for line in lines if line.endswith("\n")]
    return tuple(
        FitRow(int(row["step"]), float(row["loss"]), float(row["learning_rate"]), _measured(row["held_out_loss"]))
        for row in csv.DictReader(whole)
    )


def _measured(cell: str) -> float | None:
    return float(cell) if cell else None


def _as_csv(rows: Sequence[FitRow], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_COLUMNS)
    for row in rows:
        measured = "" if row.held_out_loss is None else repr(row.held_out_loss)
        writer.writerow((row.step, repr(row.loss), repr(row.learning_rate), measured))
    return text.getvalue()


def _require_same(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    then, now = dict(_flattened(stored)), dict(_flattened(wanted))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise TrainingStateError(
                f"{folder} holds another training: {name} was {then.get(name)!r} and is now {now.get(name)!r}.", _AGAIN
            )


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
