"""The page: true to its sources, self-contained, the same twice, whole whatever is missing, and readable."""

import html
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import fit_study
from hms_ray.ensemble.methods import label
from hms_ray.oof_import import import_foreign
from hms_ray.report.page import write_report
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

REAL = Path(os.environ.get("HMS_RAY_REAL", Path(__file__).parents[2].parent / "shared" / "real")) / "oof"
VOID = {"meta", "br", "img", "link", "hr", "input"}
ODD = ("a<script>alert(1)</script>", "b & c", "d\"e'f")


@pytest.fixture
def page(tmp_path):
    """page(study, trials) -> HTML."""
    return lambda study, trials: write_report(study.folder, trials, tmp_path / "out").read_text()


class Tags(HTMLParser):
    """Collects tags, attributes, and what is not closed properly."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.faults, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"{tag} at {self.getpos()}")


def words_of(text):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S)))


def section(text, name):
    return re.search(rf'<section id="{name}">.*?</section>', text, re.S).group(0)


VARIANTS = {
    "nothing trained": lambda fake: fake(strengths={}).write(),
    "no ensemble": lambda fake: fake().write().add_trials(),
    "foreign": lambda fake: fake(foreign=True).write().add_ensemble(),
    "one member": lambda fake: fake(strengths={"eeg-base": 2.0}).write().add_trials().add_ensemble(),
    "labels of everyone": lambda fake: (
        fake(kind="multilabel", classes=("AS", "AR"), votes=np.ones(360, int), min_votes=1, plain=1.0)
        .write()
        .add_trials()
        .add_ensemble()
    ),
    "labels without an ensemble": lambda fake: fake(kind="binary", classes=("a",), plain=1.0).write(),
    "nobody with enough votes": lambda fake: fake(votes=np.full(360, 2)).write().add_trials(),
    "three units": lambda fake: (
        fake(patients=3, units_a_patient=1, votes=np.array([3, 12, 15]), k=3, strengths={"eeg-base": 2.0})
        .write()
        .add_trials()
        .add_ensemble()
    ),
}


LEFT = ("verdict", "pools", "weights", "finalists", "search", "curves", "metrics", "classes", "data", "checks")
OF_ENSEMBLE = {"pools", "weights"}
ABSENT = {  # sections that would have nothing to show
    "nothing trained": OF_ENSEMBLE | {"finalists", "curves", "metrics", "classes"},
    "no ensemble": OF_ENSEMBLE,
    "foreign": {"search", "curves"},
    "one member": set(),
    "labels of everyone": set(),
    "labels without an ensemble": OF_ENSEMBLE | {"curves"},
    "nobody with enough votes": OF_ENSEMBLE | {"metrics", "classes"},
    "three units": set(),
}


def test_figures_of_the_verdict_are_those_of_ensemble_json(complete, page, no_trials):
    summary = words_of(section(page(complete, no_trials), "verdict"))
    content = files.read_json(complete.folder.ensemble)
    outside, base = content["outside_selection"], content["baselines"]
    for figure in (
        *(content[name] for name in ("score_cross_fitted", "score_in_sample", "score_selection_corrected")),
        *(base[name] for name in ("best_single", "best_single_corrected", "mean", "prior")),
        *(outside[name] for name in ("score_cross_fitted", "best_single", "mean", "prior")),
    ):
        assert f"{figure:.5f}" in summary
    added = content["score_selection_corrected"] - content["score_cross_fitted"]
    low, high = (content["interval"][end] + added for end in ("low", "high"))
    assert f"95 % interval, by patient: {low:.5f} to {high:.5f}" in summary
    assert base["differences"].pop("plain") is None
    for difference in base["differences"].values():
        assert "{value:+.5f} {low:+.5f} to {high:+.5f}".format(**difference) in summary.replace("\u2212", "-")
    assert f"Best single: {base['best_single_trial']} chosen in hindsight" in summary
    assert "No weights on the simplex can score more than 2.4e-11 better" in summary and "4.1e-11" in summary


def test_the_three_scores_stand_side_by_side_each_with_its_population(complete, page, no_trials):
    scores = re.search(r'<table class="scores">.*?</table>', page(complete, no_trials), re.S).group(0)
    kept = complete.kept
    everyone = f"≥ 10 votes · {kept.sum()} units · {len(set(complete.groups[kept]))} patients"
    rows = [words_of(row) for row in re.findall(r"<tr.*?</tr>", scores, re.S)[1:]]
    assert [row.strip().split(" 0.")[0] for row in rows] == ["Selection-corrected", "Cross-fitted", "In sample"]
    assert all(everyone in row for row in rows)


def test_every_method_stands_with_its_figures_and_in_words(complete, page, no_trials):
    table = words_of(section(page(complete, no_trials), "pools")).replace("\u2212", "-")
    for method in files.read_json(complete.folder.ensemble)["methods"]:
        row = "{value:.5f} {low:.5f} to {high:.5f}".format(**method["score_cross_fitted"])
        assert f"{label(method['method'])} {method['score_in_sample']:.5f} {row}" in table
        if method["method"] != "linear":
            assert "{value:+.5f} {low:+.5f} to {high:+.5f}".format(**method["difference"]) in table
            end = f"{method['difference']['high']:+.5f}"
            assert re.search(rf"{re.escape(end)}(, may be chance)? \u2013 {method['members']} ", table)
    assert "\u2013 2.4e-11 5 " in table and "This ensemble: linear" in table


def test_limits_are_said_to_hold_for_every_method(complete, page, no_trials):
    assert "Limits" not in words_of(page(complete, no_trials))
    complete.add_ensemble(limits={"members": 3, "per_family": None, "seconds": None, "costs": None, "tolerance": None})
    table = words_of(section(page(complete, no_trials), "pools"))
    assert "Limits: at most 3 members with weight. They apply to every method here" in table


@pytest.mark.parametrize("selected_on", [(0,), (0, 1, 2, 3)])
def test_trials_were_scored_on_their_own_folds_whatever_rounds_chose_on(complete, page, selected_on):
    for trial in complete.folder.oof_ids():
        table = OofTable.read(complete.folder.oof(trial))
        replace(table, selected_on=selected_on if table.selected_on else ()).write(complete.folder.oof(trial))
    inside = complete.kept & (complete.folds == 0)
    rows = f"≥ 10 votes · {inside.sum()} units · {len(set(complete.groups[inside]))} patients · fold 0"
    said = words_of(section(page(complete, complete.search()), "search"))
    assert rows in said and "folds 0" not in said


def test_every_score_stands_beside_its_population(complete, page):
    text = page(complete, complete.search())
    kept, inside = complete.kept, complete.kept & (complete.folds == 0)
    everyone = f"≥ 10 votes · {kept.sum()} units · {len(set(complete.groups[kept]))} patients"
    trial_rows = f"≥ 10 votes · {inside.sum()} units · {len(set(complete.groups[inside]))} patients · fold 0"
    for name in ("verdict", "weights", "finalists", "metrics", "classes", "data"):
        assert everyone in words_of(section(text, name)), name
    assert trial_rows in words_of(section(text, "search"))
    assert "rows with ≥ 10 votes" in words_of(section(text, "curves"))
    for table in re.findall(r"<table.*?</table>", text, re.S):
        if "KL</th>" in table:
            assert "≥ 10 votes" in re.search(r"<caption>(.*?)</caption>", table, re.S).group(1)


PARAMS = "train.stages.0.lr 0.0005 model.params.drop_rate 0 model.name basic_cnn"


def test_members_show_weight_scores_likeness_and_hyper_parameters(complete, page, no_trials):
    weights = words_of(section(page(complete, no_trials), "weights"))
    kept = complete.kept
    own = complete.task.score(complete.targets[kept], complete.probs["eeg-0002"][kept])
    member = files.read_json(complete.folder.ensemble)["members"][0]
    figures = f"0.5000 {own:.5f} {member['without']:.5f} {member['gain']:+.5f} {member['most_alike']} 0.812"
    assert f"eeg-0002 eeg {figures} {PARAMS}" in weights
    linear = files.read_json(complete.folder.ensemble)["methods"][0]["score_cross_fitted"]["value"]
    assert f"score of the linear pool ({linear:.5f} with all)" in weights and "Weights sum to 1." in weights


@pytest.mark.parametrize(("kind", "classes"), [("multilabel", ("AS", "AR", "MR")), ("binary", ("abnormal",))])
def test_labels_are_questions_and_are_not_confused(fake, page, kind, classes):
    study = fake(kind=kind, classes=classes).write().add_trials().add_ensemble()
    text = page(study, study.search())
    shown = words_of(section(text, "classes"))
    assert "Confusion of the most probable" not in shown and "most votes" not in shown and "Calibration" in shown
    assert "KL" not in words_of(text) and "Selection-corrected log loss of the ensemble" in words_of(text)
    kept, found = study.kept, OofTable.read(study.folder.ensemble_oof).probs
    for k, name in enumerate(classes):
        one = -np.log(np.where(study.targets[kept, k] == 1, found[kept, k], 1 - found[kept, k])).mean()
        assert re.search(rf"{name} {int(study.targets[kept, k].sum())} \d+ {one:.5f} ", shown)
    metrics = words_of(section(text, "metrics"))
    right = ((found > 0.5) == (study.targets == 1))[kept].mean()
    assert "Specificity" in shown and "so it is the log loss itself" in metrics and "most votes" not in metrics
    assert f"Accuracy {100 * right:.1f} % Share of right answers, mean over classes" in metrics


def test_decisions_stand_at_the_chosen_thresholds_and_at_one_half(sounds, page, no_trials):
    shown = words_of(section(page(sounds, no_trials), "classes"))
    metrics = files.read_json(sounds.folder.ensemble)["metrics"]
    chosen, half = shown.split("Decisions at 0.5")
    for text, content in ((chosen, metrics["thresholded"]), (half, metrics)):
        for name, its in content["per_class"].items():
            shares = " ".join(f"{100 * its[key]:.1f} %" for key in ("precision", "recall", "specificity", "f1"))
            assert f"{name} {shares} {its['auroc']:.3f} {its['units']} " in text
        for name, ((right_no, wrong_yes), (wrong_no, right_yes)) in zip(
            ["AS", "AR", "MR"], content["confusion"], strict=True
        ):
            no, yes = right_no + wrong_yes, wrong_no + right_yes
            first = f"no {right_no} {100 * right_no / no:.1f} % {wrong_yes} {100 * wrong_yes / no:.1f} %"
            yeses = f"yes {wrong_no} {100 * wrong_no / yes:.1f} % {right_yes} "
            assert f"{name} True \\ predicted no yes {first} {yeses}" in text
        assert f"{100 * content['micro_f1']:.1f} % \u2013 {sounds.targets.sum():.0f} Macro average" in text


def test_thresholds_stand_by_fold(sounds, page, no_trials):
    shown = words_of(section(page(sounds, no_trials), "classes"))
    for fold, its in files.read_json(sounds.folder.ensemble)["metrics"]["thresholds"].items():
        assert f" {fold} {' '.join(f'{threshold:.3f}' for threshold in its)} " in shown
    assert "largest F1 on the scored units of the other folds" in shown


def test_without_an_ensemble_decisions_are_at_one_half_alone(sounds, page, no_trials):
    sounds.folder.ensemble.unlink()
    shown = words_of(section(page(sounds, no_trials), "classes"))
    assert "Decisions at 0.5" in shown and "chosen thresholds" not in shown and "Thresholds by fold" not in shown


def test_the_plain_baseline_stands_among_the_baselines_with_what_it_is(sounds, page, no_trials):
    summary = words_of(section(page(sounds, no_trials), "verdict")).replace("\u2212", "-")
    base = files.read_json(sounds.folder.ensemble)["baselines"]
    difference = "{value:+.5f} {low:+.5f} to {high:+.5f}".format(**base["differences"]["plain"])
    assert f"Plain baseline logistic regression on two numbers {base['plain']:.5f} {difference}" in summary


def test_a_study_of_all_units_speaks_of_no_votes(sounds, page):
    text = words_of(page(sounds, sounds.search()))
    assert "votes" not in text.replace("one on those with many votes", "")
    assert "all 360 units · 60 patients" in text and "Held-out log loss on all rows" in text


def test_votes_have_no_panels_of_questions(complete, page, no_trials):
    text = words_of(page(complete, no_trials))
    for word in ("at thresholds", "Thresholds", "Micro", "Sensitivity", "Plain baseline", "plain baseline"):
        assert word not in text
    assert "Confusion of the most probable class" in text


def test_trials_show_state_params_and_cause(complete, page):
    search = section(page(complete, complete.search()), "search")
    text = words_of(search)
    assert "eeg-0004 FAIL" in text and "out of memory: 15.2 GB asked, 14.6 GB there" in text
    assert "spec-0003 PRUNED" in text and "spec-0009 RUNNING" in text
    assert "stopped after 40.0 % of its schedule: cannot improve the ensemble" in text
    assert "failed: out of memory" in text
    assert "train.stages.0.lr" in text and "log_uniform" in text and "trial_folds: 1" in text
    assert search.count("<details open>") == 2


def test_a_stopped_trial_is_never_shown_as_a_score(complete, page):
    trials = complete.search()
    stopped = trials[trials["state"] == "PRUNED"].iloc[0]
    text = words_of(section(page(complete, trials), "search"))
    assert f"{stopped['trial']} PRUNED ≈ {stopped['estimate']:.5f}" in text
    assert "≈: estimated final score of a stopped trial" in text
    none_stopped = trials[trials["state"] != "PRUNED"]
    assert "≈" not in words_of(section(page(complete, none_stopped), "search"))


def test_gains_stand_beside_the_scores(complete, page):
    """A study whose trials are told what they add to the ensemble: their values are no scores."""
    content = files.read_json(complete.folder.study)
    for space in content["spaces"].values():
        space["base"]["score"] = {"min_votes": 10, "objective": "gain"}
    files.write_json(complete.folder.study, content)
    trials = complete.search()
    trials = trials.assign(
        value=-0.001 * trials["number"] - trials["value"] * 0, estimate=trials["estimate"] * 0 - 0.002
    )
    search = section(page(complete, trials), "search")
    first = trials.iloc[2]
    assert f"eeg-0002 COMPLETE {first['score']:.5f} 0.00200" in words_of(search)
    assert "spec-0003 PRUNED \u2013 ≈ 0.00200" in words_of(search)
    assert "hollow" not in search and 'class="trial pruned"' not in search


def test_hyper_parameters_stand_with_their_whole_path(complete, page):
    trials = complete.search()
    trials.at[0, "params"] = {"augment.mixup.p": 0.3, "augment.xy_mask.p": 0.5, "stages.1.lr": 0.001}
    text = words_of(section(page(complete, trials), "search"))
    assert "augment.mixup.p 0.3 augment.xy_mask.p 0.5 stages.1.lr 0.001" in text


def test_many_trials_start_folded(complete, page):
    search = section(page(complete, complete.search(300)), "search")
    assert "<details open>" not in search and "All 150 trials of eeg" in search


def test_folds_without_scored_rows_are_shown_as_such(fake, page, no_trials):
    text = page(VARIANTS["three units"](fake), no_trials)
    row = re.search(r"<tr><td>1</td><th[^>]*>eeg-base<small>.*?</tr>", section(text, "finalists"), re.S).group(0)
    assert re.findall(r"<td>(\u2013|0\.\d{5})", row)[1] == "\u2013"
    assert "No unit with ≥ 10 votes lies in fold 0" in words_of(section(text, "verdict"))


def test_a_failed_check_stands_on_top(complete, page, no_trials):
    complete.add_ensemble(score_cross_fitted=0.1)
    summary = section(page(complete, no_trials), "verdict")
    assert summary.index("Check failed.") < summary.index('class="big"')


@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_parts_leave_a_whole_page(fake, page, no_trials, variant):
    text = page(VARIANTS[variant](fake), no_trials)
    tags = Tags(text)
    assert tags.faults == [] and tags.open == []
    assert not re.search(r"\bnan\b|\bNone\b|Undefined", text)
    linked, there = re.findall(r'<li><a href="#(\w+)">', text), re.findall(r'<section id="(\w+)">', text)
    assert linked == there, "each section has its link, and the other way round"
    assert set(there) == set(LEFT) - ABSENT[variant]
    assert not re.search(r'<p class="empty">', text.replace(section(text, "verdict"), "")), (
        "an empty section says nothing"
    )


def test_measured_recordings_leave_a_whole_page(complete, page, no_trials):
    complete.add_quality(eeg={"nan": {0: 0.5}}, spectrogram={}).change_run("eeg-0002", quality={"gone": 0.1})
    tags = Tags(page(complete, no_trials))
    assert tags.faults == [] and tags.open == [] and tags.seen.count("section") == 11


def test_nothing_is_fetched_and_nothing_runs(complete, page):
    text = page(complete, complete.search())
    tags = Tags(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(tags.seen)
    fetched = [(n, v) for n, v in tags.attributes if n in {"src", "href", "xlink:href", "action"} and v[:1] != "#"]
    assert fetched == []
    assert "url(" not in text and "@import" not in text and "http" not in text


def test_odd_names_are_escaped_everywhere(fake, page):
    study = fake('e <b>&"x', classes=ODD).write().add_trials().add_ensemble(notes=["<img src=x>"])
    trials = study.search().assign(cause="<i>no & yes</i>", state="FAIL")
    text = page(study, trials)
    tags = Tags(text)
    assert tags.faults == [] and not {"script", "img", "i>"} & set(tags.seen)
    assert "<b>&" not in text and "<i>no" not in text
    shown = words_of(re.sub(r"<svg.*?</svg>", "", text, flags=re.S))
    assert all(name in shown for name in (*ODD, "<img src=x>", "<i>no & yes</i>", 'e <b>&"x'))


def test_the_same_study_gives_the_same_bytes(complete, tmp_path):
    trials = complete.search()
    first, second = (write_report(complete.folder, trials, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_default_place_is_reports_by_study_name(complete, no_trials, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_report(complete.folder, no_trials).resolve() == tmp_path / "reports" / "night-1" / "index.html"


def test_a_folder_that_is_no_study_writes_nothing(tmp_path, no_trials):
    with pytest.raises(ConfigError, match="is no study"):
        write_report(StudyFolder(tmp_path), no_trials, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ensemble_of_an_earlier_version_asks_for_another(complete, no_trials, tmp_path):
    content = files.read_json(complete.folder.ensemble)
    del content["interval"], content["metrics"], content["baselines"]["differences"], content["version"]
    files.write_json(complete.folder.ensemble, content)
    with pytest.raises(
        ConfigError, match=r"hms-ray ensemble --study .* again: it lacks interval, baselines\.differences, metrics$"
    ):
        write_report(complete.folder, no_trials, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def shape(content):
    """The keys of nested JSON; of a list, those of its first object."""
    if isinstance(content, dict):
        return {key: shape(its) for key, its in content.items()}
    return [shape(content[0])] if isinstance(content, list) and content and isinstance(content[0], dict) else None


def test_the_fake_ensemble_holds_what_fit_study_writes(complete, fake):
    for study in (complete.add_fold_tables(), fake("foreign", foreign=True).write().add_ensemble()):
        imagined = files.read_json(study.folder.ensemble)
        assert shape(imagined) == shape(fit_study(study.folder, pool="linear").model_dump(mode="json"))


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        ("votes", "auto"),
        ("votes", "two_level"),
        ("votes", "greedy"),
        ("multilabel", "auto"),
        ("multilabel", "calibrated"),
    ],
)
def test_what_fit_study_writes_passes_every_check(fake, page, no_trials, pool, kind):
    study = fake(kind=kind, classes=("a", "b", "c"), patients=20, units_a_patient=5).write().add_fold_tables()
    content = fit_study(study.folder, pool=pool).model_dump(mode="json")
    text = words_of(page(study, no_trials))
    assert "✗ failed" not in text and text.count("✓ holds") == 10
    added = content["score_selection_corrected"] - content["score_cross_fitted"]
    low, high = (content["interval"][end] + added for end in ("low", "high"))
    corrected = f"Selection-corrected {content['score_selection_corrected']:.5f} {low:.5f} to {high:.5f} Cross-fitted"
    assert (
        f"{corrected}, plus the estimated optimism of picking 3 of 4 configurations" in text and "Undefined" not in text
    )


def test_neither_torch_nor_ray_is_imported():
    code = "import sys, hms_ray.report.page; sys.exit(bool({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="no real out-of-fold files; HMS_RAY_REAL names their folder")
def test_a_real_ensemble_is_reported_and_passes_every_check(tmp_path, no_trials):
    folder = StudyFolder(tmp_path / "runs" / "real")
    import_foreign(sorted(REAL.glob("*.parquet")), folder)
    content = fit_study(folder, min_votes=10).model_dump(mode="json")
    text = words_of(write_report(folder, no_trials, tmp_path / "out").read_text())
    score, low, high = (content["interval"][name] for name in ("value", "low", "high"))
    start = f"{score:.5f} Cross-fitted KL of the ensemble 95 % interval, by patient: {low:.5f} to {high:.5f}"
    assert f"{start} ≥ 10 votes · 6,329 units · 1,054 patients" in text and 0.21 < score < 0.215
    assert f"In sample {content['score_in_sample']:.5f} Optimistic" in text
    apart = "{value:.5f} ({low:.5f} to {high:.5f})".format(**content["baselines"]["differences"]["best_single"])
    assert f"9.1 % lower than the best single table: the difference is {apart}." in text
    assert "Selection-corrected \u2013 Not corrected: no table names a fold" in text
    assert "✗ failed" not in text and text.count("✓ holds") == 10


WIDE = """
const page = document.getElementById('f').contentDocument, found = [];
for (const box of page.querySelectorAll('.scroll'))
  if (box.scrollWidth > box.clientWidth + 1) found.push(box.closest('section').id + ': ' + box.textContent.trim());
