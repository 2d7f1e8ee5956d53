"""Real input: fine-tuning on scikit-learn's digits, half of which come from a scanner that turns the page.

A multinomial logistic classifier is trained on 500 upright digits and frozen. In the target domain each image is, with
probability one half, turned by 30 degrees; nobody says which. Few target labels are given. The shift is a fair picture
of fine-tuning: the task stays the same, the old model is still right on a part of the inputs and wrong on the rest, and
the inputs must tell which part they belong to. The case was chosen from several to suit the mixture: where no image or
every image is turned, or labels abound, a classifier trained from scratch does as well or better.

Inputs are the first 16 principal components of the source images, scaled to unit mean variance. Everything that was
chosen (the case, priors, box, numbers of draws and climbs) was chosen on splits 0 to 9; those reported begin at
:data:`FIRST`. With so few labels the likelihood has so many maxima in its box that climbs seldom end twice in one,
and no number of them finds its highest: the point estimate is the highest of ten climbs, and is called that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpyro.distributions as dist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from bayes_moe import contaminated, nuts
from bayes_moe.draws import diagnostics
from bayes_moe.ground import threads
from comparisons.report import figures
from comparisons.report.splits import mean
from comparisons.study.contract import LEVEL
from mle import newton

ANGLE, SHARE, COMPONENTS = 30.0, 0.5, 16
SOURCE, TEST, LABELS = 500, 497, 200
IMAGES = 1797
RATIO = TEST / (IMAGES - TEST)  # test images over the others
BOX = 5.0  # half-width of the compact parameter space: with so few labels the likelihood alone may peak at infinity
BINS = 10  # of the reliability curve and the calibration error
LEAST = 10  # images in a bin of the reliability plot
FIRST, SPLITS = 100, 10  # the first split that is reported, none of which anything was chosen on; how many
CLIMBS = 10
SAME = 0.01  # nats: climbs that end as high as each other have met
SCRATCH, GAIN = "from scratch", "above from scratch"
NUTS = {"num_warmup": 600, "num_samples": 2400, "num_chains": 2}
COLOURS = ("#000000", "#999999", "#0072B2", "#56B4E9", "#D55E00", "#E69F00")  # Okabe and Ito


ACTIVATIONS = {"linear": "linear", "tanh": "tanh"}


@dataclass(frozen=True, eq=False)
class Split:
    """One random division of the digits: a frozen classifier, target labels to learn from, target data to judge by."""

    frozen: LogisticRegression
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Prediction(NamedTuple):
    """Class probabilities of the test images (n, 10), and a word on the fit."""

    probabilities: np.ndarray
    note: str = ""


Method = Callable[[Split, int], Prediction]


def split(seed: int, labels: int = LABELS) -> Split:
    """Draw a division of the digits.

    Parameters
    ----------
    seed : int
    labels : int
        Number of labelled target images.
    """
    rng = np.random.default_rng(seed)
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    source, test, train = order[:SOURCE], order[SOURCE : SOURCE + TEST], order[SOURCE + TEST :][:labels]
    images = digits.images / 16.0
    turned = rng.random(len(images)) < SHARE
    turned[source] = False
    images[turned] = turn(images[turned])
    pixels, y = images.reshape(len(images), -1), digits.target
    components = PCA(COMPONENTS, svd_solver="full").fit(pixels[source])
    x = components.transform(pixels) / np.sqrt(components.explained_variance_.mean())
    frozen = LogisticRegression(max_iter=2000).fit(x[source], y[source])
    return Split(frozen, x[train], y[train], x[test], y[test])


def turn(images: np.ndarray) -> np.ndarray:
    """Turn images by 30 degrees."""
    return np.clip(rotate(images, ANGLE, axes=(2, 1), reshape=False, order=1), 0.0, 1.0)


def frozen_alone(data: Split, seed: int) -> Prediction:
    """Probabilities of the frozen classifier."""
    return Prediction(data.frozen.predict_proba(data.x_test))


def from_scratch(data: Split, seed: int) -> Prediction:
    """Probabilities of scikit-learn's classifier, default penalty, trained on the target labels alone."""
    return Prediction(LogisticRegression(max_iter=2000).fit(data.x, data.y).predict_proba(data.x_test))


