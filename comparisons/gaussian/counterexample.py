"""Figure: three atoms in a cell, where the published Type I loss over total variation diverges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bayes_moe.theory import solvability, voronoi
from comparisons.report import figures

LABELS = {"I": "published, Type I", "corrected": "corrected"}


def ratios(eps: np.ndarray) -> dict[str, np.ndarray]:
    """Loss over total variation at each eps of :func:`bayes_moe.theory.solvability.counterexample`."""
    cases = [solvability.counterexample(e) for e in eps]
    return {k: np.array([float(voronoi.voronoi(p, t, kind=k)) / tv for p, t, tv in cases]) for k in LABELS}


def figure(path: str | Path, points: int = 15) -> Path:
    """Draw both ratios against eps, on log axes.

    Parameters
    ----------
    path : str or Path
        Where the PNG goes.
    points : int
        How many eps, from 0.05 to 0.6.

    Returns
    -------
    Path
    """
    eps = np.geomspace(0.05, 0.6, points)
    drawing = Figure(figsize=(5.5, 3.6), layout="constrained")
    ax = drawing.subplots()
    for (kind, values), style in zip(ratios(eps).items(), ("o-", "s--"), strict=True):
        slope = np.polyfit(np.log(eps[: points // 2]), np.log(values[: points // 2]), 1)[0] if points > 3 else np.nan
        ax.loglog(eps, values, style, markersize=4, label=f"{LABELS[kind]} (slope {slope:.2f} at small ε)")
    ax.set(xlabel="ε", ylabel="Voronoi loss / total variation", title="Three atoms around one")
    ax.set_xticks([0.5, 0.2, 0.1, 0.05], ["0.5", "0.2", "0.1", "0.05"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.invert_xaxis()
    ax.legend()
    figures.save(drawing, Path(path))
    return Path(path)


if __name__ == "__main__":
    figure("docs/counterexample.png")
