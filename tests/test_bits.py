"""The same bits on AVX2, AVX-512 and NEON: hashes of the results of fixed inputs, in bits.json.

The inputs are made by integer arithmetic, so that they are equal on every machine. The baseline, which has no FMA, is exempt.
A kernel that changes its last bits on purpose changes the table: `python tests/test_bits.py` writes it anew.
"""

import hashlib
import json
from pathlib import Path

import crossent
import numpy as np
import pytest
from crossent import _core
from helpers import BFLOAT16, FORMATS, accumulator, assert_same_bits, available_dtypes, bits, widen

TABLE = Path(__file__).parent / "bits.json"
WITH_FMA = [name for name in crossent.simd_targets() if name != "baseline"]
CLASS_COUNTS = [1, 2, 3, 7, 10, 16, 17, 33, 64, 100, 257, 1000, 4097, 50257]
ROWS = 5

every_set_with_fma = pytest.mark.parametrize("simd", WITH_FMA, indirect=True)


# --- inputs -----------------------------------------------------------------------------------------------------------


def hashed_integers(count, seed):
    """`count` 64-bit integers that look random (the finalizer of SplitMix64, of a counter)."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed * 2**32 + 1)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def numbers(shape, dtype, seed, exponents=(-6, 4)):
    """Numbers of either sign with random mantissas, and exponents of 2 in [first, last), assembled from integers."""
    digits, lowest = FORMATS[dtype.name]
    random = hashed_integers(int(np.prod(shape)), seed)
    mantissa = random >> np.uint64(64 - (digits - 1))
    first, last = exponents
    exponent = first + (random & np.uint64(0xFFFF)).astype(np.int64) % (last - first) - lowest + 1  # biased
    sign = (random >> np.uint64(16)) & np.uint64(1)
    pattern = (
        (sign << np.uint64(8 * dtype.itemsize - 1)) | (exponent.astype(np.uint64) << np.uint64(digits - 1)) | mantissa
    )
    return pattern.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape)


def logits_of(classes, dtype, seed=0):
    """Rows of ordinary, confident, far, impossible and wide logits, in this order."""
    x = numbers((ROWS, classes), dtype, seed)
    x[1, classes // 2] = 24
    x[2] = numbers(classes, dtype, seed + 1, (8, 9))
    x[3, ::3] = -np.inf
    x[4] = numbers(classes, dtype, seed + 2, (-6, 8))
    return x


def labels_of(classes):
    return (hashed_integers(ROWS, 7) % np.uint64(classes)).astype(np.int64)


def results_of(classes, dtype):
    """{function and options: result}."""
    x, labels, wide = logits_of(classes, dtype), labels_of(classes), accumulator(dtype)
    grad, upstream = numbers(x.shape, dtype, 11), numbers(ROWS, wide, 12)
    weight, q = abs(numbers(classes, wide, 13, (-2, 2))), abs(numbers(x.shape, dtype, 14, (-12, -1)))
    y, log_y = -abs(numbers(x.shape, dtype, 15, (-12, 0))), -abs(numbers(x.shape, dtype, 16))
    results = {
        "softmax": crossent.softmax(x),
        "softmax along axis 0": crossent.softmax(np.ascontiguousarray(x.T), axis=0),
        "log_softmax": crossent.log_softmax(x),
        "logsumexp": crossent.logsumexp(x),
        "softmax_backward": crossent.softmax_backward(grad, abs(y)),
        "log_softmax_backward": crossent.log_softmax_backward(grad, log_y),
        "nll_loss_backward": crossent.nll_loss_backward(upstream, log_y, labels, weight=weight, reduction="none"),
    }
    targets = {
        "indices": (labels, {}),
        "weighted indices": (labels, {"weight": weight}),
        "smoothed indices": (labels, {"weight": weight, "label_smoothing": 0.125}),
        "smoothed unweighted indices": (labels, {"label_smoothing": 0.125}),
        "probabilities": (q, {}),
        "smoothed probabilities": (q, {"label_smoothing": 0.125}),
        "weighted probabilities": (q, {"weight": weight, "label_smoothing": 0.125}),
    }
    for name, (target, options) in targets.items():
        losses, gradient = crossent.cross_entropy_value_and_grad(x, target, reduction="none", **options)
        results[f"cross_entropy of {name}"] = losses
        results[f"gradient of {name}"] = gradient
        # The first two rows alone: an impossible target would make the mean infinite.
        results[f"mean of {name}"] = crossent.cross_entropy(x[:2], target[:2], **options)
        results[f"backward of {name}"] = crossent.cross_entropy_backward(
            upstream, x, target, reduction="none", **options
        )
    results |= scores_of(x, labels, numbers(x.shape, dtype, 17))
    for reduction in ("none", "mean", "sum"):
        results[f"nll_loss {reduction}"] = crossent.nll_loss(log_y, labels, weight=weight, reduction=reduction)
    return results


def scores_of(x, labels, noise):
    """The scores of section 2 of the interface; `noise` is what another model's logits differ by."""
    classes, wide = x.shape[1], accumulator(x.dtype)
    stats = crossent.logit_stats(x, labels, top_k=min(classes, 20))
    other = (x.astype(wide) + wide.type(0.25) * noise.astype(wide)).astype(x.dtype)
    divergences, gradient = crossent.kl_divergence_value_and_grad(x, other, reduction="none")
    _, tempered = crossent.kl_divergence_value_and_grad(x, other, temperature=1.5, reduction="none")
    return {
        "token_log_probs": crossent.token_log_probs(x, labels),
        "token_log_probs of several": crossent.token_log_probs(x, np.stack([labels, labels // 2], axis=1)),
        **{f"logit_stats {name}": field for name, field in stats._asdict().items()},
        "top 3": crossent.logit_stats(x, top_k=min(classes, 3)).top_indices,
        "kl_divergence": divergences,
        "kl_divergence at temperature": crossent.kl_divergence(x, other, temperature=1.5, reduction="none"),
        "kl_divergence along axis 0": crossent.kl_divergence(
            np.asfortranarray(x.T), np.ascontiguousarray(other.T), 0, reduction="none"
        ),
        "gradient of kl_divergence": gradient,
        "gradient of kl_divergence at temperature": tempered,
        "evaluator": np.array(crossent.Evaluator().update(x[:2], labels[:2]).result().loss),
    }


def inputs_hash(dtype):
    arrays = [array for classes in CLASS_COUNTS for array in (logits_of(classes, dtype), labels_of(classes))]
    return short_hash(np.concatenate([np.frombuffer(bits(a), np.uint8) for a in arrays]))


def current_table(dtypes):
    """{dtype: {function: one short hash for each class count}}."""
    table = {}
    for dtype in dtypes:
        by_count = [results_of(classes, dtype) for classes in CLASS_COUNTS]
        table[dtype.name] = {name: " ".join(short_hash(results[name]) for results in by_count) for name in by_count[0]}
    return table


def short_hash(result):
    """Of the values as little-endian bytes."""
    raw = np.frombuffer(bits(result), f"u{np.asarray(result).dtype.itemsize}")
    return hashlib.sha256(raw.astype(raw.dtype.newbyteorder("<")).tobytes()).hexdigest()[:8]


def at_byte_offset(x, offset):
    """A copy of x that begins `offset` bytes into its memory."""
    moved = np.zeros(x.nbytes + offset, np.uint8)[offset:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


# --- tests ------------------------------------------------------------------------------------------------------------


@every_set_with_fma
@pytest.mark.usefixtures("simd")
def test_bits_are_those_of_the_table(dtype):
    expected = json.loads(TABLE.read_text())["hashes"][dtype.name]
    actual = current_table([dtype])[dtype.name]
    assert actual.keys() == expected.keys()
    different = {
        name: [n for n, a, b in zip(CLASS_COUNTS, actual[name].split(), expected[name].split(), strict=True) if a != b]
        for name in expected
        if actual[name] != expected[name]
    }
    assert not different, (
        f"other bits for these numbers of classes (on purpose? python tests/test_bits.py): {different}"
    )


def test_the_inputs_are_those_of_the_table(dtype):
    """Else the table says nothing about the results."""
    assert inputs_hash(dtype) == json.loads(TABLE.read_text())["inputs"][dtype.name]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [3, 16, 33, 1001])
@pytest.mark.usefixtures("simd")
def test_rows_with_target_probabilities_keep_their_bits_alone_and_at_every_alignment(classes, weighted, dtype):
    """test_layouts.py shows the same of class indices."""
    x, q = logits_of(classes, dtype), abs(numbers((ROWS, classes), dtype, 14, (-12, -1)))
    options = {"reduction": "none"}
    if weighted:
        options |= {"weight": abs(numbers(classes, accumulator(dtype), 13, (-2, 2))), "label_smoothing": 0.125}
    losses, gradient = crossent.cross_entropy_value_and_grad(x, q, **options)
    for offset in range(0, 64, 3):
        logits, targets = at_byte_offset(x, offset), at_byte_offset(q, 63 - offset)
        for rows in (slice(0, ROWS), slice(offset % ROWS, offset % ROWS + 1)):
            loss, result = crossent.cross_entropy_value_and_grad(logits[rows], targets[rows], **options)
            assert_same_bits(loss, losses[rows], f"byte offset {offset}, {rows}")
            assert_same_bits(result, gradient[rows], f"byte offset {offset}, {rows}")


@pytest.mark.skipif(len(WITH_FMA) < 2, reason="needs two instruction sets with FMA")
def test_every_set_with_fma_gives_the_same_bits_on_random_inputs(dtype):
    previous = crossent.simd_target()
    try:
        results = {}
        for name in WITH_FMA:
            _core.select_simd(name)
            results[name] = [results_of(classes, dtype) for classes in range(1, 70)]
    finally:
        _core.select_simd(previous)
    first, *others = results
    for other in others:
        for one, two in zip(results[first], results[other], strict=True):
            for name, result in one.items():
                assert_same_bits(result, two[name], f"{name} on {first} and {other}")


def test_inputs_have_the_exponents_asked_for(dtype):
    x = widen(numbers(1000, dtype, 3, (-6, 4)))
    assert (np.unique(np.floor(np.log2(abs(x)))) == np.arange(-6, 4)).all()
    assert (np.unique(np.sign(x)) == [-1, 1]).all()
    assert len(np.unique(x)) > 500


def write_table():
    if not WITH_FMA:
        raise SystemExit("this machine has only the baseline, whose bits are not those of the other instruction sets")
    dtypes = available_dtypes()
    if BFLOAT16 is None:
        raise SystemExit("the table has bfloat16 results: pip install ml_dtypes")
    table = {"inputs": {dtype.name: inputs_hash(dtype) for dtype in dtypes}, "hashes": current_table(dtypes)}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{TABLE}: written on {crossent.simd_target()}")


if __name__ == "__main__":
    write_table()
