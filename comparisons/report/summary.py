"""What a study found: curves of errors, their slopes, and a table that reads in a terminal."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from comparisons.report import rates
from comparisons.study.contract import FAILED
from comparisons.study.plan import Cell, Regime, Study

POINT = {
    "mle": "MLE",
    "mle-near": "MLE, near start",
    "nuts": "posterior mean",
    "em": "EM",
    "em-near": "EM, near start",
    "em-one-step": "one EM step",
}
SPREAD = "posterior, spread"
BEYOND = "beyond the plan"
SYMBOLS = {"tau": "e^tau"}
Rows = Sequence[dict[str, object]]


@dataclass(frozen=True)
class Curve:
    """Errors of one kind against n.

    Parameters
    ----------
    label : str
    sizes : tuple of int
    errors : tuple of ndarray
        For each size, one error a replicate.
    replicates : tuple of ndarray
        Which replicate each error belongs to, ascending.
    """

    label: str
    sizes: tuple[int, ...]
    errors: tuple[np.ndarray, ...]
    replicates: tuple[np.ndarray, ...] = ()

    def values(self, statistic: str = "median") -> np.ndarray:
        """Median, mean or root mean square error at each size."""
        return np.array([rates.STATISTICS[statistic](e) for e in self.errors])

    def slope(self, statistic: str = "median") -> rates.Slope | None:
        """Log-log slope; None below two sizes, or where a summary is zero."""
        return rates.slope(self.sizes, self.errors, statistic) if len(self.sizes) > 1 else None

    def at(self, sizes: Sequence[int]) -> Curve:
        """Restrict the curve to some sizes."""
        keep = [i for i, n in enumerate(self.sizes) if n in sizes]
        return Curve(self.label, *(tuple(part[i] for i in keep) for part in (self.sizes, self.errors, self.replicates)))


def curve(rows: Rows, regime: Regime, estimator: str, column: str, label: str) -> Curve:
    """Collect one column of the finished rows, all that have a result."""
    mine = [r for r in rows if r["regime"] == regime.name and r["estimator"] == estimator and r["status"] not in FAILED]
    mine.sort(key=lambda r: r["replicate"])
    sizes = tuple(sorted({int(r["n"]) for r in mine}))
    errors = tuple(np.array([r[column] for r in mine if r["n"] == n], dtype=float) for n in sizes)
    return Curve(label, sizes, errors, tuple(np.array([r["replicate"] for r in mine if r["n"] == n]) for n in sizes))


def curves(rows: Rows, study: Study, regime: Regime, parameter: str) -> list[Curve]:
    """Error of each estimator, and for NUTS the posterior's expected error and its spread."""
    out = [curve(rows, regime, name, f"error_{parameter}", POINT.get(name, name)) for name in study.settings]
    if "nuts" in study.settings:
        out.append(curve(rows, regime, "nuts", f"loss_{parameter}", "posterior, expected"))
        if parameter in regime.moe.fields:
            out.append(curve(rows, regime, "nuts", f"spread_{parameter}", SPREAD))
    return [c for c in out if c.sizes]


def paired(first: Curve, second: Curve, statistic: str = "median") -> rates.Slope | None:
    """Difference of two slopes over the data sets that both saw; None where they share fewer than two sizes."""
    sizes, left, right = [], [], []
    for n in sorted(set(first.sizes) & set(second.sizes)):
        parts = [(c.errors[c.sizes.index(n)], c.replicates[c.sizes.index(n)]) for c in (first, second)]
        _, one, two = np.intersect1d(parts[0][1], parts[1][1], return_indices=True)
        if len(one) > 1:
            sizes.append(n)
            left.append(parts[0][0][one])
            right.append(parts[1][0][two])
    return rates.difference(sizes, left, right, statistic) if len(sizes) > 1 else None


def sizes_of(rows: Rows, regime: Regime | None = None) -> list[int]:
    """Sizes that have results."""
    mine = [r for r in rows if r["status"] not in FAILED]
    return sorted({int(r["n"]) for r in mine if regime is None or r["regime"] == regime.name})


