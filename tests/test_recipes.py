"""The recipes of the README, as they stand there: saved logits, ONNX Runtime, llama-cpp-python.

The model behind the first two is a tiny language model that is exported to ONNX here. llama-cpp-python ships no model, so a
class with the attributes that the recipe uses stands in for it.
"""

import re
import shlex
import sys
import types
from pathlib import Path

import crossent
import numpy as np
import pytest
import reference
from crossent.__main__ import main
from helpers import FLOAT16, FLOAT32, assert_ulps, limit, normal

README = (Path(__file__).parent.parent / "README.md").read_text()
VOCABULARY, WIDTH = 300, 16


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recipe(word):
    """The block of Python code of the README that holds a word."""
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in block]
    return code


def run(code, **names):
    """Run a recipe; the names that it leaves."""
    names |= {"crossent": crossent, "np": np}
    exec(code, names)  # noqa: S102 (the README is ours)
    return names


def make_tokens(*shape):
    return np.random.default_rng(0).integers(0, VOCABULARY, shape)


def assert_next_token_scores(log_probs, logits, tokens):
    expected = reference.token_log_probs(logits[..., :-1, :], tokens[..., 1:])
    assert_ulps(log_probs, expected, limit("token log-prob", logits.dtype))


# --- saved logits -----------------------------------------------------------------------------------------------------


def save_logits():
    logits, tokens = normal((200, VOCABULARY), FLOAT16), make_tokens(200)
    np.save("logits.npy", logits)
    np.save("logits-of-the-quantized-model.npy", logits.round())
    np.save("tokens.npy", tokens)
    return crossent.Evaluator().update(logits[:-1], tokens[1:]).result().perplexity


def test_saved_logits_in_python(capsys):
    perplexity = save_logits()
    run(recipe("mmap_mode"))
    assert capsys.readouterr().out == f"{perplexity}\n"


def test_saved_logits_on_the_command_line(capsys):
    perplexity = save_logits()
    commands = re.findall(r"^crossent (.*logits\.npy.*)$", README, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)) == 0
        assert f"{perplexity:.6g}" in capsys.readouterr().out


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def export_language_model(dtype):
    """A language model of one position's context: embedding, a nonlinearity, and a matrix; (batch, time) to logits."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    element = helper.np_dtype_to_tensor_dtype(dtype)
    weights = {"embedding": normal((VOCABULARY, WIDTH), dtype), "head": normal((WIDTH, VOCABULARY), dtype, 1.0)}
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["activated"]),
        helper.make_node("MatMul", ["activated", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "language_model",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "time"])],
        [helper.make_tensor_value_info("logits", element, ["batch", "time", VOCABULARY])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, "model.onnx")


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_onnx_runtime(dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    export_language_model(dtype)
    tokens = make_tokens(3, 25)
    names = run(recipe("onnxruntime"), onnxruntime=onnxruntime, tokens=tokens)
    assert names["logits"].dtype == dtype
    assert names["log_probs"].shape == (3, 24)
    assert_next_token_scores(names["log_probs"], names["logits"], tokens)


# --- llama-cpp-python -------------------------------------------------------------------------------------------------


class StandIn:
    """What the recipe uses of llama_cpp.Llama: the scores have a row for each position of the context, used or not."""

    def __init__(self, model_path, logits_all=False):
        assert model_path.endswith(".gguf") and logits_all
        self.scores = np.full((64, VOCABULARY), np.nan, np.float32)

    def tokenize(self, text):
        return [byte + 7 for byte in text]

    def eval(self, tokens):
        self.scores[: len(tokens)] = normal((len(tokens), VOCABULARY), FLOAT32)


def test_llama_cpp_python(monkeypatch):
    module = types.ModuleType("llama_cpp")
    module.Llama = StandIn
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    names = run(recipe("llama_cpp"), llama_cpp=module)
    tokens = np.array(names["tokens"])
    assert names["log_probs"].shape == (len(tokens) - 1,)
    assert_next_token_scores(names["log_probs"], names["llm"].scores[: len(tokens)], tokens)
