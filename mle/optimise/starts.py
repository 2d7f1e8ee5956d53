"""Where optimisers start, and what became of every start."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from bayes_moe.ground import parameters, threads
from bayes_moe.ground.data import check_count
from bayes_moe.ground.keys import as_generator
from bayes_moe.model.moe import MoE
from mle.optimise import responsibilities
from mle.optimise.fit import Start
from mle.optimise.objective import Objective
from mle.optimise.steps import Collapse, closed

WEIGHTS = ("pi", "tau")  # parameters of gates that are weights alone
NEAR_ZERO = 0.1  # spread of the first random start; the others have spread 1


def draw(
    objective: Objective,
    n_init: int,
    random_state: int | np.random.Generator | None,
    init: str | Mapping[str, object] | Sequence[Mapping[str, object]] | None,
) -> np.ndarray:
    """Return free vectors to start from.

    Parameters
    ----------
    objective : Objective
    n_init : int
        How many random starts: normal, in units of the data (:mod:`mle.optimise.coordinates`), the first near zero; for
        a model whose M-steps are closed forms, from responsibilities (:mod:`mle.optimise.responsibilities`).
    random_state : int or Generator
        Needed for random starts.
    init : mapping or sequence of mappings, or str, optional
        Parameter values to start from instead; or the kind of responsibilities.

    Returns
    -------
    ndarray, shape (starts, P)

    Raises
    ------
    ValueError
        If neither ``init`` nor ``random_state`` is given, or values do not fit.
    """
    moe = objective.moe
    if init is not None and not isinstance(init, str):
        given = [init] if isinstance(init, Mapping) else list(init) if isinstance(init, Iterable) else []
        if not given or not all(isinstance(values, Mapping) for values in given):
            raise ValueError(
                f"init must be a mapping from parameter name to value, or one or more such, got {init!r:.80}. "
                "Of a fit pass fit.params; for random starts leave init out."
            )
        starts = np.array([parameters.flatten(moe.fields, moe.params(**values)) for values in given])
    else:
        check_count("n_init", n_init)
        rng = as_generator(random_state, "random starts")
        if closed(moe):
            starts = responsibilities.draw(objective, n_init, rng, init)
        elif init is not None:
            raise ValueError(f"init must be parameter values for this model, got {init!r}.")
        else:
            spread = np.where(np.arange(n_init) == 0, NEAR_ZERO, 1.0)[:, None]
            normal = rng.normal(size=(n_init, parameters.size(moe.fields)))
            starts = objective.coordinates.scattered(spread * normal)
    return starts if objective.bounds is None else np.clip(starts, *objective.bounds.T)


def check_apart(moe: MoE, init: object) -> None:
    """Check that a given start has no two components that are equal: EM never parts them.

    Raises
    ------
    ValueError
    """
    given = (
        [init]
        if isinstance(init, Mapping)
        else init
        if isinstance(init, Sequence) and not isinstance(init, str)
        else []
    )
    for values in given:
        params = moe.params(**values)
        own = {name: np.asarray(params[name]) for name in moe.gate.fields if name not in WEIGHTS}
        own = {name: v if len(v) == moe.gate.experts else np.concatenate([0 * v[:1], v]) for name, v in own.items()}
        for place, expert in zip(moe.places, moe.experts, strict=True):
            rows = [params[name] for name in expert.fields] + [v[place] for v in own.values()]
            flat = np.concatenate([np.reshape(v, (expert.experts, -1)) for v in rows], axis=1) if expert.fields else ()
            for j, i in itertools.combinations(range(len(flat)), 2):
                if (flat[i] == flat[j]).all():
                    raise ValueError(
                        f"init must have components that differ, got experts {place.start + j} and {place.start + i} "
                        "equal but for their weights: EM never parts them. Move one of them."
                    )


def run_all(
    climb: Callable[[np.ndarray], Start], starts: np.ndarray, *, workers: int | None = None
) -> tuple[Start, ...]:
    """Climb from every start; one that fails is recorded, never fatal. Best first.

    Parameters
    ----------
    climb : callable
    starts : ndarray, shape (starts, P)
    workers : int, optional
        Threads; by default one for each core. One for climbs by SciPy's BFGS, which sets warning filters of the whole
        process.

    Raises
    ------
    ValueError
        If every start failed.
    """
    with threads.one_blas_thread():
        climbed = threads.each(lambda free: climb_safely(climb, free), starts, workers)
    results = [start.numbered(index) for index, start in enumerate(climbed)]
    if all(start.log_likelihood == -np.inf for start in results):
        reasons = sorted({start.message for start in results})
        raise ValueError(
            f"no start reached a finite log likelihood: {'; '.join(reasons)}. Check x and y, or give init."
        )
    return tuple(sorted(results, key=lambda start: -start.log_likelihood))


def climb_safely(climb: Callable[[np.ndarray], Start], free: np.ndarray) -> Start:
    """Climb; what fails is a start of log likelihood minus infinity that says why."""
    try:
        with np.errstate(all="ignore"):  # line searches probe overflowing points
            start = climb(free)
    except Collapse as collapse:
        return Start(free, -np.inf, False, 0, str(collapse))
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:  # SciPy's trust region, met with NaN
        return Start(free, -np.inf, False, 0, f"the log likelihood or a derivative is not finite ({error})")
    return start if np.isfinite(start.log_likelihood) else start.failed("the log likelihood is not finite")