for (const item of page.querySelectorAll('section *')) {
  const section = item.closest('section');
  if (!item.closest('.scroll') && item.getBoundingClientRect().right > section.getBoundingClientRect().right + 1)
    found.push(section.id + ': ' + item.tagName);
}
document.body.dataset.cut = found.map(text => text.slice(0, 60)).join(' | ');
document.body.dataset.width = page.documentElement.scrollWidth;
"""


def laid_out(page, width, tmp_path):
    """Return the width that a page takes in a window of that width, and what is wider than its container there."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium to lay the page out")
    frame = f'<iframe id="f" src="{page.as_uri()}" style="width:{width}px;border:0"></iframe>'
    script = f"<script>document.getElementById('f').onload = () => {{{WIDE}}}</script>"
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}{script}</body>")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [browser, *quiet, (tmp_path / "frame.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    taken, cut = (re.search(rf'data-{name}="([^"]*)"', dom).group(1) for name in ("width", "cut"))
    return int(taken), cut


def test_a_narrow_page_never_scrolls_sideways(complete, tmp_path):
    complete.add_quality(eeg={"nan": {0: 0.5}}).change_run("eeg-0002", quality={"nan": 0.1, "flat": 0.1})
    page = write_report(complete.folder, complete.search(), tmp_path / "out")
    assert laid_out(page, 390, tmp_path)[0] <= 390


