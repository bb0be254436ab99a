"""Embeddings against the library's own network on the library's own sound, from weights by every way they come."""

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, WavLMConfig, WavLMModel

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.datasets import Dataset, bmd_hs
from hms_ray.encoders import speech
from hms_ray.features import heart_wave
from hms_ray.features import speech_embedding as feature
from hms_ray.features._feature import FeatureRef
from hms_ray.simulate import simulate_hearts
from hms_ray.store.inputs import beside
from hms_ray.training import published_weights
from hms_ray.training.build import build_model
from hms_ray.training.inputs import check_inputs, open_run, prepare_inputs
from hms_ray.training.run_config import RunConfig, parse_run

KINDS = {"wav2vec2-tiny": (Wav2Vec2Config, Wav2Vec2Model), "wavlm-tiny": (WavLMConfig, WavLMModel)}
STEPS = 80_000
WIDTH, DEPTH = speech.TINY["hidden_size"], speech.TINY["num_hidden_layers"]
each_arch = pytest.mark.parametrize("arch", KINDS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no URL, and a hub without a network."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HMS_RAY_STORE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    """Two recordings (2, 1, 80000): 3 s of beating noise, the second ends after 2 s."""
    rng, time_s = np.random.default_rng(0), np.arange(12_000) / 4000
    x = np.full((2, 1, STEPS), np.nan, np.float32)
    x[..., :12_000] = 0.05 * rng.standard_normal((2, 1, 12_000)) * (1.2 + np.sin(2 * np.pi * 1.2 * time_s))
    x[1, :, 8000:] = np.nan
    return torch.from_numpy(x)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[torch.nn.Module, Path]]:
    """The function that gives a network of the library with random weights, and a folder as the hub has it."""

    def make(arch: str, seed: int = 0) -> tuple[torch.nn.Module, Path]:
        config, kind = KINDS[arch]
        torch.manual_seed(seed)
        network, folder = kind(config(**speech.TINY)).eval(), tmp_path_factory.mktemp(arch)
        network.save_pretrained(folder)
        assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
        return network, folder

    return make


def _ref(**params: object) -> FeatureRef:
    given = {"arch": "wav2vec2-tiny", "pretrained": False, "seconds": 3.0, **params}
    return FeatureRef("speech_embedding", parse(feature.Params, given, "feature"))


def _embed(sound: torch.Tensor, **params: object) -> torch.Tensor:
    return published_weights.equipped(_ref(**params)).compute({"heart_sound": sound})


def _librarys(network: torch.nn.Module, sound: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return each layer's frames (frames, D) of each recording, without what it lacks and by the library alone."""
    wave = heart_wave.compute({"heart_sound": sound}, heart_wave.Params(seconds=3.0))[:, 0]
    extractor, found = Wav2Vec2FeatureExtractor(do_normalize=True), []
    for row, seconds in zip(wave, (3, 2), strict=True):
        there = row[: seconds * 16_000].numpy()
        given = extractor([there], sampling_rate=16_000, return_tensors="pt", padding="max_length", max_length=48_000)
        frames = (seconds * 16_000 - 400) // 320 + 1
        with torch.no_grad():
            layers = network(given["input_values"], output_hidden_states=True).hidden_states
        found.append([layer[0, :frames] for layer in layers])
    return found


@each_arch
def test_it_is_the_mean_over_the_librarys_frames(arch: str, sound: torch.Tensor, published: Callable) -> None:
    network, folder = published(arch)
    found = _embed(sound, arch=arch, pretrained=str(folder))
    expected = torch.stack([layers[-1].mean(0) for layers in _librarys(network, sound)])
    assert found.shape == (2, 1, 1, WIDTH) and found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found[:, 0, 0], expected, rtol=0, atol=1e-3)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_all_layers_in_equal_parts_of_what_is_there(sound: torch.Tensor, published: Callable) -> None:
    """149 and 99 frames in four parts: a frame that lies between two belongs to both."""
    network, folder = published("wav2vec2-tiny")
    found = _embed(sound, pretrained=str(folder), layers="all", segments=4)
    assert found.shape == (2, DEPTH + 1, 4, WIDTH)
    for row, (layers, number) in enumerate(zip(_librarys(network, sound), (149, 99), strict=True)):
        for layer, frames in enumerate(layers):
            assert len(frames) == number
            expected = torch.nn.functional.adaptive_avg_pool1d(frames.T[None], 4)[0].T
            torch.testing.assert_close(found[row, layer], expected, rtol=0, atol=1e-3)


