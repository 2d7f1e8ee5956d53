"""Real input: 700 blood cells, and how FTL goes with S100A4 along a score of oxidative phosphorylation.

The data lie inside the package scanpy (the extra ``cells``), which is looked up and never imported: its file is HDF5.

What they are: 700 peripheral blood mononuclear cells of one donor, a subset of the 68,000 of 10x Genomics, with
log-normalised expression, log(1 + 10^4 count / total), of 765 genes selected beforehand, 309 of them marked as highly
variable (``raw`` in the file, whose main matrix is scaled); totals over all genes; and ten
cell-type labels (``bulk_labels``), which others gave each cell after the sorted population that it resembles most.

What they are not: no time course, no random sample of cells or genes, no replicates, since there is one donor. What is
said of "the" relation is said of these cells, and bands, which take cells for independent, say nothing about donors.
Labels are no truth either. Any score is computed from expression, here from that of other genes in the same cells,
whose totals and quality it shares: a curve over it is a description, and no effect. Covariates are noisy counts too,
which flattens slopes.

The question, settled on plots before any fit: FTL (ferritin light chain) and S100A4 are both high in myeloid cells, so
that over all cells they go together. Do they within latent groups, and does that change with the score? FTL enters as
counts, S100A4 as standardised log expression. Looked at, by cell type: the S and G2M scores (few cells cycle: a spike
and a tail), log totals, principal components, scores of MHC class II, early-response, proteasome and
oxidative-phosphorylation genes; FTL, S100A6, S100A4, VIM, CD74, JUNB, LYZ, CTSS and TYROBP on one or more of S100A4,
S100A6, FOS, S100A9, CST3, FCER1G, GPX1, CTSS, CSTB, HLA-DRA and HLA-DPB1 by quarter of a score; and a table of more
correlations. Taken because every quarter of this score holds T, NK and B cells, monocytes and dendritic cells, FTL is
seen in 698 cells and lies in two bands, and S100A4 is seen in 94% of cells, in both. Data allow many other choices.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from comparisons.study.plan import MissingExtra

FILE = Path("datasets") / "10x_pbmc68k_reduced.h5ad"
TARGET = 1e4  # molecules to which each cell's expression was scaled before the logarithm
RESPONSE, COVARIATE = "FTL", "S100A4"
# Nuclear genes of the respiratory chain's complexes I to IV and of ATP synthase, by their family names.
RESPIRATION = re.compile(r"(NDUF[ABCSV]\d|SDH[A-D]$|UQCR|CYC1$|COX[4-8]|ATP5)")


@dataclass(frozen=True, eq=False)
class Cells:
    """Expression of cells.

    Parameters
    ----------
    genes : ndarray of str, shape (g,)
    expression : ndarray, shape (n, g)
        log(1 + 10^4 count / total).
    totals : ndarray, shape (n,)
        Molecules (UMI) counted in each cell, over all genes, also those left out.
    types : ndarray of str, shape (n,)
        The published labels. No fit sees them.
    """

    genes: np.ndarray
    expression: np.ndarray
    totals: np.ndarray
    types: np.ndarray

    def of(self, gene: str) -> np.ndarray:
        """Log-normalised expression (n,) of a gene."""
        found = np.flatnonzero(self.genes == gene)
        if not len(found):
            raise ValueError(f"gene must be one of the {len(self.genes)} in the data, got {gene!r}.")
        return self.expression[:, found[0]]

    def counts(self, gene: str) -> np.ndarray:
        """Molecules (n,) of a gene: the normalisation undone, and rounded, since totals are kept to a thousandth."""
        return np.rint(np.expm1(self.of(gene)) * self.totals / TARGET)


@dataclass(frozen=True, eq=False)
class Question:
    """What the fits see; and the types, which they do not.

    Parameters
    ----------
    x : ndarray, shape (n, 1)
        Of the gate: log total, standardised.
    z : ndarray, shape (n, 1)
        Of the experts: log expression of S100A4, standardised.
    u : ndarray, shape (n,)
        Share of cells with a lower score of oxidative phosphorylation, between 0 and 1: places, not values, so that
        windows hold like numbers of cells.
    y : ndarray, shape (n,)
        Molecules of FTL.
    size : ndarray, shape (n,)
        A hundredth of the total: an intercept is the log of FTL's share in per cent, in a cell of mean log S100A4.
    types : ndarray of str, shape (n,)
    """

    x: np.ndarray
    z: np.ndarray
    u: np.ndarray
    y: np.ndarray
    size: np.ndarray
    types: np.ndarray

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The x, z, u and y of a fit."""
        return self.x, self.z, self.u, self.y


def locate() -> Path:
    """Return the data file inside the installed scanpy.

    Raises
    ------
    MissingExtra
        Without scanpy, or with one that has no such file.
    """
    spec = importlib.util.find_spec("scanpy")
    path = Path(spec.submodule_search_locations[0]) / FILE if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        lacks = "is not installed" if path is None else f"is here without its file {FILE.name}"
        raise MissingExtra(f'The cells are in the package scanpy, which {lacks}: pip install "bayes-moe[cells]".')
    return path


def load(path: Path | None = None) -> Cells:
    """Read the cells; the module says what they are and what they are not.

    Parameters
    ----------
    path : Path, optional
        An ``.h5ad`` file with log-normalised expression in ``raw`` and the columns ``n_counts`` and ``bulk_labels``;
        by default scanpy's own.

    Returns
    -------
    Cells

    Raises
    ------
    MissingExtra
        If the extra ``cells`` is not installed.

    References
    ----------
    Zheng et al. (2017), "Massively parallel digital transcriptional profiling of single cells"; Wolf, Angerer and Theis
    (2018), "SCANPY".
    """
    import h5py  # noqa: PLC0415 - a moment that other studies need not wait

    with h5py.File(path or locate()) as file:
        raw, obs = file["raw/X"], file["obs"]
        parts = tuple(raw[name][:] for name in ("data", "indices", "indptr"))
        expression = csr_matrix(parts, shape=tuple(raw.attrs["shape"])).toarray().astype(float)
        types = file["obs/bulk_labels"]
        names = types["categories"].asstr()[:][types["codes"][:]]
        return Cells(file["raw/var/index"].asstr()[:], expression, obs["n_counts"][:].astype(float), names)


def score(cells: Cells) -> np.ndarray:
    """Mean log-normalised expression (n,) of the genes of oxidative phosphorylation; neither FTL nor S100A4 is one."""
    return cells.expression[:, [bool(RESPIRATION.match(gene)) for gene in cells.genes]].mean(axis=1)


def question(cells: Cells) -> Question:
    """What is asked of the cells: see the module."""
    return Question(
        _standard(np.log(cells.totals))[:, None],
        _standard(cells.of(COVARIATE))[:, None],
        (rankdata(score(cells)) - 0.5) / len(cells.totals),
        cells.counts(RESPONSE),
        cells.totals / 100,
        cells.types,
    )


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
