"""The modality as a whole: its contract, what is absent, masks, floors, and a run."""

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


def test_the_contract_is_kept(modality: TimeSeries) -> None:
    check_modality(modality)


def test_what_stands_in_absent_channels_changes_neither_features_nor_loss(modality: TimeSeries) -> None:
    config = ModelConfig(size=SMALL, predictor=PredictorConfig(width=16, depth=2, heads=2), target_layers=0)
    torch.manual_seed(0)
    model = JEPA(config, modality, ("pixels", "latent"))
    values, present = batch(modality)
    assert not present.all()
    assert present[:, :3].all()
    other = torch.where(present.unsqueeze(-1), values, torch.randn_like(values))
    masks = modality.sample_masks(len(values), Generator().manual_seed(0))

    def measured(inputs: View) -> tuple[Tensor, Tensor]:
        tokens, there = model.context_encoder(inputs), model.context_encoder.present(inputs)
        predictions = model([inputs], masks, ("pixels", "latent"))
        return tokens[there], prediction_loss(predictions, LossConfig(), {"pixels": 1.0, "latent": 1.0})

    for one, same in zip(measured((values, present)), measured((other, present)), strict=True):
        torch.testing.assert_close(one, same)


def test_a_device_without_the_other_channels_gets_what_it_would_if_there_were_none(modality: TimeSeries) -> None:
    config = ModelConfig(size=SMALL)
    encoder = modality.encoder(config)
    values, present = batch(modality)
    mine = present.sum(dim=1) == 3
    kept = torch.arange(3 * modality.grid[1]).expand(int(mine.sum()), -1)  # the tokens of the first three channels
    inputs = (values[mine], present[mine])
    torch.testing.assert_close(encoder(inputs)[:, : kept.shape[1]], encoder(inputs, kept))


def test_whatever_channels_a_device_has_some_of_each_is_context_and_some_target(modality: TimeSeries) -> None:
    for seed in range(20):
        for masks in modality.sample_masks(50, Generator().manual_seed(seed)):
            for tokens in (masks.context, masks.target.flatten(1)):
                channels = (tokens // modality.grid[1]).sort().values.unflatten(1, (modality.grid[0], -1))
                assert (channels == torch.arange(modality.grid[0]).unsqueeze(1)).all()


def test_every_stretch_is_hidden_as_often_as_any_other() -> None:
    masks = within_channels((3, 4), 4000, Generator().manual_seed(0), ratio=0.5)
    shares = masks.target.flatten().bincount(minlength=12) / 4000
    torch.testing.assert_close(shares, torch.full((12,), 0.5), atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="of 4 stretches leaves a channel without"):
        within_channels((3, 4), 1, Generator(), ratio=0.01)


def test_a_spectrum_knows_no_phase_and_finds_a_frequency() -> None:
    time = torch.arange(32) / 32
    waves = torch.stack([torch.sin(2 * torch.pi * (5 * time + phase)) for phase in (0.0, 0.2, 0.7)])
    spectra = spectrum(waves)
    torch.testing.assert_close(spectra[0], spectra[1], atol=1e-3, rtol=1e-3)
    assert spectra.argmax(dim=1).tolist() == [5, 5, 5]
    assert spectrum(torch.zeros(2, 32)).abs().max() == 0


def test_scales_are_measured_once_and_make_values_of_the_size_of_one(modality: TimeSeries) -> None:
    assert modality.config.scales is not None
    assert set(modality.config.scales) == {"acc", "gyro", "mag", "pressure"}
    values, present = batch(modality, 60)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 9)):
        assert 0.6 < values[:, rows][present[:, rows]].square().mean().sqrt() < 1.6
    with pytest.raises(ValueError, match="scales names no 'gyro'"):
        TimeSeries(TimeSeriesConfig(scales={"acc": 1.0, "mag": 1.0, "pressure": 1.0}))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (TimeSeriesConfig(patch=7), "patch 7 does not divide the 192 samples"),
        (TimeSeriesConfig(source="folder"), r"needs data\.root"),
        (TimeSeriesConfig(source="ftp"), "there are activities and folder"),
        (TimeSeriesConfig(channels=("acc_x",)), "has the channels acc_x, acc_y"),
        (TimeSeriesConfig(views=2, mask_sets=3), "do not divide among 2 views"),
        (TimeSeriesConfig(seconds=1.0), "of 1 stretches leaves a channel without"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(config: TimeSeriesConfig, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TimeSeries(config)


def test_pictures_have_a_row_for_each_channel_grey_where_there_is_none(modality: TimeSeries) -> None:
    values, present = batch(modality)
    one = int((~present).any(dim=1).nonzero()[0])
    picture = modality.picture((values[one], present[one]))
    assert picture is not None
    rows = picture.unflatten(0, (len(CHANNELS), -1))
    assert [bool((row == row[0, 0]).all()) for row in rows] == (~present[one]).tolist()


def test_a_run_learns_is_measured_and_reported(tmp_path: Path) -> None:
    settings = ["steps=6", "curriculum.latent_from=0.5", "optim.batch_size=4", "compute.device=cpu"]
    settings += ["data.activities={train: 80, validation: 40, test: 40}", "evaluate.low_shot_draws=1"]
    settings += ["model.size={width: 24, depth: 2, heads: 2}"]
    name = "jepa_time_series.modality:TimeSeries"
    assert main(["--modality", name, "--run-dir", str(tmp_path / "run"), *settings]) == 0
    tasks = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]
    assert {"class/linear", "cadence/ridge"} <= tasks.keys()
    assert {"jepa", "random_init", "raw_input", "channel_statistics", "chance"} <= tasks["class/linear"].keys()
    assert (tmp_path / "run" / "report.html").exists()
