"""Where units, targets and recordings come from."""

from hms_ray.datasets._table import Dataset

__all__ = ["Dataset"]