def test_by_every_way_that_weights_come_it_is_the_same(
    sound: torch.Tensor, published: Callable, tmp_path: Path
) -> None:
    _, folder = published("wav2vec2-tiny")
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    spellings = (str(folder), str(folder / "model.safetensors"), "hf-hub:owner/name")
    first, *others = (_embed(sound, pretrained=spelling) for spelling in spellings)
    assert all(torch.equal(first, other) for other in others)


def test_weights_travel_to_workers_and_the_file_need_not(
    sound: torch.Tensor, published: Callable, tmp_path: Path
) -> None:
    _, folder = published("wav2vec2-tiny")
    mine = shutil.copytree(folder, tmp_path / "mine")
    ref = published_weights.equipped(_ref(pretrained=str(mine)))
    there = pickle.loads(pickle.dumps(ref))
    shutil.rmtree(mine)
    feature._built.cache_clear()
    expected = published_weights.equipped(_ref(pretrained=str(folder))).compute({"heart_sound": sound})
    feature._built.cache_clear()
    assert torch.equal(there.compute({"heart_sound": sound}), expected)


def test_it_is_known_by_the_content_of_its_weights(published: Callable, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    marks = []
    for seed in (0, 1, 0):
        shutil.copy(published("wav2vec2-tiny", seed)[1] / "model.safetensors", path)
        marks.append(_ref(pretrained=str(path)).origin)
    assert marks[0] == marks[2] != marks[1] and _ref().origin is None


def test_random_weights_are_those_of_their_seed(sound: torch.Tensor) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = _embed(sound)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's chance is touched"
    feature._built.cache_clear()
    torch.manual_seed(8)
    assert torch.equal(_embed(sound), first)
    assert not torch.allclose(_embed(sound, seed=1), first, atol=1e-2)


def test_threads_share_one_encoder(sound: torch.Tensor) -> None:
    ref, expected = _ref(layers="all", segments=2), _embed(sound, layers="all", segments=2)
    feature._built.cache_clear()

    def compute(_: int) -> torch.Tensor:
        with torch.inference_mode():
            return ref.compute({"heart_sound": sound})

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.allclose(found, expected, atol=1e-5) for found in pool.map(compute, range(8)))
    assert feature._built.cache_info().misses == 1
    assert not any(
        p.is_inference() or p.requires_grad
        for p in feature._encoder(ref.params, None, torch.device("cpu")).parameters()
    )


def test_played_faster_the_encoder_hears_what_a_faster_heart_would_say(sound: torch.Tensor) -> None:
    """At 4 times the speed a step of 4000 Hz is one of 16 kHz."""
    slow = heart_wave.compute({"heart_sound": sound[:1]}, heart_wave.Params(seconds=3.0, rate_hz=4000))[:, 0]
    network = feature._encoder(_ref().params, None, torch.device("cpu"))
    (frames,), counts = speech.encode(network, slow, 12_000)
    assert counts.all()
    torch.testing.assert_close(_embed(sound[:1], speed=4.0)[0, 0], frames.mean(1), rtol=0, atol=2e-2)


def test_a_recording_without_a_value_or_of_a_blink_is_finite(sound: torch.Tensor) -> None:
    nothing, blink = torch.full_like(sound, torch.nan), sound.clone()
    blink[..., 60:] = torch.nan
    for x in (nothing, blink, torch.zeros_like(sound)):
        assert _embed(x, layers="all", segments=5).isfinite().all()


def test_sizes_are_those_of_the_library() -> None:
    for arch, known in speech.ENCODERS.items():
        config = speech.KINDS[known.kind][0](**known.sizes)
        assert (config.hidden_size, config.num_hidden_layers) == (known.width, known.depth)
        spec = feature.spec(feature.Params(arch=arch, pretrained=False, layers="all", segments=2))
        assert spec.layout == "embedding" and spec.shape == (known.depth + 1, 2, known.width)


def test_weights_of_another_network_are_refused(sound: torch.Tensor, published: Callable) -> None:
    _, folder = published("wav2vec2-tiny")
    sentence = rf"feature\.pretrained: the weights {folder}/model\.safetensors do not fit 'wavlm-tiny': the file lacks"
    with pytest.raises(ConfigError, match=sentence):
        _embed(sound, arch="wavlm-tiny", pretrained=str(folder))


