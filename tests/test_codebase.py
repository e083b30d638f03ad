"""Promises about the package itself: symbols of the compiled files, version, signatures, docstrings, files."""

import importlib.metadata
import inspect
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import crossent
import pytest
from crossent import _core
from symbols import INEXACT_SYMBOL, inexact_calls, output_of, symbols_of, uses_mmx

PACKAGE = Path(_core.__file__).parent  # in an editable install, where the compiled files are
ROOT = Path(__file__).parent.parent

LOSS = "weight=None, ignore_index=-100, reduction='mean', axis=None"
SIGNATURES = {  # what users were promised; functions may grow by keyword-only arguments
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


# --- symbols ----------------------------------------------------------------------------------------------------------


# The objects of the instruction sets are audited where they are: tests/cpp/CMakeLists.txt runs symbols.py on them.

needs_nm = pytest.mark.skipif(
    sys.platform == "win32" or not (shutil.which("nm") and shutil.which("objdump")), reason="needs nm and objdump"
)
DYNAMIC = ["-g"] if sys.platform == "darwin" else ["-D"]


def shared_library():
    (library,) = (PACKAGE / "lib").glob("libcrossent.*")
    return library


def declared_functions():
    """Names of the functions that the public headers declare and do not define."""
    text = "".join(header.read_text() for header in Path(crossent.get_include()).rglob("*.hpp"))
    return set(
        re.findall(r"^(?!inline|constexpr|template|using)[a-zA-Z][\w:<>* ]*?\b(\w+)\([^{}]*?\);", text, re.MULTILINE)
    )


@needs_nm
def test_the_shared_library_exports_what_the_public_headers_declare_and_nothing_else():
    """Else a function of its own or of the standard library could be taken for another library's, or the reverse."""
    exported = [name for name, kind in symbols_of(shared_library(), *DYNAMIC) if kind not in "Uw"]
    mangled = [re.match(r"_ZN8crossent(\d+)(\w+)", name) for name in exported]
    assert all(mangled), exported
    names = {name[2][: int(name[1])] for name in mangled}
    assert names == declared_functions()
    assert {"softmax", "cross_entropy_value_and_grad", "simd_target", "version"} <= names


@needs_nm
def test_the_module_exports_its_entry_point_alone():
    exported = [name for name, kind in symbols_of(_core.__file__, *DYNAMIC) if kind.isupper() and kind not in "UWV"]
    assert exported == ["PyInit__core"]


@needs_nm
def test_the_library_never_calls_its_own_functions_through_a_table():
    """What it exports could be replaced by others of that name otherwise, and every call would be slower."""
    if shutil.which("readelf") is None or sys.platform == "darwin":
        pytest.skip("needs readelf")
    assert not re.findall(r"JUMP_SLO.*_ZN8crossent\w*", output_of("readelf", "-rW", shared_library()))


@needs_nm
def test_no_object_uses_mmx_registers():
    assert not uses_mmx(shared_library())
    assert not uses_mmx(_core.__file__)


@needs_nm
def test_no_libm_call_decides_a_result():
    """Drivers may take numbers apart and put them together (frexp, ldexp), which is exact."""
    for file in (shared_library(), _core.__file__):
        symbols = symbols_of(file, *DYNAMIC)
        assert any(kind == "U" for _, kind in symbols)
        assert not inexact_calls(symbols), file


@pytest.mark.parametrize(
    "name", ["exp", "expf", "log1pl", "__exp_finite", "_ZGVdN8v_expf", "pow", "tanhf", "__powidf2"]
)
def test_the_audit_knows_libm_by_its_names(name):
    assert INEXACT_SYMBOL.fullmatch(name)


KERNELS = "extern const int table; const int table = 1;"
AUDITED = {  # a file of the instruction set `avx2`, and what the audit says of it
    KERNELS: "",
    KERNELS + " void second() {}": "exports",
    KERNELS + " inline int f() { return 1; } int (*volatile g)() = f;": "weak",
    KERNELS + " int h(); static int start = h(); int use() { return start; }": "runs code",
    KERNELS
    + ' extern "C" float expf(float); static float e(float x) { return expf(x); } float (*volatile p)(float) = e;': (
        "calls ['expf']"
    ),
    KERNELS
    + ' extern "C" float rintf(float); static float r(float x) { return rintf(x); } float (*volatile p)(float) = r;': (
        "for each lane"
    ),
    KERNELS + ' static void m() { asm("emms; movd %eax, %mm0"); } void (*volatile p)() = m;': "MMX",
}


@needs_nm
@pytest.mark.skipif(platform.machine() != "x86_64" or not shutil.which("g++"), reason="needs g++ for x86-64")
@pytest.mark.parametrize(("text", "expected"), AUDITED.items(), ids=[said or "nothing" for said in AUDITED.values()])
def test_the_audit_of_objects_sees_what_is_wrong(text, expected, tmp_path):
    source, kernels = tmp_path / "kernels_avx2.cpp", tmp_path / "kernels_avx2.cpp.o"
    source.write_text(f"namespace crossent {{ namespace avx2 {{ {text} }} }}\n")
    output_of("g++", "-c", "-fPIC", source, "-o", kernels)
    audit = [sys.executable, str(Path(__file__).parent / "symbols.py"), str(kernels)]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert expected in done.stderr
    assert (done.returncode != 0) == bool(expected)


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
    libraries = [file.name for file in PACKAGE.rglob("*crossent.*") if file.suffix in (".so", ".dylib", ".dll", ".a")]
    assert len(libraries) == 1, "the module and C++ users share one"


def test_the_package_is_typed():
    assert (Path(crossent.__file__).parent / "py.typed").is_file()


def test_importing_adds_no_slow_modules_to_numpy():
    """.ci/import_time.py measures; this names what must not come back."""
    slow = {"pathlib", "argparse", "urllib.parse", "matplotlib", "tqdm", "sklearn", "torch"}
    code = f"import sys, numpy; before = set(sys.modules); import crossent; print({slow} & (set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
