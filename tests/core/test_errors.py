"""The error's type says who acts, and many faults make one sentence each."""

import pytest

from hms_ray.core.errors import (
    ConfigError,
    DataError,
    HmsRayError,
    SearchAborted,
    TrialFailed,
    UserError,
    raise_all,
    shown,
    without_secrets,
)


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_what_the_user_can_mend_is_a_user_error(error: type) -> None:
    assert issubclass(error, UserError)


@pytest.mark.parametrize("error", [TrialFailed, SearchAborted])
def test_what_the_search_meets_is_none(error: type) -> None:
    assert issubclass(error, HmsRayError) and not issubclass(error, UserError)


def test_no_fault_raises_nothing() -> None:
    raise_all(iter(()), ConfigError, "run")


def test_one_fault_is_one_line() -> None:
    with pytest.raises(DataError) as caught:
        raise_all(["votes are all zero"], DataError, "train.csv")
    assert str(caught.value) == "train.csv: votes are all zero"


def test_every_fault_of_a_generator_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        raise_all((f"fault {n}" for n in range(3)), ConfigError, "run")
    assert str(caught.value).splitlines() == ["run: 3 faults", "  - fault 0", "  - fault 1", "  - fault 2"]


def test_of_many_faults_the_first_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        raise_all((f"fault {n}" for n in range(500)), ConfigError, "run")
    first, *listed = str(caught.value).splitlines()
    assert first == "run: 500 faults"
    assert listed == [*(f"  - fault {n}" for n in range(20)), "  - and 480 more"]


def test_a_long_fault_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        raise_all(["x" * 5000], ConfigError, "run")
    assert str(caught.value) == f"run: {'x' * 1000} ..."


def test_a_long_value_is_quoted_in_part() -> None:
    assert shown("ab") == "'ab'"
    assert shown("x" * 500) == f"'{'x' * 119} ..."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:pass@word@host/a.git", "https://host/a.git"),
        ("at 'https://host/a?token=abc&x=1', twice", "at 'https://host/a?...', twice"),
        ("https://host?key=abc", "https://host?..."),
        ("https://host/a#abc (no)", "https://host/a?... (no)"),
        ("who? me@home", "who? me@home"),
    ],
)
def test_what_an_address_says_of_who_asks_is_left_out(text: str, told: str) -> None:
    assert without_secrets(text) == told