def table(rows: Rows, study: Study) -> str:
    """Median errors by size, slopes with intervals, the bound and the theory."""
    ran = [regime for regime in study.regimes if sizes_of(rows, regime)]
    return "\n\n".join([*(_block(rows, study, regime) for regime in ran), failures(rows)])


def _block(rows: Rows, study: Study, regime: Regime) -> str:
    sizes = sizes_of(rows, regime)
    head = f"{'median error':<30}" + "".join(f"{f'n={n}':>10}" for n in sizes) + "   slope [95% interval]"
    lines = [f"{regime.name}: {regime.title}", head]
    limits = rates.bound(regime, sizes)
    for parameter in regime.main:
        name = SYMBOLS.get(parameter, parameter)
        for c in curves(rows, study, regime, parameter):
            found = dict(zip(c.sizes, c.values(), strict=True))
            cells = "".join(f"{found[n]:>10.3f}" if n in found else f"{'-':>10}" for n in sizes)
            lines.append(f"{f'{name:<6} {c.label}':<30}{cells}   {c.slope() or '-'}")
        lines.append(_bound(name, sizes, limits.get(parameter), regime.exponents[parameter]))
    return "\n".join(lines)


def _bound(name: str, sizes: Sequence[int], limit: np.ndarray | None, theory: float) -> str:
    """Line of the Cramér–Rao bound, where there is one, and of the theory."""
    if limit is None:
        return f"{f'{name:<6} theory':<30}{'':>{10 * len(sizes)}}   {theory:+.3f}"
    cells = "".join(f"{value:>10.3f}" for value in limit)
    rate = f"{rates.ols_slope(sizes, limit[:, None])[0]:+.2f}" if len(sizes) > 1 else "-"
    return f"{f'{name:<6} Cramér–Rao bound':<30}{cells}   {rate} (theory {theory:+.3f})"


def failures(rows: Rows) -> str:
    """One line for each estimator: how many cells, and what went wrong with how many."""
    lines = []
    for estimator in sorted({str(r["estimator"]) for r in rows}):
        mine = [r for r in rows if r["estimator"] == estimator]
        counts = Counter(str(r["status"]) for r in mine)
        bad = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok") or "none failed"
        note = f"; {sum(bool(r.get('at_bounds')) for r in mine)} at a bound" if estimator.startswith("mle") else ""
        retried = sum(r.get("attempt", 0) > 0 for r in mine)
        note += f"; {retried} climbed the ladder" if estimator == "nuts" else ""
        lines.append(f"{estimator}: {len(mine)} fits, {bad}{note}")
    return "\n".join(lines)


def lost(rows: Rows) -> list[str]:
    """One line for each estimator that has no result at all in a regime, with the first reason."""
    groups: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault((str(row["estimator"]), str(row["regime"])), []).append(row)
    return [
        f"Every fit of {estimator} in the regime {regime} failed ({len(mine)}). The first: {mine[0]['error']}"
        for (estimator, regime), mine in groups.items()
        if all(row["status"] in FAILED for row in mine)
    ]


def progress(rows: Rows, study: Study) -> str:
    """Fits planned, of these done and failed, fits beyond the plan if any, and seconds a fit."""
    inside = [study.plans(Cell.of(r)) for r in rows]
    head = "" if all(inside) else f"{BEYOND:>{len(BEYOND) + 2}}"
    lines = [f"{'':<32}{'planned':>9}{'done':>9}{'failed':>9}{head}{'s a fit':>9}"]
    for regime in study.regimes:
        for estimator in study.settings:
            pairs = zip(rows, inside, strict=True)
            mine = [(r, known) for r, known in pairs if (r["regime"], r["estimator"]) == (regime.name, estimator)]
            done = [r for r, known in mine if known]
            bad = sum(r["status"] in FAILED for r in done)
            beyond = f"{len(mine) - len(done):>{len(head)}}" if head else ""
            seconds = [float(r["seconds"]) for r, _ in mine if "seconds" in r]
            pace = f"{np.mean(seconds):.2f}" if seconds else "-"
            title = f"{regime.name}, {estimator}"
            planned = sum(study.count(estimator, n) for n in study.sizes.get(estimator, ()))
            lines.append(f"{title:<32}{planned:>9}{len(done):>9}{bad:>9}{beyond}{pace:>9}")
    return "\n".join(lines)


