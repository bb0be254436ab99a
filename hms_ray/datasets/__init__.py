"""Where units, targets and recordings come from."""

from hms_ray.datasets._table import Dataset, Windows

__all__ = ["Dataset", "Windows"]
