"""What must stay from version to version: names that users import, commands, plug-ins of contract 1, and old runs."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import Noise, NoiseConfig

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.encoder import Encoder, EncoderConfig, VitSize, patch_embedding
from jepa.evaluate.run import evaluate_run
from jepa.masking import Masks
from jepa.positions import grid_positions
from jepa.predictor import PredictorConfig
from jepa.testing import check_modality

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = {
    "jepa": ["embed", "load", "load_modality"],
    "jepa.data": ["seeded"],
    "jepa.encoder": [
        *("Encoder", "EncoderConfig", "PatchEmbedding", "TokenEncoder", "VitSize", "patch_embedding", "take")
    ],
    "jepa.evaluate.run": ["evaluate_run"],
    "jepa.evaluate.splits": ["Examples", "Splits"],
    "jepa.launch": ["main", "resolve"],
    "jepa.loss": ["LossConfig", "prediction_loss"],
    "jepa.masking": [
        *("BlockMaskConfig", "CausalMaskConfig", "FunctionMaskConfig", "MaskingConfig", "Masks", "RandomMaskConfig"),
        *("RandomTubeMaskConfig", "Strategy", "TubeMaskConfig", "check_masking", "flaw_of", "place_blocks"),
        *("random_tokens", "sample_masks", "token_indices"),
    ],
    "jepa.matching": ["MatchedModality"],
    "jepa.modality": [
        *("CONTRACT", "BadSampleError", "DataConfig", "Modality", "Sample", "Samples", "Split", "Stream", "Task")
    ],
    "jepa.model": ["JEPA", "Pair", "Prediction"],
    "jepa.model_config": ["Contrast", "ModelConfig", "NetworksConfig"],
    "jepa.positions": ["Grid", "grid_positions"],
    "jepa.predictor": ["Predictor", "PredictorConfig", "PredictorTask"],
    "jepa.testing": ["ContractError", "check_modality"],
    "jepa.transformer": ["Block"],
}
COMMANDS = [
    *("launch", "evaluate", "report", "export", "modalities", "new-modality", "jobs", "logs", "cancel", "sweep-report")
]


def photos(folder: Path) -> None:
    """The pictures that the run of the fixture was trained on: noise in two shades."""
    generator = torch.Generator().manual_seed(0)
    for split, count in {"train": 24, "validation": 8, "test": 8}.items():
        for number in range(count):
            path = folder / split / ("dark", "light")[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = torch.randint(128, (24, 24, 3), dtype=torch.uint8, generator=generator) + 128 * (number % 2)
            Image.fromarray(noise.to(torch.uint8).numpy()).save(path)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_names_that_plug_ins_docs_and_examples_import_stay(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_stay(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa.__main__ import main

    monkeypatch.setattr("sys.argv", ["jepa", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"jepa {command}" in capsys.readouterr().out


def test_modules_that_are_run_by_name_stay() -> None:
    for module in ("jepa", "jepa.launch", "jepa.evaluate", "jepa.report.page"):
        assert importlib.util.find_spec(module) is not None


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of tests/fixtures/contract_1, written before the code was sorted into packages and never edited since."""
    monkeypatch.syspath_prepend(str(FIXTURES / "contract_1"))


@pytest.mark.parametrize("name", ["old_tides:Tides", "old_padded:PaddedTides", "old_pairs:Pairs"])
def test_plug_ins_written_for_contract_1_pass_the_check_unchanged(name: str, plug_ins: None) -> None:
    module, _, class_name = name.partition(":")
    modality_type = getattr(importlib.import_module(module), class_name)
    networks = (
        modality_type.model_type(predictor=PredictorConfig(width=16, depth=1, heads=2)) if "Pairs" in name else None
    )
    check_modality(modality_type(modality_type.config_type()), networks)


def test_a_plug_in_of_two_streams_written_for_contract_1_trains_and_is_evaluated(
    plug_ins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = importlib.import_module("old_pairs").Pairs
    encoder = pairs.encoder

    def reads_a_value(self: Any, config: Any) -> Any:
        float(torch.linspace(0, 0.1, 2)[1])  # as encoders of timm do while they are built
        return encoder(self, config)

    monkeypatch.setattr(pairs, "encoder", reads_a_value)
    command = ["--modality", "old_pairs:Pairs", "--run-dir", "run", "steps=3", "optim.batch_size=8"]
    assert launch.main([*command, "model.predictor={width: 16, depth: 1, heads: 2}"]) == 0
    tasks = json.loads(Path("run/results.json").read_text())["tasks"]
    assert {"sign/linear", "retrieval/cells_to_<told>"} & set(tasks)


def test_a_run_from_before_the_packages_resumes_evaluates_and_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"))
    run_dir = Path("stopped")
    shutil.copytree(FIXTURES / "run_before_packages", run_dir)
    expected = json.loads((run_dir / "expected.json").read_text())
    assert Checkpoint.load(latest(run_dir)).step == 3
    evaluate_run(run_dir)
    assert sorted(json.loads((run_dir / "results.json").read_text())["tasks"]) == expected["tasks"]

    config = ["--modality", "image", "--config", str(run_dir / "config.yaml")]
    assert launch.main([*config, "evaluate.enabled=false"]) == 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    for key in ("loss", "gradient_norm"):
        # The run was made on another machine, which rounds in its own way.
        assert [line[key] for line in lines] == pytest.approx(expected[key], rel=1e-4), key

    encoder = importlib.import_module("jepa").load(run_dir)
    view = importlib.import_module("jepa").load_modality(run_dir).evaluation_view
    assert encoder(view(torch.zeros(3, 24, 24, dtype=torch.uint8)).unsqueeze(0)).shape == (1, 16, 12)


def test_former_names_and_signatures_of_encoders_and_baselines_still_work() -> None:
    values, keep = torch.randn(2, 24), torch.tensor([[0, 2], [1, 3]])
    every = torch.ones(2, 6, dtype=torch.bool)

    def build(encoder_type: type[Encoder]) -> Any:
        embedding = patch_embedding("b (n p) -> b n p", 4, 16, p=4)
        return encoder_type(embedding, grid_positions((6,)), EncoderConfig(size=VitSize(width=16, depth=1, heads=2)))

    plain = build(Encoder)
    expected = plain(values, Masks.of_context(keep))
    for tokens in (plain(values, keep, ()), plain(values, keep=keep), plain.layers(values, keep, ())[-1]):
        assert torch.equal(tokens, expected)
    assert torch.equal(plain.pool(expected, (), every[:, :2])["tokens"], expected.mean(dim=1))

    class Mixin:
        def present(self, inputs: Any) -> torch.Tensor:
            return ~every

    class Former(Mixin, Encoder):
        def outputs(self, inputs: Any, keep: Any = None, parts: Any = ()) -> list[torch.Tensor]:
            return super().outputs(inputs, keep, parts)  # type: ignore[call-arg]

        def contexts(self, inputs: Any, masks: Any) -> list[torch.Tensor]:
            return [self(inputs, one.context, one.parts) for one in masks]

    former = build(Former)
    assert not former.valid(values).any()
    assert former.contexts(values, [Masks(keep, keep.unsqueeze(1), (), 0)])[0].shape == (2, 2, 16)
    assert list(former.units()) == list(former.blocks)

    class Named(Noise):
        def floors(self, view: Any) -> Any:
            return {**super().floors(view), "mean": view.mean().reshape(1)}

    assert set(Named(NoiseConfig()).baselines(torch.zeros(2, 8, 12))) == {"raw_input", "mean"}
