"""Outputs that are written past the caches have the same bits as all others."""

import crossent
import numpy as np
import pytest
from crossent import _core
from helpers import assert_same_bits, normal

pytestmark = pytest.mark.usefixtures("simd")


@pytest.fixture(autouse=True, params=[False, True], ids=["near", "far"])
def fetching(request):
    """As on processors of either kind: how far ahead memory is fetched, and whether long rows are written in turns."""
    before = _core.fetches_far()
    _core.set_fetches_far(request.param)
    yield
    _core.set_fetches_far(before)


# Columns are written past the caches where a class's elements begin and end with cache lines and all of them take 8 MB (21
# classes of 111232) or, of many classes, less (100 of 2624); 111235, 2627 and 300 are not.
@pytest.mark.parametrize(("classes", "columns"), [(21, 111232), (21, 111235), (21, 300), (100, 2624), (100, 2627)])
@pytest.mark.parametrize("offset", [0, 4, 16, 64])
def test_many_columns_have_the_bits_of_rows(classes, columns, offset):
    """The class axis first, arrays at any place in a cache line: in a new array, in `out` and in place."""
    x = normal((classes, columns), np.float32)
    rows, target = np.ascontiguousarray(x.T), np.arange(columns) % classes
    loss, gradient = crossent.cross_entropy_value_and_grad(rows, target, reduction="none")
    functions = {name: getattr(crossent, name) for name in ("softmax", "log_softmax", "logsumexp")}
    expected = {name: np.ascontiguousarray(function(rows).T) for name, function in functions.items()}
    raw = np.zeros(x.nbytes + 256, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    placed = raw[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    placed[...] = x
    for name, function in functions.items():
        assert_same_bits(function(placed, 0), expected[name], name)
    out = np.full_like(x, np.nan)
    losses, _ = crossent.cross_entropy_value_and_grad(placed.T, target, reduction="none", out=out.T)
    assert_same_bits(losses, loss)
    assert_same_bits(np.ascontiguousarray(out.T), gradient)
    assert_same_bits(crossent.softmax(placed, 0, out=placed), expected["softmax"], "in place")


def rows_of_all_kinds(classes, dtype):
    """Rows that a kernel takes in different ways, with targets for them: the sixth is ignored, the ninth is ordinary."""
    x = normal((9, classes), dtype)
    x[1] += 10**6
    x[2] = np.linspace(0, 500, classes)  # the largest is the last one
    x[3, classes // 2] = 300  # grows far beyond what exponentials are taken relative to
    x[4, ::2] = -np.inf
    x[6] = -np.inf
    x[7, 9] = np.nan
    return x, np.array([0, 3, 9999, classes - 1, 1, -100, 5, 6, classes - 2])


def placed_at(offset, like):
    """An array of the shape and dtype, `offset` bytes into a cache line."""
    raw = np.empty(like.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


def assert_repeats(large, small, note):
    """The rows of `large` are those of `small` again and again, to the last bit."""
    nan = np.isnan(small)
    expected = np.where(nan, 0, small).view(f"u{small.dtype.itemsize}")
    blocks = large.reshape(-1, *small.shape)
    assert (np.isnan(blocks) == nan).all(), note
    assert (np.where(nan, 0, blocks).view(expected.dtype) == expected).all(), note


@pytest.mark.parametrize("offset", [0, 2, 8])
def test_results_too_large_for_the_caches_have_the_bits_of_small_ones(offset, wider_dtype):
    """Arrays of more than 32 MB with rows of more than 64 KB are written past the caches, where memory is fetched far ahead
    each while the next one is read; but into new memory they are not."""
    classes = 16411
    x, target = rows_of_all_kinds(classes, wider_dtype)
    repeats = -(-(2**25) // x.nbytes) + 1
    many, targets = np.tile(x, (repeats, 1)), np.tile(target, repeats)
    placed = placed_at(offset, many)
    probabilities = crossent.softmax(normal(x.shape, wider_dtype, 1))
    weight = np.abs(normal(classes, np.float64))

    def results(logits, labels):
        shares = np.tile(probabilities, (len(logits) // len(x), 1))

        def gradient(out, labels=labels, **options):
            return crossent.cross_entropy_value_and_grad(logits, labels, reduction="sum", out=out, **options)[1]

        def gradient_in_shares(out):
            return gradient(None if out is None else shares, shares)

        yield "softmax", lambda out: crossent.softmax(logits, out=out)
        yield "log_softmax", lambda out: crossent.log_softmax(logits, out=out)
        yield "gradient", gradient
        yield "weighted gradient", lambda out: gradient(out, weight=weight.astype(wider_dtype))
        yield "smooth gradient", lambda out: gradient(out, label_smoothing=0.1)
        yield "gradient of probabilities", lambda out: gradient(out, shares)
        yield "gradient over its probabilities", gradient_in_shares
        yield "softmax_backward", lambda out: crossent.softmax_backward(logits, logits, out=out)
        yield (
            "divergence",
            lambda out: crossent.kl_divergence_value_and_grad(logits, logits[::-1], reduction="sum", out=out)[1],
        )

    for (name, small), (_, large) in zip(results(x, target), results(many, targets), strict=True):
        expected = small(None)
        assert_repeats(large(None), expected, f"{name} in new memory")
        assert_repeats(large(placed), expected, f"{name} in out")
    np.copyto(placed, many)
    assert_repeats(crossent.log_softmax(placed, out=placed), crossent.log_softmax(x), "in place")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = crossent.get_num_threads()
    crossent.set_num_threads(request.param)
    yield request.param
    crossent.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_rows_too_long_to_keep_their_exponentials_have_the_bits_of_single_ones():
    x, target = rows_of_all_kinds(262147, np.float32)
    many, targets = np.tile(x, (8, 1)), np.tile(target, 8)
    out = np.empty_like(many)
    assert_repeats(crossent.softmax(many, out=out), crossent.softmax(x), "softmax")
    expected_losses, expected = crossent.cross_entropy_value_and_grad(x, target, reduction="none")
    losses, gradient = crossent.cross_entropy_value_and_grad(many, targets, reduction="none", out=out)
    assert_repeats(gradient, expected, "gradient")
    assert_repeats(losses, expected_losses, "losses")


def test_the_sum_of_losses_does_not_depend_on_where_the_gradient_goes():
    """Long rows come in other blocks where each is written, past the caches, while the next one is read."""
    rows, classes = 300, 16411
    x = np.full((rows, classes), -1e4)
    x[:, 0] = 0
    x[:, 1:4] = -256
    target = np.full(rows, -100)
    target[:3] = 1, 2, 3
    weight = np.ones(classes)
    weight[2:4] = 2.0**-53, 2.0**-120
    for reduction in ("sum", "mean"):
        loss = crossent.cross_entropy(x, target, weight=weight, reduction=reduction)
        for out in (None, np.empty_like(x)):
            same, _ = crossent.cross_entropy_value_and_grad(x, target, weight=weight, reduction=reduction, out=out)
            assert same == loss
        if reduction == "sum":
            assert loss == np.nextafter(256.0, 257)  # 256 * (1 + 2**-53 + 2**-120), above a tie
