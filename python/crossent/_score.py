"""The commands `crossent score` and `crossent compare`: files of logits in, a table or JSON out."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._divergence import kl_divergence
from ._evaluator import Evaluator, split
from ._progress import Progress
from ._runtime import set_num_threads
from ._score_example import write_example
from ._scoring import logit_stats, token_log_probs

__all__ = ["add_compare_arguments", "add_score_arguments", "compare", "score"]

# How much of a file is taken at a time: small enough for the second read of a piece to come from the cache.
BLOCK_BYTES = 1 << 23
PERCENTILES = (50, 90, 95, 99, 99.9)

LOGITS_HELP = "a .npy file of logits, (..., classes)"
EPILOG = """\
files:
  Logits are float16, bfloat16 (as numpy.save writes the dtype of ml_dtypes),
  float32 or float64, with the classes along the last axis. Targets are integers
  in the shape of the logits without that axis. Files are mapped into memory and
  read in pieces, so that they may be larger than memory.

exit status:
  0    the result is printed
  1    a file is missing or not what it should be; the message names it, and the
       shape, dtype or value that is wrong
  2    the command line is wrong
  3    the result is printed, but is NaN or infinite; a message names the first
       target or row that made it so
  130  interrupted
"""


EXAMPLE = """\
A model of letters scores the text that it was made of. With arrays logits (letters, alphabet) and tokens (letters,):
  numpy.save("logits.npy", logits); numpy.save("tokens.npy", tokens)
  {command}
"""


class InputError(Exception):
    """A file that is not what it should be; the message is for the user."""


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, {"LOGITS": LOGITS_HELP, "TARGETS": "a .npy file of the classes that are right, (...)"})
    parser.add_argument(
        "--top-k", type=_numbers, default=(1, 5), metavar="K,...", help="count hits among the K most probable (1,5)"
    )
    _add_options(parser)


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, {"P": f"{LOGITS_HELP}: the original's", "Q": "the same of what stands in for it"})
    help_ = "also compare the perplexities on these targets, a .npy file"
    parser.add_argument("--targets", type=Path, metavar="TARGETS", help=help_)
    _add_options(parser)


def _add_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    for name, (metavar, help_) in zip(("first", "second"), files.items(), strict=True):
        parser.add_argument(name, type=Path, nargs="?", metavar=metavar, help=help_)
    parser.add_argument("--example", action="store_true", help="run on a small example, made on the spot")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ignore-index", type=int, default=-100, metavar="N", help="leave out targets of N (-100)")
    parser.add_argument(
        "--shift",
        action="store_true",
        help="TARGETS are the tokens that the model read: score each one by the logits of the position before it",
    )
    parser.add_argument(
        "--threads", type=_positive, metavar="N", help="how many threads to use (OMP_NUM_THREADS, or all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_positive(part) for part in text.split(",")))  # each once


# --- the commands -----------------------------------------------------------------------------------------------------


def score(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run `crossent score`; the exit status."""
    return _run(parser, args, _score)


def compare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run `crossent compare`; the exit status."""
    return _run(parser, args, _compare)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace, command: Any) -> int:
    if not args.example and args.first is None:
        parser.print_help()
        return 0
    if not args.example and args.second is None:
        parser.error("two files are needed")
    if args.example and args.first is not None:
        parser.error("--example takes no files")
    if args.shift and not args.example and getattr(args, "targets", args.second) is None:
        parser.error("--shift needs --targets")
    if args.threads:
        set_num_threads(args.threads)
    try:
        if args.example and not args.json:
            files = "logits.npy quantized.npy --targets" if hasattr(args, "targets") else "logits.npy"
            print(EXAMPLE.format(command=f"{parser.prog} {files} tokens.npy --shift"))
        with _example(args) if args.example else contextlib.nullcontext():
            report: dict[str, Any] = command(args)
        for name in ("logits", "p", "q") if args.example else ():
            if name in report:  # the folder is gone
                report[name]["file"] = Path(report[name]["file"]).name
        _print(report, args.json)
        sys.stdout.flush()
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has seen enough; what is left has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0 if all(math.isfinite(report[name]) for name in ("loss", "mean_kl") if name in report) else 3


@contextlib.contextmanager
def _example(args: argparse.Namespace) -> Iterator[None]:
    """Point the arguments at files in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        logits, quantized, tokens = write_example(Path(folder))
        args.first, args.shift = logits, True
        if hasattr(args, "targets"):
            args.second, args.targets = quantized, tokens
        else:
            args.second = tokens
        yield


