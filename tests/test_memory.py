"""Memory: no temporary of the logits' size, and arrays of more than 2**31 elements.

NumPy's allocations are not what matters, so the peak of the whole process is measured, in a process of its own.
"""

import subprocess
import sys

import crossent
import numpy as np
import pytest
from helpers import FLOAT16, assert_ulps, available_dtypes, limit, widen

PEAK = """
import gc, numpy as np, crossent
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
dtype = np.dtype({dtype!r}) if {dtype!r} != "bfloat16" else np.dtype(__import__("ml_dtypes").bfloat16)
shape, axis = {shape}, {axis}
x = np.zeros(shape, dtype); x[...] = 1
out = np.zeros(shape, dtype); out[...] = 2
batch = shape[:axis] + shape[axis + 1:]
target = np.zeros(batch, np.int64)
crossent.softmax(x[:2, :2].copy(), axis)  # whatever is loaded at first use
grad = np.ones(batch, np.float32 if dtype.itemsize < 8 else dtype)
before = peak()
{call}
print(peak() - before)
"""
CALLS = {
    "softmax": "crossent.softmax(x, axis, out=out)",
    "softmax in place": "crossent.softmax(x, axis, out=x)",
    "log_softmax": "crossent.log_softmax(x, axis, out=out)",
    "logsumexp": "crossent.logsumexp(x, axis)",
    "softmax_backward": "crossent.softmax_backward(x, x, axis, out=out)",
    "cross_entropy": "crossent.cross_entropy(x, target, axis=axis)",
    "value_and_grad": "crossent.cross_entropy_value_and_grad(x, target, axis=axis, out=out)",
    "backward": "crossent.cross_entropy_backward(grad, x, target, axis=axis, reduction='none', out=out)",
    "token_log_probs": "crossent.token_log_probs(x, target, axis)",
    "logit_stats": "crossent.logit_stats(x, target, axis, top_k=5)",
    "evaluator": "crossent.Evaluator().update(x, target, axis)",
    "kl_divergence": "crossent.kl_divergence_value_and_grad(x, x, axis, out=out)",
    "nll_loss": "crossent.nll_loss(x, target, axis=axis)",
    "probabilities": "crossent.cross_entropy_value_and_grad(x, x, axis=axis, label_smoothing=0.1, out=out)",
}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
@pytest.mark.parametrize("shape", [(5000, 5000), (50000, 500)])
def test_no_temporary_of_the_logits_size(shape):
    """10**8 bytes of float32; growth beyond an eighth of that would be such a temporary."""
    assert_growth_below(1.25e7, "float32", shape, -1)


@linux
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", [dtype.name for dtype in available_dtypes()])
def test_no_temporary_along_any_axis_of_any_dtype(dtype, axis):
    assert_growth_below(1.25e7, dtype, (10**8 // 5000 // np.dtype("f4").itemsize, 5000), axis)


def assert_growth_below(limit, dtype, shape, axis):
    """Run all calls one after the other: the peak counts for all of them."""
    code = PEAK.format(dtype=dtype, shape=shape, axis=axis % 2, call="\n".join(CALLS.values()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < limit


@pytest.mark.slow
@pytest.mark.usefixtures("simd")
def test_more_than_2_to_the_31_classes(narrow_dtype):
    count = 2**31 + 10
    x = np.broadcast_to(np.ones(1, narrow_dtype), (count,))
    assert_ulps(crossent.logsumexp(x), 1 + np.log(np.longdouble(count)), limit("logsumexp", narrow_dtype))


@pytest.mark.slow
def test_scores_of_more_than_2_to_the_31_classes():
    count = 2**31 + 10
    x = np.broadcast_to(np.ones(1, FLOAT16), (count,))
    stats = crossent.logit_stats(x, count - 1, top_k=2)
    assert (stats.argmax, stats.target_rank) == (0, count - 1)
    assert stats.top_indices.tolist() == [0, 1]
    for value in (stats.log_sum, stats.entropy, -stats.target_log_prob, -crossent.token_log_probs(x, count - 1)):
        assert abs(float(value) - np.log(count)) < 4e-6
    assert crossent.kl_divergence(x, x) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("simd")
def test_more_than_2_to_the_31_elements(dtype):
    """Rows that lie on each other: the last ones prove that no offset wrapped."""
    rows = 2**25 + 3
    row = np.arange(64).astype(dtype) / dtype.type(16)
    x, target = np.broadcast_to(row, (rows, 64)), np.broadcast_to(np.int8(63), (rows,))
    expected = crossent.cross_entropy(row, 63)
    losses = crossent.cross_entropy(x, target, reduction="none")
    assert losses.shape == (rows,)
    assert (losses == expected).all()
    assert_ulps(
        crossent.cross_entropy(x, target), widen(expected), 1
    )  # the sum of losses before rounding, rounded once


@pytest.mark.slow
def test_writing_beyond_2_to_the_31_elements():
    rows = 2**25 + 3
    x = np.broadcast_to(np.arange(64).astype(FLOAT16) / FLOAT16.type(16), (rows, 64))
    out = np.zeros((rows, 64), FLOAT16)  # 4.3 GB
    crossent.softmax(x, out=out)
    np.testing.assert_array_equal(out[-3:], np.tile(crossent.softmax(x[0]), (3, 1)))


def test_scratch_that_no_machine_has_is_a_memory_error_that_says_so():
    with pytest.raises(MemoryError, match="scratch"):
        crossent.logsumexp(np.broadcast_to(np.float32(0), 2**59))
