"""The demo: multinomial logistic regression on the UCI handwritten digits, trained with `cross_entropy_value_and_grad`.

scikit-learn ships the data, so nothing is downloaded. The packages of the extra `demo` are imported where they are used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import __version__
from ._losses import cross_entropy, cross_entropy_value_and_grad
from ._runtime import get_num_threads, simd_target

__all__ = ["add_arguments", "run"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
# (logits, target, out) -> loss; the gradient goes to `out`.
Loss = Callable[[Floats, Ints, Floats], float]

TIMED_ROUNDS = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("crossent-demo.png"), help="the plot (default: %(default)s)")
    parser.add_argument("--epochs", type=_at_least(int, 1), default=40, help="default: %(default)s")
    parser.add_argument("--batch-size", type=_at_least(int, 1), default=64, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=_at_least(float, 0), default=0.1, help="default: %(default)s")
    parser.add_argument("--momentum", type=_at_least(float, 0), default=0.9, help="default: %(default)s")
    parser.add_argument("--weight-decay", type=_at_least(float, 0), default=1e-3, help="default: %(default)s")
    parser.add_argument("--label-smoothing", type=_at_least(float, 0), default=0.0, help="default: %(default)s")
    parser.add_argument("--seed", type=_at_least(int, 0), default=0, help="of split and order (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Train, report, time a step beside plain NumPy, and write the plot."""
    import matplotlib  # noqa: F401  # fails here, before the training, if it is missing
    from tqdm import tqdm

    digits = load_digits(args.seed)
    classes = int(digits.train_y.max()) + 1
    print(f"crossent {__version__}, {simd_target()}, {get_num_threads()} thread(s)")
    print(
        f"UCI digits: {len(digits.train_y)} images to train on, {len(digits.test_y)} held out, "
        f"{digits.train_x.shape[1]} features, {classes} classes"
    )

    def crossent_loss(logits: Floats, target: Ints, out: Floats) -> float:
        loss, _ = cross_entropy_value_and_grad(logits, target, label_smoothing=args.label_smoothing, out=out)
        return float(loss)

    def numpy_loss(logits: Floats, target: Ints, out: Floats) -> float:
        return plain_numpy_loss(logits, target, args.label_smoothing, out)

    model = LogisticRegression(digits.train_x.shape[1], classes, args.batch_size, args.momentum, args.weight_decay)
    history = History()
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()
    with tqdm(range(args.epochs), desc="training", unit="epoch") as epochs:
        for epoch in epochs:
            rate = args.learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / args.epochs))
            train_loss = train_epoch(model, digits, rate, crossent_loss, rng)
            logits = model.logits(digits.test_x)
            test_loss = float(cross_entropy(logits, digits.test_y))
            accuracy = float(np.mean(logits.argmax(axis=1) == digits.test_y))
            history.add(train_loss, test_loss, accuracy)
            epochs.set_postfix(
                loss=f"{train_loss:.4f}", held_out=f"{test_loss:.4f}", accuracy=f"{accuracy:.2%}", refresh=False
            )
    seconds = time.perf_counter() - start

    print(f"trained {args.epochs} epochs in {seconds:.2f} s")
    print(f"  train loss         {history.train_loss[-1]:.4f} nats")
    print(f"  held-out loss      {history.test_loss[-1]:.4f} nats")
    print(f"  held-out accuracy  {history.accuracy[-1]:.2%}")
    size = min(args.batch_size, len(digits.train_y))
    timings = time_steps(model, digits.train_x[:size], digits.train_y[:size], crossent_loss, numpy_loss)
    print(f"time per step, batch of {size}, medians of {TIMED_ROUNDS}:")
    print("                     crossent      NumPy   ratio")
    for name, (ours, theirs) in timings.items():
        print(f"  {name:<15}{ours * 1e6:8.1f} µs{theirs * 1e6:8.1f} µs{theirs / ours:7.1f}x")
    write_plot(args.out, history)
    print(f"wrote {args.out}")


@dataclass(frozen=True)
class Digits:
    """Standardized features (float32) and labels."""

    train_x: Floats
    train_y: Ints
    test_x: Floats
    test_y: Ints


