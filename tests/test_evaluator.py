"""Evaluator: against plain NumPy, and the same bits for every split, order and merge tree of the samples."""

import math
import pickle
import sys
import tracemalloc
from fractions import Fraction

import crossent
import numpy as np
import pytest
import reference
from crossent import _evaluator
from helpers import FLOAT32, layouts, normal
from test_token_log_probs import choose

pytestmark = pytest.mark.usefixtures("simd")

IGNORED = -100


def samples(shape, dtype, axis=-1):
    logits = normal(shape, dtype)
    target = choose(logits, axis)
    target.flat[::4] = IGNORED
    return logits, target


def test_the_result_is_that_of_the_formula(dtype):
    for shape, axis in (((40, 9), -1), ((3, 70, 5), 1), ((2, 6, 100), -1), ((5, 5000), -1)):
        logits, target = samples(shape, dtype, axis)
        result = crossent.Evaluator(top_k=(1, 2, 5)).update(logits, target, axis).result()
        kept = (target != IGNORED).ravel()
        stats = reference.logit_stats(logits, np.where(target == IGNORED, 0, target), axis)
        losses, ranks = -stats["target_log_prob"].ravel()[kept], stats["target_rank"].ravel()[kept]
        assert result.count == kept.sum()
        assert abs(result.loss - losses.mean()) <= 1e-6 * losses.mean()
        assert result.perplexity == math.exp(result.loss)
        assert result.accuracy == {k: (ranks < k).mean() for k in (1, 2, 5)}


def test_the_loss_is_the_correctly_rounded_mean():
    logits, target = normal((1000, 3), np.dtype("float64")), np.zeros(1000, int)
    result = crossent.Evaluator().update(logits, target).result()
    losses = -crossent.token_log_probs(logits, target)
    assert result.loss == float(sum(Fraction(float(loss)) for loss in losses) / 1000)


@pytest.mark.parametrize("classes", [3, 60])
def test_every_split_order_and_merge_tree_gives_the_same_bits(classes, dtype):
    logits, target = samples((200, classes), dtype)
    expected = crossent.Evaluator().update(logits, target).result()
    rng = np.random.default_rng(1)
    for _ in range(5):
        order = rng.permutation(200)
        cuts = np.sort(rng.integers(0, 201, 7))
        parts = [crossent.Evaluator().update(logits[i], target[i]) for i in np.split(order, cuts)]
        while len(parts) > 1:
            first, second = (parts.pop(rng.integers(len(parts))) for _ in range(2))
            parts.append(first.merge(second))
        assert parts[0].result() == expected


def test_layouts_and_axes_give_the_same_bits(dtype):
    logits, target = samples((6, 50), dtype)
    expected = crossent.Evaluator().update(logits, target).result()
    for layout, arranged in layouts(logits):
        assert crossent.Evaluator().update(arranged, target).result() == expected, layout
    assert crossent.Evaluator().update(logits.T, target, 0).result() == expected


def test_update_and_merge_return_the_evaluator_itself():
    evaluator, other = crossent.Evaluator(), crossent.Evaluator()
    assert evaluator.update([[1.0, 2.0]], [1]) is evaluator
    assert evaluator.merge(other) is evaluator
    assert evaluator.result().count == 1


def test_pieces_of_a_large_array_give_the_same_bits(monkeypatch, dtype):
    """Arrays beyond BLOCK_BYTES are taken in pieces; here every few rows are one."""
    for shape, axis in (((30, 40), -1), ((7, 40, 6), 1), ((40, 30), 0), ((2, 3, 4, 50), -1)):
        logits, target = samples(shape, dtype, axis)
        for order in "CF":
            arranged = np.asarray(logits, order=order)
            expected = crossent.Evaluator().update(arranged, target, axis).result()
            with monkeypatch.context() as patch:
                patch.setattr(_evaluator, "BLOCK_BYTES", 1000)
                assert crossent.Evaluator().update(arranged, target, axis).result() == expected


def test_memory_mapped_arrays(tmp_path, dtype):
    logits, target = samples((50, 30), dtype)
    mapped = np.memmap(tmp_path / "logits", dtype, "w+", shape=logits.shape)
    mapped[...] = logits
    expected = crossent.Evaluator().update(logits, target).result()
    assert crossent.Evaluator().update(mapped, target).result() == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs sparse files")
