"""The libraries whose errors accuracy.py measures beside crossent's, each called as its users would call it.

A peer's methods take NumPy arrays of shape (rows, classes) with the classes last, and return NumPy arrays in the dtype that
the library returns. What a library does not offer raises Unsupported.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import crossent
import numpy as np
from crossent import _core

Losses = tuple[np.ndarray, "np.ndarray | None"]  # one loss a row, and the gradient of their sum where there is one


class Unsupported(Exception):
    """The library has no such function, or not for this dtype."""


def unsupported(*arguments: object) -> Any:
    raise Unsupported


class Peer:
    """A library; subclasses override what theirs offers."""

    name = ""
    version = ""
    softmax: Callable[[np.ndarray], np.ndarray] = unsupported
    log_softmax: Callable[[np.ndarray], np.ndarray] = unsupported
    logsumexp: Callable[[np.ndarray], np.ndarray] = unsupported
    cross_entropy: Callable[[np.ndarray, np.ndarray, float], Losses] = unsupported  # logits, target, label smoothing
    reduced: Callable[[np.ndarray, np.ndarray, str], np.ndarray] = unsupported  # logits, target, reduction


class NamedFunctions(Peer, ABC):
    """A library whose functions of arrays have the names that they have here."""

    @abstractmethod
    def call(self, name: str, x: np.ndarray, /) -> Any:
        """The library's function of that name, of the last axis of x."""

    def softmax(self, x: np.ndarray) -> np.ndarray:
        return self.call("softmax", x)

    def log_softmax(self, x: np.ndarray) -> np.ndarray:
        return self.call("log_softmax", x)

    def logsumexp(self, x: np.ndarray) -> np.ndarray:
        return self.call("logsumexp", x)


