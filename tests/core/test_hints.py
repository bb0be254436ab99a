"""What is suggested for a name or a key that does not exist."""

import pytest

from hms_ray.core import hints

PATHS = ("optim", "optim.name", "optim.batch", "model.name", "stages.0.lr", "stages.1.lr", "stages.0.schedule", "seed")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("optim.bach", "; did you mean optim.batch?"),
        ("stages.0.shedule", "; did you mean stages.0.schedule?"),
        ("optim.lr", "; did you mean stages.0.lr or stages.1.lr?"),
        ("optim.learning_rate", "; did you mean stages.0.lr or stages.1.lr?"),
        ("stages.lr", "; did you mean stages.0.lr or stages.1.lr?"),
        ("batch", "; did you mean optim.batch?"),
        ("modle.name", "; did you mean model.name?"),
        ("optimm.zzz", "; did you mean 'optim'?"),
        ("optim.zzz", "; there are: name, batch"),
        ("zzz", "; there are: optim, seed"),
        ("zzz.zzz", ""),
    ],
)
def test_a_path_that_does_not_exist_gets_the_one_that_was_meant(path: str, said: str) -> None:
    assert hints.path_hint(path, PATHS) == said


def test_a_suggestion_is_a_word_whatever_keys_yaml_makes() -> None:
    assert hints.nearest("trails", [True, 3, None, "trials"]) == "trials"


def test_a_long_name_is_quoted_in_part() -> None:
    assert len(hints.unknown("space", "x" * 5000, ["demo"])) < 300


def test_nothing_near_means_no_suggestion() -> None:
    assert hints.unknown("space", "zzz", []) == "no space named 'zzz'; there are: none."
