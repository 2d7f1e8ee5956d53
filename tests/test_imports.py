"""Imports run one way, importing costs nothing global, and each package brings only what it needs."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bayes_moe", "mle", "comparisons")
AFTER_SAMPLING = ("diagnostics", "relabel", "loo", "invariants")
CURVE_SAMPLING = ("curve_tree", "curve_draws", "credible", "curves")
NUTS = ("numpyro_model", "chains", "transitions", "sampler", "plainer", "datatree", "nuts")
SAMPLING = {f"bayes_moe.{name}" for name in (*NUTS, *AFTER_SAMPLING, *CURVE_SAMPLING)}

# Each room of bayes_moe may import those in the lines before its own, and no others.
ORDER = (
    ("flags",),
    ("threads", "tables"),
    ("_numpyro", "tracing", "keys", "compile_cache", "labels"),
    ("compilation", "numerics", "blocks", "repulsion", "sparsity"),
    ("data",),
    ("dates",),
    ("parameters",),
    ("gaussian", "responses", "indexed"),
    ("normal", "activations"),
    ("frozen",),
    ("gates", "experts"),
    ("likelihood",),
    ("moe",),
    ("origin",),
    ("varying", "bases"),
    ("families", "formula", "bands", "smooth"),
    ("losses", "information", "voronoi", "solvability", "dendrogram", "units", "movement"),
    ("priors",),
    ("numpyro_model", "modes"),
    ("mass",),
    ("gibbs", "curve_starts"),
    ("chains",),
    ("transitions",),
    ("sampler",),
    ("plainer",),
    ("datatree",),
    ("nuts", *AFTER_SAMPLING),
    *((name,) for name in CURVE_SAMPLING),
)
RANK = {f"bayes_moe.{name}": rank for rank, names in enumerate(ORDER) for name in names}


def imported(source, package):
    """Full names of the modules of the three packages that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES and is_module(name)}


def is_module(name):
    """Whether a dotted name is a module or package of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def modules(package):
    """Return the modules of a package, name -> what each imports."""
    paths = {path: path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / package).rglob("*.py")}
    return {".".join(parts): imported(path.read_text(), ".".join(parts[:-1])) for path, parts in paths.items()}


def forbidden(module, found):
    """What a module imports and must not."""
    package = module.split(".")[0]
    if package == "comparisons":
        return set()
    if package == "mle":
        return {name for name in found if name.startswith("comparisons") or name in SAMPLING}
    outside = {name for name in found if not name.startswith("bayes_moe")}
    if module == "bayes_moe.__init__":
        return outside
    return outside | {name for name in found & RANK.keys() if RANK[name] >= RANK[module]}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    found = modules(package)
    assert len(found) > 5
    assert {name: bad for name, names in found.items() if (bad := forbidden(name, names))} == {}


def test_every_room_of_bayes_moe_has_its_place_in_the_order():
    assert modules("bayes_moe").keys() - RANK.keys() == {"bayes_moe.__init__"}


# A row: where, the planted import, and what must be found wrong with it.
PLANTED = [
    ("bayes_moe.moe", "import mle", {"mle"}),
    ("bayes_moe.nuts", "from comparisons.study import Study", {"comparisons.study"}),
    ("bayes_moe.gates", "from bayes_moe import nuts, parameters", {"bayes_moe.nuts"}),
    ("bayes_moe.moe", "def f():\n    from bayes_moe.priors import resolve", {"bayes_moe.priors"}),
    ("bayes_moe.experts", "from . import gates", {"bayes_moe.gates"}),
    ("bayes_moe.parameters", "from .moe import MoE", {"bayes_moe.moe"}),
    ("mle.em", "import bayes_moe.nuts as n", {"bayes_moe.nuts"}),
    ("mle.em", "from bayes_moe import diagnostics", {"bayes_moe.diagnostics"}),
    ("mle.fit", "from bayes_moe.datatree import groups", {"bayes_moe.datatree"}),
    ("mle.fit", "from comparisons import study", {"comparisons", "comparisons.study"}),
]


@pytest.mark.parametrize(("module", "source", "wrong"), PLANTED)
def test_a_planted_import_is_found(module, source, wrong):
    found = imported(source, module.split(".")[0])
    assert forbidden(module, found) == wrong


def test_allowed_imports_are_left_alone():
    assert forbidden("mle.em", imported("from bayes_moe import moe, parameters, losses", "mle")) == set()
    assert forbidden("bayes_moe.nuts", imported("from . import priors, sampler", "bayes_moe")) == set()
    assert forbidden("comparisons.study", imported("from bayes_moe import nuts", "comparisons")) == set()


def run(code):
    """Run code in a fresh interpreter and return what it prints, word by word."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_maximum_likelihood_never_loads_the_sampler():
    loaded = run("import sys, mle, mle.em, mle.newton; print(*sys.modules)")
    assert {"mle.em", "bayes_moe.moe"} <= set(loaded)
    assert not SAMPLING & set(loaded)
    assert not {"comparisons", "arviz", "arviz_base", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("before", [False, True])
def test_importing_leaves_the_precision_of_jax_alone(before):
    names = "bayes_moe, bayes_moe.nuts, bayes_moe.diagnostics, mle.em, mle.newton, comparisons"
    code = f"import jax; jax.config.update('jax_enable_x64', {before}); import {names}; "
    assert run(code + "print(jax.config.jax_enable_x64, jax.numpy.zeros(1).dtype)") == [
        str(before),
        "float64" if before else "float32",
    ]


@pytest.mark.parametrize("first", ["arviz", "bayes_moe"])
def test_numpyro_is_whole_whatever_is_imported_first(first):
    """ArviZ puts a lazy numpyro into sys.modules; importing a submodule of that alone loses `numpyro.factor`."""
    assert run(f"import {first}, bayes_moe.nuts, numpyro; print(numpyro.distributions.distribution.__name__)") == [
        "numpyro.distributions.distribution"
    ]
