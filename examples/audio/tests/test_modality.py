"""The modality keeps the contract on both of its sources, and its recipe trains and is measured."""

import json
from pathlib import Path

import pytest
import torch
from jepa_audio.modality import Audio, AudioConfig
from jepa_audio.orchestra import Orchestra, OrchestraConfig

from jepa.launch import main
from jepa.testing import check_modality

FEW = OrchestraConfig(train=120, validation=20, test=40)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def test_the_contract_is_kept_by_the_instruments() -> None:
    check_modality(Audio(AudioConfig(instruments=FEW)))


def test_the_contract_is_kept_by_a_folder_of_one_s_own_at_another_rate() -> None:
    folder = Orchestra(FEW, "train", read=lambda path: torch.zeros(1)).folder
    check_modality(
        Audio(AudioConfig(source="folder", root=folder, sample_rate=22_050, clip_seconds=2.0, hop=245, patch=(16, 9)))
    )


def test_a_training_view_is_a_part_of_the_recording_louder_or_softer() -> None:
    audio = Audio(AudioConfig(instruments=FEW, gain_db=6.0))
    whole = (audio.dataset("train")[0].inputs + 60) / 20
    starts, gains = set(), []
    for seed in range(300):
        view = audio.training_view(audio.dataset("train")[0].inputs, torch.Generator().manual_seed(seed))[0]
        offsets = [view - whole[:, start : start + 64] for start in range(whole.shape[1] - 63)]
        start = min(range(len(offsets)), key=lambda place: float(offsets[place].std()))
        assert float(offsets[start].std()) < 1e-4
        starts.add(start)
        gains.append(20 * float(offsets[start].mean()))
    assert starts == set(range(whole.shape[1] - 63))
    assert -6 <= min(gains) < -5.5
    assert 5.5 < max(gains) <= 6


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bands": 60}, "patch 8 x 8 does not divide 60 bands x 64 frames"),
        ({"clip_seconds": 0.001}, "does not divide 64 bands x 0 frames"),
        ({"source": "folder"}, "goes with data.source=folder"),
        ({"root": Path()}, "goes with data.source=folder"),
        ({"views": 2}, "1 sets do not divide among 2 views"),
    ],
)
def test_what_cannot_work_is_told(settings: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Audio(AudioConfig(**settings))


@pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning")  # of the forecast along a second axis
def test_the_recipe_trains_and_is_measured(tmp_path: Path) -> None:
    settings = ["steps=3", "compute.device=cpu", "evaluate.low_shot_draws=1", "evaluate.forecast_samples=8"]
    clips = [f"data.instruments.{split}={getattr(FEW, split)}" for split in ("train", "validation", "test")]
    run_dir = tmp_path / "run"
    assert main(["--modality", "jepa_audio.modality:Audio", "--run-dir", str(run_dir), *settings, *clips]) == 0
    results = json.loads((run_dir / "results.json").read_text())
    assert {"class/linear", "pitch/ridge", "onset/ridge"} <= results["tasks"].keys()
    assert results["tasks"]["class/linear"]["mean_spectrum"] > 0.1
