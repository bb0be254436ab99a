"""The command line where no Ray is needed: options, exit codes, and one sentence for each mistake."""

import logging
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from hms_ray import __version__, api, cli
from hms_ray.cli import main
from hms_ray.core.errors import SearchAborted
from hms_ray.ensemble import Limits
from hms_ray.study.folder import StudyFolder

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
    "folds": 3,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a space called toy, and nothing of the user's around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HMS_RAY_DATA", raising=False)
    monkeypatch.setattr(logging.root, "handlers", [])  # the command line sets its own
    monkeypatch.setattr("hms_ray.execution.session.ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    write_space("toy")
    return tmp_path


def write_space(name, search=None, **base):
    path = Path("search_spaces") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"base": BASE | base, "search": search or {}}))


def refused(capsys, *argv, code=2):
    """Run, and return the one sentence that it must end with."""
    assert main([str(word) for word in argv]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed.err
    return printed.err


def no_study_was_begun(root):
    return not list(Path(root).rglob("study.json"))


@pytest.mark.parametrize("verb", ["search", "train", "prepare"])
def test_without_data_the_user_is_told_how_to_get_some(here, capsys, verb):
    said = refused(capsys, verb, "--space", "toy")
    for part in ("--data DIR", "HMS_RAY_DATA", "--data kaggle", "hms-ray simulate DIR"):
        assert part in said
    assert no_study_was_begun(here)


@pytest.mark.parametrize("verb", ["search", "train", "prepare"])
def test_kaggle_as_data_is_fetched_or_refused_in_one_sentence(here, capsys, monkeypatch, verb):
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # as where it is not installed
    said = refused(capsys, verb, "--space", "toy", "--data", "kaggle")
    assert "data from Kaggle: kagglehub is not installed; run `pip install kagglehub`" in said
    assert "there is no folder " in refused(capsys, verb, "--space", "toy", "--data", "./kaggle"), "it may be a folder"
    assert no_study_was_begun(here)


def no_ensemble(monkeypatch):
    """Let a search end when its driver ends: nothing is fitted, nothing is reported."""
    monkeypatch.setattr(api, "Study", lambda _: SimpleNamespace(fit_ensemble=lambda **_: None))
    monkeypatch.setattr(cli, "_show", lambda _: None)


def test_smoke_takes_trials_and_folds_from_the_command_line(here, monkeypatch, hms_folder):
    asked = []
    monkeypatch.setattr("hms_ray.search.driver.search", lambda study, spaces, *_: asked.append(spaces))
    no_ensemble(monkeypatch)
    common = ["search", "--space", "toy", "--smoke", "--data", str(hms_folder)]
    for extra in ([], ["--trials", "5", "--folds", "3"], ["--trials", "1"]):
        assert main([*common, *extra]) == 0
    assert [(space.budget.trials, space.run.folds) for [space] in asked] == [(2, 2), (5, 3), (1, 2)]


@pytest.mark.parametrize("trials", ["0", "-3"])
def test_a_search_tries_one_trial_at_least(here, capsys, hms_folder, trials):
    assert "budget.trials: " in refused(capsys, "search", "--space", "toy", "--data", hms_folder, "--trials", trials)
    assert no_study_was_begun(here)


def test_trials_of_train_are_refused(here, capsys):
    said = refused(capsys, "train", "--space", "toy", "--trials", 5)
    assert "--trials has no effect on train, which trains the base run once" in said
    assert no_study_was_begun(here)


def test_an_empty_variable_is_no_data(capsys, monkeypatch):
    monkeypatch.setenv("HMS_RAY_DATA", "")
    assert "no data: give --data" in refused(capsys, "train", "--space", "toy")


def test_the_variable_names_the_data(capsys, monkeypatch):
    monkeypatch.setenv("HMS_RAY_DATA", "nowhere")
    assert f"there is no folder {Path('nowhere').resolve()}; --data names" in refused(capsys, "train", "--space", "toy")


OPTIONS = [
    (["--set", "budget.trials=0"], "budget.trials: "),
    (["--set", "budget.trials=-3"], "budget.trials: "),
    (["--folds", "1"], "base.folds: "),
    (["--folds", "0"], "base.folds: "),
    (["--folds", "7"], "folds must be from 2 to the number of patients, 6, but got 7"),
    (["--set", "model.widht=3"], "--set model.widht: unknown key; did you mean model.width?"),
    (["--set", "model.name=basic_cn"], "Did you mean 'basic_cnn'?"),
    (["--set", "feature.name=spectrogram"], "there are: eeg_cwt"),
    (["--set", "data.name=hsm"], "no dataset named 'hsm'"),
    (["--set", "optim.name=adamx"], "timm has no optimiser of that name"),
    (["--set", "seed=-1"], "base.seed: "),
    (["--set", "seed=4294967296"], "base.seed: "),
    (["--set", "nonsense"], "must be key=value"),
    (["--set", "score.min_votes=99"], "no unit has min_votes=99 votes"),
    (["--set", "stages.0.min_votes=99"], "leaves no unit to train on"),
    (["--set", "resources.gpus=1.5"], "resources.gpus: "),
    (["--space", "toy"], "toy is given twice"),
    (["--space", "search_spaces/toy.yaml"], "toy is given twice"),
    (["--space", "tyo"], "no space named 'tyo'; there are: all, ast, bad_range, basic_cnn, "),
    (["--space", "none.yaml"], "--space none.yaml: no such file"),
    (["--space", "two_folds"], "two_folds has folds: 2, toy has 3"),
    (["--space", "bad_range"], "search.model.width = 2: model.width: "),
    (["--study", "a_file"], "a_file is a file, not a folder"),
    (["--study", "a_file/below"], "a_file is a file, not a folder"),
]


@pytest.mark.parametrize(("extra", "sentence"), OPTIONS)
@pytest.mark.parametrize("verb", ["search", "train"])
def test_a_bad_option_is_refused_before_a_study_is_begun(here, capsys, hms_folder, verb, extra, sentence):
    write_space("two_folds", folds=2)
    write_space("bad_range", search={"model.width": {"int": [2, 8]}})
    Path("a_file").write_text("mine")
    assert sentence in refused(capsys, verb, "--space", "toy", "--data", hms_folder, *extra)
    assert no_study_was_begun(here)
    assert Path("a_file").read_text() == "mine"


def spoil(root, name):
    """One thing that goes wrong with a competition folder."""
    table, file = root / "train.csv", sorted((root / "train_spectrograms").iterdir())[0]
    rows = pd.read_csv(table)
    votes = [column for column in rows if column.endswith("_vote")]
    match name:
        case "column":
            rows.drop(columns="lpd_vote").to_csv(table, index=False)
        case "negative":
            rows.assign(**{votes[0]: -1}).to_csv(table, index=False)
        case "zero":
            rows.assign(**dict.fromkeys(votes, 0)).to_csv(table, index=False)
        case "text":
            rows.astype({votes[0]: object}).assign(**{votes[0]: "three"}).to_csv(table, index=False)
        case "missing":
            file.unlink()
        case "truncated":
            file.write_bytes(file.read_bytes()[:1000])
        case "csv":
            file.write_text("time,LL_0.59\n1,2\n")
        case "header":
            table.write_text(",".join(rows) + "\n")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("column", "train.csv: missing column lpd_vote; it has "),
        ("negative", "votes must not be negative"),
        ("zero", "votes are all zero"),
        ("text", "seizure_vote must be a whole number, but is 'three'"),
        ("missing", "1 of the 6 files that features.kaggle_spectrogram needs are missing"),
        ("truncated", "truncated parquet"),
        ("csv", "a renamed CSV?"),
        ("header", "train.csv: it has no rows"),
    ],
)
@pytest.mark.parametrize("verb", ["search", "prepare"])
def test_broken_data_is_one_sentence_and_no_study(here, capsys, hms_folder, verb, name, sentence):
    data = shutil.copytree(hms_folder, here / "data")
    spoil(data, name)
    assert sentence in refused(capsys, verb, "--space", "toy", "--data", data)
    assert no_study_was_begun(here)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("nowhere", "error: there is no folder {}; --data names the competition's folder"),
        ("search_spaces/toy.yaml", "error: {} is a file, not a folder; --data names the competition's folder"),
        ("search_spaces", "error: {}: no train.csv there; --data names the competition's folder"),
    ],
)
def test_data_that_is_no_competition_folder(here, capsys, data, said):
    assert said.format(here / data) in refused(capsys, "train", "--space", "toy", "--data", data)


