"""What may be passed, and what dtype comes back: the section Dtypes of the interface."""

import array
import importlib.util

import crossent
import numpy as np
import pytest
import reference
from cases import assert_index_gradient, target_probabilities
from helpers import (
    FLOAT16,
    FLOAT32,
    FLOAT64,
    accumulator,
    assert_same_bits,
    assert_ulps,
    available_dtypes,
    limit,
    normal,
    widen,
)

pytestmark = pytest.mark.usefixtures("simd")

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
REAL_DTYPES = [*available_dtypes(), *INTEGERS, np.dtype(bool)]
UNARY = ["softmax", "log_softmax", "logsumexp"]


# --- logits -----------------------------------------------------------------------------------------------------------


def test_array_results_keep_the_dtype_and_losses_widen_16_bits(dtype):
    x, target = normal((4, 5), dtype), np.array([0, 1, 2, 3])
    y = crossent.softmax(x)
    losses, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    arrays = [
        y,
        crossent.log_softmax(x),
        crossent.softmax_backward(y, y),
        crossent.log_softmax_backward(y, x),
        gradient,
    ]
    arrays += [crossent.cross_entropy_backward(1.0, x, target), crossent.nll_loss_backward(1.0, x, target)]
    assert {a.dtype for a in arrays} == {dtype}
    reductions = [crossent.cross_entropy(x, target, reduction=r) for r in ("mean", "sum")]
    reductions += [crossent.nll_loss(x, target, reduction=r) for r in ("mean", "sum")]
    assert all(isinstance(loss, accumulator(dtype).type) for loss in reductions)
    assert losses.dtype == crossent.logsumexp(x).dtype == accumulator(dtype)


@pytest.mark.parametrize("kind", [*INTEGERS, np.dtype(bool)], ids=str)
def test_integers_and_booleans_become_float64(kind):
    x = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0]], kind)
    wide = x.astype(FLOAT64)
    for name in UNARY:
        assert_same_bits(getattr(crossent, name)(x), getattr(crossent, name)(wide), name)
    loss, gradient = crossent.cross_entropy_value_and_grad(x, [0, 1, 2])
    expected_loss, expected = crossent.cross_entropy_value_and_grad(wide, [0, 1, 2])
    assert_same_bits(loss, expected_loss)
    assert_same_bits(gradient, expected)
    out = np.zeros(x.shape)
    assert crossent.softmax(x, out=out) is out
    with pytest.raises(ValueError, match="float64"):
        crossent.softmax(x, out=np.zeros(x.shape, FLOAT32))


def test_large_integers_round_to_float64():
    x = np.array([2**62, 2**62 - 2**10, 0], np.int64)
    np.testing.assert_array_equal(crossent.softmax(x), crossent.softmax(x.astype(float)))
    assert crossent.logsumexp(np.array([2**64 - 1], np.uint64)) == 2.0**64


def test_lists_and_scalars_are_taken_as_numpy_takes_them():
    assert_same_bits(crossent.softmax([[1, 2], [3, 5]]), crossent.softmax(np.array([[1.0, 2], [3, 5]])))
    assert_same_bits(crossent.log_softmax((0.5, 1.5)), crossent.log_softmax(np.array([0.5, 1.5])))
    assert np.asarray(crossent.softmax(3)) == 1
    assert np.asarray(crossent.logsumexp(2.5)) == 2.5
    assert np.asarray(crossent.logsumexp(np.float32(2.5))).dtype == FLOAT32
    expected = crossent.cross_entropy(np.array([[1.0, 2], [3, 5]]), np.array([1, 0]), weight=np.array([1.0, 2]))
    assert_same_bits(crossent.cross_entropy([[1, 2], [3, 5]], [1, 0], weight=[1, 2]), expected)
    assert_same_bits(crossent.cross_entropy([[1, 2], [3, 5]], (1, 0), weight=(1, 2)), expected)


class HasArray:
    """An object with nothing but `__array__`."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class HasDlpack:
    """An object with nothing but the DLPack protocol."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


