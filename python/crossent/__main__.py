"""The command line, `crossent` or `python -m crossent`: what runs here and a self-check, scores of files, and the demo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import _core, _demo, _score
from ._arrays import log_softmax, softmax
from ._losses import cross_entropy, cross_entropy_value_and_grad, nll_loss
from ._runtime import get_num_threads, simd_target, simd_targets

LOGITS = [
    [0.9826, 1.0630, -0.4096],
    [-0.6213, 0.2511, 0.5659],
    [0.5662, 0.7360, -0.6783],
    [-0.4638, -1.4961, -1.0877],
    [1.8186, -0.2998, 0.1128],
]
TARGET = [1, 0, 1, 1, 1]


def main(argv: list[str] | None = None) -> int:
    prog = "python -m crossent" if Path(sys.argv[0]).name == "__main__.py" else "crossent"
    parser = argparse.ArgumentParser(prog=prog, description="SIMD cross-entropy for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"crossent {_core.__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands.add_parser("info", help="print version, instruction sets and threads, and run a self-check (the default)")
    demo_help = "train a classifier of handwritten digits and plot the training curve"
    _demo.add_arguments(commands.add_parser("demo", help=demo_help, description=demo_help))
    score_help = "loss, perplexity and accuracy of saved logits"
    scoring = commands.add_parser("score", help=score_help, description=f"Tell {score_help}.")
    _score.add_score_arguments(scoring)
    compare_help = "KL divergence of saved logits: of a model and, say, its quantized form"
    comparing = commands.add_parser("compare", help=compare_help, description=f"Tell the {compare_help}.")
    _score.add_compare_arguments(comparing)
    args = parser.parse_args(argv)
    if args.command == "score":
        return _score.score(scoring, args)
    if args.command == "compare":
        return _score.compare(comparing, args)
    return demo(args) if args.command == "demo" else info()


def info() -> int:
    """Print what runs here, and a line for each self-check; 1 if one failed."""
    build = _core.build_info()
    active = simd_target()
    print(f"crossent {_core.__version__}")
    print("  SIMD targets ", ", ".join(f"{name} (active)" if name == active else name for name in simd_targets()))
    print("  threads      ", get_num_threads())
    print("  compiler     ", f"{build['compiler']}, {build['build_type']}")
    print("  OpenMP       ", build["openmp"])
    print("  NumPy        ", np.__version__)
    print("self-check")
    failures = 0
    for target in simd_targets():
        for dtype in ("float32", "float64"):
            wrong = check(target, np.dtype(dtype))
            failures += len(wrong)
            print(f"  {target:<9} {dtype}  {'; '.join(wrong) or 'ok'}")
    print("more: crossent --help")
    return 1 if failures else 0


def check(target: str, dtype: np.dtype[Any]) -> list[str]:
    """Run the examples on one instruction set; what went wrong."""
    active = simd_target()
    _core.select_simd(target)
    try:
        runs = _core.kernel_runs(target)
        wrong = [
            f"{name}: {got:.7g} instead of {expected:.7g}"
            for name, got, expected, tolerance in examples(dtype)
            if not abs(got - expected) <= tolerance
        ]
        if _core.kernel_runs(target) == runs:
            wrong.append("its kernels did not run")
    finally:
        _core.select_simd(active)
    return wrong


def examples(dtype: np.dtype[Any]) -> Iterator[tuple[str, float, float, float]]:
    """Name, computed value, expected value and tolerance of small examples with known answers."""
    logits = np.array(LOGITS, dtype)
    one_hot = np.eye(3, dtype=dtype)[TARGET]
    four_digits = 5e-5
    routes: dict[str, Callable[[], Any]] = {
        "log of softmax": lambda: -np.sum(one_hot * np.log(softmax(logits))) / len(logits),
        "nll_loss of log_softmax": lambda: nll_loss(log_softmax(logits), TARGET),
        "cross_entropy": lambda: cross_entropy(logits, TARGET),
        "cross_entropy of probabilities": lambda: cross_entropy(logits, one_hot),
        "cross_entropy_value_and_grad": lambda: cross_entropy_value_and_grad(logits, TARGET)[0],
    }
    for name, route in routes.items():
        yield name, float(route()), 1.4904, four_digits
    yield "one sample", float(cross_entropy(np.array([0, 0, 0, 1], dtype), 3)), 0.7437, four_digits

    # Far beyond where exp overflows.
    yield "large logits", float(cross_entropy(logits + dtype.type(1000), TARGET)), 1.4904, 2e-4

    # A confident row: log(1 + 2 exp(-30)).
    loss, grad = cross_entropy_value_and_grad(np.array([30, 0, 0], dtype), 0)
    confident = float(np.log1p(2 * np.exp(-30.0)))
    yield "confident loss", float(loss), confident, 1e-6 * confident
    yield "confident gradient", float(grad[0]), -confident, 1e-6 * confident


def demo(args: argparse.Namespace) -> int:
    try:
        _demo.run(args)
    except ModuleNotFoundError as error:
        print(f'The demo needs {error.name}: pip install "crossent[demo]" (in a clone: pip install ".[demo]")')
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