def test_a_folder_next_to_the_data_is_told_where_it_is(here, capsys, hms_folder):
    data = here / "data" / "hms"
    shutil.copytree(hms_folder, data)
    for near in (data.parent, data / "train_spectrograms"):
        said = refused(capsys, "train", "--space", "toy", "--data", near)
        assert f"{near}: no train.csv there; " in said and f"did you mean {data}?" in said


def test_a_study_of_other_data_or_folds_is_refused(here, capsys, hms_folder, make_hms_folder):
    from hms_ray.search.open_study import open_study
    from hms_ray.search.space.space import load

    folder = StudyFolder(here / "study")
    open_study(folder, [load("toy")], hms_folder).begin([load("toy")])
    before = folder.study.read_bytes()
    other = make_hms_folder(here / "other", seed=3, rows=340)
    argv = ["search", "--space", "toy", "--study", folder.root, "--data"]
    assert "its spectrogram recordings (" in refused(capsys, *argv, other)
    assert "its folds is 3, this run's is 2" in refused(capsys, *argv, hms_folder, "--folds", "2")
    assert "differs in base.model.width" in refused(capsys, *argv, hms_folder, "--set", "model.width=8")
    assert folder.study.read_bytes() == before


@pytest.mark.parametrize("verb", [("report",), ("ensemble",), ("predict", "--out", "submission.csv")])
def test_what_is_no_study_is_refused(here, capsys, verb):
    assert "error: there is no folder nowhere; " in refused(capsys, *verb, "--study", "nowhere")
    assert not Path("nowhere").exists()
    Path("empty").mkdir()
    assert "error: empty is no study: it has no study.json" in refused(capsys, *verb, "--study", "empty")


