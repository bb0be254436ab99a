"""How others fit ensemble weights: SciPy's optimisers with and without gradient, greedy selection, and AutoGluon's."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from hms_ray.ensemble.terms import clipped, scored_terms
from hms_ray.tasks import CLIP

NELDER_MEAD_ITERATIONS = 3600  # SciPy's default for 18 members


def slsqp(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return SLSQP's weights as solutions write it: the metric over all classes, with its gradient."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.clip(weights @ probs, CLIP, 1 - CLIP)
        gradient = np.einsum("nmk,nk->m", probs, targets / pooled)
        return -(targets * np.log(pooled)).sum() / len(targets), -gradient / len(targets)

    return _slsqp(loss, probs.shape[1])


def slsqp_terms(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return SLSQP's weights on the terms that count only, laid out as the linear pool does: the hardest peer."""
    terms, shares = scored_terms(probs, targets)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.maximum(terms @ weights, CLIP)
        return -shares @ np.log(pooled), -(shares / pooled) @ terms

    return _slsqp(loss, probs.shape[1])


def _slsqp(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], n_members: int) -> np.ndarray:
    one = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    options = {"maxiter": 1000, "ftol": 1e-12}
    start, bounds = np.full(n_members, 1 / n_members), [(0, 1)] * n_members
    found = minimize(loss, start, jac=True, bounds=bounds, constraints=[one], options=options).x
    return np.clip(found, 0, None) / np.clip(found, 0, None).sum()


def nelder_mead(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the weights of Nelder-Mead on clipped and normalised coordinates, after a bounded number of iterations."""
    terms, shares = scored_terms(probs, targets)

    def simplex(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 1e-12) / np.maximum(x, 1e-12).sum()

    def loss(x: np.ndarray) -> float:
        return -shares @ np.log(terms @ simplex(x))

    start, options = np.full(probs.shape[1], 1 / probs.shape[1]), {"maxiter": NELDER_MEAD_ITERATIONS}
    return simplex(minimize(loss, start, method="Nelder-Mead", options=options).x)


def autogluon(probs: np.ndarray, targets: np.ndarray, steps: int) -> np.ndarray:
    """Return the weights of AutoGluon's EnsembleSelection on soft targets.

    Raises:
        ImportError: autogluon.core, autogluon.common and autogluon.features are not installed.
    """
    from autogluon.core.metrics import get_metric
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    selection = EnsembleSelection(steps, "softclass", get_metric("soft_log_loss", "softclass"))
    selection.fit([np.ascontiguousarray(probs[:, m]) for m in range(probs.shape[1])], targets)
    return np.asarray(selection.weights_)


def log_linear_objective(
    probs: np.ndarray, targets: np.ndarray, ridge: float, bias_ridge: float
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return the log-linear pool's objective with its gradient, of weights (M,) and bias (K,) in one vector."""
    logs, n_members = np.log(clipped(probs)), probs.shape[1]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = x[:n_members], x[n_members:]
        logits = weights @ logs + bias
        mass = logsumexp(logits, axis=1, keepdims=True)
        excess = (np.exp(logits - mass) - targets) / len(targets)
        away = weights - 1 / n_members
        value = (mass[:, 0] - (targets * logits).sum(1)).mean()
        value += ridge * n_members / 2 * away @ away + bias_ridge / 2 * bias @ bias
        by_weight = np.einsum("nmk,nk->m", logs, excess) + ridge * n_members * away
        return float(value), np.concatenate([by_weight, excess.sum(0) + bias_ridge * bias])

    return loss


def lbfgsb(probs: np.ndarray, targets: np.ndarray, ridge: float, bias_ridge: float) -> np.ndarray:
    """Return weights and bias (M + K,) of the log-linear pool by SciPy's L-BFGS-B with gradient."""
    n_members, n_classes = probs.shape[1:]
    start = np.concatenate([np.full(n_members, 1 / n_members), np.zeros(n_classes)])
    bounds = [(0, None)] * n_members + [(None, None)] * n_classes
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-13, "gtol": 1e-7}
    loss = log_linear_objective(probs, targets, ridge, bias_ridge)
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
