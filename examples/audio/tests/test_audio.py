"""The audio modality: its contract on both sources, its views and errors, and a run with its recipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa.evaluate.run import evaluate_run
from jepa.launch import main
from jepa.testing import check_modality
from jepa_audio.modality import Audio, AudioConfig
from jepa_audio.orchestra import Orchestra, OrchestraConfig

FEW = OrchestraConfig(train=120, validation=20, test=40)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_instruments_pass_the_contract_check() -> None:
    check_modality(Audio(AudioConfig(instruments=FEW)))


def test_a_folder_of_wav_files_at_another_rate_passes_the_contract_check() -> None:
    folder = Orchestra(FEW, "train", read=lambda path: torch.zeros(1)).folder
    check_modality(
        Audio(AudioConfig(source="folder", root=folder, sample_rate=22_050, clip_seconds=2.0, hop=245, patch=(16, 9)))
    )


def test_a_training_view_is_a_random_part_of_the_recording_with_a_random_gain() -> None:
    audio = Audio(AudioConfig(instruments=FEW, gain_db=6.0))
    whole = (audio.dataset("train")[0].inputs + 60) / 20
    starts, gains = set(), []
    for seed in range(300):
        view = audio.training_view(audio.dataset("train")[0].inputs, torch.Generator().manual_seed(seed))[0]
        offsets = [view - whole[:, start : start + 64] for start in range(whole.shape[1] - 63)]
        start = min(range(len(offsets)), key=lambda index: float(offsets[index].std()))
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
        ({"clip_seconds": 0.001}, "64 bands x 0 frames"),
        ({"window": 256}, "256 samples at 16000 Hz .* 64 bands"),
        ({"source": "folder"}, "source 'folder' needs data.root"),
        ({"root": Path("nowhere")}, "root nowhere does not exist"),
        ({"views": 2}, "masking: 1 .* 2 views"),
    ],
)
def test_impossible_settings_are_errors(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Audio(AudioConfig(**settings))


@pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning")  # of the forecast along a second axis
def test_the_recipe_trains_and_its_run_is_evaluated(tmp_path: Path) -> None:
    clips = [f"data.instruments.{split}={getattr(FEW, split)}" for split in ("train", "validation", "test")]
    settings = ["steps=10", "compute.device=cpu", "evaluate.enabled=false", "evaluate.report=false", *clips]
    assert main(["--modality", "jepa_audio.modality:Audio", "--run-dir", str(tmp_path / "run"), *settings]) == 0
    rows = evaluate_run(tmp_path / "run", tasks=["class/linear", "pitch", "onset"])["tasks"]
    assert rows.keys() == {"class/linear", "pitch/ridge", "onset/ridge"}
    assert all(rows["class/linear"][column] > 0.1 for column in ("jepa", "raw_input", "mean_spectrum"))  # chance is .1
