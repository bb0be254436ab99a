"""What pyproject.toml cannot say: the wheel carries the repository's search_spaces/ as hms_ray/search_spaces/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["hms_ray", "hms_ray.*"]), "hms_ray.search_spaces"],
    package_dir={"hms_ray.search_spaces": "search_spaces"},
)
