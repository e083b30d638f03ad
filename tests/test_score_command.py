"""The commands `crossent score` and `crossent compare`: results, files of every kind, errors, exit statuses, interruption."""

import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import crossent
import numpy as np
import pytest
from crossent import _score
from crossent.__main__ import main
from helpers import BFLOAT16, FLOAT16, FLOAT32, assert_ulps, available_dtypes, normal

SHAPE, CLASSES = (6, 20), 30
INTERPRETER = [sys.executable, "-m", "crossent"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(**arrays):
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)


def make_samples(dtype=FLOAT32):
    logits = normal((*SHAPE, CLASSES), dtype)
    targets = np.random.default_rng(0).integers(0, CLASSES, SHAPE)
    return logits, targets


def report(capsys, *arguments, status=0):
    """The report that a command prints as JSON."""
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def failure(capsys, *arguments):
    """What a command that fails over a file says."""
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err


# --- score ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", available_dtypes(), ids=str)
def test_score_tells_what_the_evaluator_tells(dtype, capsys):
    logits, targets = make_samples(dtype)
    targets[0, 3] = -100
    save(logits=logits, targets=targets)
    found = report(capsys, "score", "logits.npy", "targets.npy")
    expected = crossent.Evaluator().update(logits, targets).result()
    assert (found["count"], found["ignored"]) == (expected.count, 1)
    assert (found["loss"], found["perplexity"]) == (expected.loss, expected.perplexity)
    assert found["accuracy"] == {str(k): share for k, share in expected.accuracy.items()}
    assert found["bits"] == pytest.approx(expected.loss / math.log(2))
    assert found["logits"] == {"file": "logits.npy", "shape": [*SHAPE, CLASSES], "dtype": str(dtype)}


def test_files_of_many_pieces_give_the_same(capsys, monkeypatch):
    logits, targets = make_samples()
    for order in "CF":
        save(logits=np.asarray(logits, order=order), targets=targets.astype(np.uint8), quantized=logits.round())
        whole = report(capsys, "score", "logits.npy", "targets.npy")
        both = report(capsys, "compare", "logits.npy", "quantized.npy")
        with monkeypatch.context() as patch:
            patch.setattr(_score, "BLOCK_BYTES", 1000)
            for expected, arguments in (
                (whole, ["score", "logits.npy", "targets.npy"]),
                (both, ["compare", "logits.npy", "quantized.npy"]),
            ):
                found = report(capsys, *arguments)
                assert found | {"seconds": 0} == expected | {"seconds": 0}


def test_options_of_score(capsys):
    logits, targets = make_samples()
    save(logits=logits, targets=targets)
    found = report(capsys, "score", "logits.npy", "targets.npy", "--top-k", "2,7", "--ignore-index", str(targets[0, 0]))
    expected = crossent.Evaluator(int(targets[0, 0]), (2, 7)).update(logits, targets).result()
    assert found["loss"] == expected.loss
    assert list(found["accuracy"]) == ["2", "7"]
    before = crossent.get_num_threads()
    try:
        report(capsys, "score", "logits.npy", "targets.npy", "--threads", "1")
        assert crossent.get_num_threads() == 1
    finally:
        crossent.set_num_threads(before)


def test_shift_scores_each_token_by_the_position_before(capsys):
    logits, tokens = make_samples()
    for some_logits, some_tokens in ((logits, tokens), (logits[0], tokens[0])):
        save(logits=some_logits, tokens=some_tokens)
        found = report(capsys, "score", "logits.npy", "tokens.npy", "--shift")
        expected = crossent.Evaluator().update(some_logits[..., :-1, :], some_tokens[..., 1:]).result()
        assert (found["count"], found["loss"]) == (expected.count, expected.loss)
        assert found["logits"]["shape"] == list(some_logits.shape)  # what the file holds


def test_the_table_for_people(capsys):
    logits, targets = make_samples()
    save(logits=logits, targets=targets)
    assert main(["score", "logits.npy", "targets.npy"]) == 0
    table = capsys.readouterr().out
    loss = crossent.cross_entropy(logits, targets, axis=-1)
    for text in (
        "float32 (6, 20, 30)",
        "samples                120",
        f"{loss:.5f}"[:6],
        "perplexity",
        "accuracy, top 5",
    ):
        assert text in table
    assert re.search(r"^time +[\d.]+ m?s$", table, re.MULTILINE)


