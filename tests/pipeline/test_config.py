from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.pipeline._config import Settings, parse_assignment, resolve_settings
from diffvqa.pipeline._errors import ConfigError


def test_defaults_then_file_then_options(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[extract]\nframes = 4\ncrops = 2\n[runtime]\nworkers = 1\n")
    settings = resolve_settings(config, {"extract.frames": 6, "extract.seed": None})
    assert settings.extract.frames == 6
    assert settings.extract.crops == 2
    assert settings.extract.seed == 0
    assert settings.extract.view_size == Settings().extract.view_size


@given(
    frames=st.integers(1, 500),
    rate=st.floats(1e-9, 1.0),
    model=st.text(min_size=1).filter(lambda text: text.isprintable()),
    timeout=st.floats(0.001, 1e6),
)
def test_what_is_shown_reads_back_as_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, frames: int, rate: float, model: str, timeout: float
) -> None:
    options = {
        "extract.frames": frames,
        "extract.model": model,
        "train.learning_rate": rate,
        "runtime.decode_timeout": timeout,
    }
    settings = resolve_settings(None, options)
    shown = tmp_path_factory.mktemp("config") / "shown.toml"
    shown.write_text(settings.to_toml(), encoding="utf-8")
    assert resolve_settings(shown) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extract.framez": 3}, r"no setting 'extract.framez'. Did you mean 'frames'\?"),
        ({"extrakt.frames": 3}, r"no setting 'extrakt'. Did you mean 'extract'\?"),
        ({"extract.frames": 0}, r"extract.frames = 0: Input should be greater than or equal to 1"),
        ({"extract.frames": "many"}, r"extract.frames = 'many': Input should be a valid integer"),
        ({"runtime.device": "tpu"}, r"runtime.device = 'tpu'"),
        ({"frames": 3}, r"'frames' is no setting"),
        ({"extract.decoder": "ffmpeg"}, r"extract.decoder = 'ffmpeg': Input should be 'auto', 'decord' or 'pyav'"),
        ({"extract.good_frames": 0}, r"extract.good_frames = 0: Input should be greater than 0"),
        ({"extract.frames_per_second": -1}, r"extract.frames_per_second = -1"),
        ({"extract.min_frames": 0}, r"extract.min_frames = 0"),
        ({"runtime.decode_memory": 10}, r"runtime.decode_memory = 10: Input should be greater than or equal to 256"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_settings(None, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[extract\n", "is not TOML"),
        ("frames = 3\n", "'frames' stands outside a table"),
        ("[extract]\nx = 1\n", "no setting"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: str, message: str) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_settings(config)
    assert "bad.toml" in str(caught.value)
    with pytest.raises(ConfigError, match="Cannot read"):
        resolve_settings(tmp_path / "absent.toml")


def test_assignments_are_toml_where_they_can_be_and_text_elsewhere() -> None:
    assert parse_assignment("extract.frames=16") == ("extract.frames", 16)
    assert parse_assignment("train.learning_rate = 1e-3") == ("train.learning_rate", 1e-3)
    assert parse_assignment("extract.model=/a/b=c") == ("extract.model", "/a/b=c")
    with pytest.raises(ConfigError, match="sets nothing"):
        parse_assignment("extract.frames")


def test_settings_cannot_be_changed_once_resolved() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().extract.frames = 3  # type: ignore[misc]  # that is the point