def _score(args: argparse.Namespace) -> dict[str, Any]:
    logits, targets = _pair(args.first, args.second, args)
    evaluator = Evaluator(args.ignore_index, args.top_k)
    started = time.perf_counter()
    with Progress(logits.nbytes) as progress:
        for some_logits, some_targets, _ in split(logits, targets, logits.ndim - 1, BLOCK_BYTES):
            evaluator.update(some_logits, some_targets)
            progress.add(some_logits.nbytes)
    result = evaluator.result()
    if result.count and not math.isfinite(result.loss):
        _tell_where(logits, targets, args)
    return {
        "logits": _described(args.first),
        "count": result.count,
        "ignored": targets.size - result.count,
        "loss": result.loss,
        "bits": result.loss / math.log(2),
        "perplexity": result.perplexity,
        "accuracy": result.accuracy,
        "seconds": time.perf_counter() - started,
    }


def _tell_where(logits: NDArray[Any], targets: NDArray[Any], args: argparse.Namespace) -> None:
    """Name the first target whose loss is not finite, on stderr."""

    def losses() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for some_logits, some_targets, _ in split(logits, targets, logits.ndim - 1, BLOCK_BYTES):
            kept = some_targets != args.ignore_index
            yield -token_log_probs(some_logits, np.where(kept, some_targets, 0)), kept

    where, value = _first_not_finite(losses(), logits)
    print(f"{args.second}: the loss of the target at {_position(where, args.shift)} is {value}", file=sys.stderr)


def _tell_which_row(p: NDArray[Any], q: NDArray[Any], kept: NDArray[Any], args: argparse.Namespace) -> None:
    """Name the first row whose KL divergence is not finite, on stderr."""

    def divergences() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        pieces = (split(array, kept, p.ndim - 1, BLOCK_BYTES, like=p) for array in (p, q))
        for (some_p, some_kept, _), (some_q, _, _) in zip(*pieces, strict=True):
            yield kl_divergence(some_p, some_q, reduction="none"), some_kept

    where, value = _first_not_finite(divergences(), p)
    print(f"{args.second}: the KL divergence of the row at {_position(where, False)} is {value}", file=sys.stderr)


def _first_not_finite(
    pieces: Iterator[tuple[NDArray[Any], NDArray[Any]]], logits: NDArray[Any]
) -> tuple[Sequence[Any], float]:
    """Where the first number that counts and is not finite stands; there is one. The pieces are those of the logits."""
    numbers = np.arange(math.prod(logits.shape[:-1])).reshape(logits.shape[:-1])
    places = split(logits, numbers, logits.ndim - 1, BLOCK_BYTES)
    for (values, kept), (_, some_numbers, _) in zip(pieces, places, strict=False):
        bad = kept & ~np.isfinite(values)
        if bad.any():
            first = some_numbers[bad].argmin()
            return np.unravel_index(int(some_numbers[bad][first]), numbers.shape), values[bad][first]
    raise AssertionError("all are finite")


def _position(where: Sequence[Any], shifted: bool) -> tuple[int, ...]:
    """A place in the whole file of targets."""
    place = [int(i) for i in where]
    if shifted:
        place[-1] += 1
    return tuple(place)


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    p, q = _floating(args.first), _floating(args.second)
    if p.shape != q.shape:
        raise InputError(f"{args.second} has shape {q.shape}, but {args.first} has shape {p.shape}")
    targets = np.broadcast_to(np.int8(0), p.shape[:-1])
    if args.targets is not None:
        p, targets = _pair(args.first, args.targets, args)
        q, _ = _pair(args.second, args.targets, args)
    kept = targets != args.ignore_index if args.targets is not None else np.broadcast_to(True, targets.shape)
    divergences, same_top = [], 0
    evaluators = Evaluator(args.ignore_index, 1), Evaluator(args.ignore_index, 1)
    started = time.perf_counter()
    with Progress(p.nbytes + q.nbytes) as progress:
        pieces = (split(array, targets, p.ndim - 1, BLOCK_BYTES, like=p) for array in (p, q))
        kept_pieces = split(p, kept, p.ndim - 1, BLOCK_BYTES)
        for (some_p, some_targets, _), (some_q, _, _), (_, some_kept, _) in zip(*pieces, kept_pieces, strict=True):
            divergences.append(kl_divergence(some_p, some_q, reduction="none")[some_kept])
            tops = (logit_stats(some).argmax[some_kept] for some in (some_p, some_q))
            same_top += int(np.count_nonzero(np.equal(*tops)))
            if args.targets is not None:
                evaluators[0].update(some_p, some_targets)
                evaluators[1].update(some_q, some_targets)
            progress.add(some_p.nbytes + some_q.nbytes)
    report: dict[str, Any] = {"p": _described(args.first), "q": _described(args.second)}
    report |= _divergence_report(np.concatenate(divergences) if divergences else np.zeros(0), kept.size, same_top)
    if report["count"] and not math.isfinite(report["mean_kl"]):
        _tell_which_row(p, q, kept, args)
    if args.targets is not None:
        before, after = (evaluator.result().perplexity for evaluator in evaluators)
        report |= {"perplexity_p": before, "perplexity_q": after, "perplexity_difference": after - before}
    return report | {"seconds": time.perf_counter() - started}


