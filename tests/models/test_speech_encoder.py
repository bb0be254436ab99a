"""Speech encoders: the library's own features on the same weights, what is frozen stays, and waves become sound."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import nn
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.encoders import speech
from hms_ray.encoders.pretrained import State
from hms_ray.encoders.speech import resampled
from hms_ray.models import speech_encoder

WAVE = InputSpec("wave", (3, 2000), 200.0)
TINY = dict(speech.TINY)
LIBRARY = {"wav2vec2-tiny": Wav2Vec2Model(Wav2Vec2Config(**TINY)), "wavlm-tiny": WavLMModel(WavLMConfig(**TINY))}
each_arch = pytest.mark.parametrize("arch", LIBRARY)


def _build(weights: State | None = None, spec: InputSpec = WAVE, outputs: int = 6, **params: object) -> nn.Module:
    torch.manual_seed(0)
    given = {"arch": "wavlm-tiny", "pretrained": False, **params}
    return speech_encoder.build(spec, outputs, parse(speech_encoder.Params, given, "model"), weights)


def _published(network: nn.Module, folder: Path) -> State:
    network.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def _sine(hz: float, rate_hz: float, seconds: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(round(rate_hz * seconds)) / rate_hz + 0.3)


@pytest.mark.parametrize("channels", ["mean", "concat"])
@each_arch
def test_features_are_the_librarys_own(arch: str, channels: str, tmp_path: Path) -> None:
    """Each channel is standardised and encoded alone; the mean over time, then the mean or one after the other."""
    library, x = LIBRARY[arch].eval(), 40 * torch.randn(2, 3, 2000) + 7
    model = _build(_published(library, tmp_path), arch=arch, channels=channels).eval()
    sound = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    each = [library(sound[:, c]).last_hidden_state.mean(1) for c in range(3)]
    expected = torch.cat(each, 1) if channels == "concat" else torch.stack(each).mean(0)
    torch.testing.assert_close(model.body(x), expected, rtol=1e-4, atol=1e-5)


def _padded(before: int, length: int, after: int) -> torch.Tensor:
    """One channel (1, 1, T) of noise between zeros."""
    noise = torch.randn(length, generator=torch.Generator().manual_seed(1)) * 40 + 7
    return nn.functional.pad(noise, (before, after)).view(1, 1, -1)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 6000), (3333, 0), (1000, 777)])
@each_arch
def test_padding_is_as_the_published_feature_extractors_have_it(arch: str, before: int, after: int) -> None:
    """The sound has mean 0 and variance 1 without the zeros; frames that see some of them do not count."""
    x = _padded(before, 9000, after)
    model = _build(spec=InputSpec("wave", (1, x.shape[-1]), 200.0), arch=arch).eval()
    encoder, there = model.body.encoder, x[0, 0, before : before + 9000]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    sound = extractor([there.numpy()], sampling_rate=16_000, return_tensors="pt")["input_values"]
    frames = encoder(nn.functional.pad(sound, (before, after))).last_hidden_state[0]
    whole = [i for i in range(len(frames)) if 320 * i >= before and 320 * i + 400 <= before + 9000]
    torch.testing.assert_close(model.body(x)[0], frames[whole].mean(0), rtol=1e-4, atol=1e-5)


def test_which_frames_count() -> None:
    there = torch.zeros(4, 16_000, dtype=torch.bool)
    there[0] = True
    there[1, 640:8400] = True  # frames 2 to 25, the last of which ends at 320 * 25 + 400
    there[2, 641:8399] = True
    there[3, 5000:5100] = True  # no frame sees nothing else
    frames = speech.frames_with_sound(there)
    assert frames.shape == (4, 49) and frames[0].all() and frames[3].all()
    assert frames[1].nonzero().flatten().tolist() == list(range(2, 26))
    assert frames[2].nonzero().flatten().tolist() == list(range(3, 25))


@each_arch
def test_frames_are_as_many_as_the_library_says(arch: str) -> None:
    for steps in (400, 719, 720, 721, 16_000, 319_999):
        assert speech.frames_of(steps) == int(LIBRARY[arch]._get_feat_extract_output_lengths(steps))
    assert speech.frames_of(399) == 0


def test_a_wave_of_zeros_counts_everywhere() -> None:
    sound, there = speech.standardised(torch.zeros(2, 3000), 1500)
    assert there.all() and not sound.any()


def test_padding_stays_zero_at_another_rate() -> None:
    x = nn.functional.pad(_sine(30, 4000, 2.0), (0, 8000))[None]
    sound, there = speech.standardised(x, 4000)
    assert there[0, :2000].all() and not there[0, 2000:].any() and not sound[0, 2000:].any()
    assert sound[0, :2000].std(correction=0).item() == pytest.approx(1, abs=1e-3)


@each_arch
def test_all_layers_are_mixed_by_weights(arch: str) -> None:
    """Equal at the beginning; the first layer is that of the frames before the transformer, as in SUPERB."""
    model, x = _build(arch=arch, layers="mix").eval(), torch.randn(2, 3, 2000)
    mix = model.body.mix
    assert mix.weight.shape == (TINY["num_hidden_layers"] + 1,)
    sound = speech.standardised(x.flatten(0, 1), 2000)[0]
    layers = model.body.encoder(sound, output_hidden_states=True).hidden_states
    means = torch.stack([layer.mean(1).unflatten(0, (2, 3)).mean(1) for layer in layers])  # (L, B, D)
    torch.testing.assert_close(model.body(x), means.mean(0), rtol=1e-4, atol=1e-5)
    mix.weight.data = torch.tensor([0.0, 1.0, 2.0])
    expected = (torch.tensor([0.0, 1.0, 2.0]).softmax(0)[:, None, None] * means).sum(0)
    torch.testing.assert_close(model.body(x), expected, rtol=1e-4, atol=1e-5)


def test_attention_begins_as_the_mean_and_looks_at_no_padding() -> None:
    x = _padded(0, 9000, 6000)
    spec = InputSpec("wave", (1, 15_000), 200.0)
    model, mean = (_build(spec=spec, pool=pool).eval() for pool in ("attention", "mean"))
    model.body.encoder.load_state_dict(mean.body.encoder.state_dict())
    torch.testing.assert_close(model.body(x), mean.body(x), rtol=1e-4, atol=1e-5)
    score = model.body.pool.score
    score.weight.data.normal_()
    frames = model.body.encoder(speech.standardised(x[0], 15_000)[0]).last_hidden_state[0, :27]
    expected = score(frames).softmax(0).T @ frames
    torch.testing.assert_close(model.body(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", ["head", "encoder"])
def test_what_puts_frames_together_is_trained_with_the_head(train: str) -> None:
    spec = replace(WAVE, covariates=("age",))
    model = _build(spec=spec, train=train, layers="mix", pool="attention", hidden=16).train()
    model(torch.randn(4, 3, 2000), torch.randn(4, 1)).square().sum().backward()
    parts = [model.body.mix.weight, model.body.pool.score.weight, *model.head.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts[:3])
    assert model.head[0].in_features == TINY["hidden_size"] + 1 and model.head[-1].in_features == 16
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert {layers[f"body.{name}"] for name in ("mix.weight", "pool.score.weight")} == {max(layers.values())}


@pytest.mark.parametrize("head", [Wav2Vec2ForPreTraining, Wav2Vec2ForCTC])
def test_files_with_heads_and_old_names_are_taken(head: type[nn.Module], tmp_path: Path) -> None:
    """As facebook's are: `wav2vec2.` before the encoder's names, other tensors besides, weight_g and weight_v."""
    network = head(Wav2Vec2Config(**TINY, vocab_size=5))
    state = _published(network, tmp_path)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = "wav2vec2.encoder.pos_conv_embed.conv."
        state[name + old] = state.pop(name + f"parametrizations.weight.{new}")
    encoder = _build(state, arch="wav2vec2-tiny").body.encoder
    expected = network.wav2vec2.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "cause"),
    [
        ({"num_hidden_layers": 1}, r"the file lacks 'encoder\.layers\.1\.attention.*' and \d+ more"),
        ({"num_hidden_layers": 3}, r"the file has besides 'encoder\.layers\.2\.attention.*' and \d+ more"),
        ({"conv_bias": True}, r"the file has besides 'feature_extractor\.conv_layers\.0\.conv\.bias' and 6 more"),
        ({"hidden_size": 32}, r"the file has in other shapes 'encoder\.layer_norm\.bias' and \d+ more"),
    ],
)
def test_weights_of_another_size_are_refused(sizes: dict[str, int], cause: str, tmp_path: Path) -> None:
    state = _published(WavLMModel(WavLMConfig(**TINY | sizes)), tmp_path)
    path = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError, match=f"model.pretrained: the weights {path} do not fit 'wavlm-tiny': {cause}"):
        _build(state, pretrained=str(path))


def test_weights_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"do not fit 'wavlm-tiny': the file lacks 'encoder\.layers\.0\.attention\.gru"
    ):
        _build(_published(LIBRARY["wav2vec2-tiny"], tmp_path), pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("arch", "millions", "repository"),
    [
        ("wavlm-base-plus", 94.4, "microsoft/wavlm-base-plus"),
        ("wav2vec2-base", 94.4, "facebook/wav2vec2-base"),
        ("wav2vec2-large", 315.4, "facebook/wav2vec2-large"),
        ("wav2vec2-large-960h", 315.4, "facebook/wav2vec2-large-960h"),
    ],
)
def test_published_encoders(arch: str, millions: float, repository: str) -> None:
    with torch.device("meta"):
        encoder = _build(arch=arch).body.encoder
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert speech_encoder.source(speech_encoder.Params(arch=arch)).key == f"hf-hub:{repository}"


@pytest.mark.parametrize(
    ("train", "moving"),
    [
        ("head", {"head"}),
        ("encoder", {"head", "body.encoder.feature_projection", "body.encoder.encoder"}),
        ("all", {"head", "body.encoder.feature_projection", "body.encoder.encoder", "body.encoder.feature_extractor"}),
    ],
)
@each_arch
def test_what_is_frozen_does_not_move(arch: str, train: str, moving: set[str]) -> None:
    model = _build(arch=arch, train=train).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0)
    model(torch.randn(4, 3, 2000)).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {part for part in moving if any(name.startswith(part) for name in moved)} == moving
    assert all(name.startswith(tuple(moving)) for name in moved)


def test_a_frozen_encoder_keeps_no_graph_and_drops_nothing() -> None:
    model, x = _build(train="head", encoder_drop_rate=0.5).train(), torch.randn(2, 3, 2000)
    features = model.body(x)
    assert not features.requires_grad and torch.equal(features, model.body(x))
    assert not model.body.encoder.training and model.drop.training


def test_an_encoder_that_is_trained_drops_in_training_only() -> None:
    model, x = _build(encoder_drop_rate=0.5, drop_rate=0.0).train(), torch.randn(2, 3, 2000)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(("steps", "up"), [(4000, 1), (2000, 2), (800, 5)])
def test_an_eeg_played_fast_is_sound(steps: int, up: int) -> None:
    """2 Hz at 200 Hz, 80 times as fast, is 160 Hz at 16 kHz, step for step; at fewer steps a second, too."""
    rate_hz = 200 / up
    sound = resampled(_sine(2, rate_hz, 20), 4000)
    expected = _sine(160, 16_000, 0.25)
    inside = slice(None) if up == 1 else slice(100, -100)
    torch.testing.assert_close(sound[inside], expected[inside], rtol=0, atol=2e-4 if up == 1 else 2e-3)
    assert sound.abs().max() < 1.1
    assert _build(spec=InputSpec("wave", (1, steps), rate_hz), speed=80.0).body.steps == 4000


def test_what_the_lower_rate_does_not_have_is_filtered() -> None:
    high = resampled(_sine(70, 200, 20), 2000)
    assert high[50:-50].abs().max() < 0.02, "70 Hz is beyond the 50 Hz that 100 steps a second have"
    low = resampled(_sine(3, 200, 20), 2000)
    torch.testing.assert_close(low[50:-50], _sine(3, 100, 20)[50:-50], rtol=0, atol=0.02)


def test_a_constant_stays_one() -> None:
    torch.testing.assert_close(resampled(torch.full((2, 50), 3.0), 171), torch.full((2, 171), 3.0))


def test_a_flat_channel_does_no_harm() -> None:
    model, x = _build(train="all").train(), torch.randn(2, 3, 2000)
    x[:, 1] = 5.0
    model(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("shape", "rate_hz", "params", "sentence"),
    [
        ((1, 399), 200.0, {}, "399 steps at 200 Hz become 399 steps of sound, which 'wavlm-tiny' sees as 0 frames"),
        ((1, 9), 200.0, {}, "sees as 0 frames; there must be 1 to 3000"),
        ((1, 10_000), 40.0, {"speed": 1.0}, r"model\.speed 1\.0: 10000 steps at 40 Hz become 4000000 steps of sound"),
    ],
)
def test_a_wave_too_short_or_too_long(
    shape: tuple[int, int], rate_hz: float, params: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _build(spec=InputSpec("wave", shape, rate_hz), **params)


@pytest.mark.parametrize("steps", [400, 401, 720])
def test_the_shortest_waves(steps: int) -> None:
    model = _build(spec=InputSpec("wave", (2, steps), 200.0)).train()
    assert model(torch.randn(2, 2, steps)).shape == (2, 6)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"pretrained": True}, "there are no published weights of 'wavlm-tiny': use pretrained: false, or name a file"),
        ({"arch": "wavlm"}, r"model\.arch: Input should be 'wavlm-base-plus', "),
        ({"speed": 0.0}, r"model\.speed: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _build(**params)


def test_mixed_precision() -> None:
    model, x = _build(train="all", speed=40.0).train(), torch.randn(2, 3, 2000)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@each_arch
def test_it_learns_the_frequency(arch: str) -> None:
    torch.manual_seed(0)
    label = torch.arange(12) % 3
    time_s, phase = torch.arange(1600) / 200, torch.rand(12, 1, 1) * 6.28
    x = torch.sin(6.28 * (2 + 4 * label)[:, None, None] * time_s + phase) + 0.3 * torch.randn(12, 1, 1600)
    model = _build(
        spec=InputSpec("wave", (1, 1600), 200.0),
        outputs=3,
        arch=arch,
        train="all",
        drop_rate=0.0,
        encoder_drop_rate=0.0,
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "chance is 1.1"