@pytest.mark.parametrize("changes", [{}, {"k": 10}, {"kind": "multilabel", "classes": ("AS", "AR", "MR", "MS", "N")}])
def test_nothing_is_cut_off_on_a_screen_of_1280(fake, tmp_path, changes):
    study = fake(plain=1.0, **changes).write().add_trials().add_fold_tables().add_ensemble()
    study.add_quality(eeg={"nan": {0: 0.5}}).change_run("eeg-0002", quality={"nan": 0.1, "flat": 0.1})
    page = write_report(study.folder, study.search(), tmp_path / "out")
    taken, cut = laid_out(page, 1280, tmp_path)
    assert taken <= 1280 and cut == ""


MARK = "optimistic: best epochs, chosen on the rows scored"


@pytest.fixture
def flattered(fake):
    """A study whose epochs were the best on the rows that are scored."""
    return fake(epoch="best").write().add_trials().add_ensemble()


def captions(text):
    return [words_of(part) for part in re.findall(r"<caption>.*?</caption>", text, re.S)]


def test_best_epochs_are_called_optimistic_wherever_their_scores_stand(flattered, page):
    text = page(flattered, flattered.search())
    hero = words_of(re.search(r'<div class="hero">.*?</p>\s*<p class="range">', text, re.S).group(0))
    assert f"Selection-corrected KL of the ensemble {MARK}" in hero
    scored = [caption for caption in captions(text) if re.search(r"KL|Columns|trials of", caption)]
    assert len(scored) >= 10
    assert [caption for caption in scored if MARK not in caption] == []
    for name in ("metrics", "classes"):
        assert f"the ensemble, cross-fitted · {MARK}" in words_of(section(text, name))
    rows = re.findall(r"<tr>.*?</tr>", section(text, "finalists"), re.S)[1:]
    assert [row.count("‡") for row in rows] == [1 + 1 + 5] * 5, "in the name, the mean, and each fold"
    assert "epochs 4, 5, 3, 8, 6, the best of each ‡" in words_of(rows[0]).replace("\u00a0", " ")


