"""What is imported when: names on demand, JAX after the request is known to be sound."""

import ast
import inspect
import subprocess
import sys

import replicajax as rj
from replicajax import scaling
from replicajax.cli import _scaling


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version
    from pathlib import Path

    assert rj.__version__ == version("replicajax")
    assert (Path(rj.__file__).parent / "py.typed").exists()


HEAVY = [
    "jax",
    "equinox",
    "optimistix",
    "lineax",
    "optax",
    "sklearn",
    "pandas",
    "xarray",
    "zarr",
    "netCDF4",
    "matplotlib",
    "scipy",
    "safetensors",
]
"""None of them by `import replicajax`, by --help, or for a request that is refused."""


def run(program: str, *, cwd) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def declared() -> dict[str, str]:
    """Name and module of everything that type checkers are told of."""
    tree = ast.parse(inspect.getsource(rj))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}


def test_interpreter_and_type_checkers_see_the_same_names():
    modules = {name for name, module in declared().items() if module == "replicajax"}
    assert modules == set(rj._MODULES)
    assert {name: module for name, module in declared().items() if name not in modules} == rj._NAMES


def test_names_come_when_asked_for(tmp_path):
    program = f"""
import sys
import replicajax
assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)
assert set({sorted(declared())!r}) <= set(dir(replicajax))
import jax
before = dict(jax.config.values)
import replicajax.amp
from replicajax import solve
assert not {{"xarray", "zarr", "pandas", "sklearn", "matplotlib", "optax"}} & set(sys.modules)
for name in {sorted(declared())!r}:
    exec(f"from replicajax import {{name}}")
    assert getattr(replicajax, name) is eval(name)
everything = {{}}
exec("from replicajax import *", everything)
assert set({sorted(declared())!r}) == set(everything) - {{"__builtins__"}}
assert callable(replicajax.amp) and callable(replicajax.solve)
assert not {{"sklearn", "optax", "netCDF4", "safetensors"}} & set(sys.modules)
assert dict(jax.config.values) == before
try:
    replicajax.nonsense
except AttributeError as error:
    assert "'nonsense'" in str(error)
"""
    run(program, cwd=tmp_path)


def test_a_request_is_refused_before_jax_is_imported(tmp_path):
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    (tmp_path / "p.toml").write_text("alpha = -1\n")
    lines = [
        "--help",
        "optimize --help",
        "scaling risk --help",
        "optimize --nonsense",
        "solve --alpha -1",
        "solve --alpha 1 --levels 1,0",
        "solve --problem p.toml",
        "solve --alpha 2 --loss perceptron --beta inf",
        "optimize --data t.csv --target y --loss hinge",
        "optimize --alpha 1 --bits 0-3",
        "optimize --alpha 1 --figure nowhere/x.png",
        "optimize --data t.csv --target z",
        "amp --data t.csv --target y --damping 1",
        "phase-diagram --alpha 0:1:3 --width 1",
        "formats --distribution cauchy",
        "allocate w.safetensors --quantize w.safetensors",
        "allocate w.safetensors --bits 0.5",
        "allocate w.safetensors --budget 3cups",
        "allocate w.safetensors --pin Q8_0",
        "recommend missing.safetensors",
        "scaling risk --kind fp8",
        "scaling fit t.csv --exponent 1",
        "scaling allocate --costs missing.toml",
        "plot missing.zarr --figure x.png",
    ]
    program = f"""
import contextlib, io, sys
from replicajax.cli import main
for line in {lines!r}:
    sys.argv = ["replicajax", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as stop:
            assert (stop.code or 0) == (0 if "--help" in line else 2), (line, stop.code)
    assert err.getvalue().count("\\n") == ("--help" not in line), (line, err.getvalue())
    assert bool(out.getvalue()) == ("--help" in line), (line, out.getvalue())
    assert not set({HEAVY!r}) & set(sys.modules), (line, set({HEAVY!r}) & set(sys.modules))
"""
    run(program, cwd=tmp_path)


def test_the_command_keeps_what_it_compiles(command, monkeypatch):
    kept = []
    monkeypatch.setattr(rj, "enable_cache", lambda: kept.append(True))
    monkeypatch.setattr(rj, "solve", lambda *_, **__: rj.codebook([]))
    assert command("solve", "--alpha", 2, "--width", 1)[0] == 2
    assert kept == [True]


def test_words_of_the_command_are_those_of_the_package():
    assert _scaling.SITES == scaling.SITES
    assert _scaling.KINDS == scaling.KINDS


def test_flags_of_the_users_own_are_kept(monkeypatch):
    import os

    from replicajax import _fusion

    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    _fusion.use_older()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    monkeypatch.delenv("XLA_FLAGS")
    _fusion.use_older()
    assert os.environ.get("XLA_FLAGS", "").count("fusion_emitters") == bool(_fusion.OLDER)
