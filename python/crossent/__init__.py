"""Softmax, log-softmax, negative log-likelihood and cross-entropy on NumPy arrays, in SIMD C++."""

from ._arrays import log_softmax, log_softmax_backward, logsumexp, softmax, softmax_backward
from ._core import __version__
from ._divergence import kl_divergence, kl_divergence_value_and_grad
from ._evaluator import Evaluation, Evaluator
from ._losses import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_value_and_grad,
    nll_loss,
    nll_loss_backward,
)
from ._runtime import get_cmake_dir, get_include, get_num_threads, set_num_threads, simd_target, simd_targets
from ._scoring import LogitStats, logit_stats, token_log_probs

__all__ = [
    "Evaluation",
    "Evaluator",
    "LogitStats",
    "__version__",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "kl_divergence",
    "kl_divergence_value_and_grad",
    "log_softmax",
    "log_softmax_backward",
    "logit_stats",
    "logsumexp",
    "nll_loss",
    "nll_loss_backward",
    "set_num_threads",
    "simd_target",
    "simd_targets",
    "softmax",
    "softmax_backward",
    "token_log_probs",
]