def test_foreign_predictions_that_are_not_there(here, capsys):
    assert "none.parquet: no such file" in refused(capsys, "ensemble", "--study", "s", "--oof", "none.parquet")
    assert no_study_was_begun(here)


def test_an_unknown_pool_is_refused_with_those_that_exist_before_files_are_read(here, capsys):
    said = refused(capsys, "ensemble", "--study", "s", "--pool", "linaer", "--oof", "none.parquet")
    assert "error: no pool named 'linaer'; there are: auto, " in said
    assert "Did you mean 'linear'?" in said


def test_the_ensembles_options_reach_the_fit(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("hms_ray.ensemble.fit_study", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(cli, "_summary", lambda _: ["done"])
    monkeypatch.setattr(StudyFolder, "read_study", lambda _: {})  # it need not exist
    monkeypatch.setattr(api.Study, "ensemble", None)
    limits = ["--max-members", "3", "--max-per-space", "1", "--tolerance", "1e-4"]
    assert main(["ensemble", "--study", "s", "--pool", "linear", "--min-votes", "5", *limits]) == 0
    assert main(["ensemble", "--study", "s"]) == 0
    (folder, min_votes, pool, asked, _), (_, *defaults, none, _) = seen
    assert (folder.root, min_votes, pool) == (Path("s"), 5, "linear")
    assert asked == Limits(members=3, per_family=1, tolerance=1e-4)
    assert (defaults, none) == ([None, "auto"], Limits())
    assert capsys.readouterr().out == "done\ndone\n"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--seed", "-1"], "seed must be a whole number from 0 to 4294967295, but got -1"),
        (["--seed", "4294967296"], "but got 4294967296"),
        (["--eegs", "0"], "eegs must be at least as many as patients"),
        (["--patients", "0"], "patients must be at least 6"),
        (["--eegs", "3", "--patients", "6"], "3 eegs for 6 patients"),
    ],
)
def test_impossible_simulations_are_refused(here, capsys, extra, sentence):
    assert sentence in refused(capsys, "simulate", "out", *extra)
    assert not Path("out").exists()


