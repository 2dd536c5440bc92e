"""Names on the Hugging Face Hub and of timm lead to the files that they name, or to one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_hub import Hub, Repository, fake_hub
from weight_files import hf_ijepa, ijepa_file

import jepa
from jepa.checkpoint import CheckpointError
from jepa.weights.load import read_checkpoint
from jepa.weights.opened import open_source


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


def test_a_name_on_the_hub_is_downloaded_unless_a_path_has_it(hub: Hub, tmp_path: Path) -> None:
    classifier = hf_ijepa()
    classifier.ijepa.save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    hub.repositories["facebook/ijepa_tiny"] = Repository(branches={"main": files})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.ijepa(images).last_hidden_state
        torch.testing.assert_close(jepa.load("facebook/ijepa_tiny")(images), expected, rtol=1e-5, atol=1e-5)
    assert set(read_checkpoint("HF://facebook/ijepa_tiny").model) == set(read_checkpoint("facebook/ijepa_tiny").model)
    with pytest.raises(CheckpointError, match=r"no file or folder facebook/none; .* there is no such repository"):
        jepa.load("facebook/none")
    requests = len(hub.requests)
    for path in ("runs/none", "saved/none", "facebook/none.pt", "none"):
        with pytest.raises(CheckpointError, match=f"no checkpoint at {path}"):
            jepa.load(path)
    assert len(hub.requests) == requests


def test_names_of_timm_lead_to_the_files_of_the_authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    name = "timm:vit_huge_patch14_gap_224.in1k_ijepa"
    kept = tmp_path / "checkpoints" / "IN1K-vit.h.14-300e.pth.tar"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, progress: ijepa_file(Path(path)))
    assert set(read_checkpoint(name).model) == set(read_checkpoint(kept).model)
    for source in (name, f"{name}@{kept}"):
        opened = open_source(source)
        assert (opened.has_predictor, opened.family, opened.config.data.image_size) == (True, None, 64)
    with pytest.raises(CheckpointError, match=r"timm has no vit_mini\.in1k_ijepa; its I-JEPAs: vit_giant_patch16"):
        jepa.load("timm:vit_mini.in1k_ijepa")
