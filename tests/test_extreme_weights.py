"""Class weights near the ends of their dtype's range: losses and gradients as accurate as with ordinary ones."""

import crossent
import numpy as np
import pytest
import reference
from cases import target_probabilities
from helpers import FLOAT32, FLOAT64, accumulator, assert_ulps, limit, normal, round_to

pytestmark = pytest.mark.usefixtures("simd")

# From subnormal numbers to a half of the largest number.
MAGNITUDES = {FLOAT32: (1e-40, 1e-30, 1e-10, 1e10, 1e30, 1.5e38), FLOAT64: (1e-310, 1e-300, 1e-30, 1e30, 1e300, 8e307)}
ROWS = 6
each_reduction = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
each_size = pytest.mark.parametrize("size", range(6))


def extreme_weights(size, classes, dtype):
    """All about equally large; one is 0."""
    spread = np.random.default_rng(0).uniform(0.25, 2, classes)
    spread[1] = 0
    return round_to(MAGNITUDES[accumulator(dtype)][size] * spread, accumulator(dtype))


def make_targets(kind, classes, dtype):
    if kind == "indices":
        return np.arange(ROWS) * (classes - 1) // ROWS + (np.arange(ROWS) > 0)
    return target_probabilities((ROWS, classes), 1, dtype)


def upstream(reduction, dtype):
    return round_to(np.linspace(0.2, 0.9, ROWS) if reduction == "none" else np.float64(0.7), accumulator(dtype))


@each_size
@each_reduction
@np.errstate(over="ignore")  # a sum of float32 losses may be infinite, of which NumPy warns
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("classes", [5, 40, 300])
def test_cross_entropy_with_weights_near_the_ends_of_the_range(size, reduction, kind, classes, dtype):
    logits, target = normal((ROWS, classes), dtype), make_targets(kind, classes, dtype)
    for smoothing in (0.0, 0.1, 1.0):
        options = {
            "weight": extreme_weights(size, classes, dtype),
            "label_smoothing": smoothing,
            "reduction": reduction,
        }
        grad, note = upstream(reduction, dtype), f"smoothing {smoothing}"
        expected = reference.cross_entropy(logits, target, **options)
        assert_ulps(
            crossent.cross_entropy(logits, target, **options), expected, limit("loss", accumulator(dtype)), note=note
        )
        gradient = crossent.cross_entropy_backward(grad, logits, target, **options)
        expected, scale = reference.cross_entropy_backward(grad, logits, target, **options)
        assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale, note)
        _, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
        expected, scale = reference.cross_entropy_backward(np.ones_like(grad), logits, target, **options)
        assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale, f"{note}, fused")


@each_size
@each_reduction
@np.errstate(over="ignore")
@pytest.mark.no_kernel
def test_nll_loss_with_weights_near_the_ends_of_the_range(size, reduction, dtype):
    log_probs, target = normal((ROWS, 5), dtype), make_targets("indices", 5, dtype)
    options = {"weight": extreme_weights(size, 5, dtype), "reduction": reduction}
    grad = upstream(reduction, dtype)
    loss = crossent.nll_loss(log_probs, target, **options)
    assert_ulps(loss, reference.nll_loss(log_probs, target, **options), limit("loss", accumulator(dtype)))
    gradient = crossent.nll_loss_backward(grad, log_probs, target, **options)
    expected, _ = reference.nll_loss_backward(grad, log_probs, target, **options)
    assert_ulps(gradient, expected, limit("gradient at target", dtype))


@pytest.mark.parametrize("magnitude", [1e-300, 1e300])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mean_of_indices_with_float64_weights_beyond_the_range_of_float32(magnitude, smoothing):
    """The unit of weights cancels in it."""
    logits, target = normal((ROWS, 40), FLOAT32), make_targets("indices", 40, FLOAT32)
    options = {"weight": magnitude * np.linspace(0.25, 2, 40), "label_smoothing": smoothing}
    loss, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
    assert_ulps(loss, reference.cross_entropy(logits, target, **options), limit("loss", FLOAT32))
    expected, scale = reference.cross_entropy_backward(1, logits, target, **options)
    assert_ulps(gradient, expected, limit("mixed gradient", FLOAT32), scale)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@each_reduction
def test_cross_entropy_with_weights_of_very_different_size(reduction, smoothing, kind, wider_dtype):
    """None may leave the range when others are brought near 1."""
    large = 1e30 if wider_dtype == FLOAT32 else 1e250
    logits, target = normal((ROWS, 40), wider_dtype), make_targets(kind, 40, wider_dtype)
    weight = round_to(np.where(np.arange(40) % 3 == 0, large, 1 / large), wider_dtype)
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    loss, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
    assert_ulps(loss, reference.cross_entropy(logits, target, **options), limit("loss", wider_dtype))
    grad = np.ones(ROWS) if reduction == "none" else 1
    expected, scale = reference.cross_entropy_backward(grad, logits, target, **options)
    assert_ulps(gradient, expected, limit("mixed gradient", wider_dtype), scale)
