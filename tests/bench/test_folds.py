"""The bench of folds: its pieces run, on a tiny scale and without Ray, and both ways are given the same."""

import json
import re
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.store.inputs import memory_format
from hms_ray.training import inputs, loop
from hms_ray.training.fold_model import FoldModel


@pytest.fixture
def setting(bench_named, hms_folder, tmp_path):
    """One epoch of two folds on six EEGs, prepared for both ways."""
    own, place = bench_named("_folds"), bench_named("_place")
    folder = place.linked(hms_folder, tmp_path / "data", 6)
    made = own.Setting(tmp_path, folder, eegs=6, folds=2, epochs=1, batch=3, seed=0)
    with place.environment(tmp_path / "cache"):
        own.make(made)
        yield made


@pytest.fixture
def lines_of(bench_named, monkeypatch):
    """Return the lines of the tiny bench, what it launches called in this process."""
    monkeypatch.setattr(
        bench_named("_folds"), "launch", lambda module, arguments: bench_named(module).main(**arguments)
    )
    return lambda *arguments: list(bench_named("folds").run(["--quick", *arguments]))


@pytest.fixture
def index(setting):
    return dict(np.load(setting.arrays / "index.npz"))


def test_both_see_the_same_images_but_for_augmentation(bench_named, setting, index):
    notebook, (job, labels) = bench_named("_folds_notebook"), bench_named("_folds").load_job(setting.jobs)
    rows = np.arange(len(labels.targets))
    held = {name: np.load(setting.arrays / f"{name}.npy") for name in np.unique(index["names"])}
    theirs = notebook.images(held, index, rows, augmented=False)
    ours = inputs.open_run(job.run, job.stores, labels.windows, labels.examples).batch(rows, torch.device("cpu"))
    assert ours.shape[1:] == (1, 400, 300)
    torch.testing.assert_close(torch.stack([x for x, _ in theirs]), ours, atol=0.02, rtol=0.01)  # stores are float16
    np.testing.assert_allclose([y.numpy() for _, y in theirs], labels.targets, atol=1e-6)
    np.testing.assert_array_equal(index["folds"], labels.folds)


def test_both_begin_with_the_same_weights(bench_named, setting):
    steps, notebook = bench_named("_folds_steps"), bench_named("_folds_notebook")
    theirs = notebook.Steps(setting.arrays / "weights_0.pt", steps=1).model.state_dict()
    network = FoldModel(steps.fold_of(setting.jobs, steps.How())).network
    torch.testing.assert_close(dict(network.state_dict()), dict(theirs))


def test_both_train_every_fold(bench_named, setting):
    theirs = bench_named("_folds_notebook").main(setting, workers=0)
    ours = bench_named("_folds_ours").main(setting, {}, in_process=True)
    for done in (theirs, ours):
        assert len(done["scores"]) == 2 and all(0 < score < 5 for score in done["scores"])
        assert done["training"] > 0


def test_the_notebook_measures_the_same_kl(bench_named, setting, index):
    notebook, (_, labels) = bench_named("_folds_notebook"), bench_named("_folds").load_job(setting.jobs)
    batches = [(torch.zeros(len(labels.targets), 6), torch.from_numpy(labels.targets))]
    score = notebook.evaluate(torch.nn.Identity(), batches)
    assert score == pytest.approx(labels.task.score(labels.targets, np.full_like(labels.targets, 1 / 6)))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_process_trains_a_step_first_and_then_as_told(bench_named, setting, channels_last, monkeypatch, capsys):
    steps = bench_named("_folds_steps")
    monkeypatch.setattr(sys, "stdin", iter(["go\n"]))
    how, taken, forward_backward = steps.How(channels_last=channels_last), [], loop.forward_backward
    monkeypatch.setattr(loop, "forward_backward", lambda *given: taken.append(given) or forward_backward(*given))
    for name in steps.LAYOUTS:  # what the process changes for itself is put back
        monkeypatch.setattr(name, memory_format)
    steps.main(str(setting.jobs), json.dumps(asdict(how)), "2")
    assert len(capsys.readouterr().out.split()) == 2 and len(taken) == 1 + 2
    assert all(len(batch.x) == setting.batch for _, batch, _ in taken)
    # of an image of one channel only the strides tell
    assert (taken[0][0].network.conv_stem.weight.stride(1) == 1) == channels_last


def test_the_lines_have_both_ways_with_their_ratios(lines_of):
    lines = lines_of("--part", "whole", "--workers", "0")
    assert lines[1] == "whole"
    assert [line.split(":")[0].strip() for line in lines[2:4]] == ["notebook, 0 workers", "ours"]
    assert all(re.search(r" / ours, .*: [0-9.]+ \(goal: at least 2.5\)$", line) for line in lines[4:6])
    assert lines[6].startswith("  beside training, however long that is: notebook, 0 workers ")
    assert lines[7].startswith("  KL, ours - notebook, 0 workers: ")


def test_what_cannot_train_says_why(bench_named, setting):
    steps, folds = bench_named("_folds_steps"), bench_named("folds")

    def start():
        raise steps.ChildFailed("RuntimeError: no C compiler")

    assert list(folds._beside(None, "optim.compile", start, 1)) == [
        "  optim.compile: not here: RuntimeError: no C compiler"
    ]
    assert steps._last_line("Traceback\n  x\nInvalidCxxCompiler: No working\nFooError: that\nSet TORCH_LOGS\n") == (
        "FooError: that"
    )


def test_an_unknown_part_is_refused(bench_named):
    with pytest.raises(ConfigError, match="Did you mean 'whole'"):
        list(bench_named("folds").run(["--part", "whol"]))
