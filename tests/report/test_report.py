"""The report of a run: one file that opens offline and shows what was measured."""

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from moving import MODEL as MOVING_MODEL, Moving, MovingConfig
from pages import Page
from pictures import write_class_images
from PIL import Image
from tiny import MODEL, Noise, NoiseConfig

from jepa.checkpoint import Checkpoint, latest
from jepa.distributed import join
from jepa.evaluate.forecast import Forecaster, cut_grid
from jepa.evaluate.run import evaluate_run
from jepa.evaluate.table import columns
from jepa.launch import resolve
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.report.charts import smooth, task_chart, to_svg
from jepa.report.galleries import as_colours, error_gallery, gallery_samples, neighbours
from jepa.report.overlays import upsample, with_context, with_heat, with_targets
from jepa.report.page import main, write_report
from jepa.train import train
from jepa.training.config import Config

RESULTS: dict[str, Any] = {
    "steps": 3,
    "collapse": {"target_std": 0.01, "rankme": 12.0, "cosine": 0.5},
    "notes": ["depth is <not> measured"],
    "tasks": {
        "class/linear": {"metric": "accuracy", "higher_is_better": True, "jepa": 0.6125, "random_init": 0.352}
        | {"raw_input": 0.281, "chance": 0.103, "train_samples": 5000, "test_samples": 1000},
        "class/low_shot_12": {"metric": "accuracy", "higher_is_better": True, "jepa": 0.31, "random_init": 0.34}
        | {"raw_input": None, "chance": 0.1, "train_samples": 120, "test_samples": 1000, "spread": {"jepa": 0.021}},
        "class/knn": {"metric": "accuracy", "higher_is_better": True, "jepa": 0.444, "random_init": 0.444}
        | {"raw_input": 0.2, "chance": 0.1, "train_samples": 5000, "test_samples": 1000},
        "count/ridge": {"metric": "rmse", "higher_is_better": False, "jepa": 0.987, "random_init": 1.23}
        | {"raw_input": 1.34, "chance": 1.56, "train_samples": 5000, "test_samples": 1000},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps on pictures of two classes, one of them broken; the name of the run directory holds HTML."""
    counts = {"train": 8, "validation": 12, "test": 2}
    folder = write_class_images(tmp_path_factory.mktemp("data"), counts, ("dark", "light"), side=32)
    run_dir = tmp_path_factory.mktemp("runs") / "a <b>bold run"
    train(*_resolved(folder, run_dir), join("cpu"))
    (folder / "validation" / "dark" / "0.png").write_text("no picture")
    return run_dir


def _resolved(root: Path, run_dir: Path) -> tuple[Config[Any, Any], Modality[Any]]:
    overrides = [
        f"run_dir={run_dir}", "steps=3", "log_every=1", "compute.workers=0", "optim.batch_size=8",
        "data.source=folder", f"data.root={root}", "data.image_size=32", "data.patch_size=4",
        "data.max_bad_fraction=0.5", "model.size={width: 32, depth: 2, heads: 2}",
        "model.predictor={width: 16, depth: 1, heads: 2}",
    ]  # fmt: skip
    return resolve("image", {}, overrides)


@pytest.fixture(scope="module")
def unevaluated(trained: Path) -> Path:
    """A report without results.json."""
    return write_report(trained).rename(trained / "unevaluated.html")


@pytest.fixture(scope="module")
def evaluated(unevaluated: Path) -> Path:
    """A report with results.json."""
    (unevaluated.parent / "results.json").write_text(json.dumps(RESULTS))
    return write_report(unevaluated.parent)


def test_the_report_is_one_well_formed_file_without_outside_references(evaluated: Path) -> None:
    page = Page(evaluated)
    references = page.values("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    styles = " ".join(page.values("style", "clip-path", "fill", "mask")) + page.text
    assert "@import" not in styles
    assert all(part.lstrip("\"'").startswith(("#", "data:")) for part in styles.split("url(")[1:])
    assert "script" not in {tag for tag, _ in page.elements}


def test_every_picture_and_chart_has_a_text_alternative(evaluated: Path) -> None:
    page = Page(evaluated)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    charts = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(images) == 6 * 3 + 6 * 3 + 6 * (1 + 5 + 5)
    assert len(charts) == 1 + 7
    assert all(image["alt"] for image in images)
    assert all(chart["aria-label"] for chart in charts)


def test_results_are_shown_with_the_best_of_each_row_in_bold(evaluated: Path) -> None:
    text = Page(evaluated).text
    for number in ("61.3 %", "35.2 %", "28.1 %", "10.3 %", "± 2.1 %", "0.987", "1.23", "1.34", "1.56", "5,000", "120"):
        assert number in text
    assert "It reaches 61.3 % accuracy (class, linear probe) against 35.2 % untrained, 28.1 % raw input" in text
    assert "beats all baselines on 2 of 4 tasks" in text
    best = [part.split("</td>")[0] for part in evaluated.read_text().split("<td class=best>")[1:]]
    assert best == ["61.3 %", "34.0 %", "44.4 %", "44.4 %", "0.987"]


def test_problems_of_a_run_are_shown_in_boxes(unevaluated: Path, evaluated: Path) -> None:
    assert "Not evaluated" in Page(unevaluated).text
    text = Page(evaluated).text
    assert "Not evaluated" not in text
    assert "Signs of collapse: " in text
    assert "0.010" in text
    assert "depth is <not> measured" in text


def test_an_encoder_that_ties_with_a_baseline_is_reported(evaluated: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(evaluated.parent, tmp_path / "run"))
    tied = {**RESULTS, "tasks": {"class/knn": RESULTS["tasks"]["class/knn"]}}
    (run_dir / "results.json").write_text(json.dumps(tied))
    text = Page(write_report(run_dir)).text
    assert "class, nearest neighbours: untrained 44.4 %, trained 44.4 %" in text
    assert "beats all baselines on 0 of 1 tasks" in text


def test_names_given_by_the_user_are_escaped(evaluated: Path) -> None:
    assert "a <b>bold run" in Page(evaluated).text
    assert "<b>" not in evaluated.read_text()


def test_names_of_tasks_with_dollar_signs_and_control_characters_are_drawn_as_they_are() -> None:
    row = {"metric": "accuracy", "higher_is_better": True, "jepa": 0.5, "untrained": 0.3, "chance": 0.1}
    assert r"$\no\x1b$, nearest neighbours" in to_svg(task_chart({"$\\no\x1b$/knn": row}), "tasks")


def test_samples_that_cannot_be_read_are_left_out(evaluated: Path) -> None:
    assert "of 11 pictures" in Page(evaluated).text  # one of 12 is broken


def test_a_modality_without_pictures_has_no_galleries() -> None:
    modality = Noise(NoiseConfig())
    samples = gallery_samples(modality, modality.dataset("test"), {"trained": modality.encoder(MODEL)}, 4)
    assert samples.pictures == []


def test_figures_are_files_and_writing_the_report_again_changes_nothing(evaluated: Path) -> None:
    before = evaluated.read_text()
    names = {path.stem for path in (evaluated.parent / "figures").glob("*.png")}
    assert {"tasks", "loss", "rankme", "masks", "features", "neighbours"} <= names
    assert main([str(evaluated.parent)]) == 0
    assert evaluated.read_text() == before
    assert not list(evaluated.parent.glob("*.partial"))


def test_a_run_without_data_or_metrics_still_gets_a_report(evaluated: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(evaluated.parent, tmp_path / "run"))
    checkpoint = Checkpoint.load(latest(run_dir))
    data = {**checkpoint.config["data"], "root": str(tmp_path / "moved")}
    replace(checkpoint, config={**checkpoint.config, "data": data}).save(latest(run_dir))
    (run_dir / "metrics.jsonl").unlink()
    page = Page(write_report(run_dir))
    assert "There are no pictures: data:" in page.text
    assert "61.3 %" in page.text


def test_a_directory_without_a_checkpoint_is_an_error_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err


def test_neighbours_equal_a_loop_over_cosines() -> None:
    pooled = torch.randn(9, 5)
    centred = pooled - pooled.mean(dim=0)
    for query, found in enumerate(neighbours(pooled).tolist()):
        cosines = {other: float(torch.cosine_similarity(centred[query], centred[other], dim=0)) for other in range(9)}
        cosines.pop(query)
        assert found == sorted(cosines, key=lambda other: -cosines[other])[:5]


def test_colours_are_principal_components_of_either_sign() -> None:
    tokens = torch.randn(6, 10, 12) * torch.linspace(3, 0.1, 12)
    first = (tokens - tokens.mean(dim=1, keepdim=True)).flatten(0, 1).double()
    component = torch.pca_lowrank(first, 3, niter=20)[2][:, 0]
    red = as_colours(tokens)[..., 0].flatten().double()
    assert torch.corrcoef(torch.stack([red, first @ component]))[0, 1].abs() > 0.98
    assert (as_colours(tokens @ -torch.eye(12)).int() - 255 + as_colours(tokens).int()).abs().max() <= 1


def test_tokens_that_a_sample_lacks_are_grey_and_decide_no_colour() -> None:
    tokens = torch.randn(6, 10, 12) * torch.linspace(3, 0.1, 12)
    longer = torch.cat([tokens, torch.full((6, 4, 12), torch.nan)], dim=1)
    colours = as_colours(longer)
    assert (colours[:, :10].int() - as_colours(tokens).int()).abs().max() <= 1
    assert (colours[:, 10:] == 128).all()


def test_overlays_leave_context_and_mark_targets() -> None:
    picture = torch.randint(256, (12, 18, 3), dtype=torch.uint8)
    cells = torch.zeros(2, 3, dtype=torch.bool)
    cells[1, 2] = True
    hidden = torch.ones(12, 18, dtype=torch.bool)
    hidden[6:, 12:] = False
    assert torch.equal(with_context(picture, cells)[6:, 12:], picture[6:, 12:])
    assert not torch.equal(with_context(picture, cells)[hidden], picture[hidden])
    blank = with_targets(picture, [torch.zeros_like(cells)])
    assert torch.equal(with_targets(picture, [cells])[hidden], blank[hidden])
    assert not torch.equal(with_targets(picture, [cells])[~hidden], blank[~hidden])


def test_a_smoothed_constant_is_that_constant() -> None:
    assert smooth([2.0] * 50) == pytest.approx([2.0] * 50)


def test_smoothing_does_not_lag() -> None:
    assert smooth([0.1 * step for step in range(99)]) == pytest.approx([0.1 * step for step in range(99)])


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a short run on moving dots, evaluated; one sample cannot be decoded."""
    run_dir = tmp_path_factory.mktemp("runs") / "moving"
    settings = (
        f"run_dir={run_dir}", "steps=2", "compute.workers=0", "compute.precision=fp32", "optim.batch_size=8",
        "model.size={width: 32, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}",
        "evaluate.attentive=[]", "evaluate.low_shot_draws=1", "data.samples=30", "data.bad=[1]",
    )  # fmt: skip
    train(*resolve("moving:Moving", {}, settings), join("cpu"))
    evaluate_run(run_dir)
    return write_report(run_dir)


def test_moving_pictures_are_embedded_with_a_still_one_for_reduced_motion(moving: Path) -> None:
    page = Page(moving)
    references = page.values("src", "href", "xlink:href", "srcset")
    assert all(reference.startswith(("data:", "#")) for reference in references)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    stills = [attributes for tag, attributes in page.elements if tag == "source"]
    assert len(images) == len(stills) == 6 * 3 + 6 * 3 + 6 * 4 + 6 * (1 + 5 + 5)
    for image, still in zip(images, stills, strict=True):
        assert image["alt"]
        assert still["media"] == "(prefers-reduced-motion: reduce)"
        frames = _decoded(image["src"]).n_frames  # type: ignore[attr-defined]
        assert frames == 8 if (image["alt"] or "").startswith("input") else 2 <= frames <= 8  # equal frames are merged
        assert getattr(_decoded(still["srcset"]), "n_frames", 1) == 1
    assert moving.stat().st_size < 2e6
    before = moving.read_text()
    assert write_report(moving.parent).read_text() == before


def _decoded(uri: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode((uri or "").partition("base64,")[2])))


def test_baselines_and_forecasts_are_in_text_tables_and_figures(moving: Path) -> None:
    text = Page(moving).text
    assert "(raw input, middle moment, motion energy)" in text
    assert "How far ahead can it predict?" in text
    assert "On 29 held-out samples" in text
    names = {path.stem for path in (moving.parent / "figures").glob("*.png")}
    assert {"tasks", "forecast", "masks", "features", "errors", "neighbours"} <= names
    headings = columns(json.loads((moving.parent / "results.json").read_text())["tasks"])
    titles = ["trained", "untrained", "raw input", "middle moment", "motion energy", "chance"]
    assert list(headings.values()) == titles
    assert list(columns(RESULTS["tasks"])) == ["jepa", "random_init", "raw_input", "chance"]


def test_overlays_of_a_moving_picture_are_those_of_its_frames() -> None:
    picture = torch.randint(256, (6, 12, 18, 3), dtype=torch.uint8)
    cells = torch.rand(3, 2, 3) > 0.5  # three slots of two frames
    hatched, outlined = with_context(picture, cells), with_targets(picture, [cells, ~cells])
    heat = with_heat(picture, cells.float(), cells)
    for frame in range(6):
        slot = cells[frame // 2]
        assert torch.equal(hatched[frame], with_context(picture[frame], slot))
        assert torch.equal(outlined[frame], with_targets(picture[frame], [slot, ~slot]))
        hidden = ~upsample(slot.unsqueeze(-1), picture[frame])[..., 0]
        assert torch.equal(heat[frame][hidden], picture[frame][hidden])
        assert not torch.equal(heat[frame][~hidden], picture[frame][~hidden])


def test_larger_errors_are_brighter() -> None:
    errors = torch.linspace(0, 1, 12).view(1, 12)
    heat = with_heat(torch.zeros(4, 48, 3, dtype=torch.uint8), errors, torch.ones(1, 12, dtype=torch.bool))
    brightness = heat.float().mean(dim=(0, 2)).view(12, 4).mean(dim=1)
    assert (brightness.diff() > 0).all()


def test_forecast_errors_are_drawn_on_future_slots_alone() -> None:
    modality = Moving(MovingConfig(samples=8))
    model = JEPA(MOVING_MODEL, modality).eval()
    samples = gallery_samples(modality, modality.dataset("test"), {"trained": model.target_encoder}, 8)
    forecaster = Forecaster(model, cut_grid(modality.grid, 0, 0.5), normalise=False)
    cards = error_gallery(samples, forecaster, modality.grid)
    assert len(cards) == len(samples.pictures) == 6
    for card, picture in zip(cards, samples.pictures, strict=True):
        captions = [drawn.caption.partition(",")[0] for drawn in card[0].pictures]
        assert captions == ["input", "predicted at once", "predicted slot by slot", "last slot repeated"]
        for drawn in card[0].pictures[1:]:
            assert torch.equal(drawn.pixels[:4], picture[:4])
            assert not torch.equal(drawn.pixels[4:], picture[4:])
