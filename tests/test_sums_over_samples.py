"""Means and sums of losses over very many samples: exact before their one rounding, whatever the threads and the order.

Samples are blocks of 1001 or a million distinct ones, repeated without memory by broadcasting; their classes lie last.
"""

import math
from fractions import Fraction

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT32, FLOAT64, FORMATS, accumulator, is_narrow, normal, round_to, spacing, ulp_errors, widen

pytestmark = pytest.mark.usefixtures("simd")

MANY = [
    pytest.param(200, 1001, id="2e5"),
    pytest.param(100, 1_000_000, id="1e8", marks=pytest.mark.slow),
]
many = pytest.mark.parametrize(("repeats", "distinct"), MANY)
REDUCTIONS = ("mean", "sum")


def repeated(array, repeats):
    return np.broadcast_to(array, (repeats, *array.shape))


def reduced(logits, target, reduction, **options):
    """The loss by every function that gives it, which must agree to the bit."""
    loss = crossent.cross_entropy(logits, target, axis=-1, reduction=reduction, **options)
    if logits.size < 1e7:
        fused, _ = crossent.cross_entropy_value_and_grad(logits, target, axis=-1, reduction=reduction, **options)
        assert fused == loss
    return loss


def assert_to_1_float64_ulp(loss, exact, note):
    """`loss` is the Fraction `exact`, within 1 ULP of float64 before the rounding to the dtype of losses."""
    allowed = spacing(float(exact), FLOAT64)
    if loss.dtype == FLOAT32:
        allowed += spacing(float(exact), FLOAT32) / 2
    error = abs(Fraction(float(loss)) - exact)
    assert error <= Fraction(float(allowed)), f"{note}: {loss!r}, not {float(exact)!r}"


def distances(count, dtype):
    """Numbers so large that exp(-x) vanishes beside them: the loss of [-x, 0] and target 0 is x exactly. Of all magnitudes."""
    digits, lowest = FORMATS[dtype.name]
    largest = 13 if is_narrow(dtype) else -lowest - 30
    rng = np.random.default_rng(0)
    return round_to(np.ldexp(rng.uniform(1, 2, count), rng.integers(6, min(largest, digits + 30), count)), dtype)


def exact_sum(values):
    return sum(map(Fraction, values.astype(np.float64).tolist()))


@many
def test_mean_and_sum_of_losses_that_are_known_exactly(repeats, distinct, dtype):
    x = distances(distinct, dtype)
    logits = repeated(np.stack([-x, np.zeros_like(x)], axis=-1), repeats)
    target = repeated(np.zeros(distinct, np.int8), repeats)
    total = repeats * exact_sum(x)
    for reduction in REDUCTIONS:
        exact = total if reduction == "sum" else total / (repeats * distinct)
        assert_to_1_float64_ulp(reduced(logits, target, reduction), exact, f"cross_entropy {reduction}")
        loss = crossent.nll_loss(logits, target, axis=-1, reduction=reduction)
        assert_to_1_float64_ulp(loss, exact, f"nll_loss {reduction}")


def ordinary(distinct, dtype):
    logits = normal((distinct, 2), dtype)
    return logits, (np.arange(distinct) % 2).astype(np.int8)


def assert_reduced_from(logits, target, losses, repeats, dtype, note):
    """float64: from the losses themselves, to 1 ULP; float32: from the oracle's, whose rounded mean differs by few last bits."""
    if dtype == FLOAT64:
        losses = crossent.cross_entropy(logits[0], target[0], reduction="none")
    total = repeats * widen(losses).sum()  # pairwise, with 11 bits more than float64
    for reduction in REDUCTIONS:
        loss = reduced(logits, target, reduction)
        error = ulp_errors(loss, total if reduction == "sum" else total / (repeats * len(losses)))
        assert error <= (1 if dtype == FLOAT64 else 0.6), f"{note} {reduction}"


@many
def test_mean_and_sum_of_ordinary_losses(repeats, distinct, dtype):
    logits, target = ordinary(distinct, dtype)
    losses = reference.cross_entropy(logits, target, reduction="none")
    assert_reduced_from(repeated(logits, repeats), repeated(target, repeats), losses, repeats, dtype, "broadcast")


