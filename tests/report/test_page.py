"""The page: true to its sources, self-contained, the same twice, whole whatever is missing, and readable."""

import html
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hms_ray import files
from hms_ray.ensemble import fit_study
from hms_ray.errors import ConfigError
from hms_ray.oof_foreign import import_foreign
from hms_ray.report.page import write_report
from hms_ray.study_folder import StudyFolder

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
    "nobody with enough votes": lambda fake: fake(votes=np.full(360, 2)).write().add_trials(),
    "three units": lambda fake: (
        fake(patients=3, units_a_patient=1, votes=np.array([3, 12, 15]), k=3, strengths={"eeg-base": 2.0})
        .write()
        .add_trials()
        .add_ensemble()
    ),
}


def test_figures_are_those_of_ensemble_json(complete, page, no_trials):
    verdict = words_of(section(page(complete, no_trials), "verdict"))
    content = files.read_json(complete.folder.ensemble)
    outside = content["outside_selection"]
    for figure in (
        content["kl_cross_fitted"],
        content["kl_in_sample"],
        *(content["baselines"][name] for name in ("best_single", "mean", "prior")),
        *(outside[name] for name in ("kl_cross_fitted", "best_single", "mean", "prior")),
    ):
        assert f"{figure:.5f}" in verdict
    assert content["baselines"]["best_single_trial"] in verdict
    assert "No weights on the simplex can score more than 2.4e-11 better" in verdict
    assert "in sample, optimistic" in verdict and "4.1e-11" in verdict


def test_every_score_stands_beside_its_population(complete, page):
    text = page(complete, complete.search())
    kept, inside = complete.kept, complete.kept & (complete.folds == 0)
    everyone = f"≥ 10 votes · {kept.sum()} units · {len(set(complete.groups[kept]))} patients"
    trial_rows = f"≥ 10 votes · {inside.sum()} units · {len(set(complete.groups[inside]))} patients · fold 0"
    for name in ("verdict", "weights", "finalists", "classes", "data"):
        assert everyone in words_of(section(text, name)), name
    assert trial_rows in words_of(section(text, "search"))
    assert "rows with ≥ 10 votes" in words_of(section(text, "curves"))
    for table in re.findall(r"<table.*?</table>", text, re.S):
        if "KL</th>" in table:
            assert "≥ 10 votes" in re.search(r"<caption>(.*?)</caption>", table, re.S).group(1)


def test_members_show_weight_own_score_and_hyper_parameters(complete, page, no_trials):
    weights = words_of(section(page(complete, no_trials), "weights"))
    kept = complete.kept
    own = complete.task.score(complete.targets[kept], complete.probs["eeg-0002"][kept])
    assert f"eeg-0002 eeg 0.5000 {own:.5f} lr 0.0005 drop_rate 0 name basic_cnn" in weights


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
    assert "≈: what a stopped trial was expected to reach" in text
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


def test_many_trials_start_folded(complete, page):
    search = section(page(complete, complete.search(300)), "search")
    assert "<details open>" not in search and "All 150 trials of eeg" in search


def test_folds_without_scored_rows_are_shown_as_such(fake, page, no_trials):
    text = page(VARIANTS["three units"](fake), no_trials)
    row = re.search(r"<tr><td>1</td><th>eeg-base</th>.*?</tr>", section(text, "finalists"), re.S).group(0)
    assert re.findall(r"<td>(\u2013|0\.\d{5})", row)[1] == "\u2013"
    assert "No unit with ≥ 10 votes lies in fold 0" in words_of(section(text, "verdict"))


def test_a_failed_check_stands_on_top(complete, page, no_trials):
    complete.add_ensemble(kl_cross_fitted=0.1)
    verdict = section(page(complete, no_trials), "verdict")
    assert verdict.index("Check failed.") < verdict.index('class="big"')


@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_parts_leave_a_whole_page(fake, page, no_trials, variant):
    text = page(VARIANTS[variant](fake), no_trials)
    tags = Tags(text)
    assert tags.faults == [] and tags.open == []
    assert tags.seen.count("section") == 8
    assert not re.search(r"\bnan\b|\bNone\b|Undefined", text)


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


def test_neither_torch_nor_ray_is_imported():
    code = "import sys, hms_ray.report.page; sys.exit(bool({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="no real out-of-fold files; HMS_RAY_REAL names their folder")
def test_a_real_ensemble_is_reported_and_passes_every_check(tmp_path, no_trials):
    folder = StudyFolder(tmp_path / "runs" / "real")
    import_foreign(sorted(REAL.glob("*.parquet")), folder)
    fit_study(folder, min_votes=10)
    text = words_of(write_report(folder, no_trials, tmp_path / "out").read_text())
    assert "0.21445 Cross-fitted KL of the ensemble ≥ 10 votes · 6,329 units · 1,054 patients" in text
    assert "0.21354 in sample, optimistic" in text and "8.7 % lower than the best single table" in text
    assert "✗ failed" not in text and text.count("✓ holds") == 6


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(complete, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium to lay the page out")
    page = write_report(complete.folder, complete.search(), tmp_path / "out")
    measure = "document.body.dataset.width = document.getElementById('f').contentDocument.documentElement.scrollWidth"
    frame = f'<iframe id="f" src="{page.as_uri()}" style="width:{width}px;border:0" onload="{measure}"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}</body>")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [browser, *quiet, (tmp_path / "frame.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert int(re.search(r'data-width="(\d+)"', dom).group(1)) <= width
