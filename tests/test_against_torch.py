"""Agreement with torch.nn.functional in float64: the full cross product of loss options, values and gradients.

PyTorch computes in float64 on the exact same numbers; float32 and 16-bit results must then be right to a few ULP of their
own dtype, float64 results to what PyTorch itself keeps. The documented differences have a test of their own at the end.
"""

import functools

import crossent
import numpy as np
import pytest
import reference
from cases import KINDS, all_cases
from helpers import FLOAT64, accumulator, assert_ulps, limit, normal, round_to, widen

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.usefixtures("simd")
TORCH_ERROR = 16  # ULP of float64 that PyTorch may be off by, on rows of seven classes
IGNORINGS = ("nothing", "default", "a class")  # an empty mean has another gradient: see the last tests


def tensor(array):
    """Any dtype, exactly, as float64 (or int64) tensor of its own."""
    array = np.asarray(array)
    return torch.tensor(array.astype(np.int64 if array.dtype.kind in "iu" else np.float64))


def torch_options(case_options):
    weight = case_options.get("weight")
    return {**case_options, **({} if weight is None else {"weight": tensor(weight)})}


def torch_loss(function, x, target, grad, options):
    """(loss, gradient for grad) by autograd."""
    x = tensor(x).requires_grad_()
    loss = function(x, tensor(target), **torch_options(options))
    loss.backward(tensor(grad))
    return loss.detach().numpy(), x.grad.numpy()


def assert_agrees(actual, theirs, kind, dtype, scale=None, note=""):
    """Within the limit of `kind`; float64 with room for PyTorch's own errors, at the size of the numbers it adds up."""
    ulps = limit(kind, dtype) + 1
    if dtype == FLOAT64:
        ulps, scale = ulps + TORCH_ERROR, np.maximum(abs(theirs) if scale is None else scale, 1.0)
    assert_ulps(actual, theirs, ulps, scale, note)


def assert_loss_and_gradient(loss, gradient, case, theirs, scale):
    dtype = case.logits.dtype
    assert np.asarray(loss).dtype == accumulator(dtype), case.name
    assert gradient.dtype == dtype, case.name
    assert_agrees(loss, theirs[0], "loss", dtype, note=case.name)
    assert_agrees(gradient, theirs[1], "mixed gradient", dtype, scale, case.name)


@functools.cache
def solved_cross_entropy(rank, dtype, kind):
    """Each case with PyTorch's (loss, gradient) and the size of the gradient's terms."""
    solved = []
    for case in all_cases(rank, dtype, kind, ignorings=IGNORINGS):
        theirs = torch_loss(F.cross_entropy, case.logits, case.target, case.grad, case.all_options)
        _, scale = reference.cross_entropy_backward(case.grad, case.logits, case.target, **case.all_options)
        solved.append((case, theirs, scale))
    return solved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", range(1, 6))
