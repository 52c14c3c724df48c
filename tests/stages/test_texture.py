from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import logm

from diffvqa.stages._blocks import cut_into_blocks
from diffvqa.stages._texture import LatentTexture, texture_patch, texture_size

NANO, STABLE_DIFFUSION = (48, 32, 32), (4, 64, 64)


def random_latent(*shape: int) -> torch.Tensor:
    """Values that go together: a mixture of independent ones."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(shape[-3], shape[-3], generator=generator)
    return torch.einsum("dc,...chw->...dhw", mixed, torch.randn(shape, generator=generator))


def independent_latent(*shape: int, seed: int) -> torch.Tensor:
    """Values of no mixture, which may be nearly singular: all their variances lie far above the floor."""
    return 4.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(latent: torch.Tensor) -> torch.Tensor:
    return LatentTexture.of(latent).whole


def as_matrix(texture: torch.Tensor, values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    matrix = np.zeros((values, values))
    matrix[np.triu_indices(values)] = texture.double().numpy()
    off = np.triu(matrix, 1) / np.sqrt(2)
    return np.asarray(np.diag(np.diag(matrix)) + off + off.T)


@pytest.mark.parametrize(
    ("shape", "patch", "size"),
    [(NANO, 1, 48 * 49 // 2), (STABLE_DIFFUSION, 4, 64 * 65 // 2), ((12, 64, 64), 2, 48 * 49 // 2), ((3, 8, 8), 2, 78)],
)
def test_patches_have_about_as_many_values_whatever_the_latent(
    shape: tuple[int, int, int], patch: int, size: int
) -> None:
    assert (texture_patch(shape), texture_size(shape)) == (patch, size)
    assert whole(torch.randn(2, 3, *shape)).shape == (2, 3, size)


@pytest.mark.parametrize("shape", [(6, 16, 16), (3, 32, 32)])
def test_it_is_the_logarithm_of_the_covariance_of_the_patches(shape: tuple[int, int, int]) -> None:
    latent = random_latent(*shape)
    patches = cut_into_blocks(latent, texture_patch(shape)).double().numpy()
    values = patches.shape[1]
    expected = logm(np.cov(patches, rowvar=False, bias=True) + 1e-4 * np.eye(values))
    np.testing.assert_allclose(as_matrix(whole(latent), values), expected, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 8.0))
def test_stronger_contrast_adds_to_the_diagonal_alone(seed: int, factor: float) -> None:
    """As long as all variances lie far above the floor, which does not grow with the contrast."""
    latent = independent_latent(4, 16, 16, seed=seed)
    values = 4 * texture_patch((4, 16, 16)) ** 2
    before, after = (as_matrix(whole(each), values) for each in (latent, factor * latent))
    np.testing.assert_allclose(after - before, 2 * np.log(factor) * np.eye(values), atol=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_where_in_the_picture_a_patch_lies_is_no_matter(seed: int) -> None:
    """As long as all variances lie far above the floor: rounding depends on the order, and shows in small ones."""
    latent = independent_latent(48, 8, 8, seed=seed)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    shuffled = latent.flatten(1)[:, order].reshape(48, 8, 8)
    torch.testing.assert_close(whole(latent), whole(shuffled), atol=0.02, rtol=0.01)


def test_a_picture_of_one_colour_has_the_least_texture() -> None:
    texture = whole(torch.full((48, 32, 32), 0.3, dtype=torch.float16))
    np.testing.assert_allclose(as_matrix(texture, 48), np.log(1e-4) * np.eye(48), atol=0.01)


def test_each_latent_has_its_own_whatever_lies_beside_it() -> None:
    latents = random_latent(2, 3, 48, 16, 16).half()
    together = LatentTexture.of(latents)
    alone = [[LatentTexture.of(each) for each in row] for row in latents]
    for part in ("whole", "flat"):
        expected = torch.stack([torch.stack([getattr(each, part) for each in row]) for row in alone])
        torch.testing.assert_close(getattr(together, part), expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", [(6, 15, 16), (3, 32, 32)])
def test_what_is_flat_differs_least_from_its_neighbours(shape: tuple[int, int, int]) -> None:
    side = texture_patch(shape)
    # One corner is busier than the other, so that which half is the flatter does not hang on rounding.
    busier = torch.linspace(0.1, 3, shape[1])[:, None] * torch.linspace(0.1, 3, shape[2])
    latent = random_latent(*shape) * busier
    patches = cut_into_blocks(latent, side).double().numpy()
    rows, columns = shape[1] // side, shape[2] // side
    grid = patches.reshape(rows, columns, -1)

    def unevenness(row: int, column: int) -> float:
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        there = [grid[place] for place in around if 0 <= place[0] < rows and 0 <= place[1] < columns]
        return float(np.mean([np.square(grid[row, column] - each).sum() for each in there]))

    order = np.argsort([unevenness(*divmod(place, columns)) for place in range(rows * columns)], kind="stable")
    flat = patches[order[: (rows * columns + 1) // 2]]
    floor = 1e-4 * np.eye(patches.shape[1])
    of_flat, of_all = (logm(np.cov(each, rowvar=False, bias=True) + floor) for each in (flat, patches))
    found = LatentTexture.of(latent).flat
    np.testing.assert_allclose(as_matrix(found, patches.shape[1]), of_flat - of_all, atol=0.02)


def test_noise_makes_what_is_flat_like_the_rest() -> None:
    """The whole is busy on one side and of one colour on the other; what is far above both makes them alike."""
    latent = torch.zeros(12, 32, 32)
    latent[:, :, 16:] = random_latent(12, 32, 16)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    lengths = [LatentTexture.of(latent + level * noise).flat.float().norm().item() for level in (0, 0.1, 0.5, 2, 20)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.1 * lengths[0]


def test_a_latent_of_one_patch_and_one_colour_are_borne() -> None:
    for latent in (torch.randn(5, 1, 1), torch.full((4, 8, 8), 0.3)):
        assert not LatentTexture.of(latent).flat.any()
