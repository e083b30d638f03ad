# The compiled module. Every public function passes its arguments on to one of these by position; all checks are in C++.
from collections.abc import Sequence
from typing import Any

from ._typing import ArrayLike, Axis

__version__: str

def softmax(x: ArrayLike, axis: Axis, out: Any, /) -> Any: ...
def log_softmax(x: ArrayLike, axis: Axis, out: Any, /) -> Any: ...
def logsumexp(x: ArrayLike, axis: Axis, keepdims: bool, out: Any, /) -> Any: ...
def softmax_backward(grad: ArrayLike, y: ArrayLike, axis: Axis, out: Any, /) -> Any: ...
def log_softmax_backward(grad: ArrayLike, y: ArrayLike, axis: Axis, out: Any, /) -> Any: ...
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    axis: int | None,
    /,
) -> Any: ...
def nll_loss_backward(
    grad: ArrayLike,
    log_probs: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    axis: int | None,
    out: Any,
    /,
) -> Any: ...
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    axis: int | None,
    label_smoothing: float,
    /,
) -> Any: ...
def cross_entropy_backward(
    grad: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    axis: int | None,
    label_smoothing: float,
    out: Any,
    /,
) -> Any: ...
def cross_entropy_value_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    axis: int | None,
    label_smoothing: float,
    out: Any,
    /,
) -> tuple[Any, Any]: ...
def token_log_probs(logits: ArrayLike, index: ArrayLike, axis: int, out: Any, /) -> Any: ...
def logit_stats(logits: ArrayLike, target: ArrayLike | None, axis: int, top_k: int, /) -> tuple[Any, ...]: ...
def evaluate(
    logits: ArrayLike, target: ArrayLike, axis: int, ignore_index: int, top_k: Sequence[int], /
) -> tuple[int, list[int], list[int], float, int]: ...
def kl_divergence(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: int, temperature: float, reduction: str, /
) -> Any: ...
def kl_divergence_value_and_grad(
    p_logits: ArrayLike, q_logits: ArrayLike, axis: int, temperature: float, reduction: str, out: Any, /
) -> tuple[Any, Any]: ...
def simd_target() -> str: ...
def simd_targets() -> list[str]: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...

# For tests and the self-check only.
def select_simd(name: str, /) -> None: ...
def kernel_runs(name: str, /) -> int: ...
def fetches_far() -> bool: ...
def set_fetches_far(far: bool, /) -> None: ...
def build_info() -> dict[str, str]: ...
