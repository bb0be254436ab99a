"""Each method of pooling in words: its name, what it is made of, what its weights mean, what its gap certifies."""

from collections import Counter
from typing import Any

from markupsafe import Markup

from hms_ray.ensemble import TOLERANCE
from hms_ray.report import words

NAMES = {
    "auto": "several pools, weighed by nested score",
    "average": "average of linear and log-linear",
    "best_single": "best single, chosen without the fold",
    "calibrated": "calibrated: linear, with temperature and class bias",
    "greedy": "greedy selection",
    "linear": "linear",
    "log_linear": "log-linear",
    "prior": "class shares",
    "tempered": "linear, then temperature",
    "two_level": "two levels: linear in a space, log-linear between",
    "uniform": "plain mean",
}
SHORT = NAMES | {"calibrated": "calibrated", "two_level": "two levels"}

MEANINGS = {
    "average": "A weight is the mean, over the pools by their shares, of each pool's weights brought to sum 1: "
    "it says who matters and is no recipe.",
    "prior": "No member has weight: every unit is predicted the same.",
    "log_linear": "Weights are exponents of the members' probabilities; their sum acts as an inverse temperature.",
    "two_level": "A weight is the product of the member's weight in its space and the space's own, an exponent.",
}

BOUNDS = {
    "linear": "No weights on the simplex can score more than {gap} better than the fitted ones on these rows, in "
    "sample ({population}).",
    "tempered": "Before the temperature, no weights on the simplex can score more than {gap} better than the fitted "
    "ones on these rows, in sample ({population}). The temperature is fitted afterwards, for these weights.",
    "log_linear": "What is made small is the score plus a penalty that draws the weights to equal ones and the class "
    "biases to 0. No other biases and weights of 0 or more can bring this sum more than {gap} below the fitted ones' "
    "on these rows, in sample ({population}).",
    "two_level": "The pools within the spaces taken as they are: no other class biases, and no weights of the spaces "
    "of 0 or more, can bring the score plus its penalty more than {gap} below the fitted ones' on these rows, in "
    "sample ({population}).",
    "average": "{convex} of the {all} pools averaged here have a certificate ({kinds}): each is within {gap} of its "
    "own optimum on these rows, in sample ({population}). That bounds each of these fits, not their average.",
}

WITHOUT_BOUND = {
    "best_single": "all weight goes to one member, and nothing is fitted.",
    "calibrated": "weights, temperature and class bias are fitted together, which is not a convex problem, so there "
    "may be better ones.",
    "greedy": "members are added one by one, whichever helps most, and nobody looks for the best weights.",
    "prior": "it predicts the shares of the classes, whatever the members say.",
    "uniform": "the weights are equal, and nothing is fitted.",
}


def name(method: str) -> str:
    """Name a method as a reader would; one that this version does not know keeps its own name."""
    return NAMES.get(method, method)


def parts(fitted: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pools of an average; any other pool is its own only part."""
    return fitted["pools"] if fitted["kind"] == "average" else [fitted]


def composition(fitted: dict[str, Any]) -> str:
    """Say what an average is made of, kinds with the largest share first; nothing of any other pool."""
    if fitted["kind"] != "average":
        return ""
    shares: Counter[str] = Counter()
    for pool, share in zip(fitted["pools"], fitted["shares"], strict=True):
        shares[pool["kind"]] += share
    said = [f"{words.percent(share)} {SHORT.get(kind, kind)}" for kind, share in shares.most_common()]
    return f"An average of {len(fitted['pools'])} pools: {'; '.join(said)}."


def meaning(fitted: dict[str, Any]) -> str:
    """Say what the members' weights are."""
    return MEANINGS.get(fitted["kind"], "Weights sum to 1.")


def limits(content: dict[str, Any]) -> str:
    """Say what the ensemble's size was limited to; nothing where it was not."""
    found = content["limits"] or {}
    said = {
        "members": "at most {} members with weight",
        "per_family": "at most {} of one space",
        "seconds": "at most {:g} s for one prediction of all members",
        "tolerance": "members dropped while the linear pool stays within {:g} nats of its optimum",
    }
    there = [sentence.format(found[key]) for key, sentence in said.items() if found.get(key) is not None]
    return f"Limits: {'; '.join(there)}." if there else ""


def certificate(content: dict[str, Any], population: object) -> list[Markup]:
    """Say what the duality gap bounds for this kind of pool, or that there is no such bound."""
    found = [_bound(content, population) if content["duality_gap"] is not None else _no_bound(content)]
    if content["duality_gap"] is not None and content["limits"]:
        found.append(
            Markup("It holds among the members that the limits leave; the choice of these has no certificate.")
        )
    if content["gap_by_fold"] is not None:
        said = "The largest gap of a cross-fitting fit is {}."
        found.append(Markup(said).format(_unbroken(content["gap_by_fold"])))
    if max(content["duality_gap"] or 0, content["gap_by_fold"] or 0) >= TOLERANCE:
        found.append(Markup("A gap that is not below {:g} leaves the certificate open.").format(TOLERANCE))
    return found


def gaps(content: dict[str, Any]) -> list[float]:
    """Return every gap that ensemble.json holds: of the ensemble's fits and of the other methods'."""
    found = [content["duality_gap"], content["gap_by_fold"]]
    found += [method[key] for method in content["methods"] for key in ("gap", "gap_by_fold")]
    return [gap for gap in found if gap is not None]


def _bound(content: dict[str, Any], population: object) -> Markup:
    pools = parts(content["fitted"])
    convex = [pool["kind"] for pool in pools if pool["gap"] is not None]
    sentence = Markup(BOUNDS[content["fitted"]["kind"]]).format(
        gap=_unbroken(content["duality_gap"]),
        population=population,
        convex=len(convex),
        all=len(pools),
        kinds="; ".join(SHORT.get(kind, kind) for kind in dict.fromkeys(convex)),
    )
    others = dict.fromkeys(SHORT.get(pool["kind"], pool["kind"]) for pool in pools if pool["gap"] is None)
    return sentence + Markup(" The others ({}) have none.").format("; ".join(others)) if others else sentence


def _no_bound(content: dict[str, Any]) -> Markup:
    kind = content["fitted"]["kind"]
    reason = WITHOUT_BOUND.get(kind, WITHOUT_BOUND["calibrated"])  # of an average, those without a bound are such
    said = Markup("There is no certificate for this method: {}").format(reason)
    if content["pool"] == "auto" and kind == "uniform":
        said += Markup(" No other pool was better than the plain mean by more than its standard error over patients.")
    return said


def _unbroken(gap: float) -> Markup:
    return Markup('<span class="whole">{}</span>').format(words.bound(gap))
