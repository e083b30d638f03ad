"""The worked examples of the field, with the numbers that textbooks, courses and forums print, by every route.

The numbers here were not computed by this project's oracle: they are the published ones.
"""

import math

import crossent
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("simd")

TWO_SAMPLES = [[1, 0.5, 2], [0.5, 3, 1]]
FIVE_SAMPLES = [
    [0.9826, 1.0630, -0.4096],
    [-0.6213, 0.2511, 0.5659],
    [0.5662, 0.7360, -0.6783],
    [-0.4638, -1.4961, -1.0877],
    [1.8186, -0.2998, 0.1128],
]


def by_softmax(logits, target, reduction):
    one_hot = np.eye(logits.shape[-1], dtype=logits.dtype)[target]
    losses = -(np.log(crossent.softmax(logits)) * one_hot).sum(axis=-1)
    return losses if reduction == "none" else losses.mean()


def by_log_softmax(logits, target, reduction):
    return crossent.nll_loss(crossent.log_softmax(logits), target, reduction=reduction)


def by_indices(logits, target, reduction):
    return crossent.cross_entropy(logits, target, reduction=reduction)


def by_probabilities(logits, target, reduction):
    return crossent.cross_entropy(logits, np.eye(logits.shape[-1])[target], reduction=reduction)


ROUTES = pytest.mark.parametrize("route", [by_softmax, by_log_softmax, by_indices, by_probabilities])


def test_one_sample_of_four_classes(wider_dtype):
    loss = crossent.cross_entropy(np.array([0, 0, 0, 1], wider_dtype), 3)
    assert round(float(loss), 4) == 0.7437


@ROUTES
def test_two_samples_each(route, wider_dtype):
    losses = route(np.array(TWO_SAMPLES, wider_dtype), np.array([2, 1]), "none")
    assert losses.shape == (2,)
    assert [round(float(loss), 4) for loss in losses] == [0.4644, 0.1967]


@ROUTES
def test_two_samples_mean(route, wider_dtype):
    assert round(float(route(np.array(TWO_SAMPLES, wider_dtype), np.array([2, 1]), "mean")), 4) == 0.3306


@pytest.mark.no_kernel
def test_nll_picks_the_target(wider_dtype):
    log_probs = np.array([-1.6563, -1.7563, -1.5563], wider_dtype)
    assert crossent.nll_loss(log_probs, 2) == wider_dtype.type(1.5563)
    assert crossent.nll_loss(log_probs[None], [2]) == wider_dtype.type(1.5563)


@ROUTES
def test_five_samples_mean(route, wider_dtype):
    loss = route(np.array(FIVE_SAMPLES, wider_dtype), np.array([1, 0, 1, 1, 1]), "mean")
    assert round(float(loss), 4) == 1.4904


def test_logits_of_1000_do_not_overflow(wider_dtype):
    logits = np.array([[1000, 1000, 0], [-1000, 0, 1000]], wider_dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        naive = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert np.isnan(naive).any()
    np.testing.assert_array_equal(crossent.softmax(logits), [[0.5, 0.5, 0], [0, 0, 1]])
    losses = crossent.cross_entropy(logits, [0, 1], reduction="none")
    np.testing.assert_allclose(losses, [math.log(2), 1000], rtol=2e-7)


def test_confident_predictions_keep_their_digits(wider_dtype):
    logits = np.array([30, 0, 0], wider_dtype)
    rest = 2 * math.exp(-30)
    exact = [math.log1p(rest), -rest / (1 + rest)]
    loss, gradient = crossent.cross_entropy_value_and_grad(logits, 0)
    assert f"{loss:.4e}" == "1.8715e-13"
    assert f"{gradient[0]:.4e}" == "-1.8715e-13"
    np.testing.assert_allclose([loss, gradient[0]], exact, rtol=3e-7 if wider_dtype == "float32" else 7e-16)
