"""The table of spaces: it holds every space of the repository that is one of the field's, each with its population."""

from pathlib import Path

from bench import spaces
from hms_ray.search.space import space


def test_it_names_every_space_of_the_union(repository: Path, monkeypatch) -> None:
    monkeypatch.chdir(repository)
    assert list(spaces.NAMES) == [member.name for member in space.load("all").members]


def test_a_row_has_the_score_beside_the_prior_and_the_baseline(repository, hms_folder, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    population, head, row = spaces.run(["--data", str(hms_folder), "--spaces", "basic_cnn"])
    assert population.startswith("KL of ") and "units with >= 10 votes of " in population and "2 folds" in population
    cells = dict(zip(["space", "network", "parameters", "feature"], row.split(), strict=False))
    assert (cells["space"], cells["network"], cells["feature"]) == ("basic_cnn", "basic_cnn", "kaggle_spectrogram")
    kl, prior, baseline, seconds = map(float, row.split()[-4:])
    assert (
        kl == baseline and prior > 0 and seconds >= 0 and head.split()[-4:] == ["KL", "prior", "basic_cnn", "s/epoch"]
    )
