"""Where units, targets and recordings come from."""

from hms_ray.datasets._table import Dataset, Windows, cut, first_step

__all__ = ["Dataset", "Windows", "cut", "first_step"]