def test_a_simulation_overwrites_nothing(here, capsys):
    assert "search_spaces is not empty" in refused(capsys, "simulate", "search_spaces")
    assert "is a file, not a folder" in refused(capsys, "simulate", "search_spaces/toy.yaml")


def test_prepare_prints_the_stores_of_the_spaces_it_is_given(here, capsys, hms_folder):
    assert main(["prepare", "--space", "toy", "--data", str(hms_folder)]) == 0
    [store] = capsys.readouterr().out.splitlines()
    assert (Path(store) / "x.npy").is_file()


def test_prepare_takes_the_demo_space_where_none_is_named(monkeypatch, capsys):
    Path("x").mkdir()
    asked = []
    monkeypatch.setattr(
        "hms_ray.search.prepare.prepare", lambda spaces, root, workers: asked.extend(s.name for s in spaces) or []
    )
    assert main(["prepare", "--data", "x"]) == 0
    assert main(["prepare", "--data", "x", "--space", "toy", "--space", "demo"]) == 0
    assert asked == ["demo", "toy", "demo"]


def test_overrides_reach_the_spaces_and_the_study_takes_their_names(here, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("hms_ray.search.driver.train", lambda *arguments: seen.append(arguments))
    no_ensemble(monkeypatch)
    write_space("other")
    Path("d").mkdir()
    options = ["--folds", "4", "--set", "budget.trials=2", "--set", "model.width=8", "--set", "seed=3", "--data", "d"]
    assert main(["train", "--space", "toy", "--space", "other", *options]) == 0
    assert main(["train", "--space", "toy", "--study", "mine", "--data", "d"]) == 0
    assert main(["train", "--space", "toy", "--data", "d", "--here", "--force"]) == 0
    (folder, spaces, root, *how), (named, *_), (*_, in_process, force) = seen
    assert (how, in_process, force) == ([False, False], True, True)
    assert (folder.root, named.root, root) == (Path("runs/toy+other"), Path("mine"), Path("d"))
    for space in spaces:
        assert (space.run.folds, space.run.seed, space.budget.trials, space.run.model.params.width) == (4, 3, 2, 8)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SearchAborted("none of its 2 trials could be trained"), 1, "failed: none of its 2 trials could be trained"),
        (KeyboardInterrupt(), 130, "interrupted; everything finished is kept, the same command goes on"),
        (PermissionError(13, "Permission denied", "/somewhere/x"), 2, "error: /somewhere/x: Permission denied"),
    ],
)
def test_how_a_run_ends_is_its_exit_status(monkeypatch, capsys, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("hms_ray.search.driver.train", fail)
    Path("d").mkdir()
    assert main(["train", "--space", "toy", "--data", "d"]) == code
    assert capsys.readouterr().err == f"hms-ray train: loading ...\n{said}\n"


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError("no path in it"), AssertionError()])
def test_our_own_bugs_keep_their_traceback(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("hms_ray.search.driver.train", fail)
    Path("d").mkdir()
    with pytest.raises(type(error)):
        main(["train", "--space", "toy", "--data", "d"])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["serach"],
        ["search"],
        ["train"],
        ["predict", "--study", "s"],
        ["ensemble"],
        ["report"],
        ["simulate"],
        ["simulate", "out", "--eegs", "many"],
        ["search", "--space", "toy", "--trials", "2.5"],
        ["search", "--space", "toy", "--speed", "3"],
        ["ensemble", "--study", "s", "--min-votes", "0"],
        ["ensemble", "--study", "s", "--min-votes", "few"],
        ["ensemble", "--study", "s", "--max-members", "0"],
        ["ensemble", "--study", "s", "--max-members", "2.5"],
        ["ensemble", "--study", "s", "--max-per-space", "-1"],
        ["ensemble", "--study", "s", "--tolerance", "little"],
        ["ensemble", "--study", "s", "--tolerance", "-1"],
        ["ensemble", "--study", "s", "--tolerance", "nan"],
        ["ensemble", "--study", "s", "--pool"],
    ],
)
def test_what_cannot_be_parsed_is_the_users_mistake(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "usage: hms-ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serach"], "no verb named 'serach'; there are: simulate, .* Did you mean 'search'"),
        (["search", "--spcae", "demo"], "search has no option --spcae; did you mean '--space'"),
        (["search", "-space", "demo"], "search has no option -space; did you mean '--space'"),
        (["train", "--space", "demo", "--study=x", "--sead=1"], "train has no option --sead; "),
        (
            ["search", "--space", "x", "--trails", "3", "--fold=2", "--frce"],
            "--trails; did .*; search has no option --frce",
        ),
        (["report", "--zzz"], "report has no option --zzz; it has -h, --help, --study, --out"),
    ],
)
def test_a_misspelled_verb_or_option_gets_the_nearest(argv, said, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: hms-ray")
    assert re.search(said, printed)


def test_values_that_look_like_options_and_short_forms_stay_as_they_were(monkeypatch):
    seen = []

    def _search(arguments):
        seen.append(arguments)

    monkeypatch.setattr(cli, "_search", _search)
    main(["search", "--spa", "x", "--trial", "-3", "--set=a=--b"])
    assert (seen[0].space, seen[0].trials, seen[0].set) == (["x"], -3, ["a=--b"])


def test_the_first_word_comes_before_anything_large_is_imported(monkeypatch, capsys):
    said = []

    def _search(_):
        said.append(capsys.readouterr().err)

    monkeypatch.setattr(cli, "_search", _search)
    assert main(["search", "--space", "toy"]) == 0
    assert said == ["hms-ray search: loading ...\n"]


@pytest.mark.parametrize("verb", ["simulate", "prepare", "search", "train", "ensemble", "report", "predict", "list"])
def test_help_shows_examples_that_can_be_parsed(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    printed = capsys.readouterr().out
    examples = [line.strip() for line in printed.partition("examples:")[2].splitlines() if "hms-ray " + verb in line]
    assert examples
    for example in examples:
        parser, verbs = cli._parser()
        words = shlex.split(example)[1:]
        cli._check_words(parser, verbs, words)
        assert parser.parse_args(words).verb == verb
    if verb in ("search", "train", "prepare"):
        assert "spaces: " in printed and "toy" in printed.partition("spaces: ")[2]
    if verb == "ensemble":
        assert "pools: auto, average, best_single" in printed


def test_list_and_describe_print_what_there_is(capsys):
    assert main(["list", "spaces", "pools"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("spaces:\n") and "  toy" in printed.out and "\npools:\n" in printed.out
    assert "models:" not in printed.out and printed.err == ""
    assert main(["describe", "basic_cnn"]) == 0
    assert "model basic_cnn: " in capsys.readouterr().out
    assert "no kind named 'model'; there are: spaces, " in refused(capsys, "list", "model")
    assert "nothing is named 'basic_cn'" in refused(capsys, "describe", "basic_cn")


def test_version_and_help(capsys):
    for argv, said in ((["--version"], __version__), (["--help"], "simulate"), (["search", "--help"], "--smoke")):
        with pytest.raises(SystemExit) as error:
            main(argv)
        assert error.value.code == 0
        assert said in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", ["train", "search", "predict", "prepare", "simulate", "ensemble", "report"])
def test_each_verb_is_a_module_too(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as error:
        runpy.run_module(f"hms_ray.{module}", run_name="__main__")
    assert error.value.code == 0
    assert f"usage: hms-ray {module}" in capsys.readouterr().out