class Crossent(NamedFunctions):
    """This library, on one instruction set."""

    version = crossent.__version__

    def __init__(self, simd: str) -> None:
        self.name = simd

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        previous = crossent.simd_target()
        _core.select_simd(self.name)
        try:
            return getattr(crossent, name)(*arguments, **options)
        finally:
            _core.select_simd(previous)

    def cross_entropy(self, x: np.ndarray, target: np.ndarray, smoothing: float) -> Losses:
        options = {"reduction": "none", "label_smoothing": smoothing}
        return self.call("cross_entropy_value_and_grad", x, target, **options)

    def reduced(self, x: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
        return self.call("cross_entropy", x, target, reduction=reduction)


class PlainNumPy(Peer):
    """The textbook's formulas with the maximum subtracted, as people write them."""

    name, version = "NumPy", np.__version__

    def softmax(self, x: np.ndarray) -> np.ndarray:
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def logsumexp(self, x: np.ndarray) -> np.ndarray:
        peak = x.max(axis=1, keepdims=True)
        return (peak + np.log(np.exp(x - peak).sum(axis=1, keepdims=True)))[:, 0]

    def log_softmax(self, x: np.ndarray) -> np.ndarray:
        return x - self.logsumexp(x)[:, None]

    def cross_entropy(self, x: np.ndarray, target: np.ndarray, smoothing: float) -> Losses:
        if smoothing:
            raise Unsupported
        rows = np.arange(len(x))
        gradient = self.softmax(x)
        gradient[rows, target] -= 1
        return -self.log_softmax(x)[rows, target], gradient

    def reduced(self, x: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
        losses, _ = self.cross_entropy(x, target, 0.0)
        return losses.mean() if reduction == "mean" else losses.sum()


class SciPy(NamedFunctions):
    name = "SciPy"

    def __init__(self) -> None:
        self.version = importlib.import_module("scipy").__version__
        self.special = importlib.import_module("scipy.special")

    def call(self, name: str, x: np.ndarray) -> np.ndarray:
        if x.dtype.kind != "f":  # bfloat16
            raise Unsupported
        return np.asarray(getattr(self.special, name)(x, axis=1))


class PyTorch(Peer):
    name = "PyTorch"

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")
        self.version = self.torch.__version__.split("+")[0]

    def tensor(self, x: np.ndarray) -> Any:
        if x.dtype.name == "bfloat16":
            return self.torch.tensor(x.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.tensor(x)

    def array(self, tensor: Any, dtype: np.dtype) -> np.ndarray:
        tensor = tensor.detach()
        if tensor.dtype == self.torch.bfloat16:
            return tensor.view(self.torch.int16).numpy().view(dtype)
        return tensor.numpy()

    def softmax(self, x: np.ndarray) -> np.ndarray:
        return self.array(self.torch.softmax(self.tensor(x), 1), x.dtype)

    def log_softmax(self, x: np.ndarray) -> np.ndarray:
        return self.array(self.torch.log_softmax(self.tensor(x), 1), x.dtype)

    def logsumexp(self, x: np.ndarray) -> np.ndarray:
        return self.array(self.torch.logsumexp(self.tensor(x), 1), x.dtype)

    def loss(self, logits: Any, target: np.ndarray, **options: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(logits, self.torch.tensor(target), **options)

    def cross_entropy(self, x: np.ndarray, target: np.ndarray, smoothing: float) -> Losses:
        logits = self.tensor(x).requires_grad_()
        losses = self.loss(logits, target, reduction="none", label_smoothing=smoothing)
        losses.backward(self.torch.ones_like(losses))
        return self.array(losses, x.dtype), self.array(logits.grad, x.dtype)

    def reduced(self, x: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
        return self.array(self.loss(self.tensor(x), target, reduction=reduction), x.dtype)


class Jax(Peer):
    name = "JAX"

    def __init__(self) -> None:
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)
        self.version = self.jax.__version__
        self.compiled: dict[str, Callable[..., Any]] = {
            "softmax": self.jax.jit(self.jax.nn.softmax),
            "log_softmax": self.jax.jit(self.jax.nn.log_softmax),
            "logsumexp": self.jax.jit(functools.partial(self.jax.nn.logsumexp, axis=1)),
            "loss": self.jax.jit(self.losses),
            "gradient": self.jax.jit(self.jax.grad(lambda x, target: self.losses(x, target).sum())),
            "mean": self.jax.jit(lambda x, target: self.losses(x, target).mean()),
            "sum": self.jax.jit(lambda x, target: self.losses(x, target).sum()),
        }

    def losses(self, x: Any, target: Any) -> Any:
        log_p = self.jax.nn.log_softmax(x)
        return -self.jax.numpy.take_along_axis(log_p, target[:, None], axis=1)[:, 0]

    def softmax(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.compiled["softmax"](x))

    def log_softmax(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.compiled["log_softmax"](x))

    def logsumexp(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.compiled["logsumexp"](x))

    def cross_entropy(self, x: np.ndarray, target: np.ndarray, smoothing: float) -> Losses:
        if smoothing:
            raise Unsupported
        return np.asarray(self.compiled["loss"](x, target)), np.asarray(self.compiled["gradient"](x, target))

    def reduced(self, x: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
        return np.asarray(self.compiled[reduction](x, target))


class OnnxRuntime(Peer):
    """Models of one operator each; operators that have no kernel for a dtype are Unsupported."""

    name = "ONNX Runtime"

    def __init__(self) -> None:
        self.onnx = importlib.import_module("onnx")
        self.runtime = importlib.import_module("onnxruntime")
        self.version = self.runtime.__version__
        self.session = functools.cache(self.make_session)

    def make_session(self, operator: str, dtype: np.dtype, attributes: tuple[tuple[str, Any], ...]) -> Any:
        if dtype.name == "bfloat16":  # no such NumPy array can be passed in
            raise Unsupported
        helper, types = self.onnx.helper, self.onnx.TensorProto
        element = helper.np_dtype_to_tensor_dtype(dtype)
        inputs = [helper.make_tensor_value_info("x", element, ["n", "c"])]
        if operator == "SoftmaxCrossEntropyLoss":
            inputs.append(helper.make_tensor_value_info("target", types.INT64, ["n"]))
        node = helper.make_node(operator, [i.name for i in inputs], ["y"], **dict(attributes))
        graph = helper.make_graph([node], operator, inputs, [helper.make_tensor_value_info("y", element, None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        options = self.runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            return self.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as missing:  # its own classes; their common base is Exception
            raise Unsupported from missing

    def run(self, operator: str, attributes: dict[str, Any], **feed: np.ndarray) -> np.ndarray:
        session = self.session(operator, feed["x"].dtype, tuple(attributes.items()))
        return np.asarray(session.run(None, feed)[0])

    def softmax(self, x: np.ndarray) -> np.ndarray:
        return self.run("Softmax", {"axis": 1}, x=x)

    def log_softmax(self, x: np.ndarray) -> np.ndarray:
        return self.run("LogSoftmax", {"axis": 1}, x=x)

    def logsumexp(self, x: np.ndarray) -> np.ndarray:
        return self.run("ReduceLogSumExp", {"axes": (1,), "keepdims": 0}, x=x)

    def cross_entropy(self, x: np.ndarray, target: np.ndarray, smoothing: float) -> Losses:
        if smoothing:
            raise Unsupported
        return self.run("SoftmaxCrossEntropyLoss", {"reduction": "none"}, x=x, target=target), None

    def reduced(self, x: np.ndarray, target: np.ndarray, reduction: str) -> np.ndarray:
        return self.run("SoftmaxCrossEntropyLoss", {"reduction": reduction}, x=x, target=target)


def installed_peers() -> list[Peer]:
    """All other libraries that are there."""
    peers: list[Peer] = []
    for make in (PyTorch, Jax, OnnxRuntime, SciPy, PlainNumPy):
        try:
            peers.append(make())
        except ImportError as missing:
            print(f"without {make.name}: {missing}")
    return peers
