"""How large a study may grow while it is searched."""

from dataclasses import dataclass
from pathlib import Path

from hms_ray.core import files
from hms_ray.core.errors import SearchAborted
from hms_ray.core.sizes import in_words


@dataclass(frozen=True)
class DiskLimit:
    """root: the study's folder; disk_gb: `budget.disk_gb`, None: no limit."""

    root: Path
    disk_gb: float | None

    def check(self) -> None:
        """Raise SearchAborted when the study has outgrown its budget; the message says by how much."""
        if self.disk_gb is not None and (used := files.size_of(self.root)) > self.disk_gb * 1e9:
            raise SearchAborted(
                f"{self.root} has {in_words(used)}, more than budget.disk_gb: {self.disk_gb:g}. Raise it or free disk "
                "space there (nothing is read back from its ray/ folder), and rerun the command to resume"
            )