@pytest.mark.slow
def test_1e8_samples_that_lie_in_memory():
    """0.8 GB of logits."""
    logits, target = ordinary(1_000_000, FLOAT32)
    losses = reference.cross_entropy(logits, target, reduction="none")
    logits, target = (np.ascontiguousarray(repeated(array, 100)) for array in (logits, target))
    assert_reduced_from(logits, target, losses, 100, FLOAT32, "in memory")


@pytest.fixture
def _threads_restored():
    previous = crossent.get_num_threads()
    yield
    crossent.set_num_threads(previous)


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"weight": [0.3, 1.7]},
    "ignoring": {"ignore_index": 1},
}


@pytest.mark.parametrize(
    ("repeats", "distinct", "option"),
    [
        *(pytest.param(200, 1001, option, id=f"2e5-{option}") for option in OPTIONS),
        pytest.param(100, 1_000_000, "plain", id="1e8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("_threads_restored")
def test_neither_threads_nor_order_change_a_bit_of_the_reduced_loss(repeats, distinct, option, dtype):
    logits, target = ordinary(distinct, dtype)
    logits, target = repeated(logits, repeats), repeated(target, repeats)
    orders = {
        "as they are": (logits, target),
        "backwards": (logits[::-1, ::-1], target[::-1, ::-1]),
        "interleaved": (logits.swapaxes(0, 1), target.T),
    }
    results = {}
    for threads in (1, 2, 3):
        crossent.set_num_threads(threads)
        for order, arguments in orders.items():
            results[threads, order] = reduced(*arguments, "mean", **OPTIONS[option])
    assert np.isfinite(list(results.values())).all()
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.usefixtures("_threads_restored")
@pytest.mark.no_kernel  # nll_loss takes but the sum from the instruction set
def test_terms_of_very_different_size_are_added_exactly(reduction):
    """float64 terms over 52 powers of ten that cancel or not: their exact sum, rounded once, in every order."""
    count = 100_003
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], count)
    terms = signs * np.exp(rng.uniform(-60, 60, count))
    exact = math.fsum(terms) / (count if reduction == "mean" else 1)
    for threads in (1, 2, 3):
        crossent.set_num_threads(threads)
        for order in (np.arange(count), np.arange(count)[::-1], rng.permutation(count)):
            loss = crossent.nll_loss(-terms[order, None], np.zeros(count, int), reduction=reduction)
            assert loss == exact, (threads, loss, exact)


@pytest.mark.parametrize("weight", [None, [0.25, 1]])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_mean_is_finite_where_the_sum_of_float64_losses_is_beyond_the_largest_number(count, weight):
    losses = np.linspace(1.5e308, 1.7e308, count)
    logits, target = np.stack([-losses, np.zeros(count)], axis=-1), np.zeros(count, int)
    exact = exact_sum(losses) / count
    exact_weighted = exact_sum(losses) * Fraction(1 if weight is None else weight[0])
    is_beyond = exact_weighted > Fraction(float(np.finfo(FLOAT64).max))
    losses_of = {
        "cross_entropy": lambda sign, reduction: sign * reduced(logits, target, reduction, weight=weight),
        "nll_loss": lambda sign, reduction: crossent.nll_loss(
            sign * logits, target, reduction=reduction, weight=weight
        ),
    }
    for name, loss in losses_of.items():
        for sign in (1, -1):
            assert_to_1_float64_ulp(loss(sign, "mean"), sign * exact, f"{name} of sign {sign}")
            total = loss(sign, "sum")
            assert total == sign * np.inf if is_beyond else np.isfinite(total), f"{name} of sign {sign}: {total}"


def test_reduced_losses_have_the_dtype_of_losses(dtype):
    logits, target = ordinary(10, dtype)
    for reduction in REDUCTIONS:
        assert crossent.cross_entropy(logits, target, reduction=reduction).dtype == accumulator(dtype)
