"""Imports run one way, importing costs nothing global, and each package brings only what it needs."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bayes_moe", "mle", "comparisons")
# Who may import whom: rooms, and files that lie in none, each those in the lines before its own. Rooms of one line, and
# files of one line, know nothing of each other.
ORDER = {
    "bayes_moe": ("ground", "model", "varying theory nuts", "families", "draws", "curves"),
    "mle": ("optimise local", "kernel", "em newton", "profile criteria infinity"),
    "comparisons": ("study", "report", "contaminated gaussian curves", "catalogue", "running", "cli peers"),
}
RANK = {
    f"{package}.{room}": rank
    for package, lines in ORDER.items()
    for rank, line in enumerate(lines)
    for room in line.split()
}
SAMPLING = tuple(f"bayes_moe.{room}" for room in ("nuts", "draws", "curves"))


def imported(source, package, *, types=True):
    """Full names of the modules of the three packages that a module imports, wherever in it, for types alone or not."""
    names = set()
    for node in walked(ast.parse(source), types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES and is_module(name)}


def walked(node, types):
    """A node and all in it; without ``types`` not what only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if types or not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from walked(child, types)


def is_module(name):
    """Whether a dotted name is a module or package of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def modules(package, *, types=True):
    """Return the modules of a package, name -> what each imports."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts)] = imported(path.read_text(), ".".join(parts[:-1]), types=types)
    return found


def room(module):
    """Room of a module, or itself where it lies in none."""
    return ".".join(module.split(".")[:2])


def forbidden(module, found):
    """What a module imports and must not."""
    package, bad = module.split(".")[0], set()
    for name in found - {module}:
        other = name.split(".")[0]
        if other != package:
            below = PACKAGES.index(other) < PACKAGES.index(package)
            allowed = below and not (package == "mle" and name.startswith(SAMPLING))
        elif module == f"{package}.__init__" or name == package or room(name) == room(module):
            allowed = True
        else:
            allowed = RANK[room(name)] < RANK[room(module)]
        if not allowed:
            bad.add(name)
    return bad


def circle(graph):
    """Modules on circles of imports, sorted; a package stands for its ``__init__``."""
    left = {name: {n for n in names if n in graph and n != name} for name, names in graph.items()}
    while gone := {name for name, names in left.items() if not names}:
        left = {name: names - gone for name, names in left.items() if name not in gone}
    return sorted(left)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    found = modules(package)
    assert len(found) > 5
    assert {name: bad for name, names in found.items() if (bad := forbidden(name, names))} == {}


def test_every_file_lies_in_a_room():
    found = {room(name) for package in PACKAGES for name in modules(package) if not name.endswith("__init__")}
    assert found == RANK.keys()


def test_no_circle_of_files_is_left():
    graph = {name: names for package in PACKAGES for name, names in modules(package, types=False).items()}
    assert circle(graph) == []
    assert circle(graph | {"bayes_moe.ground.data": {"bayes_moe.model.moe"}})  # planted


def test_files_are_imported_from_their_rooms():
    """By their short names users find them; here a file says where what it needs lies."""
    short = {f"{p}.{name.partition(':')[0]}" for p in PACKAGES for names in rooms(p).values() for name in names.split()}
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if wrong := {name for name in mentioned(path.read_text()) if name in short}:
                found[path.name] = wrong
    assert len(short) > 100
    assert found == {}


def rooms(package):
    """What a package's doors lead to."""
    return importlib.import_module(package).ROOMS


