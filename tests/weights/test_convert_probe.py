"""Attentive probes as files of V-JEPA 2's authors, of transformers, and of ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from converted import VIDEO, assert_equal_features, assert_same, saved
from official_code import needs_official_code, official
from safetensors.torch import load_file
from tiny import randomise

import jepa
from jepa.probe.network import AttentiveProbe
from jepa.probe.saved import SavedProbe
from jepa.weights.convert import main as convert

CLASSES = ("falling", "rising", "still")


def probe_file(path: Path, blocks: int, normed: bool = False) -> Path:
    """A probe of random weights for the encoders of `saved`, which have 2 heads."""
    probe = AttentiveProbe(24, len(CLASSES), blocks, heads=2)
    randomise(probe)
    SavedProbe(dict(probe.state_dict()), 2, CLASSES, normed=normed).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("video", tmp_path_factory.mktemp("run") / "run", *VIDEO, "model.positions=rotary_vjepa2")


def test_a_probed_encoder_classifies_in_transformers(run: Path, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    file, folder, back = probe_file(tmp_path / "probe.pt", blocks=3), tmp_path / "hf", tmp_path / "back.pt"
    assert convert([str(run), str(folder), "--to", "hf", "--probe", str(file)]) == 0
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
    assert [theirs.config.id2label[number] for number in range(3)] == list(CLASSES)
    for module in theirs.pooler.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    probe, clips = SavedProbe.load(file), torch.randn(3, 3, 4, 16, 16)
    tokens = jepa.load(run)(clips)
    with torch.no_grad():
        assert_equal_features(theirs(clips.transpose(1, 2)).logits, probe.logits(tokens))
    assert convert([str(folder), str(back), "--to", "openjepa", "--only-probe"]) == 0
    found = SavedProbe.load(back)
    assert (found.classes, found.heads) == (CLASSES, 2)
    assert_same(found.weights, probe.weights)
    assert_equal_features(jepa.load(folder)(clips), tokens)  # the encoder below the probe
    again = tmp_path / "again-hf"
    assert convert([str(folder), str(again), "--to", "hf", "--probe", str(folder)]) == 0
    assert_same(load_file(again / "model.safetensors"), load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_probe_comes_back_from_an_official_file(blocks: int, tmp_path: Path) -> None:
    file = probe_file(tmp_path / "probe.pt", blocks)
    how = replace(SavedProbe.load(file), centre=100.0, scale=20.0, grid=(4, 4), averaged=(2, 2))
    how.save(file)
    there, back, again = (tmp_path / name for name in ("official.pt", "back.pt", "again.pt"))
    assert convert([str(file), str(there), "--to", "official"]) == 0
    assert convert([str(there), str(back), "--to", "openjepa"]) == 0
    assert_same(SavedProbe.load(back).weights, SavedProbe.load(file).weights)
    assert replace(SavedProbe.load(back), weights={}) == replace(how, weights={})
    assert convert([str(back), str(again), "--to", "official"]) == 0
    first, second = (torch.load(path, weights_only=True)["classifiers"] for path in (there, again))
    assert_same(first[0], second[0])


def test_heads_that_a_file_does_not_tell_are_a_guess_which_can_be_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, back = tmp_path / "official.pt", tmp_path / "back.pt"
    assert convert([str(probe_file(tmp_path / "probe.pt", 1)), str(there), "--to", "official"]) == 0
    content = torch.load(there, weights_only=True)
    torch.save({"classifiers": content["classifiers"]}, there)
    assert convert([str(there), str(back), "--to", "openjepa", "--heads", "4"]) == 0
    assert SavedProbe.load(back).heads == 4
    assert "guess" not in capsys.readouterr().err
    assert convert([str(there), str(tmp_path / "guessed.pt"), "--to", "openjepa"]) == 0
    assert "a guess from the width" in capsys.readouterr().err
    assert convert([str(there), str(tmp_path / "odd.pt"), "--to", "openjepa", "--heads", "5"]) == 1


@needs_official_code
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("checkout", "blocks"), [("vjepa2", 4), ("vjepa2", 1), ("jepa", 1)])
def test_the_official_classifier_gives_our_logits(checkout: str, blocks: int, tmp_path: Path) -> None:
    file, there = probe_file(tmp_path / "probe.pt", blocks), tmp_path / "official.pt"
    assert convert([str(file), str(there), "--to", "official"]) == 0
    with official(checkout) as load:
        pooler = load("src.models.attentive_pooler")
        theirs = pooler.AttentiveClassifier(embed_dim=24, num_heads=2, depth=blocks, num_classes=3).eval()
    content = torch.load(there, weights_only=True)
    state = content["classifier"] if checkout == "jepa" else content["classifiers"][0]
    theirs.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    tokens = torch.randn(2, 8, 24)
    with torch.no_grad():
        assert_equal_features(theirs(tokens), SavedProbe.load(file).logits(tokens))


@pytest.mark.parametrize("to", ["official", "hf"])
def test_a_probe_on_normed_tokens_is_refused(
    to: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = probe_file(tmp_path / "probe.pt", 2, normed=True), tmp_path / "out.pt"
    words = [str(file), str(out)] if to == "official" else [str(run), str(out), "--probe", str(file)]
    assert convert([*words, "--to", to]) == 1
    assert "evaluate.attentive_norm=false" in capsys.readouterr().err
    assert not out.exists()
