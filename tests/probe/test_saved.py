"""An evaluation can keep its attentive probes, for use on the tokens of the encoder."""

from pathlib import Path

import pytest
import torch
from pictures import write_class_images
from small_runs import save_untrained

import jepa
from jepa.checkpoint import CheckpointError
from jepa.evaluate.run import evaluate_run
from jepa.probe.saved import SavedProbe


@pytest.mark.parametrize(("normed", "limit"), [(True, 16), (False, 4)])
def test_a_kept_probe_scores_as_the_evaluation_did(normed: bool, limit: int, tmp_path: Path) -> None:
    write_class_images(tmp_path / "data", {"train": 12, "val": 6, "test": 6})
    run = save_untrained(tmp_path / "run", tmp_path / "data")
    settings = ["evaluate.attentive=[1,2]", "evaluate.attentive_steps=8", "evaluate.keep_probes=true"]
    settings += [
        f"evaluate.attentive_norm={str(normed).lower()}",
        "compute.precision=fp32",
        f"evaluate.attentive_tokens={limit}",
    ]
    results = evaluate_run(run, tasks=["class/attentive", "class/attentive2"], layers=settings)
    encoder, modality = jepa.load(run), jepa.load_modality(run)
    samples = [modality.dataset("test")[index] for index in range(6)]
    tokens = encoder(torch.stack([modality.evaluation_view(sample.inputs) for sample in samples]))
    labels = torch.tensor([sample.labels["class"] for sample in samples])
    for blocks, row in ((1, "class/attentive"), (2, "class/attentive2")):
        probe = SavedProbe.load(run / "evaluations" / "probes" / f"class_attentive{blocks}.pt")
        assert probe.classes == tuple(modality.tasks[0].classes)
        assert probe.normed == (normed and blocks == 2)
        assert (probe.grid, probe.averaged) == ((4, 4), (4, 4) if limit == 16 else (2, 2))
        score = (probe.logits(tokens).argmax(dim=1) == labels).float().mean().item()
        assert score == pytest.approx(results["tasks"][row]["jepa"])


def test_other_files_are_no_probes(tmp_path: Path) -> None:
    torch.save({"format": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt is no attentive probe of this framework"):
        SavedProbe.load(tmp_path / "other.pt")
