"""Components, colours, clusters, similarity and the page's small features, against scikit-learn and known answers."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from dinomx_interpret import features


@pytest.fixture
def rows():
    """200 patches of 24 features of falling spread, away from 0."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 24)) * np.linspace(3, 0.1, 24) @ rng.normal(size=(24, 24)) + 5).astype(np.float32)


def test_components_are_scikit_learns_signs_included(rows):
    expected = PCA(3, svd_solver="full").fit_transform(rows.astype(np.float64))
    np.testing.assert_allclose(features.components(rows, 3), expected, rtol=1e-6, atol=1e-6)
    assert (features.components(rows[:, :2], 3)[:, 2] == 0).all()


def picture(height, width, inside, rng):
    """Features of a grid whose `inside` is one thing and the rest another."""
    front = np.zeros((height, width), bool)
    front[inside] = True
    values = rng.normal(scale=0.2, size=(height, width, 8))
    values[..., 0] += np.where(front, 4, -4)
    values[..., 1] += np.where(front, np.linspace(-1, 1, width), 0)
    return values.reshape(-1, 8), front.ravel()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_what_lies_less_along_the_edges(sign):
    rows, front = picture(8, 12, np.s_[2:6, 3:9], np.random.default_rng(1))
    assert (features.foreground(sign * rows, features.border((8, 12))) == front).all()


def test_a_part_too_small_to_be_coloured_leaves_everything_foreground():
    rows, _ = picture(6, 6, np.s_[2:3, 2:5], np.random.default_rng(1))
    assert features.foreground(rows, features.border((6, 6))).all()
    assert features.foreground(np.ones((36, 8)), features.border((6, 6))).all()


def test_colours_are_the_foregrounds_components_between_their_percentiles():
    rows, front = picture(8, 12, np.s_[2:6, 3:9], np.random.default_rng(1))
    found = features.colours(rows, front)
    scores = PCA(3, svd_solver="full").fit_transform(rows[front])
    low, high = np.percentile(scores, (1, 99), axis=0)
    np.testing.assert_allclose(found[front], ((scores - low) / (high - low)).clip(0, 1), atol=1e-9)
    assert np.isnan(found[~front]).all()


def test_clusters_are_the_same_each_time_and_the_largest_is_first():
    rng = np.random.default_rng(2)
    centres = np.eye(6)[:3] * 5
    numbers = np.repeat([0, 1, 2], [20, 70, 40])
    rows = centres[numbers] + rng.normal(scale=0.1, size=(130, 6))
    rows *= rng.uniform(0.5, 3, size=(130, 1))  # directions count, lengths do not
    found = features.clusters(rows, 3)
    assert (found == np.array([2, 0, 1])[numbers]).all()
    assert (features.clusters(rows, 3) == found).all()


def test_fewer_different_patches_than_clusters_are_as_many_clusters():
    assert features.clusters(np.repeat(np.eye(3), 4, axis=0), 6).max() == 2


def test_similarity_is_the_cosine():
    rows = np.array([[1.0, 0], [2, 2], [0, 3], [-5, 0], [0, 0]])
    np.testing.assert_allclose(features.similarity(rows, 0), [1, 0.5**0.5, 0, -1, 0], atol=1e-12)


def test_the_pages_features_give_the_same_similarities_and_their_error_is_measured(rows):
    exact = features.unit(rows.astype(np.float64))
    for dimensions, most in ((24, 1e-4), (6, 1)):
        codes = features.coded(rows, dimensions)
        near = codes.numbers * codes.scale
        error = np.abs(near @ near.T - exact @ exact.T).max()
        assert codes.numbers.dtype == np.int16 and codes.numbers.shape == (200, dimensions)
        assert error == pytest.approx(codes.error, abs=1e-9) and error < most
    assert features.coded(rows, 6).error > features.coded(rows, 12).error > features.coded(rows, 24).error


def test_rows_go_back_to_their_images():
    values = np.arange(2 * 3 + 4 * 1)
    first, second = features.split(values, [(2, 3), (4, 1)])
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]] and second.tolist() == [[6], [7], [8], [9]]
