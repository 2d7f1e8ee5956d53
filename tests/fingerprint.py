"""A fingerprint of every kind of number: `python -m tests.fingerprint` prints a line for each, to be compared by diff.

Run it before a change and after it, on one machine: what differs has changed. The last column tells rounding, which
changes the hash alone, from another answer.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import jax
import numpy as np

from bayes_moe import contaminated, curves, gaussian_gated, nuts, varying_coefficient
from bayes_moe.curves import credible
from bayes_moe.draws import invariants, loo, relabel
from bayes_moe.theory import information, losses, voronoi
from bayes_moe.varying import bands as both_bands
from comparisons import catalogue
from comparisons.running import cell
from mle import em, infinity, newton, profile
from mle.kernel import bands, bandwidth, glrt, kernel_em
from mle.optimise import uncertainty

ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
SHORT = {"num_warmup": 100, "num_samples": 100, "num_chains": 2, "progress_bar": False}


def _or_refusal(function: Callable[[], object]) -> object:
    try:
        return function()
    except ValueError as refusal:
        return str(refusal)


def contaminated_case(seed: int, n: int, truth: dict, **options) -> Callable[[], Iterator[tuple[str, object]]]:
    def numbers() -> Iterator[tuple[str, object]]:
        moe = contaminated(frozen=ETA0, **options)
        true = moe.params(**truth)
        x = np.random.default_rng(seed).normal(size=(n, 2))
        y = moe.simulate(seed, true, x)
        yield "simulated", y
        fit = newton.fit(moe, x, y, n_init=4, random_state=seed)
        yield "newton", fit.params
        yield "newton errors", fit.standard_errors
        yield "em", em.fit(moe, x, y, n_init=2, max_iter=50, random_state=seed).params
        yield "infinity", infinity.search(moe, fit, x, y, random_state=seed).params
        yield "sandwich", asdict(uncertainty.standard_errors(moe, fit, x, y, kind="sandwich"))
        yield "profile", _or_refusal(lambda: profile.intervals(moe, fit, x, y, names=["tau"]))
        tree = nuts.sample(moe, x, y, rng_key=seed, log_likelihood=True, **SHORT)
        yield "draws", tree["posterior"].dataset
        yield "loo", float(loo.loo(moe, tree, x, y).elpd)
        yield "cramer-rao", information.cramer_rao(moe, true, x, n=n)
        yield "hellinger", losses.hellinger(moe, fit.params, true, x)

    return numbers


def gaussian_case(seed: int, fitted: int, **options) -> Callable[[], Iterator[tuple[str, object]]]:
    def numbers() -> Iterator[tuple[str, object]]:
        true_moe, moe = gaussian_gated(2, 1), gaussian_gated(fitted, 1)
        true = true_moe.params(
            pi=[0.4, 0.6], c=[[-1.0], [1.0]], Gamma=[[[0.3]]] * 2, a=[[1.0], [-1.0]], b=[0, 1], nu=0.2
        )
        x, y = true_moe.simulate_joint(seed, true, 300)
        yield "simulated", (x, y)
        fit = em.fit(moe, x, y, n_init=4, random_state=seed)
        yield "em", fit.params
        yield "newton", newton.fit(true_moe, x, y, n_init=2, random_state=seed).params
        tree = nuts.sample(moe, x, y, rng_key=seed, **SHORT, **options)
        yield "draws", tree["posterior"].dataset
        yield "invariants", invariants.invariants(moe, tree, x, y)
        yield "relabelled", relabel.relabel(moe, tree, x, y)["relabelled"].dataset
        yield "voronoi", voronoi.voronoi(fit.params, true, kind="corrected")
        yield "wasserstein", voronoi.wasserstein(fit.params, true)

    return numbers


def curves_case(seed: int, family: str, **options) -> Callable[[], Iterator[tuple[str, object]]]:
    def numbers() -> Iterator[tuple[str, object]]:
        model, n, rng = varying_coefficient(family, components=2), 150, np.random.default_rng(seed)
        w, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
        alpha = np.stack([np.stack([np.sin(3 * u) - 1.5, 1 + u], 1), np.stack([1.5 - u, -np.ones(n)], 1)], 1)
        truth = {"beta": [[[0.0, 1.0]]], "alpha": alpha} | ({"delta": [[-1.0, -1.0]]} if family == "normal" else {})
        y = model.simulate(seed, truth, w, z)
        yield "simulated", y
        for engine in ("consistent", "separate"):
            fit = kernel_em.fit(model, w, z, u, y, h=0.3, random_state=seed, grid=8, engine=engine)
            yield f"kernel {engine}", fit.params
        yield "asymptotic band", _both(bands.asymptotic(fit))
        yield "bootstrap band", _or_refusal(lambda: _both(bands.bootstrap(fit, replicates=20, random_state=seed)))
        yield "bandwidth", bandwidth.select(model, w, z, u, y, candidates=[0.3, 0.4], random_state=seed, grid=8).h
        test = _or_refusal(lambda: glrt.test(fit, constant=["alpha[0,1]"], replicates=5, random_state=seed))
        yield "test", str(test)
        tree = curves.sample(model, w, z, u, y, rng_key=seed, grid=5, **SHORT, **options)
        yield "draws", tree["posterior"].dataset
        yield "credible band", _both(credible.bands(model, tree))

    return numbers


def _both(band: both_bands.Bands) -> tuple:
    return band.lower, band.upper


def study_case(name: str, estimators: tuple[str, ...]) -> Callable[[], Iterator[tuple[str, object]]]:
    def numbers() -> Iterator[tuple[str, object]]:
        study = catalogue.STUDIES[name](quick=True)
        for one in study.cells():
            if one.replicate == 0 and one.estimator in estimators and one.n == min(study.sizes[one.estimator]):
                yield f"{one.regime} {one.estimator}", repr(cell.run(study, one).payload)

    return numbers


CASES = {
    "heterogeneous": contaminated_case(
        1,
        400,
        {"tau": 0.5, "beta": [1.0, -1.0], "eta": [[1.5, 0.0], [0.0, -1.5]]},
        frozen_activation="linear",
        activation="tanh",
    ),
    "homogeneous": contaminated_case(
        2,
        400,
        {"tau": 0.0, "beta": 0.0, "eta": [[1.0, 0.5], [0.5, -1.0]]},
        frozen_activation="tanh",
        activation="tanh",
    ),
    "two adapters": contaminated_case(
        3,
        300,
        {"tau": [0.5, 0.2], "beta": 0.5, "eta": [[[1.5, 0.0], [0.0, -1.5]], [[-1.0, 0.0], [0.0, 2.0]]]},
        activation="gelu",
        adapters=2,
    ),
    "sigmoid gate": contaminated_case(
        4, 300, {"tau": 0.5, "beta": 0.5, "eta": [[1.5, 0.0], [0.0, -1.5]]}, activation="sigmoid", gate="sigmoid"
    ),
    "constant gate": contaminated_case(
        5, 300, {"tau": 0.5, "eta": [[1.5, 0.0], [0.0, -1.5]]}, activation="linear", gate="constant"
    ),
    "gaussian": gaussian_case(6, 2),
    "gaussian, spare": gaussian_case(7, 3, sweeps=5, max_tree_depth=5),
    "curves, normal": curves_case(8, "normal"),
    "curves, splines": curves_case(9, "normal", basis="bspline"),
    "curves, counts": curves_case(10, "poisson"),
    "study, quickstart": study_case("quickstart", ("mle", "nuts")),
    "study, gaussian": study_case("gaussian-gated-m1", ("em", "em-one-step")),
}


def digest(values: object) -> tuple[str, float]:
    """Return a hash of every bit, and the mean absolute value."""
    if isinstance(values, str):
        return hashlib.sha256(values.encode()).hexdigest()[:16], float(len(values))
    leaves = jax.tree.leaves(dict(values.data_vars) if hasattr(values, "data_vars") else values)
    arrays = [np.ascontiguousarray(leaf) for leaf in leaves]
    assert not any(a.dtype.hasobject for a in arrays), "an object's bytes are its address"
    numbers = [np.abs(a[np.isfinite(a)]).mean() for a in arrays if a.dtype.kind in "fiu" and np.isfinite(a).any()]
    text = hashlib.sha256(b"".join(f"{a.dtype}{a.shape}".encode() + a.tobytes() for a in arrays))
    return text.hexdigest()[:16], float(np.sum(numbers))


def main() -> None:
    """Print a line for each number of the cases named, or of all."""
    for name in sys.argv[1:] or CASES:
        for what, values in CASES[name]():
            code, size = digest(values)
            print(f"{name:20} {what:24} {code} {size:.8g}", flush=True)


if __name__ == "__main__":
    main()
