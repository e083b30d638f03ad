"""Promises about the package itself: symbols of the per-target objects, version, signatures, docstrings, files."""

import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import crossent
import pytest
from crossent import _core

PACKAGE = Path(_core.__file__).parent  # in an editable install, where the compiled files are
ROOT = Path(__file__).parent.parent

LOSS = "weight=None, ignore_index=-100, reduction='mean', axis=None"
SIGNATURES = {  # INTERFACE.md, sections 1 and 2; functions may grow by keyword-only arguments
    "softmax": "x, axis=-1, *, out=None",
    "log_softmax": "x, axis=-1, *, out=None",
    "logsumexp": "x, axis=-1, *, keepdims=False, out=None",
    "softmax_backward": "grad, y, axis=-1, *, out=None",
    "log_softmax_backward": "grad, y, axis=-1, *, out=None",
    "nll_loss": f"log_probs, target, *, {LOSS}",
    "nll_loss_backward": f"grad, log_probs, target, *, {LOSS}, out=None",
    "cross_entropy": f"logits, target, *, {LOSS}, label_smoothing=0.0",
    "cross_entropy_backward": f"grad, logits, target, *, {LOSS}, label_smoothing=0.0, out=None",
    "cross_entropy_value_and_grad": f"logits, target, *, {LOSS}, label_smoothing=0.0, out=None",
    "token_log_probs": "logits, index, axis=-1, *, out=None",
    "logit_stats": "logits, target=None, axis=-1, *, top_k=0",
    "kl_divergence": "p_logits, q_logits, axis=-1, *, temperature=1.0, reduction='mean'",
    "kl_divergence_value_and_grad": "p_logits, q_logits, axis=-1, *, temperature=1.0, reduction='mean', out=None",
    "Evaluator": "ignore_index=-100, top_k=(1, 5)",
}
RUNTIME = ["get_num_threads", "set_num_threads", "simd_target", "simd_targets", "get_include", "get_cmake_dir"]
# Functions of libm whose last bits differ between platforms, in every type, as vectors and under glibc's other names.
INEXACT = (
    "exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|powi|sin|cos|sincos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|asinh|acosh"
    "|atanh|erf|erfc|tgamma|lgamma|gamma|cbrt|hypot"
)
INEXACT_SYMBOL = re.compile(rf"(_ZGV\w+_|_*)({INEXACT})(f|l|f16|f32|f64|f128|df2|sf2)?(_r)?(_finite)?")
# Exact, but a call for every lane where an instruction set has no such instruction.
SLOW_SYMBOL = re.compile(r"_*(fma|rint|nearbyint|round|floor|ceil|trunc)(f|l)?")


# --- symbols ----------------------------------------------------------------------------------------------------------


def archive_symbols():
    """{member: [(name, type)]} of the installed static library, by nm."""
    (archive,) = PACKAGE.rglob("libcrossent.a")
    listing = subprocess.run(["nm", "-P", str(archive)], capture_output=True, text=True, check=True).stdout
    members = {}
    for line in listing.splitlines():
        if heading := re.fullmatch(r".*\[(.+)\]:", line):
            symbols = members.setdefault(heading[1], [])
        elif line:
            symbols.append(tuple(line.split()[:2]))
    return members


@pytest.fixture(scope="module")
def kernels():
    """The members that are compiled once per instruction set."""
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    return {name: symbols for name, symbols in archive_symbols().items() if re.match(r"kernels_.*\.o", name)}


def test_there_is_an_object_for_every_instruction_set(kernels):
    for target in crossent.simd_targets():
        assert any(target in name for name in kernels), target


def test_every_kernel_object_exports_its_table_alone(kernels):
    for name, symbols in kernels.items():
        exported = [symbol for symbol, kind in symbols if kind.isupper() and kind not in "UWV"]
        assert len(exported) == 1, f"{name} exports {exported}"


def test_no_kernel_object_has_weak_or_unique_symbols(kernels):
    for name, symbols in kernels.items():
        assert not [symbol for symbol, kind in symbols if kind in "WVwvu"], name


def test_no_kernel_object_runs_code_at_import(kernels):
    for name, symbols in kernels.items():
        assert not [symbol for symbol, _ in symbols if symbol.startswith("_GLOBAL__sub_I")], name


