"""`jepa push` and `jepa card` on a real run, against a small hub on this machine."""

import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from fake_hub import TOKEN, Hub, Repository, fake_hub
from small_runs import save_untrained

import jepa
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.share import print_card, push
from jepa.share.card import write_card
from jepa.share.exports import Exports
from jepa.share.facts import Facts
from jepa.weights.load import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=.*:DeprecationWarning")  # of huggingface_hub's uploads
ROW = {"metric": "accuracy", "higher_is_better": True, "jepa": 0.61, "random_init": 0.42, "raw_input": 0.63}
ROW |= {"chance": 0.1, "train_samples": 100, "test_samples": 50, "spread": {"jepa": 0.02}, "caveats": ["few labels"]}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in a home directory, on pictures there, with results and figures of which one shows the pictures."""
    home = tmp_path / "home" / "charlotte"
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr("getpass.getuser", lambda: "charlotte")
    monkeypatch.setattr("socket.gethostname", lambda: "shuttle7.example.org")
    shutil.copytree(photos, home / "pictures of patients")
    small = "model.predictor={width: 24, depth: 1, heads: 2}"
    run_dir = save_untrained(home / "runs" / "first", home / "pictures of patients", small)
    (run_dir / "config.yaml").write_text("modality: image\n")
    results = {
        "modality": "image",
        "steps": 3,
        "encoder": "target_encoder",
        "tasks": {"class/linear": ROW},
        "sources": {str(run_dir): {"steps": 3}},
        "collapse": {"target_std": 0.01, "rankme": 2.5, "cosine": 0.5, "rankme_random_init": 9.0, "samples": 24},
        "notes": [f"1 file cannot be read; it is listed in {run_dir / 'bad_files.txt'}."],
    }
    (run_dir / "results.json").write_text(json.dumps(results))
    (run_dir / "figures").mkdir()
    for name in ("tasks", "features"):
        (run_dir / "figures" / f"{name}.png").write_bytes(b"picture")
    (run_dir / "figures" / "loss.png").symlink_to("/etc/hostname")
    return run_dir


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_is_pushed_can_be_loaded_and_tells_nothing_private(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push.main([str(run), "alice/owls", "--licence", "MIT", "--private"]) == 0
    repository = hub.repositories["alice/owls"]
    assert repository.private
    files = repository.branches["main"]
    assert sorted(files) == ["README.md", "config.json", "figures/tasks.png", "model.safetensors", "results.json"]
    for name, content in files.items():
        for secret in (b"charlotte", b"patients", b"shuttle7", TOKEN.encode(), str(run.parent.parent).encode()):
            assert secret not in content, name

    saved, found = Checkpoint.load(latest(run)), read_checkpoint("hf://alice/owls")
    assert same_bits(saved.model, found.model)
    assert found.optimizer == {}
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(jepa.load("hf://alice/owls")(pixels), jepa.load(run)(pixels))

    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["license"], header["library_name"], header["pipeline_tag"]) == (
        *("mit", "openjepa", "image-feature-extraction"),
    )
    for text in (
        'jepa.load("hf://alice/owls")',
        *("| optim.batch_size | `8` |", "- train: 24 images without classes", "class/linear", "0.610 ± 0.020"),
        *("**0.630**", "as good or better at class/linear", "few labels", "in only 2.5 dimensions"),
        *("step 3 of 10,000", "![tasks](figures/tasks.png)", "`path-not-shared`"),
    ):
        assert text in card, text

    assert push.main([str(run), "alice/owls", "--pictures", "--revision", "all"]) == 0  # the licence is said
    assert "licence: unknown" in capsys.readouterr().err
    assert sorted(repository.branches["main"]) == sorted(files)
    assert {"figures/features.png", "figures/tasks.png"} < set(repository.branches["all"])
    assert push.main([str(run), "alice/owls", "--revision", "all"]) == 0
    assert "figures/features.png" not in repository.branches["all"]
    assert same_bits(saved.model, read_checkpoint("hf://alice/owls@all").model)


def test_a_dry_run_sends_nothing_and_leaves_a_folder_that_loads(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for _ in range(2):
        assert push.main([str(run), "alice/owls", "--dry-run"]) == 0
    printed = capsys.readouterr().err
    assert "would be sent" in printed
    assert "model.safetensors" in printed
    assert not hub.requests
    assert same_bits(Checkpoint.load(latest(run)).model, read_checkpoint(run / "share").model)
    assert push.main([str(run), "alice/owls", "--dry-run", "--folder", str(run / "figures")]) == 1
    assert "is not a folder that jepa push wrote" in capsys.readouterr().err
    assert (run / "figures" / "tasks.png").exists()

    notes = run / "share" / "NOTES.md"
    notes.write_text("mine")
    assert push.main([str(run), "alice/owls", "--dry-run"]) == 1
    assert "share holds NOTES.md, which jepa push did not write" in capsys.readouterr().err
    monkeypatch.chdir(run)
    for folder in ("share", "share/inside", "../first"):  # the source, a folder in it, and one around it
        assert push.main(["share", "alice/share", "--dry-run", "--folder", folder]) == 1
        assert "would replace share, which is to be shared" in " ".join(capsys.readouterr().err.split())
    assert push.main(["share", "alice/share", "--dry-run"]) == 1
    assert notes.read_text() == "mine"
    notes.unlink()
    capsys.readouterr()

    assert print_card.main([str(run / "share"), "--name", "bob/owls"]) == 0
    card = capsys.readouterr().out
    assert "# bob/owls" in card
    assert "0.610 ± 0.020" in card
    assert "`jepa convert hf://bob/owls hf --to hf`" in card
    assert str(run) not in card
    assert print_card.main([str(run / "share"), "--name", "two owls"]) == 0
    assert "`jepa convert 'two owls' hf --to hf`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "token", "sentence"),
    [
        (["alice/owls"], "", "to push, log in with"),
        (["alice/owls"], "hf_wrong", "log in|no such repository|refuses"),
        (["bob/owls"], TOKEN, "refuses the token or its rights"),
        (["owls"], TOKEN, "'owls' is not of the form user/name"),
        (["alice/public", "--private"], TOKEN, "exists and is public; nothing was sent"),
    ],
)
def test_what_the_hub_does_not_take_is_said_in_a_sentence(
    arguments: list[str], token: str, sentence: str, run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    hub.repositories["alice/public"] = Repository()
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nothing")
    assert push.main([str(run), *arguments]) == 1
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("error: ")
    assert re.search(sentence, last), last
    assert not any("model.safetensors" in files for one in hub.repositories.values() for files in one.branches.values())


def test_what_cannot_be_loaded_from_the_hub_is_said_in_a_sentence(run: Path, hub: Hub) -> None:
    assert push.main([str(run), "alice/owls"]) == 0
    hub.repositories["alice/gated"] = Repository(gated=True)
    whole = hub.repositories["alice/owls"].branches["main"]
    broken = Repository(
        branches={"main": dict(whole)}, tampered={"model.safetensors": b"\0" * len(whole["model.safetensors"])}
    )
    hub.repositories["alice/broken"] = broken
    for source, sentence in {
        "hf://alice/none": "there is no such repository .* or it is private",
        "hf://alice/owls@v2": "no branch, tag or commit 'v2'",
        "hf://alice/gated": "access must be asked for",
        "hf://alice/broken": "is not the file that config.json describes",
        "hf://alice": "is not of the form hf://user/name",
        "hf://../../etc": "is not of the form hf://user/name",
    }.items():
        with pytest.raises(CheckpointError, match=sentence) as caught:
            jepa.load(source)
        assert "\n" not in str(caught.value)


def test_without_a_connection_an_earlier_download_is_used(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(monkeypatch, tmp_path / "cache"):
        assert push.main([str(run), "alice/owls"]) == 0
        expected = read_checkpoint("hf://alice/owls").model
    assert same_bits(expected, read_checkpoint("hf://alice/owls").model)
    with pytest.raises(CheckpointError, match="cannot be reached, and there is no earlier download"):
        jepa.load("hf://alice/eagles")
    assert push.main([str(run), "alice/owls"]) == 1


def test_a_strange_repository_executes_nothing_and_leads_to_no_other_file(run: Path, hub: Hub, tmp_path: Path) -> None:
    assert push.main([str(run), "alice/owls"]) == 0
    files = hub.repositories["alice/owls"].branches["main"]
    content = json.loads(files["config.json"])
    content["config"]["modality"] = "jepa_evil:Evil"
    code = f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n".encode()
    files |= {"config.json": json.dumps(content).encode(), "jepa_evil.py": code, "model.pt": b"x", "../up.json": b"{}"}
    with pytest.raises(CheckpointError, match=r"would import and call jepa_evil:Evil, .* pass trust=True"):
        jepa.load("hf://alice/owls")
    assert not (tmp_path / "executed").exists()
    cached = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink()}
    assert cached == {"config.json", "model.safetensors", "results.json"}


def test_an_export_for_other_libraries_is_part_of_a_push(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModel

    assert push.main([str(run), "alice/owls", *("--with", "hf", "--with", "timm")]) == 0
    files = hub.repositories["alice/owls"].branches["main"]
    card = files["README.md"].decode()
    assert {"hf/config.json", "hf/model.safetensors", "timm/model.safetensors"} < set(files)
    assert not any(b"charlotte" in content for content in files.values())
    assert 'transformers.AutoModel.from_pretrained("alice/owls", subfolder="hf")' in card
    folder = huggingface_hub.snapshot_download("alice/owls", endpoint=hub.address)  # HF_ENDPOINT is read on import
    model = AutoModel.from_pretrained(folder, subfolder="hf")
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(pixels).last_hidden_state, jepa.load("hf://alice/owls")(pixels), rtol=0, atol=1e-5)

    (code,) = [block for block in card.split("```python\n") if "timm.create_model" in block]
    names: dict[str, Any] = {}
    here = partial(huggingface_hub.hf_hub_download, endpoint=hub.address)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", here)
    exec(code.partition("```")[0], names)
    expected = jepa.load("hf://alice/owls")(pixels)
    torch.testing.assert_close(names["model"].forward_features(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        ("latent", "predicts the representation"),
        ("pixels", "predicts raw values"),
        ("views", "several"),
        ("tides.targets:spectra", "predicts the values of `tides.targets:spectra` of hidden parts."),
        ({"tides.targets:spectra": 1.0, "latent": 0.5}, "the values of `tides.targets:spectra` and the representation"),
    ],
)
def test_a_card_says_what_the_last_stage_learned(predict: str | dict[str, float], words: str) -> None:
    stages = [{"until": 0.5, "predict": {"latent": 1.0, "pixels": 1.0}}, {"predict": predict}]
    checkpoint = Checkpoint(1, 1.0, {"modality": "image", "data": {}, "stages": stages}, {}, {})
    card = write_card(Facts("tiny", checkpoint, (), False), "mit", "tiny", Exports())
    assert words in card
    assert ("(JEPA)" in card) == (predict == "latent")