def slopes(rows: Rows, study: Study, statistics: Sequence[str] = tuple(rates.STATISTICS)) -> list[dict[str, object]]:
    """One record for each regime, parameter, curve, statistic and range of sizes: slope, theory, bound, tests.

    Ranges are every size, and the asymptotic window where it holds at least two sizes. Where some posteriors failed
    the sampling gate, there are records with and without them.
    """
    gates = {"all": rows, "passed": [r for r in rows if r["status"] != "failed_gate"]}
    if len(gates["passed"]) == len(rows):
        del gates["passed"]
    out = []
    for regime in (r for r in study.regimes if sizes_of(rows, r)):
        inside = rates.window(regime, sizes_of(rows, regime))
        for gate, kept in gates.items():
            for parameter in regime.exponents:
                for c in curves(kept, study, regime, parameter):
                    for where, part in {"all": c, "window": c.at(inside)}.items():
                        out += [
                            _record(regime, parameter, part, statistic, found) | {"gate": gate, "range": where}
                            for statistic in statistics
                            if (found := part.slope(statistic)) is not None
                        ]
    return out


def efficiency(
    rows: Rows, study: Study, statistics: Sequence[str] = tuple(rates.STATISTICS)
) -> list[dict[str, object]]:
    """One record for each regime, parameter, point estimate, statistic and size: error over the Cramér–Rao bound.

    In the asymptotic window an efficient estimator has a ratio of one. Posteriors that failed the sampling gate are in.
    """
    out = []
    for regime in (r for r in study.regimes if r.scales and sizes_of(rows, r)):
        sizes = sizes_of(rows, regime)
        for statistic, name in itertools.product(statistics, study.settings):
            for parameter, limit in rates.bound(regime, sizes, statistic).items():
                bounds = dict(zip(sizes, limit, strict=True))
                c = curve(rows, regime, name, f"error_{parameter}", POINT.get(name, name))
                out += _over_bound(regime, parameter, c, statistic, bounds)
    return out


def _over_bound(
    regime: Regime, parameter: str, c: Curve, statistic: str, bounds: Mapping[int, float]
) -> Iterator[dict[str, object]]:
    inside = rates.window(regime, list(bounds))
    for n, errors in zip(c.sizes, c.errors, strict=True):
        error, low, high = rates.level(errors, statistic, among=c.errors)
        limit = float(bounds[n])
        yield {
            "regime": regime.name,
            "parameter": SYMBOLS.get(parameter, parameter),
            "estimate": c.label,
            "statistic": statistic,
            "n": n,
            "window": n in inside,
            "replicates": len(errors),
            "error": error,
            "bound": limit,
            "over_bound": error / limit,
            "low": low / limit,
            "high": high / limit,
        }


def _record(regime: Regime, parameter: str, c: Curve, statistic: str, found: rates.Slope) -> dict[str, object]:
    theory = regime.exponents[parameter]
    record = {
        "regime": regime.name,
        "parameter": SYMBOLS.get(parameter, parameter),
        "estimate": c.label,
        "statistic": statistic,
        "n_min": c.sizes[0],
        "n_max": c.sizes[-1],
        "replicates": min(len(e) for e in c.errors),
        "slope": found.value,
        "low": found.low,
        "high": found.high,
        "theory": theory,
        "p_theory": found.p_value(theory),
    }
    limit = rates.bound(regime, c.sizes, statistic).get(parameter)
    if limit is not None:
        rate = float(rates.ols_slope(c.sizes, limit[:, None])[0])
        ratio = float(np.exp(np.mean(np.log(c.values(statistic) / limit))))
        record |= {"bound": rate, "p_bound": found.p_value(rate), "over_bound": ratio}
    return record
