"""Figures of varying-coefficient fits: curves with bands, memberships over u, bandwidths, the GLRT's null."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_moe.varying.bands import Bands, Curves
from mle.kernel.bandwidth import Selection
from mle.kernel.fit import CurveFit
from mle.kernel.glrt import Result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
WIDTH, HEIGHT = 2.8, 2.3  # of a panel, inches
ACROSS = 4  # panels in a row


def curves(found: Curves | Bands | Mapping[str, Curves | Bands], truth: Mapping[str, object] | None = None) -> Figure:
    """Every coefficient against u, with its band and the truth where they are known.

    Parameters
    ----------
    found : CurveFit, Centre or Bands; or a mapping of them
        Several of one model, by name, are laid over each other.
    truth : dict of str to array-like, optional
        True coefficients at the (first) grid's points, a row for each.
    """
    several = dict(found) if isinstance(found, Mapping) else {"estimate": found}
    fits = {name: one.fit if isinstance(one, Bands) else one for name, one in several.items()}
    first = next(iter(fits.values()))
    rows = -(-first.model.size // ACROSS)
    figure = Figure(figsize=(WIDTH * ACROSS, HEIGHT * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, ACROSS, squeeze=False, sharex=True).ravel()
    true = None if truth is None else first.model.rows(truth, len(first.grid))
    for j, (axis, label) in enumerate(zip(panels, first.model.labels, strict=False)):
        for (name, one), colour in zip(several.items(), cycle(COLOURS), strict=False):
            _curve(axis, one, fits[name], j, {"color": colour, "label": name})
        if true is not None:
            axis.plot(first.grid, true[:, j], color="black", linestyle="--", label="truth")
        _title(axis, label)
        if j + ACROSS >= first.model.size:  # the last of its column
            axis.set_xlabel("u", fontsize=8)
            axis.tick_params(labelbottom=True)
    for axis in panels[first.model.size :]:
        axis.set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _curve(axis: Axes, found: Curves | Bands, fit: Curves, j: int, style: dict[str, str]) -> None:
    """One coefficient of one estimate, and its band where there is one."""
    if isinstance(found, Bands):
        low, high = fit.level[:, j] - found.half[:, j], fit.level[:, j] + found.half[:, j]
        axis.fill_between(fit.grid, low, high, color=style["color"], alpha=0.2)
    axis.plot(fit.grid, fit.level[:, j], **style)


def _single() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(1.6 * WIDTH, 1.2 * HEIGHT), layout="constrained")
    return figure, figure.subplots()


def memberships(fit: CurveFit) -> Figure:
    """Share of each component in the window of each u, stacked."""
    figure, axis = _single()
    names = [f"component {c}" for c in range(fit.model.components)]
    axis.stackplot(fit.grid, fit.shares.T, labels=names, colors=COLOURS, alpha=0.7)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, frameon=False)
    axis.set_xlabel("u")
    _title(axis, "share of each component")
    return figure


def criterion(selection: Selection) -> Figure:
    """Held-out log density against the bandwidth: the bars are errors of the difference from the best."""
    figure, axis = _single()
    kept = np.isfinite(selection.scores) & np.isfinite(selection.errors)
    axis.errorbar(
        selection.candidates[kept], selection.scores[kept], selection.errors[kept], color=COLOURS[0], marker="o"
    )
    axis.axvline(selection.h, color="black", linestyle="--", linewidth=1)
    axis.set_xlabel("bandwidth h, share of the range of u (dashed: the one to use)")
    _title(axis, "mean held-out log density")
    return figure


def null_distribution(result: Result) -> Figure:
    """Bootstrap statistics under the null, and the observed one."""
    figure, axis = _single()
    axis.hist(result.draws[np.isfinite(result.draws)], bins=25, color=COLOURS[0], alpha=0.6)
    axis.axvline(result.statistic, color=COLOURS[1])
    axis.set_xlabel("difference of log likelihoods")
    _title(axis, str(result))
    return figure


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