def mentioned(source):
    """Full names of what is imported, modules or not."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# A row: where, the planted import, and what must be found wrong with it.
PLANTED = [
    ("bayes_moe.model.moe", "import mle", {"mle"}),
    ("bayes_moe.nuts.posterior", "from comparisons.study.plan import Study", {"comparisons.study.plan"}),
    ("bayes_moe.model.gates", "from bayes_moe import nuts, MoE", {"bayes_moe.nuts"}),
    ("bayes_moe.model.moe", "def f():\n    from bayes_moe.nuts.priors import resolve", {"bayes_moe.nuts.priors"}),
    ("bayes_moe.nuts.modes", "from ..theory import losses", {"bayes_moe.theory", "bayes_moe.theory.losses"}),
    ("bayes_moe.ground.parameters", "from ..model.moe import MoE", {"bayes_moe.model.moe"}),
    ("bayes_moe.families", "import bayes_moe.draws.relabel", {"bayes_moe.draws.relabel"}),
    ("mle.em", "import bayes_moe.nuts as n", {"bayes_moe.nuts"}),
    ("mle.em", "from bayes_moe.draws import diagnostics", {"bayes_moe.draws", "bayes_moe.draws.diagnostics"}),
    ("mle.em", "from mle import newton", {"mle.newton"}),
    ("mle.optimise.fit", "from bayes_moe.nuts.datatree import groups", {"bayes_moe.nuts.datatree"}),
    ("mle.optimise.fit", "from mle.local import kernels", {"mle.local", "mle.local.kernels"}),
    ("mle.kernel.fit", "from comparisons import study", {"comparisons", "comparisons.study"}),
    (
        "comparisons.study.plan",
        "from comparisons.report import rates",
        {"comparisons.report", "comparisons.report.rates"},
    ),
]


@pytest.mark.parametrize(("module", "source", "wrong"), PLANTED)
def test_a_planted_import_is_found(module, source, wrong):
    found = imported(source, module.rpartition(".")[0])
    assert forbidden(module, found) == wrong


def test_allowed_imports_are_left_alone():
    likelihood = "from bayes_moe.model import moe\nfrom bayes_moe.theory import losses\nfrom mle.optimise import fit"
    assert forbidden("mle.em", imported(likelihood, "mle")) == set()
    assert forbidden("bayes_moe.nuts.posterior", imported("from . import priors, sampler", "bayes_moe.nuts")) == set()
    assert forbidden("comparisons.study.plan", imported("from bayes_moe import nuts", "comparisons.study")) == set()


# Names by which users of the flat packages imported: a module, and what they took of it.
SHORT = {
    "bayes_moe.losses": "hellinger",
    "bayes_moe.nuts": "sample model Mixture class_probabilities",
    "bayes_moe.curves": "sample sparse_gate priors_of",
    "bayes_moe.varying": "VaryingCoefficient",
    "bayes_moe.experts": "Frozen",
    "bayes_moe.curve_draws": "relabel",
    "mle.em": "fit",
    "mle.uncertainty": "wald",
    "mle.curves": "CurveFit",
    "comparisons.study": "Study Regime Cell",
    "comparisons.estimators": "Estimate Problem mle",
    "comparisons.curve_figures": "",
}


def test_short_names_lead_to_the_modules_themselves():
    for name, wanted in SHORT.items():
        module = importlib.import_module(name)
        assert all(hasattr(module, one) for one in wanted.split()), name
    for package in PACKAGES:
        for lies, names in rooms(package).items():
            for name in names.split():
                short, _, own = name.partition(":")
                module = importlib.import_module(f"{package}.{short}")
                assert module is importlib.import_module(f"{package}.{lies}.{own or short}")
                assert module.__spec__.name == module.__name__ == f"{package}.{lies}.{own or short}"
                assert getattr(importlib.import_module(package), short) is module
    with pytest.raises(AttributeError, match=r"module 'bayes_moe' has no attribute 'nothing'"):
        _ = importlib.import_module("bayes_moe").nothing
    with pytest.raises(AttributeError, match=r"module 'bayes_moe.nuts' has no attribute 'tqdm'"):
        _ = importlib.import_module("bayes_moe.nuts").tqdm


def run(code):
    """Run code in a fresh interpreter and return what it prints, word by word."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_maximum_likelihood_never_loads_the_sampler():
    loaded = run("import sys, mle, mle.em, mle.newton; print(*sys.modules)")
    assert {"mle.em", "bayes_moe.model.moe"} <= set(loaded)
    assert not [name for name in loaded if name.startswith(SAMPLING)]
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
