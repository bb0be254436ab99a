"""Out-of-fold predictions of other pipelines: CSV, parquet or npy, rows in any order, joined on their ids."""

from hms_ray.oof_import.columns import parse_columns
from hms_ray.oof_import.study import import_foreign

__all__ = ["import_foreign", "parse_columns"]
