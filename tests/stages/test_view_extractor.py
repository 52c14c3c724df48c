from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from extraction_material import CPU, SimpleBackbone

from diffvqa.stages._backbones.interface import ViewFeatures
from diffvqa.stages._errors import DeviceMemoryError
from diffvqa.stages._torch_threads import torch_threads
from diffvqa.stages._view_extractor import ViewExtractor

CPU_WORDS = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
VIEWS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
SEEDS = list(range(20))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError(CPU_WORDS), MemoryError("numpy")])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(error: Exception, logged: pytest.LogCaptureFixture) -> None:
    expected = ViewExtractor(SimpleBackbone(), device=CPU)(VIEWS, SEEDS)
    backbone = SimpleBackbone(fits=5, error=error)
    extractor = ViewExtractor(backbone, device=CPU, batch_size=16)
    features = extractor(VIEWS, SEEDS)
    np.testing.assert_array_equal(features.multiscale, expected.multiscale)
    assert backbone.batches == [16, 8, 4, 4, 4, 4, 4]
    extractor(VIEWS, SEEDS)
    assert backbone.batches[7:] == [4] * 5, "the size that worked is remembered"
    assert logged.messages == [
        "16 views at once do not fit the memory: going on with 8",
        "8 views at once do not fit the memory: going on with 4",
    ]


def test_a_real_failure_of_the_cpu_allocator_is_known_for_what_it_is() -> None:
    class Greedy(SimpleBackbone):
        def extract(self, views, seeds):  # type: ignore[no-untyped-def]
            if len(views) > 2:
                torch.empty(2**60, dtype=torch.uint8)
            return super().extract(views, seeds)

    extractor = ViewExtractor(Greedy(), device=CPU, batch_size=8)
    assert len(extractor(VIEWS, SEEDS).multiscale) == 20
    assert extractor.batch_size(8) == 2


def test_a_view_that_does_not_fit_alone_ends_the_run_in_words() -> None:
    extractor = ViewExtractor(SimpleBackbone(fits=0, error=torch.OutOfMemoryError("CUDA")), device=CPU, batch_size=4)
    with pytest.raises(DeviceMemoryError, match="one view of 8 x 8 pixels"):
        extractor(VIEWS, SEEDS)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    backbone = SimpleBackbone(fits=0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        ViewExtractor(backbone, device=CPU)(VIEWS, SEEDS)
    assert backbone.batches == [20]


@pytest.mark.parametrize(("threads", "parts"), [(2, [8, 8]), (3, [5, 5, 6]), (16, [4, 4, 4, 4])])
def test_on_a_cpu_the_parts_of_a_batch_are_computed_side_by_side(threads: int, parts: list[int]) -> None:
    class Meeting(SimpleBackbone):
        """Waits until all parts of a batch are there."""

        there = threading.Barrier(len(parts), timeout=60)

        def extract(self, views: torch.Tensor, seeds: Sequence[int]) -> ViewFeatures:
            self.there.wait()
            assert torch.get_num_threads() == threads // len(parts)
            return super().extract(views, seeds)

    expected = ViewExtractor(SimpleBackbone(), device=CPU)(VIEWS[:16], SEEDS[:16])
    backbone = Meeting()
    with torch_threads(threads):
        features = ViewExtractor(backbone, device=CPU, batch_size=16)(VIEWS[:16], SEEDS[:16])
        assert torch.get_num_threads() == threads
    assert sorted(backbone.batches) == parts
    np.testing.assert_array_equal(features.multiscale, expected.multiscale)
    assert features.latent is not None
    assert expected.latent is not None
    np.testing.assert_array_equal(features.latent, expected.latent)


def test_a_part_that_does_not_fit_halves_the_batch() -> None:
    backbone = SimpleBackbone(fits=5, error=MemoryError("numpy"))
    extractor = ViewExtractor(backbone, device=CPU, batch_size=16)
    with torch_threads(2):
        features = extractor(VIEWS, SEEDS)
    np.testing.assert_array_equal(
        features.multiscale, ViewExtractor(SimpleBackbone(), device=CPU)(VIEWS, SEEDS).multiscale
    )
    assert extractor.batch_size(8) == 8


def test_by_itself_a_batch_is_smaller_the_larger_the_views_are() -> None:
    sizes = [ViewExtractor(SimpleBackbone(), device=CPU).batch_size(side) for side in (128, 256, 512, 4096)]
    assert sizes == [64, 16, 4, 1]
