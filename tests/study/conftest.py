"""The tiny study of the tests of a search."""

from tests.search.conftest import cache, own_cache, toy

__all__ = ["cache", "own_cache", "toy"]