def _divergence_report(values: NDArray[Any], rows: int, same_top: int) -> dict[str, Any]:
    count = values.size
    counts = {"count": count, "ignored": rows - count}
    if count == 0:
        nothing = dict.fromkeys((*PERCENTILES, 100), math.nan)
        return counts | {"mean_kl": math.nan, "percentiles_kl": nothing, "same_top": math.nan}
    with np.errstate(invalid="ignore"):  # between infinities
        percentiles = np.percentile(values.astype(np.float64), (*PERCENTILES, 100), method="lower")
    return counts | {
        "mean_kl": math.fsum(values.tolist()) / count,
        "percentiles_kl": dict(zip((*PERCENTILES, 100), percentiles.tolist(), strict=True)),
        "same_top": same_top / count,
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _pair(logits_file: Path, targets_file: Path, args: argparse.Namespace) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and the target of each of their rows, both mapped into memory, shifted where that is asked for."""
    logits, targets = _floating(logits_file), _load(targets_file)
    if targets.dtype.kind not in "iu":
        raise InputError(f"{targets_file} has dtype {targets.dtype}, but targets are integers")
    if targets.shape != logits.shape[:-1]:
        hint = " (the classes lie along the last axis)" if targets.shape in (logits.shape[1:], logits.shape) else ""
        raise InputError(
            f"{targets_file} has shape {targets.shape}, but {logits_file} has shape {logits.shape}, which needs "
            f"{logits.shape[:-1]}{hint}"
        )
    classes = logits.shape[-1]
    if args.shift:
        if targets.ndim == 0:
            raise InputError(f"{targets_file} has shape (), but --shift needs an axis of tokens")
        logits, targets = logits[..., :-1, :], targets[..., 1:]
    bad = (targets != args.ignore_index) & ((targets < 0) | (targets >= classes))
    if bad.any():
        place = np.argwhere(bad)[0]
        where = _position(place, args.shift)
        raise InputError(
            f"{targets_file}: target {targets[tuple(place)]} at {where} is outside [0, {classes}), the classes of "
            f"{logits_file}"
        )
    return logits, targets


def _floating(file: Path) -> NDArray[Any]:
    logits = _load(file)
    if logits.dtype == np.dtype("V2"):  # what numpy.save makes of bfloat16
        try:
            import ml_dtypes
        except ImportError:
            raise InputError(f"{file} holds bfloat16, which needs the package ml_dtypes") from None
        logits = logits.view(ml_dtypes.bfloat16)
    elif logits.dtype.kind != "f" or logits.dtype.itemsize > 8:
        raise InputError(f"{file} has dtype {logits.dtype}, but logits are float16, bfloat16, float32 or float64")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise InputError(f"{file} has shape {logits.shape}, but logits have classes along their last axis")
    return logits


def _load(file: Path) -> NDArray[Any]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: no .npy file of numbers, or a damaged one ({error})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: an archive of arrays, not a .npy file")
    return array.view(np.ndarray)


def _described(file: Path) -> dict[str, Any]:
    """The whole file, whatever was scored of it."""
    array = _floating(file)
    return {"file": str(file), "shape": list(array.shape), "dtype": str(array.dtype)}


# --- output -----------------------------------------------------------------------------------------------------------


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(_without_nan(report), indent=2))
        return
    for name, value in report.items():
        for label, text in _lines(name, value):
            print(f"{label:<22} {text}")


def _without_nan(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Label and text of the table's lines for an entry of the report."""
    if name in ("logits", "p", "q"):
        yield name.replace("p", "P").replace("q", "Q"), f"{value['file']}, {value['dtype']} {tuple(value['shape'])}"
    elif name == "accuracy":
        for k, share in value.items():
            yield f"accuracy, top {k}", f"{100 * share:.2f} %"
    elif name == "percentiles_kl":
        for percent, divergence in value.items():
            yield ("largest KL" if percent == 100 else f"KL, percentile {percent}"), f"{divergence:.6g} nats"
    elif name == "seconds":
        yield "time", f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
    else:
        units = {"loss": " nats", "bits": " bits", "mean_kl": " nats"}
        labels = {"count": "samples", "bits": "loss", "mean_kl": "mean KL", "same_top": "same top class"}
        labels |= {"perplexity_p": "perplexity of P", "perplexity_q": "perplexity of Q"}
        if name == "same_top":
            text = f"{100 * value:.2f} %"
        else:
            text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}{units.get(name, '')}"
        yield labels.get(name, name.replace("_", " ")), text
