"""Where units, targets and recordings come from."""

from hms_ray.datasets._table import Dataset, Examples, Windows, checked, cut, first_step

__all__ = ["Dataset", "Examples", "Windows", "checked", "cut", "first_step"]
