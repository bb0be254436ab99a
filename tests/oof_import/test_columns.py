"""Class columns: six forms, one order of preference, or named; what is there in part is refused, never guessed."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import import import_foreign, parse_columns

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]
FORMS = ["{}_pred", "{}_prob", "pred_{}", "prob_{}", "{}", "{}_vote"]
NAMED = dict(zip(CLASSES, ["SZ", "p2", "p3", "p4", "p5", "rest"], strict=True))


def both(foreign, first, second, **more):
    """One file with the predictions `one` in the first form and `two` in the second."""
    one, two = (foreign.predictions(name, form=form) for name, form in (("one", first), ("two", second)))
    return pd.concat([two, one.drop(columns=["eeg_id", "eeg_sub_id"])], axis=1).assign(**more)


@pytest.mark.parametrize("change", [str, str.upper, str.title, lambda name: f" {name} "])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised_whatever_its_case(foreign, form, change):
    [path] = foreign.save(one=foreign.predictions("one", form=form).rename(columns=change))
    foreign.read(path)
    foreign.expect("one")


@pytest.mark.parametrize("change", [str.upper, lambda name: f" {name.title()}"])
def test_labels_are_recognised_whatever_their_case(foreign, change):
    paths = foreign.sound(foreign.labels().rename(columns=change))
    import_foreign(paths, foreign.study)
    foreign.expect("one")
    assert foreign.table("one").task.classes == tuple(CLASSES)


@pytest.mark.parametrize(("first", "second"), list(pairwise(FORMS[:5])))
def test_of_two_complete_forms_the_first_counts(foreign, first, second):
    foreign.read(*foreign.save(one=both(foreign, first, second)))
    foreign.expect("one")


def carrying(foreign, divisor=1):
    votes = foreign.labels()[[f"{c}_vote" for c in CLASSES]]
    return pd.concat([foreign.predictions("one"), (votes / divisor).round(4)], axis=1)


def test_targets_that_agree_may_be_carried_along(foreign):
    labels = foreign.labels()
    shares = carrying(foreign, labels.filter(like="_vote").sum(axis=1).to_numpy()[:, None])
    own = both(foreign, "{}_pred", "{}").assign(fold=labels["fold"])
    foreign.read(*foreign.save(one=carrying(foreign).assign(fold=labels["fold"]), shares=shares, own=own))
    foreign.expect("one")
    foreign.expect("shares", "one")


@pytest.mark.parametrize("suffix", ["vote", "target"])
def test_other_targets_are_refused_by_their_rows(foreign, suffix):
    frame = carrying(foreign)
    frame.loc[[4, 7], "seizure_vote"] += 1
    foreign.replace("one", frame.rename(columns=lambda c: c.replace("_vote", f"_{suffix}")))
    with pytest.raises(DataError, match=r"one.csv: 2 rows with other targets than .*labels.csv.*: rows 4, 7"):
        foreign.read(foreign.root / "one.csv")
    foreign.replace("one", frame.assign(**{f"{c}_vote": 0 for c in CLASSES}))
    with pytest.raises(DataError, match=r"one.csv: 30 rows with other targets"):
        foreign.read(foreign.root / "one.csv")
    assert not foreign.study.root.exists()


def test_votes_of_the_labels_are_no_predictions(foreign):
    labels = foreign.labels()
    votes = labels.filter(like="_vote")
    labels[votes.columns] = votes.div(votes.sum(axis=1), axis=0)
    [copy] = foreign.save(copy=labels)
    with pytest.raises(DataError, match=r"copy.csv: its <class>_vote columns are the votes of .*labels.csv themselves"):
        import_foreign([copy], foreign.study, labels=foreign.save(labels=foreign.labels())[0])


def test_a_submission_with_folds_needs_to_be_told_from_the_labels(foreign):
    labels, one = foreign.save(
        labels=foreign.labels(), one=foreign.predictions("one", form="{}_vote").assign(fold=foreign.labels()["fold"])
    )
    with pytest.raises(ConfigError, match=r"exactly one file .* found: .*labels.csv, .*one.csv. --labels FILE says"):
        import_foreign([labels, one], foreign.study)
    import_foreign([labels, one], foreign.study, labels=labels)
    assert foreign.study.oof_ids() == ["one"]
    foreign.expect("one")


def test_labels_that_are_named_may_hold_predictions_as_well(foreign):
    labels = carrying(foreign).assign(fold=foreign.labels()["fold"])
    labels, one = foreign.save(truth=labels, one=foreign.predictions("one"))
    import_foreign([one], foreign.study, labels=labels)
    foreign.expect("one")


def test_named_labels_must_be_labels(foreign):
    labels, one = foreign.save(truth=foreign.predictions("two"), one=foreign.predictions("one"))
    with pytest.raises(DataError, match=r"truth.csv: labels need a column <class>_vote for each class"):
        import_foreign([one], foreign.study, labels=labels)
    assert not foreign.study.root.exists()


PARTS = {
    "short": (lambda f: f.predictions("one", form="{}_pred").drop(columns="gpd_pred"), r"missing column gpd_pred; it"),
    "with votes and folds": (
        lambda f: carrying(f).drop(columns="gpd").assign(fold=f.labels()["fold"]),
        r"missing column gpd; it has eeg_id, .*it has all of seizure_vote, .* as well: say which with --columns",
    ),
    "beside a whole": (
        lambda f: f.predictions("one").assign(lpd_prob=1),
        r"missing column seizure_prob, gpd_prob, .*it has all of seizure, lpd, .* as well: say which with --columns",
    ),
    "none": (
        lambda f: f.predictions("one", form="p({})"),
        r"missing column seizure, lpd, .* class columns are <class>_pred, .* or named: --columns class=column",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_classes_is_refused(foreign, name):
    spoil, sentence = PARTS[name]
    foreign.replace("one", spoil(foreign))
    with pytest.raises(DataError, match=rf"one.csv: {sentence}"):
        foreign.read(foreign.root / "one.csv")
    assert not foreign.study.root.exists()


def test_columns_may_be_named_for_the_files_that_have_them(foreign):
    one = foreign.predictions("one").rename(columns=NAMED).assign(lpd_prob=7)
    foreign.read(*foreign.save(one=one, two=foreign.predictions("two")), columns=NAMED)
    foreign.expect("one")
    foreign.expect("two")


def test_named_columns_win_and_may_share_names_with_a_whole_form(foreign):
    one = both(foreign, "my_{}", "{}")
    columns = {c: f"MY_{c}" for c in CLASSES[:5]} | {"Other": "my_other"}
    foreign.read(*foreign.save(one=one, two=foreign.predictions("two")), columns=columns)
    foreign.expect("one")
    mixed = {**NAMED, "other": "other"}
    other = foreign.predictions("one").rename(columns=mixed)
    foreign.read(*foreign.save(one=other, two=foreign.predictions("two")), columns=mixed)
    foreign.expect("one")
    foreign.expect("two")


def test_predictions_with_votes_and_folds_are_no_labels_where_their_columns_are_named(foreign):
    one = carrying(foreign).rename(columns=NAMED).assign(fold=foreign.labels()["fold"])
    foreign.read(*foreign.save(one=one), columns=NAMED)
    foreign.expect("one")


BAD_NAMES = {
    "unknown": (NAMED | {"sz": "SZ"}, ConfigError, r"one column for each class: seizure, .*; unknown: sz$"),
    "left out": ({k: v for k, v in NAMED.items() if k != "gpd"}, ConfigError, r"left out: gpd$"),
    "twice": (NAMED | {"gpd": "sz"}, ConfigError, r"named for two: sz$"),
    "nowhere": ({c: f"x{c}" for c in CLASSES}, ConfigError, r"which no file has: .*one.csv has eeg_id, .*sz"),
    "misspelt": (
        NAMED | {"gpd": "p33"},
        DataError,
        r"one.csv: missing column p33; it has .*--columns names SZ",
    ),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(foreign, name):
    columns, error, sentence = BAD_NAMES[name]
    paths = foreign.save(one=foreign.predictions("one").rename(columns=NAMED), two=foreign.predictions("two"))
    with pytest.raises(error, match=sentence):
        foreign.read(*paths, columns=columns)
    assert not foreign.study.root.exists()


def test_a_misspelt_name_is_not_hidden_by_a_whole_form(foreign):
    paths = foreign.save(one=both(foreign, "my_{}", "{}"))
    columns = {c: f"my_{c}" for c in CLASSES} | {"gpd": "mygpd"}
    with pytest.raises(DataError, match=r"one.csv: missing column mygpd"):
        foreign.read(*paths, columns=columns)


def test_names_are_parsed():
    assert parse_columns("seizure=SZ_prob, lpd = p2,gpd=a=b") == {"seizure": "SZ_prob", "lpd": "p2", "gpd": "a=b"}


@pytest.mark.parametrize("text", ["", "seizure", "seizure=", "=x", "seizure=a,", "seizure=a,Seizure=b"])
def test_names_that_cannot_be_parsed_are_refused(text):
    with pytest.raises(ConfigError, match="--columns "):
        parse_columns(text)


def test_round_offs_pass_and_values_stay_as_they_are(foreign):
    one = foreign.predictions("one").round(4)
    foreign.read(*foreign.save(one=one))
    assert np.abs(one[CLASSES].sum(axis=1) - 1).max() > 1e-5
    expected = one.set_axis(one["eeg_id"].astype(str) + "-" + one["eeg_sub_id"].astype(str))
    np.testing.assert_array_equal(foreign.table("one").probs, expected.loc[foreign.table("one").unit_ids, CLASSES])