CONTAINERS = {
    "__array__": HasArray,
    "__dlpack__": HasDlpack,
    "memoryview": memoryview,
    "array.array": lambda x: array.array({4: "f", 8: "d"}[x.itemsize] if x.dtype.kind == "f" else "q", x.tolist()),
    "subclass": lambda x: x.view(type("Subclass", (np.ndarray,), {})),
}


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
def test_foreign_containers(wrap, wider_dtype):
    row, grad = normal(7, wider_dtype), normal(7, wider_dtype, seed=1)
    for name in UNARY:
        assert_same_bits(getattr(crossent, name)(wrap(row)), getattr(crossent, name)(row), name)
    assert_same_bits(crossent.softmax_backward(wrap(grad), wrap(row)), crossent.softmax_backward(grad, row))
    x, target, weight = normal((3, 7), wider_dtype), np.array([6, 0, 2]), abs(grad)
    expected_loss, expected = crossent.cross_entropy_value_and_grad(x, target, weight=weight)
    loss, gradient = crossent.cross_entropy_value_and_grad(x, wrap(target), weight=wrap(weight))
    assert_same_bits(loss, expected_loss)
    assert_same_bits(gradient, expected)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("name", UNARY)
def test_torch_tensors(name):
    torch = importlib.import_module("torch")
    for dtype in (FLOAT16, FLOAT32, FLOAT64):  # NumPy has no bfloat16 to view a tensor by
        tensor = torch.tensor(normal((3, 7), dtype))
        for view in (tensor, tensor[:, ::2], tensor.T):
            result = getattr(crossent, name)(view)
            assert isinstance(result, np.ndarray)
            assert_same_bits(result, getattr(crossent, name)(view.numpy()))


# --- targets, weights, grads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_index_targets_of_every_integer_dtype(kind, dtype):
    for classes in (5, 100):
        x = normal((6, classes), dtype)
        target = np.array([0, classes - 1, 1, 2, 3, 4], kind)
        for labels in (target, target.astype(kind.newbyteorder("S"))):
            result = crossent.cross_entropy_value_and_grad(x, labels, reduction="none")
            expected = crossent.cross_entropy_value_and_grad(x, target.astype(np.int64), reduction="none")
            assert_same_bits(result[0], expected[0])
            assert_same_bits(result[1], expected[1])
            assert_same_bits(crossent.nll_loss(x, labels), crossent.nll_loss(x, target.astype(np.int64)))


def test_unsigned_targets_are_never_negative():
    """The bits of -100 in uint8 are 156: an ordinary class among 200."""
    x = normal((1, 200), FLOAT64)
    target = np.array([156], np.uint8)
    assert_same_bits(crossent.cross_entropy(x, target), crossent.cross_entropy(x, [156]))
    assert crossent.cross_entropy(x, target) > 0
    assert np.isnan(crossent.cross_entropy(x, target, ignore_index=156))


@pytest.mark.parametrize("kind", REAL_DTYPES, ids=str)
def test_weights_of_every_real_dtype(kind, dtype):
    x, target = normal((4, 3), dtype), np.array([0, 1, 2, 1])
    weight = np.array([1, 0, 1], kind)
    for reduction in ("none", "mean", "sum"):
        expected = crossent.cross_entropy_value_and_grad(x, target, weight=[1.0, 0.0, 1.0], reduction=reduction)
        result = crossent.cross_entropy_value_and_grad(x, target, weight=weight, reduction=reduction)
        assert_same_bits(result[0], expected[0])
        assert_same_bits(result[1], expected[1])


@pytest.mark.parametrize("kind", available_dtypes(), ids=str)
def test_probability_targets_of_every_floating_dtype(kind, dtype):
    x, target = normal((4, 6), dtype), target_probabilities((4, 6), 1, kind)
    loss, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    assert loss.dtype == accumulator(dtype)
    assert gradient.dtype == dtype
    assert_ulps(loss, reference.cross_entropy(x, target, reduction="none"), limit("loss", dtype))
    expected, scale = reference.cross_entropy_backward(np.ones(4), x, target, reduction="none")
    assert_ulps(gradient, expected, limit("mixed gradient", dtype), scale)


def test_float64_weights_of_float32_logits_are_not_squeezed():
    """1e-60 is no float32: a mean over such weights must not be 0 / 0."""
    x, target = normal((4, 3), FLOAT32), np.array([0, 1, 2, 1])
    weight = np.array([1e-60, 2e-60, 3e-60])
    expected = reference.cross_entropy(x, target, weight=weight)
    assert_ulps(crossent.cross_entropy(x, target, weight=weight), expected, limit("reduced loss", FLOAT32))


def test_grad_of_a_loss_is_any_real_number_or_array(dtype):
    x, target = normal((2, 3), dtype), np.array([0, 2])
    expected = crossent.cross_entropy_backward(2.0, x, target)
    for grad in (2, np.float32(2), np.float64(2), np.int8(2), np.array(2.0), np.array(2, np.float16)):
        assert_same_bits(crossent.cross_entropy_backward(grad, x, target), expected, repr(grad))
    expected = crossent.cross_entropy_backward([2.0, 1.0], x, target, reduction="none")
    for kind in (np.float16, np.float32, np.float64, np.int64):
        grad = np.array([2, 1], kind)
        assert_same_bits(crossent.cross_entropy_backward(grad, x, target, reduction="none"), expected, str(kind))


