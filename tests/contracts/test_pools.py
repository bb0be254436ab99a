"""What every pool keeps, for files that nobody has written yet as well."""

import inspect
import json

import numpy as np
import pytest

from hms_ray import registry, tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import _base
from hms_ray.tasks import Task

TASKS = {kind: tasks.from_dict({"kind": kind, "classes": list("abcd")}) for kind in ("votes", "multilabel")}
TASKS["binary"] = tasks.from_dict({"kind": "binary", "classes": ["a"]})

DEAF = ("prior",)  # predicts alike whatever the members say, which have no weight

pytestmark = pytest.mark.parametrize("name", registry.names("pools"))
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def draw(task: Task, seed: int, n_units: int = 40, n_members: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (N, M, ..., K) of members that err around a truth, and (N, ..., K) of targets around it."""
    rng = stream(seed, "contract", task.kind, n_units, n_members)
    truth = rng.normal(0, 2, (n_units, len(task.classes)))
    members = truth[:, None] + rng.normal(
        0, np.linspace(1, 2, n_members)[:, None], (n_units, n_members, truth.shape[1])
    )
    return task.outcomes(task.to_probs(members)), task.outcomes(task.to_probs(2 * truth))


def fit(
    name: str, probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, families: str = ""
) -> _base.Pool:
    """Fit a pool; of families, for a method that asks for them, there are two by turns unless `families` names them."""
    method = registry.load("pools", name).fit
    families = families or ("ab" * probs.shape[1])[: probs.shape[1]]
    extra = {"families": list(families)} if "families" in inspect.signature(method).parameters else {}
    return method(probs, targets, sample_weight, **extra)


def assert_distributions(pooled: np.ndarray, targets: np.ndarray) -> None:
    assert pooled.shape == targets.shape
    assert pooled.dtype == np.float64
    assert (pooled >= 0).all()
    np.testing.assert_allclose(pooled.sum(-1), 1, rtol=1e-12)


@each_task
def test_it_predicts_distributions(name: str, task: Task) -> None:
    probs, targets = draw(task, 0)
    pool = fit(name, probs, targets)
    assert pool.weights.shape == (5,)
    assert (pool.weights >= 0).all() and pool.weights.any() != (name in DEAF)
    assert pool.gap is None or abs(pool.gap) < 1e-8
    for new in (probs, draw(task, 1, n_units=7)[0]):
        assert_distributions(pool.predict(new), new[:, 0])


@each_task
def test_it_is_no_worse_than_the_worst_member(name: str, task: Task) -> None:
    probs, targets = draw(task, 2, n_units=200)
    pooled = task.score(*map(task.from_outcomes, (targets, fit(name, probs, targets).predict(probs))))
    each = [task.score(*map(task.from_outcomes, (targets, probs[:, m]))) for m in range(5)]
    even = np.broadcast_to(1 / targets.shape[-1], targets.shape)
    assert pooled < (task.score(*map(task.from_outcomes, (targets, even))) if name in DEAF else max(each))


@each_task
def test_json_takes_it_and_gives_it_back(name: str, task: Task) -> None:
    probs, targets = draw(task, 3)
    pool = fit(name, probs, targets)
    content = json.loads(json.dumps(_base.to_dict(pool), allow_nan=False))
    again = _base.from_dict(content)
    assert type(again) is type(pool) and again.gap == pool.gap
    assert _base.to_dict(again) == content
    np.testing.assert_array_equal(again.weights, pool.weights)
    np.testing.assert_array_equal(again.predict(probs), pool.predict(probs))


@each_task
def test_two_fits_agree_to_the_last_bit(name: str, task: Task) -> None:
    probs, targets = draw(task, 4)
    probs[:, 3] = probs[:, 1]
    first, second = (fit(name, probs.copy(), targets.copy()) for _ in range(2))
    assert json.dumps(_base.to_dict(first)) == json.dumps(_base.to_dict(second))
    np.testing.assert_array_equal(first.predict(probs), second.predict(probs))


@each_task
@pytest.mark.parametrize("shape", [(40, 5), (40, 1), (1, 5), (1, 1)])
def test_its_inputs_are_left_as_they_were(name: str, task: Task, shape: tuple[int, int]) -> None:
    given = (*draw(task, 5, *shape), np.linspace(1, 2, shape[0]))
    kept = [rows.copy() for rows in given]
    for rows in given:
        rows.flags.writeable = False
    fit(name, *given).predict(given[0])
    for rows, before in zip(given, kept, strict=True):
        np.testing.assert_array_equal(rows, before)


@each_task
def test_whole_sample_weights_are_repeated_rows(name: str, task: Task) -> None:
    probs, targets = draw(task, 6)
    counts = stream(6, "counts").integers(0, 4, 40)
    weighted = fit(name, probs, targets, counts.astype(float))
    repeated = fit(name, probs.repeat(counts, axis=0), targets.repeat(counts, axis=0))
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-6)
    np.testing.assert_allclose(weighted.predict(probs), repeated.predict(probs), atol=1e-6)


@each_task
def test_the_size_of_sample_weights_does_not_matter(name: str, task: Task) -> None:
    probs, targets = draw(task, 7)
    weights = stream(7, "weights").uniform(0, 1, 40)
    one, other = (fit(name, probs, targets, scale * weights).predict(probs) for scale in (1, 1000))
    np.testing.assert_allclose(one, other, atol=1e-6)


@each_task
def test_members_without_weight_can_be_left_out_and_put_back(name: str, task: Task) -> None:
    probs, targets = draw(task, 8, n_members=6)
    probs[:, 4] = targets[:, ..., ::-1]  # a member so wrong that nearly every method leaves it out
    pool = fit(name, probs, targets)
    used = np.flatnonzero(pool.weights)
    narrow = _base.restricted(pool, used)
    np.testing.assert_allclose(narrow.predict(probs[:, used]), pool.predict(probs), rtol=1e-12)
    wide = _base.spread(narrow, used, 6)
    np.testing.assert_array_equal(wide.weights, pool.weights)
    np.testing.assert_allclose(wide.predict(probs), pool.predict(probs), rtol=1e-12)
    moved = _base.spread(pool, np.array([7, 0, 3, 1, 2, 5]), 8)
    shuffled = np.full((40, 8, *probs.shape[2:]), 0.5)
    shuffled[:, [7, 0, 3, 1, 2, 5]] = probs
    np.testing.assert_allclose(moved.predict(shuffled), pool.predict(probs), rtol=1e-12)


@each_task
def test_one_member_will_do(name: str, task: Task) -> None:
    probs, targets = draw(task, 9, n_members=1)
    pool = fit(name, probs, targets)
    assert pool.weights.shape == (1,)
    assert_distributions(pool.predict(probs), targets)


@each_task
def test_one_unit_will_do(name: str, task: Task) -> None:
    probs, targets = draw(task, 10, n_units=1)
    assert_distributions(fit(name, probs, targets).predict(probs), targets)


@each_task
def test_sure_and_wrong_members_give_a_finite_score(name: str, task: Task) -> None:
    _, targets = draw(task, 11)
    targets = np.eye(targets.shape[-1])[targets.argmax(-1)]
    wrong = np.roll(targets, 1, axis=-1)
    probs = np.stack([wrong, wrong, np.roll(wrong, 5, axis=0)], axis=1)
    pooled = fit(name, probs, targets).predict(probs)
    assert_distributions(pooled, targets)
    assert np.isfinite(task.score(task.from_outcomes(targets), task.from_outcomes(pooled)))


@each_task
def test_an_outcome_that_never_occurs_gives_finite_predictions(name: str, task: Task) -> None:
    probs, targets = draw(task, 12)
    targets[..., 0] = 0
    targets /= targets.sum(-1, keepdims=True)
    assert_distributions(fit(name, probs, targets).predict(probs), targets)


@each_task
def test_a_convex_method_does_not_mind_the_order_of_members(name: str, task: Task) -> None:
    probs, targets = draw(task, 13, n_units=100)
    pool, order = fit(name, probs, targets), np.array([3, 0, 4, 1, 2])
    if pool.gap is None:
        pytest.skip(f"{name} is not convex")
    other = fit(name, probs[:, order], targets, families="".join("ababa"[m] for m in order))
    np.testing.assert_allclose(other.weights, pool.weights[order], atol=1e-4)
    np.testing.assert_allclose(other.predict(probs[:, order]), pool.predict(probs), atol=1e-5)


@each_task
def test_single_precision_will_do(name: str, task: Task) -> None:
    probs, targets = draw(task, 14)
    whole, half = fit(name, probs, targets), fit(name, probs.astype(np.float32), targets)
    np.testing.assert_allclose(half.predict(probs), whole.predict(probs), atol=1e-4)
    pooled = whole.predict(probs.astype(np.float32))
    np.testing.assert_allclose(pooled, whole.predict(probs), atol=1e-5)


def test_it_says_what_it_is(name: str) -> None:
    module = registry.load("pools", name)
    assert inspect.getdoc(module) and inspect.getdoc(module.fit) and inspect.getdoc(module.Pool)
    assert list(inspect.signature(module.fit).parameters)[:4] == ["probs", "targets", "sample_weight", "start"]
