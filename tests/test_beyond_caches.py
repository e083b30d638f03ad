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
    if request.param and request.node.callspec.params["simd"] == "baseline":
        pytest.skip("writes nothing past the caches, and so no rows in turns")
    before = _core.fetches_far()
    _core.set_fetches_far(request.param)
    yield
    _core.set_fetches_far(before)


# Columns are written past the caches where a class's elements begin and end with cache lines and all of them take 8 MB (21
# classes of 111232) or, of many classes, 0.8 MB (100 of 2624, or of 1328 in float64); 111235, 6003 and 300 are not, and 300
# are not fetched before.
@pytest.mark.parametrize(
    ("classes", "columns", "dtype"),
    [
        (21, 111232, np.float32),
        (21, 111235, np.float32),
        (21, 300, np.float32),
        (100, 2624, np.float32),
        (100, 6003, np.float32),
        (100, 1328, np.float64),
    ],
)
@pytest.mark.parametrize("offset", [0, 8])
def test_many_columns_have_the_bits_of_rows(classes, columns, dtype, offset):
    """The class axis first, arrays at any place in a cache line: in `out` and in place."""
    x, grad = normal((classes, columns), dtype), normal((classes, columns), dtype, 1)
    rows, grad_rows, out = np.ascontiguousarray(x.T), np.ascontiguousarray(grad.T), placed_at(offset, x)
    target = np.arange(columns) % classes

    def losses_and_result(name, x, grad, axis, out):
        if name == "gradient":
            return crossent.cross_entropy_value_and_grad(x, target, axis=axis, reduction="none", out=out)
        arrays = (grad, x) if name.endswith("backward") else (x,)
        return np.empty(0), getattr(crossent, name)(*arrays, axis, out=out)

    for name in ("softmax", "log_softmax", "softmax_backward", "log_softmax_backward", "gradient"):
        losses, result = losses_and_result(name, rows, grad_rows, 1, np.empty_like(rows))
        for source in (x, out):
            out[...] = x
            same_losses, same = losses_and_result(name, source, grad, 0, out)
            assert_same_bits(same, np.ascontiguousarray(result.T), f"{name}, in place: {source is out}")
            assert_same_bits(same_losses, losses, f"losses, in place: {source is out}")
    assert_same_bits(crossent.logsumexp(x, 0), crossent.logsumexp(rows))


def test_few_numbers_behind_the_class_axis():
    """Many short runs of columns, each a part of a large array that begins and ends with cache lines."""
    x = normal((4096, 32, 16), np.float32)
    expected = np.moveaxis(crossent.softmax(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)
    out = placed_at(0, x)
    crossent.softmax(x, 1, out=out)
    assert_same_bits(out, np.ascontiguousarray(expected))


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
    in_place = {
        "softmax": crossent.softmax,
        "log_softmax": crossent.log_softmax,
        "softmax_backward": lambda grad, out=None: crossent.softmax_backward(grad, many[: len(grad)], out=out),
    }
    for name, function in in_place.items():
        np.copyto(placed, many)
        assert_repeats(function(placed, out=placed), function(x), f"{name} in place")


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
        again = x.copy()
        for logits, out in ((x, None), (x, np.empty_like(x)), (again, again)):
            same, _ = crossent.cross_entropy_value_and_grad(logits, target, weight=weight, reduction=reduction, out=out)
            assert same == loss
        if reduction == "sum":
            assert loss == np.nextafter(256.0, 257)  # 256 * (1 + 2**-53 + 2**-120), above a tie