# --- 16-bit rows that are converted while they are transposed, and others taken together ------------------------------


@pytest.mark.parametrize("rows", [16, 33])
def test_16_bit_rows_of_few_classes_are_those_of_float32_rounded_in_place_too(rows, narrow_dtype):
    for classes in (*range(2, 25), 31, 64, 100, 111):
        x = normal((rows, classes), narrow_dtype)
        x[0, 0], x[1, 1] = np.nan, np.inf
        wide, target = x.astype(FLOAT32), np.arange(rows) % classes
        for name in ("softmax", "log_softmax"):
            expected = getattr(crossent, name)(wide).astype(narrow_dtype)
            in_place = x.copy()
            assert_same_bits(getattr(crossent, name)(x), expected, f"{name} of {classes}")
            assert_same_bits(getattr(crossent, name)(in_place, out=in_place), expected, f"{name} of {classes} in place")
        _, expected = crossent.cross_entropy_value_and_grad(wide, target)
        in_place = x.copy()
        crossent.cross_entropy_value_and_grad(in_place, target, out=in_place)
        assert_same_bits(in_place, expected.astype(narrow_dtype), f"gradient of {classes} in place")


@pytest.mark.parametrize("classes", [641, 704, 721, 1264, 1280, 1281])
def test_16_bit_rows_of_some_hundred_classes_are_right(classes, narrow_dtype):
    x = normal((13, classes), narrow_dtype)
    for name in ("softmax", "log_softmax"):
        wide = getattr(crossent, name)(x, out=np.zeros(x.shape, FLOAT32))
        assert_ulps(wide, getattr(reference, name)(x), limit(name, FLOAT32), note=name)
        assert_same_bits(getattr(crossent, name)(x), wide.astype(narrow_dtype), name)


# --- all 65536 numbers of 16 bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "other"), [(2, 0.0), (2, 1.0), (2, -3.5), (2, 100.0), (5, 0.0), (8, -3.5)])
def test_every_16_bit_number_beside_other_classes(classes, other, narrow_dtype):
    rows = np.full((65536, classes), other, narrow_dtype)
    rows[:, 0] = np.arange(65536, dtype=np.uint16).view(narrow_dtype)
    for name in ("softmax", "log_softmax"):
        expected = getattr(reference, name)(rows)
        assert_ulps(getattr(crossent, name)(rows), expected, 0, note=name)
        in_place = rows.copy()
        assert_ulps(getattr(crossent, name)(in_place, out=in_place), expected, 0, note=f"{name} in place")
        wide = getattr(crossent, name)(rows, out=np.zeros(rows.shape, FLOAT32))
        assert_ulps(wide, expected, limit(name, FLOAT32), note=f"{name} unrounded")
    scale = reference.logsumexp_scale(rows)
    assert_ulps(crossent.logsumexp(rows), reference.logsumexp(rows), limit("logsumexp", FLOAT32), scale)


@pytest.mark.parametrize("other", [0.0, 1.0, -3.5, 100.0])
@pytest.mark.parametrize("label", [0, 1])
def test_every_16_bit_number_in_a_loss(label, other, narrow_dtype):
    rows = np.full((65536, 2), other, narrow_dtype)
    rows[:, 0] = np.arange(65536, dtype=np.uint16).view(narrow_dtype)
    target = np.full(65536, label)
    losses, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
    assert_ulps(losses, reference.cross_entropy(rows, target, reduction="none"), limit("loss", narrow_dtype))
    expected, _ = reference.cross_entropy_backward(np.ones(65536), rows, target, reduction="none")
    assert_ulps(gradient, expected, 0)
    for x in (rows.copy(), np.array(rows, order="F")):
        crossent.cross_entropy_value_and_grad(x, target, reduction="none", out=x)
        assert_ulps(x, expected, 0, note="in place")
    wide = np.zeros(rows.shape, FLOAT32)
    crossent.cross_entropy_value_and_grad(rows, target, reduction="none", out=wide)
    assert_index_gradient(wide, expected, target, "unrounded")
    finite = np.isfinite(widen(rows[:, 0]))
    mean = reference.cross_entropy(rows[finite], target[finite])
    assert_ulps(crossent.cross_entropy(rows[finite], target[finite]), mean, limit("reduced loss", FLOAT32))