# --- compare ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_compare_tells_divergence_and_agreement(dtype, capsys):
    p, targets = make_samples()
    q = (p * 4).round() / 4
    targets[2] = -100
    save(p=p, q=q.astype(dtype), targets=targets)
    q = q.astype(dtype).astype(FLOAT32)
    values = crossent.kl_divergence(p, q, reduction="none")
    found = report(capsys, "compare", "p.npy", "q.npy")
    assert found["count"] == values.size
    assert_ulps(FLOAT32.type(found["mean_kl"]), values.mean(dtype=np.longdouble), 1)
    assert found["percentiles_kl"]["100"] == values.max()
    assert found["percentiles_kl"]["50"] == np.percentile(values, 50, method="lower")
    assert found["same_top"] == (p.argmax(-1) == q.argmax(-1)).mean()

    found = report(capsys, "compare", "p.npy", "q.npy", "--targets", "targets.npy")
    kept = targets != -100
    assert (found["count"], found["ignored"]) == (kept.sum(), SHAPE[1])
    assert_ulps(FLOAT32.type(found["mean_kl"]), values[kept].mean(dtype=np.longdouble), 1)
    p_result, q_result = (crossent.Evaluator().update(x, targets).result() for x in (p, q))
    assert (found["perplexity_p"], found["perplexity_q"]) == (p_result.perplexity, q_result.perplexity)
    assert found["perplexity_difference"] == q_result.perplexity - p_result.perplexity

    found = report(capsys, "compare", "p.npy", "q.npy", "--targets", "targets.npy", "--shift")
    assert found["count"] == kept[:, 1:].sum()


def test_a_model_compared_with_itself(capsys):
    save(p=make_samples()[0])
    found = report(capsys, "compare", "p.npy", "p.npy")
    assert (found["mean_kl"], found["same_top"]) == (0, 1)


# --- without files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "compare"])
def test_without_arguments_the_command_explains_itself(command, capsys):
    assert main([command]) == 0
    text = capsys.readouterr().out
    for word in ("usage", "--example", ".npy", "exit status", "130"):
        assert word in text


def test_the_examples(capsys):
    found = report(capsys, "score", "--example")
    assert 1 < found["perplexity"] < 10
    found = report(capsys, "compare", "--example")
    assert 0 < found["mean_kl"] < 0.1
    assert found["perplexity_q"] > found["perplexity_p"]
    assert main(["score", "--example"]) == 0
    assert "perplexity" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "a.npy"],
        ["score", "a.npy", "--example"],
        ["score", "a.npy", "b.npy", "--top-k", "0"],
        ["score", "a.npy", "b.npy", "--threads", "x"],
        ["score", "a", "b", "c"],
        ["score", "a.npy", "b.npy", "--top-k", "1,,2"],
        ["compare", "a.npy", "b.npy", "--top-k", "1"],
        ["compare", "a.npy", "b.npy", "--shift"],
    ],
)
def test_a_wrong_command_line_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


# --- files that are not what they should be ---------------------------------------------------------------------------


def test_files_that_cannot_be_read(capsys):
    logits, targets = make_samples()
    save(logits=logits, targets=targets)
    np.savez("archive.npz", logits=logits)
    Path("text.npy").write_text("no array")
    Path("empty.npy").write_bytes(b"")
    Path("cut.npy").write_bytes(Path("logits.npy").read_bytes()[:-100])
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("missing.npy", "archive.npz", "text.npy", "empty.npy", "cut.npy", "objects.npy", "."):
        assert name in failure(capsys, "score", name, "targets.npy")
        assert name in failure(capsys, "score", "logits.npy", name)
        assert name in failure(capsys, "compare", "logits.npy", name)


def test_files_that_do_not_fit(capsys):
    logits, targets = make_samples()
    save(logits=logits, targets=targets, fewer=targets[:, 1:], floats=targets.astype(FLOAT32), numbers=targets)
    save(scalar=FLOAT32.type(3), complex=logits.astype(complex), other=logits[..., 1:], empty=logits[..., :0])
    for arguments, parts in {
        ("score", "logits.npy", "fewer.npy"): ["fewer.npy", "(6, 19)", "(6, 20, 30)", "(6, 20)"],
        ("score", "logits.npy", "floats.npy"): ["floats.npy", "float32", "integers"],
        ("score", "numbers.npy", "targets.npy"): ["numbers.npy", "int64"],
        ("score", "complex.npy", "targets.npy"): ["complex.npy", "complex128"],
        ("score", "scalar.npy", "targets.npy"): ["scalar.npy", "()"],
        ("score", "empty.npy", "targets.npy"): ["empty.npy", "(6, 20, 0)"],
        ("compare", "logits.npy", "other.npy"): ["other.npy", "(6, 20, 29)", "(6, 20, 30)"],
        ("compare", "logits.npy", "logits.npy", "--targets", "fewer.npy"): ["fewer.npy", "(6, 19)"],
    }.items():
        message = failure(capsys, *arguments)
        for part in parts:
            assert part in message, arguments


