"""Figures of varying-coefficient fits show the numbers that they are about."""

from functools import cache

import numpy as np

from bayes_moe import varying_coefficient
from comparisons.curves import figures as curve_figures
from mle.kernel import bands, bandwidth, glrt, kernel_em


@cache
def fitted():
    rng = np.random.default_rng(0)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=1)
    z, u = rng.normal(size=(120, 1)), rng.uniform(size=120)
    y = np.sin(3 * u) + z[:, 0] + 0.3 * rng.normal(size=120)
    return kernel_em.fit(model, np.zeros((120, 0)), z, u, y, h=0.4, grid=8, random_state=0)


def test_curves_bands_and_truth_are_drawn():
    fit = fitted()
    band = bands.asymptotic(fit)
    truth = {"beta": np.zeros((8, 0, 1)), "alpha": np.ones((8, 1, 2)), "delta": np.zeros((8, 1))}
    figure = curve_figures.curves(band, truth)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == fit.model.labels
    np.testing.assert_array_equal(shown[1].lines[0].get_ydata(), fit.params["alpha"][:, 0, 1])
    np.testing.assert_array_equal(shown[1].lines[1].get_ydata(), 1)
    edges = shown[1].collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == band.lower["alpha"][:, 0, 1].min()
    assert edges.max() == band.upper["alpha"][:, 0, 1].max()
    assert len(curve_figures.curves(fit).axes[0].lines) == 1


def test_memberships_bandwidths_and_the_null_are_drawn():
    fit = fitted()
    assert curve_figures.memberships(fit).axes[0].get_ylim() == (0, 1)
    chosen = bandwidth.Selection(0.17, 0.2, np.array([0.1, 0.2]), np.array([-2.0, -1.0]), np.array([0.1, 0.0]))
    axis = curve_figures.criterion(chosen).axes[0]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), chosen.scores)
    result = glrt.Result(1.5, 0.1, 0.05, "bootstrap", fit, 2.0, np.array([0.5, 2.0, np.inf]))
    axis = curve_figures.null_distribution(result).axes[0]
    assert axis.lines[0].get_xdata()[0] == 1.5
    assert sum(bar.get_height() for bar in axis.patches) == 2
