"""The irises, run and drawn: predictions, memberships, the choice of K, held-out log scores."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_moe import gaussian_gated
from bayes_moe.ground.parameters import Params
from bayes_moe.model.units import Units
from comparisons.gaussian.iris import (
    AGAINST,
    EXPERTS,
    METHODS,
    SPLITS,
    Result,
    Split,
    chosen,
    fits,
    flowers,
    run,
    table,
)
from comparisons.report.figures import STYLE, save
from comparisons.study.contract import LEVEL
from mle import criteria

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito
LEAST_SHARE = 0.05  # membership from which an expert's line is drawn
SPECIES = {"setosa": "o", "versicolor": "s", "virginica": "^"}


def study(folder: Path, count: int = SPLITS) -> tuple[str, Path]:
    """Run, and return the table and the path of the figure: the epilogue of gaussian-gated-m1."""
    result = run(count)
    return table(result), figure(result, folder / "iris.png")


def figure(result: Result, path: Path) -> Path:
    """All flowers with what the MLE of BIC's K says of them; BIC and ICL; log scores over GaussianMixture's.

    Parameters
    ----------
    result : Result
    path : Path
    """
    x, y, _ = flowers()
    units = Units.of(x, y)
    whole = Split(*units.standard(x, y), *units.standard(x, y), units)
    k = chosen(whole, 0, "bic")
    params = gaussian_gated(k, 1).params(**units.original(fits(whole, 0)[k].params))
    order = np.argsort(params["c"][:, 0])
    params = {name: value[order] for name, value in params.items()}
    with mpl.rc_context(STYLE):
        page = Figure(figsize=(11, 6.4), layout="constrained")
        (top, right), (bottom, gains) = page.subplots(2, 2, width_ratios=[1.6, 1], height_ratios=[1.6, 1])
        _predictions(top, params)
        _memberships(bottom, params)
        _criteria(right, whole)
        _gains(gains, result)
        page.suptitle(f"Irises: petal length on sepal length, {k} experts by BIC", fontsize=10)
        save(page, path)
    return path


def _grid() -> np.ndarray:
    x = flowers()[0]
    return np.linspace(x.min(), x.max(), 200)[:, None]


def _predictions(axis: Axes, params: Params) -> None:
    x, y, species = flowers()
    moe, grid = gaussian_gated(len(params["pi"]), 1), _grid()
    owner = moe.responsibilities(params, x, y).argmax(axis=1)
    for index, (name, marker) in enumerate(SPECIES.items()):
        mine = species == index
        axis.scatter(x[mine, 0], y[mine], c=[COLOURS[i] for i in owner[mine]], marker=marker, s=16, alpha=0.7)
        axis.plot([], [], marker, color="0.4", ms=4, label=name)
    found = moe.predict(params, grid)
    axis.plot(grid[:, 0], found.mean, color="black", lw=1.5, label="mean, MLE")
    band = found.mean - 2 * found.sd, found.mean + 2 * found.sd
    axis.fill_between(grid[:, 0], *band, color="0.85", zorder=0, label="mean ± 2 sd")
    lines = zip(COLOURS, params["a"][:, 0], params["b"], found.memberships.T, strict=False)
    for colour, slope, intercept, share in lines:
        here = grid[share > LEAST_SHARE, 0]
        axis.plot(here, slope * here + intercept, ":", color=colour, lw=1.2)
    axis.plot([], [], ":", color="0.4", lw=1.2, label="experts' lines")
    slope, intercept = np.polyfit(x[:, 0], y, 1)
    axis.plot(grid[:, 0], slope * grid[:, 0] + intercept, "--", color="0.4", lw=1, label="single regression")
    axis.set(ylabel="petal length, cm", title="predictions; colour: likeliest expert, marker: species (not told)")
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _memberships(axis: Axes, params: Params) -> None:
    grid = _grid()
    shares = gaussian_gated(len(params["pi"]), 1).memberships(params, grid)
    for colour, share, slope in zip(COLOURS, shares.T, params["a"][:, 0], strict=False):
        axis.plot(grid[:, 0], share, color=colour, label=f"expert with slope {slope:.2f}")
    axis.set(xlabel="sepal length, cm", ylabel="p(expert | x)", title="memberships", ylim=(-0.03, 1.03))
    axis.legend(frameon=False, fontsize=8)


def _criteria(axis: Axes, whole: Split) -> None:
    found = fits(whole, 0)
    values = [criteria.criteria(gaussian_gated(k, 1), found[k], whole.x, whole.y) for k in EXPERTS]
    for name, style in (("bic", "o-"), ("icl", "s--")):
        axis.plot(EXPERTS, [value[name] for value in values], style, color="black", ms=4, label=name.upper())
    axis.set(xticks=EXPERTS, xlabel="experts", title="criteria, all flowers: less is better")
    axis.legend(frameon=False, fontsize=8)


def _gains(axis: Axes, result: Result) -> None:
    names = [name for name in METHODS if name != AGAINST][::-1]
    for place, name in enumerate(names):
        value, half = result.gain(name, AGAINST)
        axis.errorbar(value, place, xerr=half if np.isfinite(half) else 0.0, fmt="o", capsize=3, color="black")
    axis.axvline(0, color="0.6", lw=1)
    axis.set_yticks(range(len(names)), names)
    axis.set(
        ylim=(-0.5, len(names) - 0.5),
        xlabel=f"log score above GaussianMixture's, nats a flower [{LEVEL:.0%}]",
        title=f"held out, {len(result.splits)} splits: right is better",
    )