def test_a_memory_mapped_array_is_not_converted_as_a_whole(tmp_path):
    """300 MB of zeros in a byte order that the kernels do not take."""
    mapped = np.memmap(tmp_path / "logits", ">f4", "w+", shape=(1500, 50_000))
    tracemalloc.start()
    try:
        result = crossent.Evaluator().update(mapped, np.full(1500, 7)).result()
        assert tracemalloc.get_traced_memory()[1] < 2 * _evaluator.BLOCK_BYTES
    finally:
        tracemalloc.stop()
    assert result.loss == pytest.approx(math.log(50_000), rel=1e-12)


def test_pickles_go_on_where_they_were(dtype):
    logits, target = samples((20, 7), dtype)
    whole = crossent.Evaluator(top_k=3).update(logits, target)
    half = pickle.loads(pickle.dumps(crossent.Evaluator(top_k=3).update(logits[:10], target[:10])))
    assert half.update(logits[10:], target[10:]).result() == whole.result()


@pytest.mark.no_kernel
def test_nothing_to_average_is_nan():
    for evaluator in (crossent.Evaluator(), crossent.Evaluator().update(np.zeros((0, 3)), np.zeros(0, int))):
        result = evaluator.result()
        assert result.count == 0
        assert math.isnan(result.loss) and math.isnan(result.perplexity)
        assert all(math.isnan(share) for share in result.accuracy.values())


def test_only_ignored_samples_are_as_good_as_none():
    result = crossent.Evaluator(7).update(np.full((3, 2), np.nan), [7, 7, 7]).result()
    assert result.count == 0 and math.isnan(result.loss)


@pytest.mark.parametrize(("row", "loss"), [([-np.inf, 0.0], math.inf), ([math.nan, 0.0], math.nan)])
def test_infinite_and_nan_losses_stay(row, loss):
    result = crossent.Evaluator().update([[0.0, 0.0]], [0]).update([row], [0]).result()
    assert result.count == 2
    np.testing.assert_equal(result.loss, loss)
    np.testing.assert_equal(result.perplexity, loss)


def test_a_perplexity_beyond_float64_is_infinite():
    assert crossent.Evaluator().update([[2000.0, 0.0]], [1]).result().perplexity == math.inf


@pytest.mark.parametrize("large", [False, True])
def test_an_error_leaves_the_evaluator_as_it_was(large, monkeypatch):
    if large:
        monkeypatch.setattr(_evaluator, "BLOCK_BYTES", 100)
    logits, target = samples((20, 5), FLOAT32)
    evaluator = crossent.Evaluator().update(logits, target)
    before = evaluator.result()
    wrong = target.copy()
    wrong[13] = 5
    with pytest.raises(IndexError, match=r"target 5 at position \(13,\)"):
        evaluator.update(logits, wrong)
    with pytest.raises(ValueError, match=r"(?s)\(19,\).*\(20, 5\)"):
        evaluator.update(logits, target[1:])
    with pytest.raises(np.exceptions.AxisError):
        evaluator.update(logits, target, 2)
    assert evaluator.result() == before


@pytest.mark.no_kernel
def test_senseless_evaluators():
    for bad in (0, (1, 0), -1):
        with pytest.raises(ValueError, match="top_k"):
            crossent.Evaluator(top_k=bad)
    with pytest.raises(ValueError, match=r"\(1, 5\) and \(2,\)"):
        crossent.Evaluator().merge(crossent.Evaluator(top_k=2))
    with pytest.raises(TypeError, match="must be an Evaluator, not int"):
        crossent.Evaluator().merge(3)


def test_top_k_is_a_number_or_any_sequence_of_them():
    logits, target = [[1.0, 3.0, 2.0]], [2]
    for top_k in ([1, 2], (1, 2), np.array([1, 2]), range(1, 3)):
        assert crossent.Evaluator(top_k=top_k).update(logits, target).result().accuracy == {1: 0.0, 2: 1.0}
    assert crossent.Evaluator(top_k=np.int32(2)).update(logits, target).result().accuracy == {2: 1.0}