def test_no_object_uses_mmx_registers():
    """They are the x87 registers: after them, long double arithmetic in the host process gives NaN."""
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    (archive,) = PACKAGE.rglob("libcrossent.a")
    code = subprocess.run(["objdump", "-d", str(archive)], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r"%mm[0-7]", code)


def undefined(symbols):
    """Names of the functions that come from elsewhere, without a platform's underscore before or version behind."""
    prefix = "_" if sys.platform == "darwin" else ""
    return {symbol.removeprefix(prefix).split("@")[0] for symbol, kind in symbols if kind == "U"}


def test_no_kernel_object_calls_libm(kernels):
    for name, symbols in kernels.items():
        names = undefined(symbols)
        assert not [n for n in names if INEXACT_SYMBOL.fullmatch(n) or SLOW_SYMBOL.fullmatch(n)], name


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_no_libm_call_decides_a_result():
    """Drivers may take numbers apart and put them together (frexp, ldexp), which is exact."""
    members = archive_symbols()
    dynamic = [] if sys.platform == "darwin" else ["-D"]
    listing = subprocess.run(["nm", "-P", *dynamic, _core.__file__], capture_output=True, text=True, check=True).stdout
    members["_core"] = [tuple(line.split()[:2]) for line in listing.splitlines()]
    assert any(undefined(symbols) for symbols in members.values())
    for name, symbols in members.items():
        assert not [n for n in undefined(symbols) if INEXACT_SYMBOL.fullmatch(n)], name


@pytest.mark.parametrize(
    "name", ["exp", "expf", "log1pl", "__exp_finite", "_ZGVdN8v_expf", "pow", "tanhf", "__powidf2"]
)
def test_the_audit_knows_libm_by_its_names(name):
    assert INEXACT_SYMBOL.fullmatch(name)


# --- the public page --------------------------------------------------------------------------------------------------


def parameters(text):
    return inspect.signature(eval(f"lambda {text}: None")).parameters


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_interface(name):
    promised, actual = parameters(SIGNATURES[name]), inspect.signature(getattr(crossent, name)).parameters
    positional = [p for p in actual if actual[p].kind != inspect.Parameter.KEYWORD_ONLY]
    assert positional == [p for p in promised if promised[p].kind != inspect.Parameter.KEYWORD_ONLY]
    for parameter, value in promised.items():
        assert actual[parameter].kind == value.kind
        assert actual[parameter].default == value.default
    for extra in actual.keys() - promised.keys():
        assert actual[extra].default is not inspect.Parameter.empty


def test_all_lists_the_public_names():
    promised = {*SIGNATURES, *RUNTIME}
    assert promised <= set(crossent.__all__)
    for name in crossent.__all__:
        assert hasattr(crossent, name)


@pytest.mark.parametrize("name", [*SIGNATURES, *RUNTIME])
def test_every_public_function_has_a_docstring(name):
    assert len((getattr(crossent, name).__doc__ or "").split()) >= (20 if name in SIGNATURES else 3)


@pytest.mark.parametrize("name", SIGNATURES)
def test_docstrings_tell_shapes_dtypes_and_errors(name):
    text = getattr(crossent, name).__doc__.lower()
    for word in ("shape", "dtype", "error", *(p for p in parameters(SIGNATURES[name]))):
        assert word in text, word
    if name not in ("softmax", "softmax_backward"):
        assert "nats" in text or "logarithm" in text or "log" in text


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    assert crossent.__version__ == importlib.metadata.version("crossent")
    project = (ROOT / "pyproject.toml").read_text()
    assert crossent.__version__ == re.search(r'^version\s*=\s*"([^"]+)"', project, re.MULTILINE)[1]


def test_cpp_users_find_headers_library_and_configuration():
    assert list(Path(crossent.get_include()).rglob("*.hpp"))
    assert (Path(crossent.get_cmake_dir()) / "crossentConfig.cmake").is_file()
    assert len(list(PACKAGE.rglob("libcrossent.a"))) == 1


def test_the_package_is_typed():
    assert (Path(crossent.__file__).parent / "py.typed").is_file()


def test_importing_adds_no_slow_modules_to_numpy():
    """.ci/import_time.py measures; this names what must not come back."""
    slow = {"pathlib", "argparse", "urllib.parse", "matplotlib", "tqdm", "sklearn", "torch"}
    code = f"import sys, numpy; before = set(sys.modules); import crossent; print({slow} & (set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
