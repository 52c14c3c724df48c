"""What a training has reached so far, on disk, so that an interrupted one goes on exactly where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffvqa.cache._atomic import atomic_write_text, reporting_output_errors
from diffvqa.stages._fit_state import FitState

_IDENTITY_FILE = "identity.txt"


class TrainingJournal:
    """A folder with the latest state of each fit of one training; that of another training is thrown away.

    Args:
        folder: Where the states lie; made if absent.
        identity: A digest of all that the results depend on: recipe, splits, features and labels.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self.resumed = (folder / _IDENTITY_FILE).is_file() and (folder / _IDENTITY_FILE).read_text() == identity
        if not self.resumed:
            self.clear()
            atomic_write_text(folder / _IDENTITY_FILE, identity)

    def state_of(self, fit: str) -> FitState | None:
        """Return the latest state of the fit of that name; None when it has not begun."""
        return FitState.load(self._path(fit))

    def keep(self, fit: str, state: FitState) -> None:
        """Write a fit's latest state, atomically, in place of the former.

        Raises:
            OutputError: It cannot be written.
        """
        state.save(self._path(fit))

    def clear(self) -> None:
        """Remove the folder, once the training's results lie elsewhere."""
        if self._folder.exists():
            with reporting_output_errors(self._folder):
                shutil.rmtree(self._folder)

    def _path(self, fit: str) -> Path:
        return self._folder / f"{fit}.safetensors"
