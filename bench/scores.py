"""How each library takes scores from logits: the quickest that its own functions allow, for compare.py.

A function here prepares a call, which returns a number a row; what else belongs to the scores it computes, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import crossent
import numpy as np

TOP_K = 5


def crossent_scores(function: str, problem: Any) -> Callable[[], Any]:
    x, target, second, axis = problem.x, problem.target, problem.second, problem.axis
    return {
        "token_log_probs": lambda: crossent.token_log_probs(x, target, axis),
        "logit_stats": lambda: crossent.logit_stats(x, target, axis, top_k=TOP_K).entropy,
        "kl_divergence": lambda: crossent.kl_divergence(x, second, axis, reduction="none"),
    }[function]


def torch_scores(function: str, problem: Any, tensor: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    torch, axis = importlib.import_module("torch"), problem.axis
    x, target, second = tensor(problem.x), tensor(problem.target).unsqueeze(axis), tensor(problem.second)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32

    def log_softmax(logits: Any) -> Any:
        return torch.log_softmax(logits, axis, dtype=wide)

    def logit_stats() -> Any:
        log_p = log_softmax(x)
        log_p.topk(TOP_K, axis)
        (log_p > log_p.gather(axis, target)).sum(axis)
        return -(log_p.exp() * log_p).sum(axis)

    def kl_divergence() -> Any:
        log_p, log_q = log_softmax(x), log_softmax(second)
        return torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(axis)

    return {
        "token_log_probs": lambda: x.gather(axis, target).squeeze(axis) - torch.logsumexp(x.to(wide), axis),
        "logit_stats": logit_stats,
        "kl_divergence": kl_divergence,
    }[function]


def scipy_scores(function: str, problem: Any) -> Callable[[], Any]:
    special, x, axis, picked = importlib.import_module("scipy.special"), problem.x, problem.axis, problem.picked()
    second = problem.second

    def logit_stats() -> Any:
        log_p = special.log_softmax(x, axis)
        top_and_rank(log_p, axis, picked)
        return special.entr(np.exp(log_p)).sum(axis)

    return {
        "token_log_probs": lambda: x[picked] - special.logsumexp(x, axis),
        "logit_stats": logit_stats,
        "kl_divergence": lambda: special.rel_entr(special.softmax(x, axis), special.softmax(second, axis)).sum(axis),
    }[function]


def numpy_scores(function: str, problem: Any) -> Callable[[], Any]:
    x, axis, picked, second = problem.x, problem.axis, problem.picked(), problem.second

    def shifted(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d = logits - logits.max(axis, keepdims=True)
        e = np.exp(d)
        return d, e, e.sum(axis)

    def token_log_probs() -> Any:
        d, _, total = shifted(x)
        return d[picked] - np.log(total)

    def logit_stats() -> Any:
        d, e, total = shifted(x)
        top_and_rank(d, axis, picked)
        return np.log(total) - (e * d).sum(axis) / total

    def kl_divergence() -> Any:
        (p, e, p_total), (q, _, q_total) = shifted(x), shifted(second)
        return (e * (p - q)).sum(axis) / p_total + np.log(q_total) - np.log(p_total)

    return {"token_log_probs": token_log_probs, "logit_stats": logit_stats, "kl_divergence": kl_divergence}[function]


def top_and_rank(scores: np.ndarray, axis: int, picked: tuple[np.ndarray, ...]) -> None:
    """What NumPy has for the most probable classes and the rank of the target."""
    np.argpartition(scores, -TOP_K, axis)
    np.count_nonzero(scores > np.expand_dims(scores[picked], axis), axis)
