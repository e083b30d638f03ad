"""Random rows of the kinds that break implementations, with random options of the losses, against the oracle.

Huge and tiny numbers side by side, ties, impossible classes, sorted rows, steps near every threshold of the kernels. The seeds are
fixed; a failure names its own. What is found here gets a test of its own in test_special_values.py.
"""

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT32, accumulator, assert_ulps, is_narrow, limit, round_to

pytestmark = pytest.mark.usefixtures("simd")

LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38, "float32": 3.4028234e38, "float64": 1.797e308}
CLASSES = (1, 2, 3, 5, 17, 40, 193, 250)


def all_magnitudes(rng, largest, classes):
    return rng.choice([-1, 1], classes) * np.exp2(rng.uniform(-np.log2(largest) - 20, np.log2(largest), classes))


def whole_range(rng, largest, classes):
    return largest * rng.uniform(-1, 1, classes)


def extremes(rng, largest, classes):
    return rng.choice([-np.inf, 0, -0.0, largest, -largest, 1, -1, 30.125, 1 / largest], classes)


def ties(rng, _, classes):
    return rng.choice(rng.normal(size=2) * np.exp2(rng.uniform(-5, 12)), classes)


def far_offset(rng, largest, classes):
    return rng.normal(size=classes) * 10 ** rng.uniform(-3, 3) + rng.choice([-1, 1]) * min(
        10 ** rng.uniform(0, 16), largest / 4
    )


def vanishing(rng, largest, classes):
    """Down to where probabilities are subnormal and then 0."""
    row = rng.uniform(-820 if largest > 1e300 else -140, 0, classes)
    row[rng.integers(classes)] = 0
    return row


def rising(rng, _, classes):
    """Sorted over more than exponentials can grow beyond the first maximum."""
    return np.sort(rng.uniform(0, rng.choice([39, 41, 80, 800]), classes))[:: rng.choice([1, -1])]


def near_the_thresholds(rng, largest, classes):
    """Where the exponential changes its way, and where differences begin to be whole numbers."""
    threshold = rng.choice([2.0**17, 2.0**50] if largest > 1e300 else [2.0**12, 2.0**22 if largest > 1e30 else 2.0**15])
    return threshold * rng.uniform(0.999, 1.001) * rng.choice([-1, 1]) + rng.normal(size=classes) * 10 ** rng.uniform(
        -1, 3
    )


def half_impossible(rng, _, classes):
    row = 10 * rng.normal(size=classes)
    row[rng.random(classes) < 0.5] = -np.inf
    return row


def not_a_number(rng, largest, classes):
    return rng.choice([-np.inf, np.inf, np.nan, 0, largest, 1], classes, p=[0.4, 0.05, 0.05, 0.2, 0.1, 0.2])


KINDS = [
    all_magnitudes,
    whole_range,
    extremes,
    ties,
    far_offset,
    vanishing,
    rising,
    near_the_thresholds,
    half_impossible,
    not_a_number,
]
SMOOTHINGS = [0.0, 0.0, 1e-30, 1e-3, 0.1, 0.9, 1.0]


def rows_of(kind, rng, dtype, classes):
    largest = LARGEST[dtype.name]
    return round_to(np.array([kind(rng, largest, classes) for _ in range(rng.integers(1, 20))]), dtype)


def random_probabilities(rng, shape, dtype):
    """Distributions, with zeros, one-hot, or over eighty powers of e; sums are not 1."""
    q = [
        rng.random(shape) / shape[1],
        rng.random(shape) * (rng.random(shape) < 0.5),
        np.eye(shape[1])[rng.integers(0, shape[1], shape[0])],
        np.exp(-rng.uniform(0, 80, shape)),
    ][rng.integers(4)]
    return round_to(q, dtype)


def random_options(rng, dtype, classes):
    options = {"reduction": "none", "label_smoothing": SMOOTHINGS[rng.integers(len(SMOOTHINGS))]}
    weights = rng.integers(0, 3)
    if weights:
        options["weight"] = round_to(
            rng.uniform(0.1, 2, classes) * (rng.random(classes) < weights / 2), accumulator(dtype)
        )
    return options


def assert_array_functions(x, axis, note):
    for name in ("softmax", "log_softmax"):
        assert_ulps(
            getattr(crossent, name)(x, axis), getattr(reference, name)(x, axis), limit(name, x.dtype), note=note
        )
    scale = reference.logsumexp_scale(x, axis)
    assert_ulps(crossent.logsumexp(x, axis), reference.logsumexp(x, axis), limit("logsumexp", x.dtype), scale, note)


def assert_losses(x, target, options, note):
    dtype = x.dtype
    losses, gradient = crossent.cross_entropy_value_and_grad(x, target, **options)
    assert_ulps(losses, reference.cross_entropy(x, target, **options), limit("loss", dtype), note=f"loss {note}")
    exact, scale = reference.cross_entropy_backward(np.ones(len(x)), x, target, **options)
    assert_ulps(gradient, exact, limit("mixed gradient", dtype), scale, f"gradient {note}")
    if is_narrow(dtype):
        wide = np.empty(x.shape, FLOAT32)
        crossent.cross_entropy_value_and_grad(x, target, **options, out=wide)
        assert_ulps(wide, exact, limit("mixed gradient", FLOAT32), scale, f"unrounded gradient {note}")


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 160), marks=pytest.mark.slow)], ids=["some", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_rows(kind, seeds, dtype):
    for seed in seeds:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        classes = CLASSES[seed % len(CLASSES)]
        rows = rows_of(kind, rng, dtype, classes)
        options = random_options(rng, dtype, classes)
        labels = rng.integers(0, classes, len(rows))
        ignored = np.where(rng.random(len(rows)) < rng.choice([0, 0.3, 1]), -100, labels)
        q = random_probabilities(rng, rows.shape, accumulator(dtype) if seed % 2 else dtype)
        note = f"seed {seed}, {rows.shape}, {options}"
        columns = np.ascontiguousarray(rows.T).T
        for x in (rows, columns):
            assert_array_functions(x, 1, note)
            for target in (labels, ignored, q):
                assert_losses(x, target, options, note)
