"""What the README shows works as shown."""

import re
from pathlib import Path

import pytest

from hms_ray import cli
from hms_ray.search.space import space


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def blocks(readme: str) -> list[str]:
    """Return the indented blocks without their indentation."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", readme, flags=re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in found]


def test_the_space_it_shows_is_valid(readme, tmp_path):
    [content] = [block for block in blocks(readme) if block.lstrip().startswith("base:")]
    (tmp_path / "shown.yaml").write_text(content)
    shown = space.load(str(tmp_path / "shown.yaml"))
    assert [stage.min_votes for stage in shown.run.stages] == [1, 10]
    assert len(shown.ranges) == 3


def test_the_verbs_and_options_it_shows_exist(readme, capsys):
    [usage] = [block for block in blocks(readme) if "hms-ray simulate OUT" in block]
    for line in usage.strip().splitlines():
        verb = line.split()[1]
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        known = capsys.readouterr().out
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line


def test_the_files_it_links_exist(readme, repository):
    links = re.findall(r"\]\((?!http)([^)]+)\)", readme)
    assert links and all((repository / link).exists() for link in links)


def test_the_ensemble_example_runs_in_fifteen_lines(readme, tmp_path, monkeypatch):
    [example] = [block for block in blocks(readme) if "import Ensemble, fit" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert names["pooled"].shape == (10, 6)
    ensemble = names["ensemble"]
    assert ensemble.interval_[0] < ensemble.score_cross_fitted_ < ensemble.interval_[1]
    assert ensemble.gap_ < 1e-9


def test_the_python_example_names_what_there_is(readme):
    import hms_ray as hr

    [example] = [block for block in blocks(readme) if "import hms_ray as hr" in block]
    compile(example, "README.md", "exec")
    assert set(re.findall(r"\bhr\.(\w+)", readme)) <= set(hr.__all__)
    assert set(re.findall(r"\bstudy\.(\w+)", example)) <= set(dir(hr.Study))
