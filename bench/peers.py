"""The libraries that compare.py times, and how each is called for the same work on the same arrays.

A peer's methods prepare everything once and return a function without arguments, the call that is timed. With `reuse` the
call writes into an array made beforehand, without it into a fresh one each time. What a peer cannot do raises Unsupported.
Importing this module imports NumPy and crossent, so threads and processors are to be settled before.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import crossent
import numpy as np
import scores
import steps

FUNCTIONS = ("log_softmax", "softmax", "cross_entropy", "cross_entropy_value_and_grad")
# Timed where they are named:
SCORES = ("token_log_probs", "logit_stats", "kl_divergence")
STEPS = ("softmax_backward", "log_softmax_backward", "nll_loss", "nll_loss_backward")

Call = Callable[[], Any]


class Unsupported(Exception):
    """The library does not do this, or not so; the text says what."""


@dataclass
class Problem:
    """Logits of any shape and layout, the target classes in that shape without the class axis, and the number of threads."""

    x: np.ndarray
    target: np.ndarray
    axis: int
    threads: int

    @cached_property
    def second(self) -> np.ndarray:
        """Other logits, for a divergence from them."""
        return np.roll(self.x, 1, self.axis)

    def forward(self, function: str) -> np.ndarray:
        """What softmax or log_softmax make of the logits, in their layout."""
        return getattr(crossent, function)(self.x, self.axis, out=np.empty_like(self.x))

    def picked(self) -> tuple[np.ndarray, ...]:
        """The index that takes each sample's target class out of an array of the logits' shape."""
        index = list(np.ogrid[tuple(slice(n) for n in self.target.shape)])
        index.insert(self.axis, self.target)
        return tuple(index)


class Peer(ABC):
    """One library. A subclass that is created has been imported; ImportError tells that it is not there."""

    name: str
    module: str

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.library: Any = importlib.import_module(self.module)

    @property
    def version(self) -> str:
        return str(self.library.__version__)

    def prepare(self, function: str, problem: Problem, reuse: bool) -> Call:
        if function in ("cross_entropy", "nll_loss") and reuse:
            raise Unsupported("a loss has no output array")
        if function == "cross_entropy":
            return self.cross_entropy(problem)
        if function in STEPS:
            return self.step(function, problem, reuse)
        if function == "cross_entropy_value_and_grad":
            return self.value_and_grad(problem, reuse)
        if function in SCORES:
            return self.scores(function, problem)
        return self.normalize(function, problem, reuse)

    @abstractmethod
    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        """softmax or log_softmax, by that name."""

    @abstractmethod
    def cross_entropy(self, problem: Problem) -> Call:
        """The mean loss."""

    def value_and_grad(self, problem: Problem, reuse: bool) -> Call:  # noqa: ARG002 - most have it
        raise Unsupported("no gradient of the cross-entropy")

    def step(self, function: str, problem: Problem, reuse: bool) -> Call:  # noqa: ARG002 - two have them
        raise Unsupported("no such functions")

    def scores(self, function: str, problem: Problem) -> Call:  # noqa: ARG002 - most have some
        raise Unsupported("no scores")

    def array(self, result: Any) -> np.ndarray:
        """The array, or the loss, in what a call returned."""
        return np.asarray(result[1] if isinstance(result, tuple) else result)


def fresh_only(reuse: bool) -> None:
    if reuse:
        raise Unsupported("writes into no given array")


class Crossent(Peer):
    name = "crossent"
    module = "crossent"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        crossent.set_num_threads(threads)

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        call, x, axis = getattr(crossent, function), problem.x, problem.axis
        if not reuse:
            return lambda: call(x, axis)
        out = np.empty_like(x)
        return lambda: call(x, axis, out=out)

    def cross_entropy(self, problem: Problem) -> Call:
        x, target, axis = problem.x, problem.target, problem.axis
        return lambda: crossent.cross_entropy(x, target, axis=axis)

    def value_and_grad(self, problem: Problem, reuse: bool) -> Call:
        x, target, axis = problem.x, problem.target, problem.axis
        if not reuse:
            return lambda: crossent.cross_entropy_value_and_grad(x, target, axis=axis)
        out = np.empty_like(x)
        return lambda: crossent.cross_entropy_value_and_grad(x, target, axis=axis, out=out)

    def step(self, function: str, problem: Problem, reuse: bool) -> Call:
        return steps.crossent_step(function, problem, reuse)

    def scores(self, function: str, problem: Problem) -> Call:
        return scores.crossent_scores(function, problem)


class Torch(Peer):
    name = "PyTorch"
    module = "torch"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.library.set_num_threads(threads)

    def tensor(self, x: np.ndarray) -> Any:
        """A view of the same memory."""
        if x.dtype.name == "bfloat16":  # torch.from_numpy does not know NumPy's
            return self.library.from_numpy(x.view(np.int16)).view(self.library.bfloat16)
        return self.library.from_numpy(x)

    def compiled(self, function: Call) -> Call:
        return function

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        call, x, axis = getattr(self.library, function), self.tensor(problem.x), problem.axis
        if not reuse:
            compiled = self.compiled(lambda logits: call(logits, axis))
            return lambda: compiled(x)
        out = self.library.empty_like(x)
        return lambda: call(x, axis, out=out)

    def loss(self, problem: Problem) -> tuple[Call, Any, Any]:
        cross_entropy, axis = self.library.nn.functional.cross_entropy, problem.axis
        loss = self.compiled(lambda logits, target: cross_entropy(logits.movedim(axis, 1), target))
        return loss, self.tensor(problem.x), self.tensor(problem.target)

    def cross_entropy(self, problem: Problem) -> Call:
        loss, x, target = self.loss(problem)
        return lambda: loss(x, target)

    def value_and_grad(self, problem: Problem, reuse: bool) -> Call:
        fresh_only(reuse)
        loss, x, target = self.loss(problem)
        leaf, grad = x.detach().requires_grad_(), self.library.autograd.grad

        def call() -> tuple[Any, Any]:
            value = loss(leaf, target)
            return value, grad(value, leaf)[0]

        return call

    def step(self, function: str, problem: Problem, reuse: bool) -> Call:
        return steps.torch_step(function, problem, reuse, self.tensor)

    def scores(self, function: str, problem: Problem) -> Call:
        return self.compiled(scores.torch_scores(function, problem, self.tensor))

    def array(self, result: Any) -> np.ndarray:
        tensor = (result[1] if isinstance(result, tuple) else result).detach()
        return (tensor.float() if tensor.dtype == self.library.bfloat16 else tensor).numpy()


class TorchCompile(Torch):
    name = "torch.compile"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if shutil.which(os.environ.get("CXX", "g++")) is None:
            raise ImportError("torch.compile needs g++")

    def compiled(self, function: Call) -> Call:
        self.library._dynamo.reset()  # else it stops compiling after a handful of shapes
        return self.library.compile(function, dynamic=False)

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        fresh_only(reuse)
        return super().normalize(function, problem, reuse)

    def step(self, function: str, problem: Problem, reuse: bool) -> Call:  # noqa: ARG002
        raise Unsupported("these are PyTorch's own operators")


class Jax(Peer):
    name = "JAX"
    module = "jax"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.library.config.update("jax_platforms", "cpu")
        self.library.config.update("jax_enable_x64", True)

    def arrays(self, problem: Problem) -> tuple[Any, Any]:
        if not problem.x.flags.c_contiguous:
            raise Unsupported("arrays of this layout are copied first")
        return self.library.numpy.asarray(problem.x), self.library.numpy.asarray(problem.target)

    def jitted(self, function: Call, *arguments: Any) -> Call:
        jitted, wait = self.library.jit(function), self.library.block_until_ready
        return lambda: wait(jitted(*arguments))

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        fresh_only(reuse)
        call, axis = getattr(self.library.nn, function), problem.axis
        return self.jitted(lambda logits: call(logits, axis), self.arrays(problem)[0])

    def loss(self, problem: Problem) -> Call:
        log_softmax, jnp, axis = self.library.nn.log_softmax, self.library.numpy, problem.axis

        def loss(logits: Any, target: Any) -> Any:
            log_probs = log_softmax(logits, axis)
            return -jnp.take_along_axis(log_probs, jnp.expand_dims(target, axis), axis).mean()

        return loss

    def cross_entropy(self, problem: Problem) -> Call:
        return self.jitted(self.loss(problem), *self.arrays(problem))

    def value_and_grad(self, problem: Problem, reuse: bool) -> Call:
        fresh_only(reuse)
        return self.jitted(self.library.value_and_grad(self.loss(problem)), *self.arrays(problem))


class OnnxRuntime(Peer):
    """A model of one node. Reused outputs go through IO binding; fresh ones are what `run` returns."""

    name = "ONNX Runtime"
    module = "onnxruntime"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.onnx = importlib.import_module("onnx")
        self.library.set_default_logger_severity(4)  # errors reach us as exceptions

    def session(self, operator: str, problem: Problem, result_shape: tuple[int, ...], **attributes: Any) -> Any:
        helper = self.onnx.helper
        element = helper.np_dtype_to_tensor_dtype(problem.x.dtype)
        inputs = [helper.make_tensor_value_info("x", element, problem.x.shape)]
        if operator == "SoftmaxCrossEntropyLoss":
            inputs.append(helper.make_tensor_value_info("target", self.onnx.TensorProto.INT64, problem.target.shape))
        node = helper.make_node(operator, [i.name for i in inputs], ["y"], **attributes)
        output = helper.make_tensor_value_info("y", element, result_shape)
        graph = helper.make_graph([node], operator, inputs, [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = problem.threads, 1
        try:
            return self.library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions share no narrower class
            raise Unsupported(f"{operator} of {problem.x.dtype}: {str(error).splitlines()[0][:100]}") from None

    @staticmethod
    def check_layout(problem: Problem) -> None:
        if not problem.x.flags.c_contiguous:
            raise Unsupported("arrays of this layout are copied first")

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        self.check_layout(problem)
        operator = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[function]
        session = self.session(operator, problem, problem.x.shape, axis=problem.axis)
        if not reuse:
            feed = {"x": problem.x}
            return lambda: session.run(None, feed)[0]
        value = self.library.OrtValue
        given, out = value.ortvalue_from_numpy(problem.x), value.ortvalue_from_numpy(np.empty_like(problem.x))
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", given)
        binding.bind_ortvalue_output("y", out)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return out

        return call

    def cross_entropy(self, problem: Problem) -> Call:
        self.check_layout(problem)
        if problem.axis != 1:
            raise Unsupported("the class axis is 1")
        session = self.session("SoftmaxCrossEntropyLoss", problem, (), reduction="mean")
        feed = {"x": problem.x, "target": problem.target}
        return lambda: session.run(None, feed)[0]

    def array(self, result: Any) -> np.ndarray:
        return super().array(result.numpy() if hasattr(result, "numpy") else result)


class SciPy(Peer):
    name = "SciPy"
    module = "scipy"

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        fresh_only(reuse)
        call, x, axis = getattr(importlib.import_module("scipy.special"), function), problem.x, problem.axis
        return lambda: call(x, axis)

    def cross_entropy(self, problem: Problem) -> Call:
        logsumexp, x, axis = importlib.import_module("scipy.special").logsumexp, problem.x, problem.axis
        picked = problem.picked()
        return lambda: (logsumexp(x, axis) - x[picked]).mean()

    def scores(self, function: str, problem: Problem) -> Call:
        return scores.scipy_scores(function, problem)


class NumPy(Peer):
    """The formulas as they are usually written down, with the maximum subtracted."""

    name = "NumPy"
    module = "numpy"

    def normalize(self, function: str, problem: Problem, reuse: bool) -> Call:
        x, axis = problem.x, problem.axis
        out = np.empty_like(x) if reuse else None
        exponentials = np.empty_like(x) if reuse and function == "log_softmax" else out

        def shifted_exp() -> tuple[np.ndarray, np.ndarray]:
            shifted = np.subtract(x, x.max(axis, keepdims=True), out=out)
            return shifted, np.exp(shifted, out=exponentials)

        def softmax() -> np.ndarray:
            _, e = shifted_exp()
            return np.divide(e, e.sum(axis, keepdims=True), out=out)

        def log_softmax() -> np.ndarray:
            shifted, e = shifted_exp()
            return np.subtract(shifted, np.log(e.sum(axis, keepdims=True)), out=out)

        return softmax if function == "softmax" else log_softmax

    def cross_entropy(self, problem: Problem) -> Call:
        x, axis, picked = problem.x, problem.axis, problem.picked()

        def call() -> Any:
            shifted = x - x.max(axis, keepdims=True)
            return (np.log(np.exp(shifted).sum(axis)) - shifted[picked]).mean()

        return call

    def value_and_grad(self, problem: Problem, reuse: bool) -> Call:
        x, axis, picked, samples = problem.x, problem.axis, problem.picked(), problem.target.size
        out = np.empty_like(x) if reuse else None

        def call() -> tuple[Any, np.ndarray]:
            shifted = np.subtract(x, x.max(axis, keepdims=True), out=out)
            logit = shifted[picked]
            e = np.exp(shifted, out=out)
            total = e.sum(axis, keepdims=True)
            loss = (np.log(total).squeeze(axis) - logit).mean()
            grad = np.divide(e, total * samples, out=out)
            grad[picked] -= 1 / samples
            return loss, grad

        return call

    def scores(self, function: str, problem: Problem) -> Call:
        return scores.numpy_scores(function, problem)


PEERS: dict[str, type[Peer]] = {p.name: p for p in (Crossent, Torch, TorchCompile, Jax, OnnxRuntime, SciPy, NumPy)}
