"""Posteriors of the Gaussian-gated studies: judged on label-invariant quantities, in the data's units again."""

import jax
import numpy as np
import pytest
from montecarlo import key

from comparisons.gaussian import estimators as mixtures
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.gaussian import studies as gaussian_studies
from comparisons.study.contract import Problem
from mle import em

SHORT = gaussian_studies.NUTS | {"num_warmup": 100, "num_samples": 50, "n_init": 2, "attempts": 1}
ROWS, DATA_SETS, PASSED = 2000, 20, 19


def problem(experts, n, seed):
    regime = gaussian_regimes.regime("m1", experts)
    truth = regime.truth(n)
    return Problem(regime.moe, *regime.source.simulate_joint(seed, truth, n), truth)


@pytest.mark.slow
def test_draws_are_in_the_datas_units_and_too_few_of_them_fail_the_gate():
    one = problem(3, 300, 0)
    found = mixtures.posterior(one, jax.random.key(0), SHORT)
    assert found.status == "failed_gate"
    assert any("ESS" in verdict for verdict in found.info["verdicts"])
    assert found.info["filled_3"] == 1.0
    fit = em.fit(one.moe, one.x, one.y, n_init=3, random_state=0)
    mean = {name: values.mean(axis=0) for name, values in found.draws.items()}
    nearest = np.abs(mean["c"] - fit.params["c"].T).argmin(axis=1)
    assert sorted(nearest) == [0, 1, 2]
    for name in ("c", "b", "a"):
        gap = np.abs(mean[name] - fit.params[name][nearest]) / fit.standard_errors[name][nearest]
        assert gap.max() < 2
    low, high = np.moveaxis(found.intervals["c"], -1, 0)
    assert (low < high).all()


@pytest.mark.slow
def test_over_fitted_atoms_have_no_intervals():
    found = mixtures.posterior(problem(4, 100, 0), jax.random.key(0), SHORT | {"num_warmup": 50, "max_tree_depth": 5})
    assert found.intervals is None
    assert sum(found.info[f"filled_{count}"] for count in range(1, 5)) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_right_number_of_experts_passes_the_gate():
    settings = gaussian_studies.NUTS | {"num_samples": 1000, "attempts": 2}
    seeds = range(key(0), key(0) + DATA_SETS)
    found = [mixtures.posterior(problem(3, ROWS, seed), jax.random.key(seed), settings) for seed in seeds]
    assert sum(one.status == "ok" for one in found) >= PASSED
