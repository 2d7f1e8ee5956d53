"""The papers' models by name."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from numbers import Integral

from bayes_moe.ground.data import check_choice, check_classes, check_count, sequence
from bayes_moe.model.experts import Activation, Frozen, Multinomial, Normal, activation_function, linear
from bayes_moe.model.gates import Constant, Gaussian, Sigmoid, Softmax
from bayes_moe.model.gaussian import FORMS
from bayes_moe.model.moe import MoE
from bayes_moe.model.responses import RESPONSES
from bayes_moe.varying.model import VaryingCoefficient

GATES = {"softmax": Softmax, "sigmoid": Sigmoid, "constant": Constant}


def contaminated(
    frozen: object,
    *,
    frozen_activation: str | Activation = "linear",
    activation: str | Activation = "tanh",
    reference: str | None = "last",
    features: int | Sequence[str] | None = None,
    classes: Sequence[Hashable] | None = None,
    adapters: int = 1,
    gate: str = "softmax",
) -> MoE:
    """Contaminated mixture of multinomial logistic experts: a frozen expert and a trainable adapter, or several.

    p(y = s | x) = (1 - w(x)) f0(s | x) + w(x) f(s | x; eta),  w(x) = sigmoid(beta' x + tau),
    f(s | x; eta) = softmax_s(act(eta_s' x)).

    Parameters
    ----------
    frozen : array-like (K, d), fitted classifier, or Frozen
        The pre-trained expert: class vectors eta0, a scikit-learn classifier that predicts probabilities, or
        :meth:`Frozen.table <bayes_moe.model.experts.Frozen.table>` of log-probabilities for the rows at hand.
    frozen_activation, activation : str or callable
        "linear", "tanh", "sigmoid", "gelu", "relu", or any elementwise JAX function. ``frozen_activation``
        concerns class vectors only.
    reference : "last" or None
        "last" pins the adapter's last class vector at zero (eta has K - 1 rows). None keeps all K rows; it is
        refused for a linear adapter, where a common shift of all rows leaves the model unchanged.
    features : int or sequence of str, optional
        Number or names of the covariates; needed where ``frozen`` does not tell.
    classes : sequence of hashable, optional
        Labels, in the order of the frozen expert's rows; 0, ..., K - 1 by default.
    adapters : int
        Trainable experts beside the frozen one; their order is arbitrary.
    gate : "softmax", "sigmoid" or "constant"
        See :mod:`bayes_moe.model.gates`. The paper's, above, is "softmax"; "constant" has no ``beta``.

    Returns
    -------
    MoE
        With parameters ``tau`` (adapters,), ``beta`` (adapters, d) and ``eta`` (adapters, K - 1 or K, d).

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Yan, Le, Pham, Nguyen and Ho, "Improving Minimax Estimation Rates for Contaminated Mixture of Multinomial
    Logistic Experts via Expert Heterogeneity", arXiv:2602.00939.

    Examples
    --------
    >>> moe = contaminated([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]], activation="tanh")
    >>> {name: field.shape for name, field in moe.fields.items()}
    {'tau': (1,), 'beta': (1, 2), 'eta': (1, 2, 2)}
    """
    act = activation_function(activation)
    _check_reference(reference, act)
    expert = _as_frozen(frozen, frozen_activation)
    count, names = _features(features, expert)
    labels = check_classes(expert.labels if classes is None else classes, expert.classes)
    if expert.labels is not None and labels != expert.labels:
        raise ValueError(f"classes must be those of the frozen classifier, {list(expert.labels)}, got {list(labels)}.")
    adapters = check_count("adapters", adapters)
    check_choice("gate", gate, GATES)
    adapter = Multinomial(adapters, expert.classes, count, act, reference)
    return MoE(GATES[gate](1 + adapters, count), (expert, adapter), labels, names)


def gaussian_gated(
    experts: int,
    features: int | Sequence[str],
    *,
    covariance: str = "full",
    responses: int = 1,
) -> MoE:
    """Gaussian-gated mixture of affine normal experts.

    p(x, y) = sum_i pi_i N(x; c_i, Gamma_i) N(y; a_i' x + b_i, nu_i),
    p(y | x) = sum_i p(i | x) N(y; a_i' x + b_i, nu_i),  p(i | x) = pi_i N(x; c_i, Gamma_i) / p(x).

    The likelihood is that of (x, y): with full ``Gamma`` the model is a Gaussian mixture in (x, y), and every form has
    closed M-steps. ``log_density`` is log p(x, y), ``conditional_log_density`` is log p(y | x).

    Parameters
    ----------
    experts : int
    features : int or sequence of str
        Number or names of the covariates.
    covariance : "full", "diagonal" or "spherical"
        Form of ``Gamma``.
    responses : int
        Length of y; with several, ``a`` is (experts, responses, d) and ``nu`` a full covariance matrix for each expert.

    Returns
    -------
    MoE
        With parameters ``pi`` (experts,), ``c`` (experts, d), ``Gamma``, ``a`` (experts, d), ``b`` (experts,) and
        ``nu`` (experts,).

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Nguyen, Nguyen, Nguyen and Ho, "Towards Convergence Rates for Parameter Estimation in Gaussian-gated Mixture of
    Experts", arXiv:2305.07572.

    Examples
    --------
    >>> moe = gaussian_gated(experts=2, features=1)
    >>> {name: field.shape for name, field in moe.fields.items()}
    {'pi': (2,), 'c': (2, 1), 'Gamma': (2, 1, 1), 'a': (2, 1), 'b': (2,), 'nu': (2,)}
    """
    experts, responses = check_count("experts", experts), check_count("responses", responses)
    check_choice("covariance", covariance, FORMS)
    count, names = _named(features)
    return MoE(Gaussian(experts, count, covariance), (Normal(experts, count, responses),), (), names)


def varying_coefficient(
    experts: str = "normal",
    components: int = 2,
    *,
    gate_features: int = 1,
    expert_features: int = 1,
    constant: Sequence[str] = (),
) -> VaryingCoefficient:
    """Varying-coefficient mixture of experts: coefficients are smooth functions of an index u.

    p(c | x, u) = softmax_c(beta_c(u)' (1, x)) with beta_0 = 0,  y | c ~ f(. ; alpha_c(u)' (1, z), delta_c(u)).

    Parameters
    ----------
    experts : "normal", "binomial", "negative-binomial" or "poisson"
        f and its link: identity with delta = log sd; logit; log with delta = log k, the variance being
        mu + mu^2 / k; log.
    components : int
    gate_features, expert_features : int
        Columns of x (gate) and of z (experts), intercepts not counted; 0 for none.
    constant : sequence of str
        Coefficients that do not vary with u: ``"delta"``, ``"alpha[:,1]"`` (one covariate of z, in every expert),
        ``"alpha[0,1]"`` (one component's: which of them it is, data decide).

    Returns
    -------
    VaryingCoefficient
        With ``beta`` (C - 1, 1 + p), ``alpha`` (C, 1 + q), intercepts first, and ``delta`` (C,) at each u.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    "Varying-coefficient mixture of experts", arXiv:2601.01699.

    Examples
    --------
    >>> model = varying_coefficient("normal", components=2, gate_features=1, expert_features=1)
    >>> model.labels
    ['beta[0,0]', 'beta[0,1]', 'alpha[0,0]', 'alpha[0,1]', 'alpha[1,0]', 'alpha[1,1]', 'delta[0]', 'delta[1]']
    """
    check_choice("experts", experts, RESPONSES)
    model = VaryingCoefficient(
        RESPONSES[experts],
        check_count("components", components),
        check_count("gate_features", gate_features, 0),
        check_count("expert_features", expert_features, 0),
    )
    names = constant if isinstance(constant, str) else sequence("constant", constant, "a sequence of names")
    model.select(names)
    return replace(model, constant=tuple(names))


def _check_reference(reference: str | None, act: Activation) -> None:
    if not (reference is None or (isinstance(reference, str) and reference == "last")):
        raise ValueError(f"reference must be 'last' or None, got {reference!r}.")
    if reference is None and act is linear:
        raise ValueError(
            "reference=None is not identifiable with a linear adapter: a common shift of all class vectors leaves "
            "the model unchanged. Use reference='last'."
        )


def _as_frozen(frozen: object, activation: str | Activation) -> Frozen:
    if isinstance(frozen, Frozen):
        expert = frozen
    elif hasattr(frozen, "predict_log_proba") or hasattr(frozen, "predict_proba"):
        expert = Frozen.classifier(frozen)
    elif hasattr(frozen, "predict"):
        raise ValueError(
            f"frozen must predict probabilities, got {frozen!r:.80} without predict_proba. Calibrate it first, as with "
            "scikit-learn's CalibratedClassifierCV, or pass Frozen.table(...) of log-probabilities."
        )
    else:
        expert = Frozen.logits(frozen, activation)
    if expert.classes < 2:
        raise ValueError(f"frozen must have at least two classes, got {expert.classes}.")
    return expert


def _features(features: int | Sequence[str] | None, expert: Frozen) -> tuple[int, tuple[str, ...] | None]:
    if features is None:
        if expert.features is None:
            raise ValueError("features is needed with this frozen expert: say how many columns x has.")
        return expert.features, expert.names
    count, names = _named(features, expert.features)
    if None not in (names, expert.names) and names != expert.names:
        raise ValueError(
            f"features must be those that the frozen classifier was fitted on, {list(expert.names)}, in that order, "
            f"got {list(names)}. Leave features out."
        )
    return count, names or expert.names


def _named(features: int | Sequence[str], expected: int | None = None) -> tuple[int, tuple[str, ...] | None]:
    """Count features, and name them where names are given."""
    if isinstance(features, Integral) and not isinstance(features, bool):
        count, names = int(features), None
    else:
        names = tuple(map(str, sequence("features", features, "a count or a list of names")))
        count = len(names)
    if names is not None and len(set(names)) != count:
        raise ValueError(f"features must have distinct names, got {list(names)}.")
    if count < 1 or expected not in (None, count):
        raise ValueError(f"features must be {expected or 'at least 1'}, got {count}.")
    return count, names
