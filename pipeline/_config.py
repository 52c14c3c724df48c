"""Settings: defaults, then a TOML file, then options; validated, in two parts that are kept apart.

The **recipe** (``[extract]`` and ``[train]``) changes results and is part of the fingerprint of whatever it made. The
**runtime** (``[runtime]``) changes only where and how fast.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffvqa.pipeline._errors import ConfigError, did_you_mean
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._train_recipe import TrainRecipe

SETTINGS_FILE = "settings.toml"
Tables = TypeVar("Tables", bound=BaseModel)


class Runtime(BaseModel):
    """Where and how fast; never part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Path = Field(Path("runs"), description="folder of all outputs")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="decoding processes")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="most views per network call in extraction; auto: what suits device and view size"
    )
    channels_last: bool = Field(True, description="lay images out with their channels innermost")
    compile: bool = Field(False, description="compile the networks of the extraction on their first call")
    engine: Literal["local", "ray"] = Field("local", description="who extracts: local (this machine) or ray")
    model_workers: int = Field(
        0,
        ge=0,
        description="processes with a model; 0: one per GPU, else one (ray: as many as there is room for)",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads that a model computes with; 0: one per core (ray with GPUs: 1)"
    )
    attempts: int = Field(3, ge=1, description="times that a video may end a process before it counts as crashed")
    ray_address: str = Field("", description="HOST:PORT of a Ray cluster; auto: this machine's; empty: begin one here")
    ray_decoders: int = Field(2, ge=1, description="decoding actors of each model worker of a Ray cluster")
    ray_decoder_cpus: float = Field(1.0, gt=0, description="CPUs that each of these reserves")
    ray_environment: tuple[str, ...] = Field((), description="environment variables that Ray workers get from here")
    shard_videos: int = Field(32, ge=1, description="videos per shard of the cache")
    feature_memory: float = Field(
        default_factory=lambda: _half_of_memory(), gt=0, description="GiB of features that training may keep in memory"
    )
    decode_timeout: float = Field(120.0, gt=0, description="seconds that decoding one video may take")
    decode_memory: int = Field(4096, ge=256, description="MiB of memory that a decoding process may have (on Linux)")


class Settings(BaseModel):
    """All settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extract: ExtractRecipe = Field(default_factory=ExtractRecipe)
    train: TrainRecipe = Field(default_factory=TrainRecipe)
    runtime: Runtime = Field(default_factory=Runtime)

    def to_toml(self) -> str:
        """Return the settings as a TOML file that :func:`resolve_settings` reads back."""
        tables = self.model_dump(mode="json")
        recipe = {name: tables[name] for name in ("extract", "train")}
        return (
            "# The recipe: changes results, and is stored in the fingerprint of what it made.\n"
            f"{tomli_w.dumps(recipe)}\n"
            "# The runtime: changes only where and how fast.\n"
            f"{tomli_w.dumps({'runtime': tables['runtime']})}"
        )


def resolve_settings(config: Path | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings from defaults, then a TOML file, then options; see :func:`resolve`."""
    return resolve(Settings, config, options)


def resolve(kind: type[Tables], config: Path | None = None, options: Mapping[str, Any] | None = None) -> Tables:
    """Return settings of some kind from defaults, then a TOML file, then options.

    Args:
        kind: A model whose fields are the tables.
        config: A TOML file with these tables.
        options: Dotted key, such as ``extract.frames``, to value; None values are left out.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is out of bounds; the message names it.
    """
    tables = _read_toml(config, kind) if config is not None else {}
    for key, value in (options or {}).items():
        if value is None:
            continue
        table, _, setting = key.partition(".")
        if not setting:
            raise ConfigError(f"'{key}' is no setting.", "Write TABLE.KEY=VALUE, such as extract.frames=16.")
        tables.setdefault(table, {})[setting] = value
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        raise _explained(error, config, kind) from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``TABLE.KEY=VALUE`` into its key and its value, read as TOML where it is TOML and as text elsewhere.

    Raises:
        ConfigError: There is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"'{text}' sets nothing.", "Write --set TABLE.KEY=VALUE, such as --set extract.frames=16.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _half_of_memory() -> float:
    """Return half of this machine's memory, in GiB; 4 where it cannot be told."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31, 1)
    except (AttributeError, ValueError, OSError):
        return 4.0


def _read_toml(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.", "Give an existing file to --config.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", "Correct it, or start from --show-config.") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            *others, last = (f"[{table}]" for table in kind.model_fields)
            hint = f"Put it under {', '.join(others)} or {last}."
            raise ConfigError(f"{path}: '{name}' stands outside a table.", hint)
    return tables


def _explained(error: ValidationError, config: Path | None, kind: type[BaseModel]) -> ConfigError:
    """Say the first thing wrong in one line: which key, what value, what was expected."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    origin = f" (in {config} or an option)" if config is not None else ""
    if first["type"] == "extra_forbidden":
        *table, setting = (str(part) for part in first["loc"])
        model = kind.model_fields[table[0]].annotation if table else kind
        assert model is not None  # noqa: S101  # every field is annotated
        known = sorted(getattr(model, "model_fields", {}))
        hint = did_you_mean(setting, known) or f"Known: {', '.join(known)}."
        return ConfigError(f"There is no setting '{key}'{origin}.", hint)
    hint = "See --show-config for the defaults."
    return ConfigError(f"{key} = {first['input']!r}{origin}: {first['msg']}.", hint)