def test_weights_that_are_nowhere_are_said_to_be_the_features(sound: torch.Tensor) -> None:
    with pytest.raises(
        ConfigError,
        match=r"feature\.pretrained: hf-hub:owner/name is not in the hub's local cache and cannot be fetched",
    ):
        _embed(sound, pretrained="hf-hub:owner/name")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (
            {"pretrained": True},
            "there are no published weights of 'wav2vec2-tiny': use pretrained: false, or name a file",
        ),
        ({"speed": 16.0}, "high_hz=800 must be below 500, above which nothing is heard at speed=16"),
        ({"seconds": 1.0, "segments": 50}, "segments=50 must be at most the 49 frames of the sound"),
        ({"low_hz": 900.0}, "low_hz=900 must be below high_hz=800"),
        ({"speed": 0.1}, r"feature\.speed: Input should be greater than or equal to 0\.5"),
    ],
)
def test_what_cannot_be_is_said(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _ref(**params)


def test_only_who_has_weights_computes_with_them(sound: torch.Tensor, published: Callable) -> None:
    ref = _ref(pretrained=str(published("wav2vec2-tiny")[1]))
    with pytest.raises(AssertionError, match="has fetched its weights"):
        ref.compute({"heart_sound": sound})
    assert replace(published_weights.equipped(ref), weights=None) == ref


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Recordings of 2 s, of twelve people who do not exist."""
    folder = tmp_path_factory.mktemp("hearts") / "folder"
    simulate_hearts(folder, 12, 3, seconds=2.0)
    return bmd_hs.load(folder, bmd_hs.Params())


def _run(ref: FeatureRef, **changes: object) -> RunConfig:
    content = {"data": {"name": "bmd_hs"}, "feature": ref.dump(), "model": {"name": "probe"}}
    return parse_run({**content, "stages": [{"epochs": 1, "lr": 0.01}], **changes})


def test_it_is_prepared_once_for_each_encoder(hearts: Dataset, published: Callable, tmp_path: Path) -> None:
    path, stores = tmp_path / "model.safetensors", []
    for seed in (0, 1, 0):
        shutil.copy(published("wav2vec2-tiny", seed)[1] / "model.safetensors", path)
        stores += prepare_inputs(hearts, _run(_ref(pretrained=str(path), seconds=2.0, segments=2)))
    assert stores[0] == stores[2] != stores[1], "the same path may hold others"
    x, name = np.load(stores[0].path / "x.npy"), hearts.windows["heart_sound"].names[5]
    assert x.shape == (96, 1, 2, WIDTH) and x.dtype == np.float16
    recording = np.full((1, 1, STEPS), np.nan, np.float32)
    recording[0, :, :8000] = hearts.read("heart_sound", name)[:, :8000]
    expected = _embed(torch.from_numpy(recording), pretrained=str(path), seconds=2.0, segments=2)
    np.testing.assert_allclose(x[5], expected[0], atol=2e-3)


def test_a_worker_reads_what_is_prepared_and_needs_no_weights(
    hearts: Dataset, published: Callable, tmp_path: Path
) -> None:
    mine = shutil.copytree(published("wav2vec2-tiny")[1], tmp_path / "mine")
    run = _run(_ref(pretrained=str(mine), seconds=2.0), input={"covariates": ["age"]})
    stores = prepare_inputs(hearts, run)
    content = run.without_weights().content
    shutil.rmtree(mine)
    inputs = open_run(parse_run(content), stores, hearts.windows, hearts.examples)
    rows = np.arange(4)
    batch = inputs.batch(rows, torch.device("cpu"))
    network = build_model(parse_run(content), hearts.task).eval()
    assert network(batch, beside(inputs, rows, batch.device)).shape == (4, len(hearts.task.classes))


def test_published_weights_are_read_before_training_only(hearts: Dataset, published: Callable) -> None:
    run = _run(_ref(pretrained=str(published("wav2vec2-tiny")[1])), input={"compute": "batch"})
    with pytest.raises(
        ConfigError, match=r"input\.compute: feature speech_embedding has published weights, with which"
    ):
        check_inputs(hearts, run)
    check_inputs(hearts, _run(_ref(), input={"compute": "batch"}))