def test_targets_out_of_range(capsys):
    logits, targets = make_samples()
    targets[2, 7] = 30
    save(logits=logits, targets=targets)
    for options in ([], ["--shift"]):
        message = failure(capsys, "score", "logits.npy", "targets.npy", *options)
        for part in ("targets.npy", "target 30", "(2, 7)", "[0, 30)", "logits.npy"):
            assert part in message
    save(targets=np.where(targets == 30, -1, targets))
    assert "target -1 at (2, 7)" in failure(capsys, "score", "logits.npy", "targets.npy")


@pytest.mark.skipif(BFLOAT16 is None, reason="needs ml_dtypes")
def test_bfloat16_without_ml_dtypes(capsys, monkeypatch):
    logits, targets = make_samples(BFLOAT16)
    save(logits=logits, targets=targets)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "ml_dtypes" in failure(capsys, "score", "logits.npy", "targets.npy")


@pytest.mark.parametrize(("value", "loss"), [(np.nan, "nan"), (-np.inf, "inf")])
@pytest.mark.parametrize("block_bytes", [1000, 1 << 23])
def test_a_loss_that_is_no_number_is_status_3_and_the_first_one_is_named(value, loss, block_bytes, capsys, monkeypatch):
    monkeypatch.setattr(_score, "BLOCK_BYTES", block_bytes)
    logits, targets = make_samples()
    for place in ((1, 2), (4, 7)):
        logits[place][targets[place]] = value
    logits[0, 3], targets[0, 3] = np.nan, -100  # ignored
    save(logits=logits, targets=targets)
    assert report(capsys, "score", "logits.npy", "targets.npy", status=3)["loss"] is None
    assert main(["score", "logits.npy", "targets.npy"]) == 3
    out, err = capsys.readouterr()
    assert "loss" in out
    assert err == f"targets.npy: the loss of the target at (1, 2) is {loss}\n"
    assert main(["score", "logits.npy", "targets.npy", "--shift"]) == 3
    assert "at (0, 4) is nan" in capsys.readouterr().err  # whose logits are those before


@pytest.mark.parametrize(("value", "divergence"), [(np.nan, "nan"), (-np.inf, "inf")])
@pytest.mark.parametrize("block_bytes", [1000, 1 << 23])
def test_the_first_row_whose_divergence_is_no_number_is_named(value, divergence, block_bytes, capsys, monkeypatch):
    monkeypatch.setattr(_score, "BLOCK_BYTES", block_bytes)
    p, targets = make_samples()
    q = p.copy()
    q[1, 2, 5] = q[4, 7, 0] = value
    q[0, 3], targets[0, 3] = np.nan, -100  # ignored
    save(p=p, q=q, targets=targets)
    assert main(["compare", "p.npy", "q.npy", "--targets", "targets.npy"]) == 3
    assert capsys.readouterr().err == f"q.npy: the KL divergence of the row at (1, 2) is {divergence}\n"
    assert main(["compare", "p.npy", "q.npy"]) == 3
    assert capsys.readouterr().err == "q.npy: the KL divergence of the row at (0, 3) is nan\n"


def test_no_samples(capsys):
    save(logits=np.zeros((0, 5), FLOAT32), targets=np.zeros(0, int))
    assert report(capsys, "score", "logits.npy", "targets.npy", status=3)["count"] == 0
    assert report(capsys, "compare", "logits.npy", "logits.npy", status=3)["count"] == 0


# --- as a process -----------------------------------------------------------------------------------------------------


def test_the_installed_command_and_the_module_are_one():
    script = Path(sys.executable).parent / "crossent"
    for command in ([str(script)], INTERPRETER):
        done = subprocess.run([*command, "score", "--example", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["count"] > 100
        assert done.stderr == ""


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*INTERPRETER, "score", "--example"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def slow_files():
    """Enough rows for a run to be seen under way: the same ones again and again, in a sparse file."""
    np.lib.format.open_memmap("logits.npy", "w+", np.float32, (40_000, 20_000)).flush()
    save(targets=np.zeros(40_000, np.int8))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs sparse files and a terminal")
def test_progress_on_a_terminal_and_a_clean_end_when_interrupted():
    slow_files()
    terminal, inside = pty.openpty()
    # A shell's background jobs ignore the interrupt, and what they start would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*INTERPRETER, "score", "logits.npy", "targets.npy"], stdout=subprocess.PIPE, stderr=inside, text=True
    )
    signal.signal(signal.SIGINT, before)
    seen = b""
    deadline = time.monotonic() + 60
    while b"left" not in seen and time.monotonic() < deadline:
        seen += os.read(terminal, 1000)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    os.close(inside)
    while b"interrupted" not in seen and time.monotonic() < deadline:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    assert out == ""
    for part in (b" %", b"GB/s", b"left", b"interrupted"):
        assert part in seen
    assert b"Traceback" not in seen