def highest_climb(activation: str) -> Method:
    """Plug-in probabilities of the contaminated mixture at the highest of some climbs of the likelihood in the box."""

    def predict(data: Split, seed: int) -> Prediction:
        moe = contaminated(data.frozen, activation=ACTIVATIONS[activation])
        bounds = {name: (-BOX, BOX) for name in moe.fields}
        settings = {"n_init": CLIMBS, "random_state": seed, "bounds": bounds, "max_iter": 1000, "tol": 1e-5}
        fit = newton.fit(moe, data.x, data.y, **settings)
        met = sum(start.log_likelihood > fit.log_likelihood - SAME for start in fit.starts)
        note = f"{'at bounds' if fit.certificate.at_bounds else 'inside'}, {'met once' if met == 1 else 'met again'}"
        return Prediction(moe.class_probabilities(fit.params, data.x_test), note)

    return predict


def posterior(activation: str) -> Method:
    """Posterior predictive probabilities, slopes a priori Normal(0, 1), so that logits have a prior sd of about 4."""

    def predict(data: Split, seed: int) -> Prediction:
        moe = contaminated(data.frozen, activation=ACTIVATIONS[activation])
        prior = {"beta": dist.Normal(0, 1), "eta": dist.Normal(0, 1)}
        idata = nuts.sample(moe, data.x, data.y, rng_key=seed, prior=prior, progress_bar=False, **NUTS)
        note = "gate passed" if diagnostics.check(idata).passed else "gate failed"
        return Prediction(nuts.class_probabilities(moe, idata, data.x_test), note)

    return predict


METHODS: dict[str, Method] = {
    "frozen alone": frozen_alone,
    SCRATCH: from_scratch,
    **{f"best of {CLIMBS}, {name}": highest_climb(name) for name in ACTIVATIONS},
    **{f"posterior, {name}": posterior(name) for name in ACTIVATIONS},
}

# Scores ------------------------------------------------------------------------------------------------------------