def test_cross_entropy_of_every_combination(rank, kind, dtype):
    for case, theirs, scale in solved_cross_entropy(rank, dtype, kind):
        arguments = case.logits, case.target
        loss = crossent.cross_entropy(*arguments, **case.all_options)
        gradient = crossent.cross_entropy_backward(case.grad, *arguments, **case.all_options)
        assert_loss_and_gradient(loss, gradient, case, theirs, scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", range(1, 6))
def test_fused_cross_entropy_of_every_combination(rank, kind, dtype):
    for case, theirs, scale in solved_cross_entropy(rank, dtype, kind):
        if case.options["reduction"] == "none":
            continue  # the gradient of the sum: that is the case "sum"
        loss, gradient = crossent.cross_entropy_value_and_grad(case.logits, case.target, **case.all_options)
        theirs = theirs[0], theirs[1] / case.grad
        assert_loss_and_gradient(loss, gradient, case, theirs, scale / case.grad)


@functools.cache
def solved_nll_loss(rank, dtype):
    solved = []
    for case in all_cases(rank, dtype, "indices", smoothings=(0.0,), ignorings=IGNORINGS):
        theirs = torch_loss(F.nll_loss, case.logits, case.target, case.grad, case.options)
        solved.append((case, theirs))
    return solved


@pytest.mark.no_kernel
@pytest.mark.parametrize("rank", range(1, 6))
def test_nll_loss_of_every_combination(rank, dtype):
    for case, theirs in solved_nll_loss(rank, dtype):
        loss = crossent.nll_loss(case.logits, case.target, **case.options)
        size = None if case.options["reduction"] == "none" else 2 * abs(widen(case.logits)).max()  # sums may cancel
        assert_agrees(loss, theirs[0], "loss", dtype, size, case.name)
        gradient = crossent.nll_loss_backward(case.grad, case.logits, case.target, **case.options)
        assert_agrees(gradient, theirs[1], "product", dtype, abs(theirs[1]), case.name)


@pytest.mark.parametrize("rank", range(1, 6))
def test_array_functions(rank, dtype):
    x = normal((3, 4, 2, 5, 2)[:rank], dtype)
    for axis in range(-rank, rank):
        for name in ("softmax", "log_softmax", "logsumexp"):
            theirs = getattr(torch, name)(tensor(x), axis).numpy()
            scale = reference.logsumexp_scale(x, axis) if name == "logsumexp" else None
            assert_agrees(getattr(crossent, name)(x, axis), theirs, name, dtype, scale, f"{name} axis={axis}")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_array_functions_backward(name, dtype):
    backward = getattr(torch.ops.aten, f"_{name}_backward_data")
    for shape, axis in [((5,), 0), ((3, 4), 0), ((3, 4), 1), ((3, 4, 5), 1)]:
        grad = normal(shape, dtype, seed=1)
        y = round_to(getattr(reference, name)(normal(shape, dtype), axis), dtype)  # our input: its rounding is no error
        theirs = backward(tensor(grad), tensor(y), axis, torch.float64).numpy()
        _, scale = getattr(reference, f"{name}_backward")(grad, y, axis)
        result = getattr(crossent, f"{name}_backward")(grad, y, axis)
        assert_agrees(result, theirs, "mixed gradient", dtype, scale, f"{name} {shape} axis={axis}")


# --- where this library differs on purpose --------------------------------------------------------------------------


def test_difference_zero_weight_of_an_impossible_class():
    """0 * (-inf): PyTorch gives NaN, here 0."""
    logits, p = np.array([[0.0, -np.inf, 1.0]]), np.array([[0.25, 0.0, 0.75]])
    assert torch.isnan(F.cross_entropy(tensor(logits), tensor(p)))
    expected = float(F.cross_entropy(tensor(logits[:, [0, 2]]), tensor(p[:, [0, 2]])))
    assert crossent.cross_entropy(logits, p) == pytest.approx(expected, rel=1e-15)


def test_difference_ignored_rows_are_not_read():
    logits, target = np.array([[np.nan, 0.0], [0.0, 1.0]]), np.array([-100, 1])
    _, theirs = torch_loss(F.cross_entropy, logits, target, 1.0, {})
    assert np.isnan(theirs[0]).any()
    _, gradient = crossent.cross_entropy_value_and_grad(logits, target)
    assert not gradient[0].any()
    np.testing.assert_allclose(gradient[1], theirs[1], rtol=1e-15)


def test_difference_gradient_of_an_empty_mean():
    logits, target = np.zeros((2, 3)), np.array([-100, -100])
    loss, theirs = torch_loss(F.cross_entropy, logits, target, 1.0, {})
    assert np.isnan(loss)
    ours, gradient = crossent.cross_entropy_value_and_grad(logits, target)
    assert np.isnan(ours)
    assert not gradient.any()
    assert np.isnan(theirs).any() or not theirs.any()


def test_difference_confident_rows():
    logits = np.array([[30.0, 0.0, 0.0]], np.float32)
    theirs = F.cross_entropy(torch.tensor(logits), torch.tensor([0]))
    assert float(theirs) == 0
    assert f"{crossent.cross_entropy(logits, [0]):.4e}" == "1.8715e-13"


def test_impossible_target_has_infinite_loss_and_pytorchs_gradient():
    logits, target = np.array([[0.0, -np.inf, 1.0]]), np.array([1])
    for smoothing in (0.0, 0.1):
        options = {"label_smoothing": smoothing}
        loss, theirs = torch_loss(F.cross_entropy, logits, target, 1.0, options)
        ours, gradient = crossent.cross_entropy_value_and_grad(logits, target, **options)
        assert loss == ours == np.inf
        np.testing.assert_allclose(gradient, theirs, rtol=1e-14)
