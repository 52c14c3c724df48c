"""Where everything about a data set lies, so that a later verb finds an earlier one's work by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import DatasetError, did_you_mean
from diffvqa.pipeline._manifest import MANIFEST_FILE


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
    return tuple(DatasetRun(root, path.parent.parent.name) for path in sorted(root.glob("*/model/model.json")))
