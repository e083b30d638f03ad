"""The steps of a training loop that are calls of their own (gradients of softmax and log_softmax, nll_loss and its gradient)
in crossent and PyTorch, for compare.py.

A function here prepares a call, as the methods of peers.py do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import crossent
import numpy as np

Call = Callable[[], Any]


def crossent_step(function: str, problem: Any, reuse: bool) -> Call:
    axis, target, log_probs = problem.axis, problem.target, problem.forward("log_softmax")
    options = {"out": np.empty_like(problem.x)} if reuse else {}
    if function == "nll_loss":
        return lambda: crossent.nll_loss(log_probs, target, axis=axis)
    if function == "nll_loss_backward":
        return lambda: crossent.nll_loss_backward(1.0, log_probs, target, axis=axis, **options)
    call, y, grad = getattr(crossent, function), problem.forward(function.removesuffix("_backward")), problem.second
    return lambda: call(grad, y, axis, **options)


def torch_nll_loss_backward(torch: Any, log_probs: Any, target: Any, axis: int, out: Any) -> Call:
    """By the operators that autograd would call: of two dimensions, or of four with the classes in the second."""
    before, classes, after = log_probs.shape[:axis].numel(), log_probs.shape[axis], log_probs.shape[axis + 1 :].numel()
    last = after == 1
    operator = torch.ops.aten.nll_loss_backward if last else torch.ops.aten.nll_loss2d_backward
    shape = (before, classes) if last else (before, classes, 1, after)
    one, count = torch.ones((), dtype=log_probs.dtype), torch.tensor(float(target.numel()), dtype=log_probs.dtype)
    indices = target.reshape((before,) if last else (before, 1, after))
    arguments = (one, log_probs.view(shape), indices, None, 1, -100, count)
    if out is None:
        return lambda: operator(*arguments)
    gradient = out.view(shape)
    return lambda: operator.grad_input(*arguments, grad_input=gradient)


def torch_step(function: str, problem: Any, reuse: bool, tensor: Callable[[np.ndarray], Any]) -> Call:
    torch, axis = importlib.import_module("torch"), problem.axis
    aten, target, log_probs = torch.ops.aten, tensor(problem.target), tensor(problem.forward("log_softmax"))
    out = torch.empty_like(log_probs) if reuse else None
    if function == "nll_loss":
        return lambda: torch.nn.functional.nll_loss(log_probs.movedim(axis, 1), target)
    if function == "nll_loss_backward":
        return torch_nll_loss_backward(torch, log_probs, target, axis, out)
    grad, y = tensor(problem.second), tensor(problem.forward(function.removesuffix("_backward")))
    arguments = (grad, y, axis, y.dtype)
    if function == "softmax_backward":
        operator = aten._softmax_backward_data
        return lambda: operator(*arguments) if out is None else operator.out(*arguments, grad_input=out)
    operator = aten._log_softmax_backward_data
    return lambda: operator(*arguments) if out is None else operator.out(*arguments, out=out)
