"""Leave-one-out in slices against ArviZ on the whole log likelihood."""

import arviz_stats as azs
import numpy as np
import pytest
import xarray as xr
from montecarlo import key
from scipy import stats

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.draws.loo import loo

ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    moe = contaminated(ETA0, frozen_activation="linear", activation="tanh")
    x = rng.normal(size=(101, 2))
    y = moe.simulate(0, moe.params(tau=0.5, beta=[1.0, -1.0], eta=[[2.0, 0.0], [0.0, -2.0]]), x)
    run = {"rng_key": 0, "num_warmup": 100, "num_samples": 100, "num_chains": 2, "progress_bar": False}
    return moe, x, y, nuts.sample(moe, x, y, **run, log_likelihood=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimated shape")
@pytest.mark.parametrize("rows", [7, 101, None])
def test_slices_give_what_the_whole_gives(fitted, rows):
    moe, x, y, idata = fitted
    whole = azs.loo(idata, pointwise=True)
    ours = loo(moe, idata.drop_nodes(["log_likelihood"]), x, y, rows=rows)
    assert ours.scale == whole.scale
    for name in ("elpd", "se", "p", "n_samples", "n_data_points", "warning", "good_k"):
        assert getattr(ours, name) == pytest.approx(getattr(whole, name), rel=1e-10), name
    np.testing.assert_allclose(ours.elpd_i, whole.elpd_i, rtol=1e-10)
    np.testing.assert_allclose(ours.pareto_k, whole.pareto_k, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:Estimated shape")
def test_arviz_compares_it(fitted):
    moe, x, y, idata = fitted
    table = azs.compare({"ours": loo(moe, idata, x, y, rows=50), "ArviZ": azs.loo(idata, pointwise=True)})
    assert table["elpd_diff"].abs().max() < 1e-9


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore:Estimated shape")
def test_one_gaussian_gated_expert_predicts_as_a_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 1))
    y = x[:, 0] + rng.normal(size=80)
    moe = gaussian_gated(1, features=1)
    idata = nuts.sample(moe, x, y, rng_key=key(0), num_warmup=200, num_samples=2000, num_chains=2, progress_bar=False)
    design = np.column_stack([np.ones(80), x])
    hat = np.sum(design * np.linalg.solve(design.T @ design, design.T).T, axis=1)
    residual = y - design @ np.linalg.lstsq(design, y)[0]
    left_out = residual / (1 - hat)  # of a regression without that row, as is its standard deviation
    sd = np.sqrt((np.sum(residual**2) - residual * left_out) / 77)
    expected = stats.t(77, scale=sd / np.sqrt(1 - hat)).logpdf(left_out).sum()  # exact under flat priors
    ours = loo(moe, idata, x, y, rows=30, conditional=True)
    assert ours.elpd == pytest.approx(expected, abs=0.3)
    assert loo(moe, idata, x, y).elpd < ours.elpd - 50  # which is of x too


@pytest.mark.parametrize("draws", [1, 12])
def test_few_draws_are_refused(fitted, draws):
    moe, x, y, idata = fitted
    few = xr.DataTree.from_dict({"posterior": idata["posterior"].dataset.isel(draw=slice(draws))})
    with pytest.raises(ValueError, match=f"idata must have at least 25 draws.*got {2 * draws}"):
        loo(moe, few, x, y)


@pytest.mark.parametrize("rows", [0, -1, 2.5, True])
def test_rows_must_count(fitted, rows):
    moe, x, y, idata = fitted
    with pytest.raises(ValueError, match="rows must be an integer"):
        loo(moe, idata, x, y, rows=rows)


def test_labels_of_other_rows_are_refused(fitted):
    moe, x, y, idata = fitted
    with pytest.raises(ValueError, match="y must be the data that idata was sampled with: row"):
        loo(moe, idata, x, np.roll(y, 1))
