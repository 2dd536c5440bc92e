"""The modality keeps the contract, and a run trains and is evaluated."""

import json
from pathlib import Path

from jepa_template_name.modality import TemplateName, TemplateNameConfig

from jepa.launch import main
from jepa.testing import check_modality


def test_the_modality_keeps_the_contract() -> None:
    check_modality(TemplateName(TemplateNameConfig(samples=40)))


def test_a_run_trains_and_is_evaluated(tmp_path: Path) -> None:
    settings = ["steps=10", "data.samples=80", "compute.device=cpu", "evaluate.low_shot_draws=1"]
    run_dir = tmp_path / "run"
    assert main(["--modality", "jepa_template_name.modality:TemplateName", "--run-dir", str(run_dir), *settings]) == 0
    assert "shape/linear" in json.loads((run_dir / "results.json").read_text())["tasks"]
