"""What a module is compared with is what its Protocol states."""

from typing import Protocol

import pytest

from hms_ray import contracts

OPTIONAL = {  # Protocols of what a component may have besides
    "models": (contracts.Published,),
    "features": (contracts.Published,),
    "augment": (contracts.Variant,),
    "datasets": (contracts.Simulated,),
    "pools": (),
}
NAMES = {"datasets": {"NO_DATA"}, "pools": {"SHORT_LABEL", "SENTENCES", "explain"}}  # as their docstrings have them


def members(protocol: type) -> set[str]:
    """Return the public names of a Protocol and its bases."""
    bases = [base for base in protocol.__mro__ if base is not Protocol and issubclass(base, Protocol)]
    return {name for base in bases for name in vars(base) if not name.startswith("_")}


@pytest.mark.parametrize("kind", contracts.RULES)
def test_the_rules_are_those_of_the_protocol(kind: str) -> None:
    protocol = getattr(contracts, contracts.PROTOCOLS[kind])
    rules = contracts.RULES[kind]
    assert {name for name, rule in rules.items() if not rule.optional} == members(protocol)
    optional = {name for each in OPTIONAL[kind] for name in members(each)} | NAMES.get(kind, set())
    assert {name for name, rule in rules.items() if rule.optional} == optional
    assert all(name in (protocol.__doc__ or "") for name in NAMES.get(kind, set()))


def test_a_fitted_pool_has_what_its_protocol_states() -> None:
    assert set(contracts.FITTED) == members(contracts.FittedPool)