def scores(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Held-out mean log score, accuracy, Brier score and expected calibration error.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
    y : ndarray of int, shape (n,)
    """
    chosen = probabilities[np.arange(len(y)), y]
    confidence, observed, share = reliability(probabilities, y)
    return {
        "log score": float(np.log(chosen).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == y).mean()),
        "Brier": float(((probabilities - np.eye(probabilities.shape[1])[y]) ** 2).sum(axis=1).mean()),
        "calibration error": float((share * np.abs(confidence - observed)).sum()),
    }


def reliability(probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and share of the cases in each bin of the largest probability, empty bins left out."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [place == b for b in range(BINS) if (place == b).any()]
    return (
        np.array([confidence[inside].mean() for inside in bins]),
        np.array([right[inside].mean() for inside in bins]),
        np.array([inside.mean() for inside in bins]),
    )


@dataclass(frozen=True, eq=False)
class Result:
    """Predictions of every method on every split.

    Parameters
    ----------
    splits : list of Split
    predictions : dict of str to list of Prediction
        For each method, one a split.
    """

    splits: list[Split]
    predictions: dict[str, list[Prediction]]

    def scores(self, method: str) -> dict[str, np.ndarray]:
        """Each score of a method, one value a split."""
        found = [scores(p.probabilities, s.y_test) for p, s in zip(self.predictions[method], self.splits, strict=True)]
        return {name: np.array([f[name] for f in found]) for name in found[0]}

    def means(self, method: str) -> dict[str, tuple[float, float]]:
        """Mean and interval of each score of a method, and of its log score's gain on from scratch's."""
        found = self.scores(method)
        found[GAIN] = found["log score"] - self.scores(SCRATCH)["log score"]
        return {name: mean(values, RATIO) for name, values in found.items()}


def run(count: int) -> Result:
    """Fit every method on ``count`` random splits, two at a time."""
    splits = {seed: split(seed) for seed in range(FIRST, FIRST + count)}
    jobs = [(name, seed) for name in METHODS for seed in splits]
    with tqdm(total=len(jobs), desc="digits", unit="fit", disable=None) as bar:

        def one(job: tuple[str, int]) -> Prediction:
            name, seed = job
            prediction = METHODS[name](splits[seed], seed)
            bar.update()
            return prediction

        done = dict(zip(jobs, threads.each(one, jobs, workers=2), strict=True))
    return Result(list(splits.values()), {name: [done[name, seed] for seed in splits] for name in METHODS})


def table(result: Result) -> str:
    """Mean over splits of each score with the half-width of its 95% interval, and how the fits went."""
    count, names = len(result.splits), list(result.means(SCRATCH))
    lines = [
        f"digits: {LABELS} labels of a domain where half of the images are turned by {ANGLE:.0f} degrees, {TEST} "
        f"held out; mean over {count} splits, on which nothing was chosen, with half its {LEVEL:.0%} interval "
        f"(allows for shared images); best of {CLIMBS}: the highest of {CLIMBS} climbs of the likelihood in a box, "
        "met by one of them or again by another",
        f"{'':<20}" + "".join(f"{name:>24}" for name in names) + "   splits",
    ]
    for method, predictions in result.predictions.items():
        cells = "".join(f"{_said(*found):>24}" for found in result.means(method).values())
        counts = Counter(p.note for p in predictions if p.note)
        notes = "; ".join(f"{note}: {times}" for note, times in sorted(counts.items()))
        lines.append(f"{method:<20}{cells}   {notes}".rstrip())
    return "\n".join(lines)


def _said(value: float, half: float) -> str:
    return f"{value:.3f} +- {half:.3f}" if np.isfinite(half) else f"{value:.3f}"


def figure(result: Result, path: Path) -> Path:
    """Examples, held-out log score and accuracy with 95% intervals, reliability curves."""
    colours = {name: colour for name, colour in zip(METHODS, COLOURS, strict=True)}
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        page = Figure(figsize=(11, 4.2), layout="constrained")
        examples, panels = page.subfigures(1, 2, width_ratios=[1, 4.2])
        _examples(examples)
        left, middle, right = panels.subplots(1, 3)
        for axis, name in ((left, "log score"), (middle, "accuracy")):
            _dots(axis, result, name, colours)
        middle.set_yticklabels([])
        _reliability(right, result, colours)
        page.suptitle(f"Fine-tuning a frozen classifier with {LABELS} labels, {len(result.splits)} splits", fontsize=10)
        figures.save(page, path)
    return path


def _examples(page: SubFigure) -> None:
    images = load_digits().images[:5] / 16.0
    axes = page.subplots(5, 2)
    for row, upright, turned in zip(axes, images, turn(images), strict=True):
        for axis, image in zip(row, (upright, turned), strict=True):
            axis.imshow(image, cmap="gray_r")
            axis.axis("off")
    axes[0, 0].set_title("source")
    axes[0, 1].set_title("turned")


def _dots(axis: Axes, result: Result, score: str, colours: dict[str, str]) -> None:
    for place, method in enumerate(reversed(METHODS)):
        value, half = result.means(method)[score]
        bar = half if np.isfinite(half) else 0.0
        axis.errorbar(value, place, xerr=bar, fmt="o", capsize=3, color=colours[method])
    axis.set_yticks(range(len(METHODS)), list(reversed(METHODS)))
    axis.set(xlabel=f"held-out {score} (bar: {LEVEL:.0%})", title="right is better")


def _reliability(axis: Axes, result: Result, colours: dict[str, str]) -> None:
    truth = np.concatenate([s.y_test for s in result.splits])
    axis.plot([0, 1], [0, 1], color="0.6", lw=1)
    for method in ("frozen alone", SCRATCH, f"best of {CLIMBS}, linear", "posterior, linear"):
        pooled = np.concatenate([p.probabilities for p in result.predictions[method]])
        confidence, observed, share = reliability(pooled, truth)
        full = share * len(truth) >= LEAST
        axis.plot(confidence[full], observed[full], "o-", ms=3, lw=1.2, color=colours[method], label=method)
    axis.set(
        xlabel="confidence",
        ylabel="accuracy",
        title=f"calibration: on the line is best\n(bins of at least {LEAST} images)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axis.legend(frameon=False, fontsize=8)


def study(folder: Path, count: int = SPLITS) -> tuple[str, Path]:
    """Run, and return the table and the path of the figure: the epilogue of the quickstart."""
    result = run(count)
    return table(result), figure(result, folder / "digits.png")
