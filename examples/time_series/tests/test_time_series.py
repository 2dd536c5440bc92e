"""The time-series modality: its contract, absent channels, masks, scales and a run."""

import json
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import default_collate

from jepa.encoder import VitSize
from jepa.launch import main
from jepa.loss import LossConfig, prediction_loss
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.predictor import PredictorConfig
from jepa.testing import check_modality
from jepa_time_series.activities import CHANNELS, ActivitiesConfig
from jepa_time_series.embedding import View, spectrum
from jepa_time_series.masks import within_channels
from jepa_time_series.modality import TimeSeries, TimeSeriesConfig

FEW = ActivitiesConfig(train=60, validation=24, test=24)
SMALL = VitSize(width=24, depth=2, heads=2)


@pytest.fixture(scope="module")
def modality() -> TimeSeries:
    return TimeSeries(TimeSeriesConfig(activities=FEW))


def batch(modality: TimeSeries, count: int = 24) -> tuple[Tensor, Tensor]:
    samples = modality.dataset("train")
    values, present = default_collate([modality.evaluation_view(samples[index].inputs) for index in range(count)])
    return values, present


def test_the_generated_recordings_pass_the_contract_check(modality: TimeSeries) -> None:
    check_modality(modality)


def test_values_in_absent_channels_change_neither_features_nor_loss(modality: TimeSeries) -> None:
    config = ModelConfig(size=SMALL, predictor=PredictorConfig(width=16, depth=2, heads=2), target_layers=0)
    torch.manual_seed(0)
    kinds = {"pixels": 1.0, "latent": 1.0, "jepa_time_series.embedding:spectra": 1.0}
    model = JEPA(config, modality, tuple(kinds))
    values, present = batch(modality)
    assert not present.all()
    assert present[:, :3].all()
    other = torch.where(present.unsqueeze(-1), values, torch.randn_like(values))
    masks = modality.sample_masks(len(values), Generator().manual_seed(0))

    def measured(inputs: View) -> tuple[Tensor, Tensor]:
        tokens, valid = model.context_encoder(inputs), model.context_encoder.valid(inputs)
        predictions = model([inputs], masks, tuple(kinds)).predictions
        return tokens[valid], prediction_loss(predictions, LossConfig(), kinds)

    for one, same in zip(measured((values, present)), measured((other, present)), strict=True):
        torch.testing.assert_close(one, same)


def test_a_stronger_movement_has_larger_spectra_but_nearly_equal_pixels(modality: TimeSeries) -> None:
    kinds = ("pixels", "jepa_time_series.embedding:spectra")
    model = JEPA(ModelConfig(size=SMALL, predictor=PredictorConfig(width=16, depth=1, heads=2)), modality, kinds)
    time = torch.arange(modality.length) / modality.config.rate
    values = torch.sin(2 * torch.pi * 4 * time).expand(1, len(CHANNELS), -1)
    present = torch.ones(1, len(CHANNELS), dtype=torch.bool)
    weak, strong = (tuple(model.targets((size * values, present), kind) for kind in kinds) for size in (1.0, 10.0))
    assert (strong[1].sum(dim=-1) > 1.2 * weak[1].sum(dim=-1)).all()
    torch.testing.assert_close(strong[0], weak[0], rtol=0, atol=0.15)


def test_absent_channels_give_the_same_tokens_as_dropping_them(modality: TimeSeries) -> None:
    config = ModelConfig(size=SMALL)
    encoder = modality.encoder(config)
    values, present = batch(modality)
    few = present.sum(dim=1) == 3
    keep = torch.arange(3 * modality.grid[1]).expand(int(few.sum()), -1)  # the tokens of the first three channels
    inputs = (values[few], present[few])
    torch.testing.assert_close(encoder(inputs)[:, : keep.shape[1]], encoder(inputs, keep))


