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


def torch_step(function: str, problem: Any, reuse: bool, tensor: Callable[[np.ndarray], Any]) -> Call:
    torch, axis = importlib.import_module("torch"), problem.axis
    aten, target, log_probs = torch.ops.aten, tensor(problem.target), tensor(problem.forward("log_softmax"))
    out = torch.empty_like(log_probs) if reuse else None
    if function == "nll_loss":
        return lambda: torch.nn.functional.nll_loss(log_probs.movedim(axis, 1), target)
    if function == "nll_loss_backward":
        planes = log_probs.ndim == 4 and axis == 1
        if not planes and log_probs.ndim != 2:
            raise NotImplementedError("its operator takes two dimensions, or four with the classes in the second")
        operator = aten.nll_loss2d_backward if planes else aten.nll_loss_backward
        one, count = torch.ones((), dtype=log_probs.dtype), torch.tensor(float(target.numel()), dtype=log_probs.dtype)
        arguments = (one, log_probs, target, None, 1, -100, count)
        return lambda: operator(*arguments) if out is None else operator.grad_input(*arguments, grad_input=out)
    grad, y = tensor(problem.second), tensor(problem.forward(function.removesuffix("_backward")))
    arguments = (grad, y, axis, y.dtype)
    if function == "softmax_backward":
        operator = aten._softmax_backward_data
        return lambda: operator(*arguments) if out is None else operator.out(*arguments, grad_input=out)
    operator = aten._log_softmax_backward_data
    return lambda: operator(*arguments) if out is None else operator.out(*arguments, out=out)
