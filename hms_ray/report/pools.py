"""Sentences on a pool's limits and its certificate; those of a single kind of pool are in its file."""

from markupsafe import Markup, escape

from hms_ray.ensemble import TOLERANCE
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.methods import AUTO
from hms_ray.ensemble.pools._base import explain, kind
from hms_ray.ensemble.result import EnsembleResult
from hms_ray.report import words


def describe_limits(limits: Limits | None) -> str:
    """Describe the limits on the ensemble's size; "" without limits."""
    if limits is None:
        return ""
    sentences = {
        "members": "at most {} members with weight",
        "per_family": "at most {} of one space",
        "seconds": "at most {:g} s for one prediction of all members",
        "tolerance": "members dropped while the linear pool stays within {:g} nats of its optimum",
    }
    values = {name: getattr(limits, name) for name in sentences}
    given = [sentence.format(values[name]) for name, sentence in sentences.items() if values[name] is not None]
    return f"Limits: {'; '.join(given)}."


def certificate(result: EnsembleResult, population: object) -> list[Markup]:
    """Describe what the duality gap bounds for this kind of pool, or why there is no bound."""
    sentences_of_pool, gap, by_fold = explain(result.fitted), result.duality_gap, result.gap_by_fold
    sentences = []
    if gap is not None:
        sentences.append(escape(sentences_of_pool.bound).format(gap=_unbroken(gap), population=population))
        if result.limits:
            sentences.append(
                Markup("It holds among the members that the limits leave; their choice has no certificate.")
            )
    else:
        sentences.append(Markup("There is no certificate for this method: {}").format(sentences_of_pool.no_bound))
        if result.pool == AUTO and kind(result.fitted) == "uniform":
            sentences.append(
                Markup("No other pool was better than the plain mean by more than its standard error over patients.")
            )
    if by_fold is not None:
        sentences.append(Markup("The largest gap of a cross-fitting fit is {}.").format(_unbroken(by_fold)))
    if max(gap or 0, by_fold or 0) >= TOLERANCE:
        sentences.append(Markup("The certificate is open: a gap is not below {:g}.").format(TOLERANCE))
    return sentences


def _unbroken(gap: float) -> Markup:
    return Markup('<span class="whole">{}</span>').format(words.bound(gap))
