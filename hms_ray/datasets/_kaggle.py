"""The competition's folder, fetched from Kaggle once and kept in kagglehub's cache.

https://github.com/Kaggle/kagglehub
"""

from pathlib import Path

from hms_ray.core.errors import ConfigError, without_secrets

COMPETITION = "hms-harmful-brain-activity-classification"
RULES = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
CREDENTIALS = "KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, ~/.kaggle/access_token, or ~/.kaggle/kaggle.json"


def fetch() -> Path:
    """Return the competition's folder, downloading it unless kagglehub has it already.

    Raises:
        ConfigError: kagglehub is not installed, or Kaggle does not hand the files over; the message says what to do.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise ConfigError("data from Kaggle: kagglehub is not installed; run `pip install kagglehub`") from error
    try:
        return Path(kagglehub.competition_download(COMPETITION))
    except Exception as error:  # it shares no root with the package's other errors, and some are Python's own
        raise ConfigError(f"data from Kaggle: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Word what went wrong, and what to do about it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "UnauthenticatedError" in kinds:
        return f"no credentials; make a token at https://www.kaggle.com/settings/api and set {CREDENTIALS}"
    if status == 401:
        return f"Kaggle refuses the credentials (401); check {CREDENTIALS}"
    if status == 403:
        return f"Kaggle refuses the files (403); accept the competition's rules with your account at {RULES}"
    if "RequestException" in kinds and status is None:
        return "no connection to www.kaggle.com; check the network, or pass the folder of a copy"
    return without_secrets(" ".join(f"{status or type(error).__name__}: {error}".split()))