def load_digits(seed: int) -> Digits:
    """The 1797 images of 8x8 pixels, a quarter of each class held out."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    data = load()
    train_x, test_x, train_y, test_y = train_test_split(
        data.data, data.target, test_size=0.25, random_state=seed, stratify=data.target
    )
    mean, scale = train_x.mean(axis=0), train_x.std(axis=0)
    scale[scale == 0] = 1  # pixels that are always blank
    return Digits(
        np.ascontiguousarray((train_x - mean) / scale, np.float32),
        np.asarray(train_y, np.int64),
        np.ascontiguousarray((test_x - mean) / scale, np.float32),
        np.asarray(test_y, np.int64),
    )


class LogisticRegression:
    """logits = x @ weight + bias, trained by gradient descent with momentum; a step allocates nothing of batch size."""

    def __init__(self, features: int, classes: int, batch_size: int, momentum: float, weight_decay: float) -> None:
        self.weight = np.zeros((features, classes), np.float32)
        self.bias = np.zeros(classes, np.float32)
        self.weight_velocity = np.zeros_like(self.weight)
        self.bias_velocity = np.zeros_like(self.bias)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.logits_buffer = np.empty((batch_size, classes), np.float32)
        self.grad_buffer = np.empty_like(self.logits_buffer)

    def logits(self, x: Floats, out: Floats | None = None) -> Floats:
        logits = np.matmul(x, self.weight, out=out)
        logits += self.bias
        return logits

    def step(self, x: Floats, y: Ints, rate: float, loss_and_grad: Loss) -> float:
        logits = self.logits(x, out=self.logits_buffer[: len(y)])
        grad = self.grad_buffer[: len(y)]
        loss = loss_and_grad(logits, y, grad)

        self.weight_velocity *= self.momentum
        self.weight_velocity += x.T @ grad
        self.weight_velocity += self.weight_decay * self.weight
        self.bias_velocity *= self.momentum
        self.bias_velocity += grad.sum(axis=0)
        self.weight -= rate * self.weight_velocity
        self.bias -= rate * self.bias_velocity
        return loss


def train_epoch(
    model: LogisticRegression, digits: Digits, rate: float, loss_and_grad: Loss, rng: np.random.Generator
) -> float:
    """One pass over the training images in random order; the mean loss."""
    order = rng.permutation(len(digits.train_y))
    batch_size = len(model.logits_buffer)
    total = 0.0
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        total += len(batch) * model.step(digits.train_x[batch], digits.train_y[batch], rate, loss_and_grad)
    return total / len(order)


def plain_numpy_loss(logits: Floats, target: Ints, label_smoothing: float, out: Floats) -> float:
    """What one writes without this library: the mean loss, with its gradient in `out`."""
    rows = np.arange(len(target))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exps = np.exp(shifted)
    sums = exps.sum(axis=1, keepdims=True)
    log_probs = shifted - np.log(sums)
    loss = -(1 - label_smoothing) * log_probs[rows, target].mean()
    np.divide(exps, sums, out=out)
    if label_smoothing:
        loss -= label_smoothing * log_probs.mean()
        out -= np.float32(label_smoothing / logits.shape[1])
    out[rows, target] -= np.float32(1 - label_smoothing)
    out /= np.float32(len(target))
    return float(loss)


def time_steps(
    model: LogisticRegression, x: Floats, y: Ints, ours: Loss, theirs: Loss
) -> dict[str, tuple[float, float]]:
    """Median seconds of the loss part and of the whole step, ours and NumPy's, taking turns."""
    logits = model.logits(x)
    grad = np.empty_like(logits)
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "loss + gradient": (lambda: ours(logits, y, grad), lambda: theirs(logits, y, grad)),
        "whole step": (lambda: model.step(x, y, 0.0, ours), lambda: model.step(x, y, 0.0, theirs)),
    }
    medians = {}
    for name, pair in pairs.items():
        seconds = np.empty((TIMED_ROUNDS, 2))
        for turn in range(TIMED_ROUNDS):
            for column, function in enumerate(pair):
                start = time.perf_counter()
                function()
                seconds[turn, column] = time.perf_counter() - start
        mine, other = np.median(seconds, axis=0)
        medians[name] = (float(mine), float(other))
    return medians


@dataclass
class History:
    """One entry an epoch."""

    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def add(self, train_loss: float, test_loss: float, accuracy: float) -> None:
        self.train_loss.append(train_loss)
        self.test_loss.append(test_loss)
        self.accuracy.append(accuracy)


def write_plot(path: Path, history: History) -> None:
    """The training curve: losses on the left, held-out accuracy on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    blue, orange, green, grey = "#3465a4", "#e07b28", "#3c8d40", "#777777"
    epochs = np.arange(1, len(history.accuracy) + 1)
    percent = 100 * np.asarray(history.accuracy)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Logistic regression on the UCI handwritten digits, trained with crossent", fontsize=13)
    left, right = figure.subplots(1, 2)

    left.plot(epochs, history.train_loss, color=blue, marker=".", label=f"training ({history.train_loss[-1]:.3f})")
    left.plot(epochs, history.test_loss, color=orange, marker=".", label=f"held out ({history.test_loss[-1]:.3f})")
    left.set(title="Cross-entropy", ylabel="mean loss [nats]", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")

    right.plot(epochs, percent, color=green, marker=".", label=f"held out ({percent[-1]:.2f} %)")
    right.axhline(96, color=grey, linewidth=1, linestyle="--", label="96 %")
    right.set(title="Accuracy", ylabel="images classified correctly [%]")

    for panel in (left, right):
        panel.set_xlabel("epoch")
        panel.set_xlim(left=0, right=epochs[-1] + 1)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3, which="both", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _at_least(number: Callable[[str], Any], least: int) -> Callable[[str], Any]:
    """An argparse type: a number of at least `least`."""

    def parse(text: str) -> Any:
        value = number(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    parse.__name__ = number.__name__  # argparse names the type in its message
    return parse