def test_every_channel_has_context_and_target_tokens(modality: TimeSeries) -> None:
    for seed in range(20):
        for masks in modality.sample_masks(50, Generator().manual_seed(seed)):
            for tokens in (masks.context, masks.target.flatten(1)):
                channels = (tokens // modality.grid[1]).sort().values.unflatten(1, (modality.grid[0], -1))
                assert (channels == torch.arange(modality.grid[0]).unsqueeze(1)).all()


def test_every_segment_is_hidden_equally_often() -> None:
    masks = within_channels((3, 4), 4000, Generator().manual_seed(0), ratio=0.5)
    shares = masks.target.flatten().bincount(minlength=12) / 4000
    torch.testing.assert_close(shares, torch.full((12,), 0.5), atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="of 4 segments"):
        within_channels((3, 4), 1, Generator(), ratio=0.01)


def test_a_spectrum_is_independent_of_phase_and_peaks_at_the_frequency() -> None:
    time = torch.arange(32) / 32
    waves = torch.stack([torch.sin(2 * torch.pi * (5 * time + phase)) for phase in (0.0, 0.2, 0.7)])
    spectra = spectrum(waves)
    torch.testing.assert_close(spectra[0], spectra[1], atol=1e-3, rtol=1e-3)
    assert spectra.argmax(dim=1).tolist() == [5, 5, 5]
    assert spectrum(torch.zeros(2, 32)).abs().max() == 0


def test_measured_scales_bring_values_to_a_magnitude_of_one(modality: TimeSeries) -> None:
    assert modality.config.scales is not None
    assert set(modality.config.scales) == {"acc", "gyro", "mag", "pressure"}
    values, present = batch(modality, 60)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 9)):
        assert 0.6 < values[:, rows][present[:, rows]].square().mean().sqrt() < 1.6
    with pytest.raises(ValueError, match="scales has no 'gyro'"):
        TimeSeries(TimeSeriesConfig(scales={"acc": 1.0, "mag": 1.0, "pressure": 1.0}))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (TimeSeriesConfig(patch=7), "patch 7 does not divide the 192 samples"),
        (TimeSeriesConfig(source="folder"), r"needs data\.root"),
        (TimeSeriesConfig(channels=("acc_x",)), "channels acc_x, acc_y"),
        (TimeSeriesConfig(views=2, mask_sets=3), "mask_sets 3 .* 2 views"),
        (TimeSeriesConfig(seconds=1.0), "of 1 segments"),
    ],
)
def test_impossible_settings_are_errors(config: TimeSeriesConfig, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TimeSeries(config)


def test_pictures_have_a_row_per_channel_and_missing_channels_are_grey(modality: TimeSeries) -> None:
    values, present = batch(modality)
    one = int((~present).any(dim=1).nonzero()[0])
    picture = modality.picture((values[one], present[one]))
    assert picture is not None
    rows = picture.unflatten(0, (len(CHANNELS), -1))
    assert [bool((row == row[0, 0]).all()) for row in rows] == (~present[one]).tolist()


def test_a_run_trains_and_is_evaluated_and_reported(tmp_path: Path) -> None:
    settings = ["steps=6", "stages.0.until=0.5", "optim.batch_size=4", "compute.device=cpu"]
    settings += ["data.activities={train: 80, validation: 40, test: 40}", "evaluate.low_shot_draws=1"]
    settings += ["model.size={width: 24, depth: 2, heads: 2}"]
    name = "jepa_time_series.modality:TimeSeries"
    assert main(["--modality", name, "--run-dir", str(tmp_path / "run"), *settings]) == 0
    tasks = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]
    assert {"class/linear", "cadence/ridge"} <= tasks.keys()
    assert {"jepa", "random_init", "raw_input", "channel_statistics", "chance"} <= tasks["class/linear"].keys()
    assert (tmp_path / "run" / "report.html").exists()
    assert "jepa_time_series.embedding:spectra" in (tmp_path / "run" / "config.yaml").read_text()
