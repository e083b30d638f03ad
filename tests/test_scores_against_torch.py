"""Scores against PyTorch in float64: what people write there to get them."""

import crossent
import numpy as np
import pytest
import reference
from helpers import FLOAT64, assert_ulps, limit, normal, widen
from test_token_log_probs import choose

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.usefixtures("simd")

SHAPES = [(5, 7), (2, 3, 100), (3, 5000)]
TORCH_ERROR = 64  # ULP of float64, at 1, that PyTorch may be off by


def tensor(array):
    return torch.tensor(widen(array).astype(np.float64))


def assert_agrees(actual, theirs, kind, dtype, scale=0.0):
    ulps = limit(kind, dtype) + (TORCH_ERROR if dtype == FLOAT64 else 1)
    theirs = np.asarray(theirs)
    assert_ulps(actual, theirs, ulps, np.maximum(np.abs(theirs), np.maximum(scale, 1.0 if dtype == FLOAT64 else 0.0)))


@pytest.mark.parametrize("shape", SHAPES)
def test_token_log_probs(shape, dtype):
    logits = normal(shape, dtype)
    index = choose(logits, -1, 3)
    theirs = torch.log_softmax(tensor(logits), -1).gather(-1, torch.tensor(index))
    assert_agrees(crossent.token_log_probs(logits, index), theirs, "token log-prob", dtype)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 100), (3, 1000)])
def test_logit_stats(shape, dtype):
    rng, classes = np.random.default_rng(0), shape[-1]
    distinct = rng.permutation(np.unique(normal(20 * classes, dtype)))[:classes]  # PyTorch breaks ties in any way
    logits = rng.permuted(np.broadcast_to(distinct, shape), axis=-1)
    target = choose(logits, -1)
    stats = crossent.logit_stats(logits, target, top_k=5)
    theirs = tensor(logits)
    values, indices = torch.topk(torch.log_softmax(theirs, -1), 5)
    np.testing.assert_array_equal(stats.top_indices, indices)
    np.testing.assert_array_equal(stats.argmax, theirs.argmax(-1))
    assert_agrees(stats.top_log_probs, values, "token log-prob", dtype)
    assert_agrees(stats.entropy, torch.distributions.Categorical(logits=theirs).entropy(), "entropy", dtype)
    at_target = theirs.gather(-1, torch.tensor(target)[..., None])
    np.testing.assert_array_equal(stats.target_rank, (theirs > at_target).sum(-1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_kl_divergence(shape, temperature, reduction, dtype):
    p, q = normal(shape, dtype), normal(shape, dtype, seed=1)
    loss, gradient = crossent.kl_divergence_value_and_grad(p, q, temperature=temperature, reduction=reduction)
    log_p, theirs = torch.log_softmax(tensor(p) / temperature, -1), tensor(q).requires_grad_()
    log_q = torch.log_softmax(theirs / temperature, -1)
    expected = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    expected = expected.mean() if reduction == "mean" else expected
    expected.sum().backward()
    exact = reference.kl_divergence(p, q, temperature=temperature)
    size = exact.scale.mean() if reduction == "mean" else exact.scale
    assert_agrees(loss, expected.detach(), "divergence", dtype, size)
    rows = int(np.prod(shape[:-1])) if reduction == "mean" else 1
    assert_agrees(gradient, theirs.grad, "mixed gradient", dtype, exact.gradient_scale / rows)
