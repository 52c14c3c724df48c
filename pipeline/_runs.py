"""Where everything about a data set lies, so that a later verb finds an earlier one's work by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import ConfigError, DatasetError, did_you_mean
from diffvqa.pipeline._manifest import MANIFEST_FILE

# A trained model has this file; the module that writes it takes seconds to import.
_TRAINED = "model.json"


@dataclass(frozen=True)
class DatasetRun:
    """The folder ``runs/<name>`` of one data set.

    Attributes:
        root: The folder of all runs.
        name: The data set's name.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.name):
            raise DatasetError(
                f"'{self.name}' cannot be a data set's name.", "Use letters, digits, '.', '_', '+' and '-' alone."
            )

    @property
    def folder(self) -> Path:
        """Folder of the data set; its manifest lies here."""
        return self.root / self.name

    @property
    def features(self) -> Path:
        """Its feature cache."""
        return self.folder / "features"

    @property
    def model(self) -> Path:
        """The regressor trained on it."""
        return self.folder / "model"

    def require_prepared(self) -> DatasetRun:
        """Return this run if its data set is prepared.

        Raises:
            DatasetError: It is not; the message names what there is.
        """
        if (self.folder / MANIFEST_FILE).is_file():
            return self
        prepared = sorted(path.parent.name for path in self.root.glob(f"*/{MANIFEST_FILE}"))
        there = f"Prepared are: {', '.join(prepared)}. " if prepared else ""
        hint = did_you_mean(self.name, prepared) or f"{there}Run 'diffvqa prepare' first."
        raise DatasetError(f"There is no data set '{self.name}' in {self.root}.", hint)


def trained_models(root: Path) -> tuple[DatasetRun, ...]:
    """Return the runs below ``root`` that have a trained regressor, by name."""
    return tuple(DatasetRun(root, path.parent.parent.name) for path in sorted(root.glob(f"*/model/{_TRAINED}")))


def locate_trained_model(name_or_path: str | None, root: Path) -> Path:
    """Return the folder of a trained model.

    Args:
        name_or_path: A data set's name, a model folder, or None for the only one there is.
        root: The folder of all runs.

    Raises:
        ConfigError: There is none, or several and none was named.
    """
    there = trained_models(root)
    names = ", ".join(run.name for run in there)
    if name_or_path is None:
        if len(there) == 1:
            return there[0].model
        if there:
            raise ConfigError(f"There are several trained models in {root}.", f"Choose one with --model: {names}.")
        raise ConfigError(f"There is no trained model in {root}.", "Run 'diffvqa train' first, or give --model FOLDER.")
    for run in there:
        if run.name == name_or_path:
            return run.model
    for folder in (Path(name_or_path), Path(name_or_path) / "model"):
        if (folder / _TRAINED).is_file():
            return folder
    known = f"Trained are: {names}." if names else "Run 'diffvqa train' first."
    raise ConfigError(f"There is no trained model '{name_or_path}'.", known)