def test_one_flattered_candidate_marks_the_ensemble(complete, page, no_trials):
    complete.add_ensemble(optimistic_epochs=["eeg-base"])
    assert f"Selection-corrected KL of the ensemble {MARK}" in words_of(page(complete, no_trials))


def test_without_an_ensemble_the_tables_are_marked(fake, page, no_trials):
    text = page(fake(epoch="best").write().add_trials(), no_trials)
    assert f"Predictions of the best table, eeg-0002 · {MARK}" in words_of(section(text, "metrics"))
    assert f"‡ {MARK}" in words_of(section(text, "finalists"))
    assert all(MARK in caption for caption in captions(section(text, "classes")))


@pytest.mark.parametrize(("rule", "said"), [("cross_fitted", "chosen on the other folds"), ("last", "the last")])
def test_other_epochs_are_said_but_flatter_nothing(fake, page, rule, said):
    study = fake(epoch=rule).write().add_trials().add_ensemble()
    text = words_of(page(study, study.search()))
    assert MARK not in text and "‡" not in text
    assert text.count(f"epochs 4, 5, 3, 8, 6, {said}") == 5


def test_nothing_is_said_of_epochs_of_foreign_tables(fake, page, no_trials):
    text = words_of(section(page(fake(foreign=True).write().add_ensemble(), no_trials), "finalists"))
    assert "epochs" not in text and "‡" not in text


def test_captions_of_trials_say_after_which_epoch_they_are_scored(complete, page):
    text = words_of(section(page(complete, complete.search()), "search"))
    said = "scored after the last epoch: another choice needs two other folds of the trial"
    assert text.count(said) == 4  # heads and tables
