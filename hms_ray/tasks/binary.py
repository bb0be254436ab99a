"""One yes-or-no label, the positive class."""

from hms_ray.core.errors import ConfigError
from hms_ray.tasks import multilabel


class Task(multilabel.Task):
    """Targets and probabilities are (N, 1), those of the positive class; the score is the log loss."""

    def __post_init__(self) -> None:
        if len(self.classes) != 1:
            count = f"{len(self.classes)}: {', '.join(self.classes) or 'none'}"
            raise ConfigError(f"the number of classes of a binary task must be 1, the positive one; got {count}")
