"""Captioned images: masks over two streams, the networks, and runs: killed, in two processes, on SLURM."""

import io
import json
import runpy
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import places
import pytest
import torch
from captioned import TINY, TOWERS
from PIL import Image
from runs import assert_same_weights, kill_after, launch_here, log_of, until_ended
from torch import Generator
from torch.utils.data import default_collate

import jepa
from jepa.checkpoint import latest
from jepa.config import ConfigError, parse_yaml, read_yaml, to_yaml
from jepa.config.recipes import read_recipe, recipes
from jepa.data import seeded
from jepa.evaluate.cross_modal.rows import zero_shot_tasks
from jepa.launch import main, resolve
from jepa.masking import BlockMaskConfig, Masks, RandomMaskConfig
from jepa.model import JEPA
from jepa.optim import OptimConfig, build_optimizer
from jepa.training.log import read_metrics
from local_cluster import LocalCluster
from modalities.image_text import ImageText
from modalities.image_text.encoder import TwoTowers
from modalities.image_text.masks import Layout, Objectives, both_regions, sample_objectives

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}


LAYOUT = Layout((4, 4), 12)


SEARCH = places.ROOT / "examples" / "search_photos.py"


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty images of a square in one of four colours on grey, with two captions each."""
    root = tmp_path_factory.mktemp("captioned")
    (root / "images").mkdir()
    generator = np.random.default_rng(0)
    lines = []
    for number in range(80):
        colour = list(COLOURS)[number % 4]
        pixels = np.full((40, 48, 3), generator.integers(120), dtype=np.uint8)
        top, left = generator.integers(8), generator.integers(16)
        pixels[top : top + 32, left : left + 32] = COLOURS[colour]
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        for caption in captions_of(number):
            line = {"image": f"images/{number}.png", "caption": caption, "split": split_of(number), "label": colour}
            lines.append(json.dumps(line))
    (root / "captions.jsonl").write_text("\n".join(lines))
    return root


def captions_of(number: int) -> tuple[str, str]:
    colour = list(COLOURS)[number % 4]
    return f"a {colour} square", f"something {colour}"


def split_of(number: int) -> str:
    return "train" if number < 64 else "validation" if number < 72 else "test"


def arguments(run_dir: Path, root: Path, *more: str) -> list[str]:
    recipe = run_dir.parent / "empty.yaml"
    recipe.write_text("{}")
    where = ["--modality", "image-text", "--config", str(recipe), "--run-dir", str(run_dir)]
    return [*where, *TINY, f"data.root={root}", *more]


def draw_masks(objectives: Objectives, seeds: range = range(40)) -> Iterator[list[Masks]]:
    for seed in seeds:
        yield sample_objectives(LAYOUT, objectives, RandomMaskConfig(ratio=0.5), 6, Generator().manual_seed(seed))


EVERYTHING = Objectives(words=1, drop_caption=0.5)


def test_streams_and_positions_cover_every_token_once() -> None:
    tokens = torch.cat([LAYOUT.image.tokens, LAYOUT.text.tokens])
    assert sorted(tokens.tolist()) == list(range(4 * 4 + 12 + 2))
    assert len({tuple(position) for position in LAYOUT.positions.tolist()}) == len(LAYOUT.positions) == len(tokens)


def test_context_and_targets_are_disjoint_ascending_and_counted_by_stream() -> None:
    for sets in draw_masks(EVERYTHING):
        for masks in sets:
            for context, target in zip(masks.context, masks.target.flatten(1), strict=True):
                assert not set(context.tolist()) & set(target.tolist())
                assert context.diff().min() > 0
            bounds = torch.tensor(LAYOUT.sizes).cumsum(0)
            found = torch.bucketize(masks.context.contiguous(), bounds, right=True)
            for part, count in enumerate(masks.parts):
                assert ((found == part).sum(dim=1) == count).all()


@pytest.mark.parametrize("seed", range(5))
def test_masks_for_the_cross_modal_gain_differ_only_in_the_second_stream(seed: int) -> None:
    layout = Layout((4, 5), 7)
    strategy = RandomMaskConfig(ratio=0.5)
    with_it, without_it = both_regions(layout, strategy, 3, Generator().manual_seed(seed))
    assert torch.equal(with_it.target, without_it.target)
    for one, other in zip(with_it.context, without_it.context, strict=True):
        assert [token for token in one.tolist() if token in layout.image.tokens] == other.tolist()
        assert set(one.tolist()) - set(other.tolist()) == set(layout.text.tokens.tolist())
    assert with_it.parts == (without_it.parts[0], 7, 1, 1)
    assert Objectives().drops_at_times
    for never in (Objectives(drop_caption=0), Objectives(drop_caption=1), Objectives(regions=0)):
        assert not never.drops_at_times


def test_every_patch_and_word_can_be_context_and_can_be_target() -> None:
    tokens = sum(LAYOUT.sizes)
    context, target = torch.zeros(tokens), torch.zeros(tokens)
    for sets in draw_masks(Objectives(words=1, drop_caption=0.5, whole="all")):
        for masks in sets:
            context += masks.context.flatten().bincount(minlength=tokens)
            target += masks.target.flatten().bincount(minlength=tokens)
    assert context.min() > 0
    assert target.min() > 0


def test_objectives_are_used_in_their_shares_of_the_steps_and_at_least_one_always() -> None:
    rare = Objectives(regions=0.25, caption=0.5, image=0.1)
    sets = list(draw_masks(rare, range(2000)))
    targets = [{int(masks.target.max()) for masks in of_step} for of_step in sets]
    assert all(of_step for of_step in sets)
    assert sum(LAYOUT.text.summary in of_step for of_step in targets) / 2000 == pytest.approx(0.5, abs=0.04)
    assert sum(LAYOUT.image.summary in of_step for of_step in targets) / 2000 == pytest.approx(0.1, abs=0.03)
    with pytest.raises(ValueError, match="all objectives are 0"):
        Objectives(regions=0, caption=0, image=0)


def test_the_caption_is_dropped_from_the_context_of_regions_at_its_rate() -> None:
    only = Objectives(caption=0, image=0, drop_caption=0.25)
    dropped = [masks.parts[1] == 0 for sets in draw_masks(only, range(1000)) for masks in sets]
    assert sum(dropped) / len(dropped) == pytest.approx(0.25, abs=0.04)


def networks(*more: str) -> tuple[JEPA, ImageText]:
    config, modality = resolve("image-text", {}, [*TINY, "data.source=scenes", *more])
    torch.manual_seed(0)
    assert isinstance(modality, ImageText)
    return JEPA(config.model, modality).eval(), modality


def views(modality: ImageText, *captions: str) -> object:
    generator = Generator().manual_seed(0)
    images = torch.randint(256, (len(captions), 3, 32, 32), dtype=torch.uint8, generator=generator)
    return default_collate([modality.view(image, text) for image, text in zip(images, captions, strict=True)])


def test_hidden_tokens_do_not_influence_the_context() -> None:
    model, modality = networks("model.size.embed_dim=32")
    batch = views(modality, "a red cube behind a ball", "one cube")
    for masks in sample_objectives(modality.layout, EVERYTHING, BlockMaskConfig(), 2, Generator().manual_seed(1)):
        context = model.context_encoder(batch, masks)
        assert context.shape == (2, masks.context.shape[1], model.context_encoder.dim)
        other = batch
        if masks.parts[0] == 0:
            other = other._replace(image=torch.randn_like(other.image))
        if masks.parts[1] == 0:
            other = other._replace(text=other.text.roll(1, 0))
        torch.testing.assert_close(model.context_encoder(other, masks), context)


def test_a_tower_with_all_of_its_tokens_in_several_mask_sets_runs_once() -> None:
    model, modality = networks()
    passes: list[str] = []
    model.context_encoder.image.register_forward_hook(lambda *_: passes.append("image"))
    model.context_encoder.text.register_forward_hook(lambda *_: passes.append("text"))
    sets = sample_objectives(modality.layout, Objectives(drop_caption=0), BlockMaskConfig(), 2, seeded("masks"))
    model([views(modality, "a cube", "a ball")], sets)
    assert sorted(passes) == ["image", "image", "text"]  # the kept patches, the whole image, the whole caption


def test_padding_of_captions_has_no_influence() -> None:
    model, modality = networks("data.objectives={words: 1, whole: all, drop_caption: 0}")
    longer, _ = networks("model.size.text_cfg.context_length=20", "data.objectives={words: 1}")
    assert longer.context_encoder.layout.length == 20
    batch = views(modality, "a cube", "a large red cube behind a ball")
    present = model.context_encoder.valid(batch)
    assert present[:, 16:28].sum(dim=1).tolist() == [4, 9]  # words with the start and end tokens
    padded = batch._replace(text=batch.text.masked_fill(~present[:, 16:28], 17))
    sets = modality.sample_masks(2, seeded("masks"))
    outputs = model([padded], sets), model([batch], sets)
    for found, expected in zip(*(output.predictions for output in outputs), strict=True):
        pair, other = found.pairs["latent"], expected.pairs["latent"]
        torch.testing.assert_close(pair.predicted[pair.valid], other.predicted[other.valid])
        torch.testing.assert_close(pair.target[pair.valid], other.target[other.valid])
        for stream, pooled in found.pooled.items():
            torch.testing.assert_close(pooled, expected.pooled[stream])


def test_word_tokens_are_projected_to_the_width_of_patches() -> None:
    model, modality = networks("model.size.text_cfg.width=40", "model.size.text_cfg.heads=2", "model.size.embed_dim=20")
    tokens = model.target_encoder(views(modality, "a cube"))
    assert tokens.shape == (1, 30, 32)


def test_a_contrast_needs_whole_images_and_captions_in_every_step() -> None:
    with pytest.raises(ConfigError, match=r"data: objectives: model\.contrast compares whole images and captions"):
        networks("model.contrast=infonce", "data.objectives.caption=0.5")


def test_zero_shot_prompts_need_class_names_that_are_not_numbers(captioned: Path) -> None:
    _, modality = networks("data.source=folder", f"data.root={captioned}")
    assert [list(map(len, modality.prompts(task))) for task in modality.tasks] == [[3] * 4]
    numbered = captioned / "numbered.jsonl"
    lines = [{"image": f"images/{number}.png", "caption": "a square", "label": number % 4} for number in range(40)]
    numbered.write_text("\n".join(map(json.dumps, lines)))
    _, modality = networks("data.source=folder", f"data.root={numbered}")
    assert [task.classes for task in modality.tasks] == [("0", "1", "2", "3")]
    assert zero_shot_tasks(modality) == []


def test_wrong_inputs_of_the_served_model_are_errors() -> None:
    model, modality = networks()
    served = modality.inference_model(model, "target_encoder")
    grey = torch.full((3, 40, 50), 90, dtype=torch.uint8)
    assert torch.equal(served.encode_text(["cafe\u0301  bar\n"]), served.encode_text(["caf\u00e9 bar"]))
    with pytest.raises(ValueError, match="encode_text takes a list of sentences, not 'two balls' alone"):
        served.encode_text("two balls")
    with pytest.raises(ValueError, match="encode_image takes a list of pictures"):
        served.encode_image("photo.jpg")
    with pytest.raises(ValueError, match="the list of pictures is empty"):
        served.encode_image([])
    with pytest.raises(ValueError, match=r"uint8 \[3, H, W\], RGB, not float32 \[3, 40, 50\]"):
        served.encode_image([grey / 255])


def test_muon_orthogonalises_the_attention_of_the_towers() -> None:
    model, _ = networks()
    groups = build_optimizer(model, OptimConfig(optimizer="muon")).param_groups
    orthogonal = {id(one) for group in groups if group["orthogonal"] for one in group["params"]}
    towers = model.context_encoder.named_parameters()
    assert all(id(one) in orthogonal for name, one in towers if name.endswith("in_proj_weight"))


def test_files_are_decoded_for_the_served_model_as_for_training(tmp_path: Path) -> None:
    model, modality = networks("data.crop_scale=[0.9,1]")
    Image.effect_mandelbrot((66, 66), (-2, -1.5, 1, 1.5), 90).convert("RGB").save(tmp_path / "photo.jpg")
    stored = modality.stored_input(tmp_path / "photo.jpg", None).image
    served = modality.inference_model(model, "target_encoder")
    assert stored.shape[-1] == 66  # the half size would do without random crops
    assert torch.equal(served.encode_image([tmp_path / "photo.jpg"]), served.encode_image([stored]))


def test_pillow_images_are_turned_upright_like_files(tmp_path: Path) -> None:
    model, modality = networks()
    served = modality.inference_model(model, "target_encoder")
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:20] = (255, 80, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        assert torch.equal(served.encode_image([photo]), served.encode_image([tmp_path / "photo.png"]))
    assert not torch.equal(
        served.encode_image([Image.fromarray(pixels)]), served.encode_image([tmp_path / "photo.png"])
    )


def test_one_command_trains_evaluates_and_reports_on_captioned_images(captioned: Path, tmp_path: Path) -> None:
    more = ["evaluate.enabled=true", "evaluate.report=true", "evaluate.low_shot_draws=1"]
    assert main(arguments(tmp_path / "run", captioned, *more)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"class/linear", "class/zero_shot", "retrieval/image_to_text@1", "retrieval/text_to_image@10"} <= set(
        results["tasks"]
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "a red square" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


# The averaged weights are evaluated; they must not lag behind in such short runs.
LEARNING = [
    *("steps=100", "checkpoint_every=100", "log_every=100", "optim.batch_size=16", "optim.peak_lr=3e-3"),
    *("optim.warmup=0.05", "optim.final_weight_decay=0.04", "data.objectives.regions=0", "stages.0.teacher.start=0.9"),
]


METHODS = {
    "infonce": ["loss.prediction_weight=0", "loss.regulariser=none", "model.contrast=infonce"],
    "sigmoid": ["loss.prediction_weight=0", "loss.regulariser=none", "model.contrast=sigmoid"],
    "jepa": ["loss.distance=l2", "loss.regulariser_weight=1", "loss.agreement=0.1"],
}


@pytest.fixture(scope="session")
def learned(request: pytest.FixtureRequest, captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained with a method."""
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    assert main(arguments(run_dir, captioned, *LEARNING, *METHODS[request.param])) == 0
    return run_dir


@pytest.mark.parametrize("learned", METHODS, indirect=True)
def test_contrasts_and_prediction_learn_to_match_images_and_captions(learned: Path, captioned: Path) -> None:
    model = jepa.load(learned)
    pictures = [captioned / "images" / f"{number}.png" for number in range(64, 80)]  # not trained on
    scores = model.score(pictures, [f"a {colour} square" for colour in COLOURS])
    assert scores.shape == (16, 4)
    right = torch.arange(16) % 4
    assert (scores.argmax(dim=1) == right).float().mean() >= 0.75
    assert (scores.gather(1, right.unsqueeze(1)).mean() - scores.mean()) > 0.05


@pytest.mark.parametrize("learned", ["jepa"], indirect=True)
def test_photos_are_found_by_their_content(
    learned: Path, captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(64, 80):
        (folder / f"{number}\x1b\udce9.png").write_bytes((captioned / "images" / f"{number}.png").read_bytes())
    (folder / "broken\udce9.png").write_bytes(b"<html>404</html>")
    page = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", [str(SEARCH), str(learned), str(folder), "a blue square", "-k", "3"])
    search = runpy.run_path(str(SEARCH))["main"]
    assert search() == 0
    output, errors = capsys.readouterr()
    assert "1 of 17 cannot be read" in errors
    found = [line.split("photos/")[1] for line in output.splitlines() if "photos/" in line]
    assert all(name.endswith(".png") for name in found)
    assert [int(name[:2]) % 4 for name in found] == [2, 2, 2]

    next(folder.glob(f"{found[0][:2]}*")).unlink()
    sys.argv += ["--again", "--html", str(page)]
    assert search() == 0
    assert found[0] not in capsys.readouterr().out
    assert page.read_text().count('src="data:image/png') == 3
    sys.argv[2] = str(tmp_path / "nowhere")
    assert search() != 0
    assert "nowhere" in capsys.readouterr().err


def as_shards(captioned: Path, root: Path) -> None:
    for split in ("train", "validation", "test"):
        (root / split).mkdir(parents=True)
        with tarfile.open(root / split / "0.tar", "w") as shard:
            for number in (number for number in range(80) if split_of(number) == split):
                picture = (captioned / "images" / f"{number}.png").read_bytes()
                first, second = captions_of(number)
                for ending, data in (
                    ("png", picture),
                    ("txt", first.encode()),
                    ("json", json.dumps({"caption": second}).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:05}.{ending}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))


def as_coco(captioned: Path, root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for part, splits in (("train", ("train",)), ("val", ("validation", "test"))):
        folder = root / f"{part}2017"
        folder.mkdir()
        numbers = [number for number in range(80) if split_of(number) in splits]
        for number in numbers:
            (folder / f"{number}.png").write_bytes((captioned / "images" / f"{number}.png").read_bytes())
        images = [{"id": number, "file_name": f"{number}.png"} for number in numbers]
        annotations = [{"image_id": number, "caption": text} for number in numbers for text in captions_of(number)]
        content = {"images": images, "annotations": annotations}
        (root / "annotations" / f"captions_{part}2017.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("source", "write"), [("webdataset", as_shards), ("coco", as_coco)])
def test_a_run_learns_from_shards_and_from_coco(
    source: str, write: Callable[[Path, Path], None], captioned: Path, tmp_path: Path
) -> None:
    write(captioned, tmp_path / "data")
    evaluated = ["evaluate.enabled=true", *LEARNING]
    more = [f"data.source={source}", *evaluated, *METHODS["infonce"]]
    assert main(arguments(tmp_path / "run", tmp_path / "data", *more)) == 0
    assert not (tmp_path / "run" / "bad_files.txt").exists()
    row = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]["retrieval/image_to_text@1"]
    assert row["jepa"] > row["chance"] + 0.3
    assert row["test_samples"] == (8 if source == "webdataset" else 16)


@pytest.mark.soak
def test_a_killed_and_resumed_run_on_captioned_images_ends_with_the_weights_of_an_uninterrupted_one(
    captioned: Path, tmp_path: Path
) -> None:
    more = ("data.objectives={words: 0.5, caption: 0.7}",)
    launch_here(*arguments(tmp_path / "whole", captioned, *more, "compute.workers=2"))
    run_dir = tmp_path / "killed"
    kill_after(15, run_dir, *arguments(run_dir, captioned, *more))
    assert latest(run_dir).exists()
    assert "resumed from step" in launch_here(*arguments(run_dir, captioned, *more))
    assert_same_weights(run_dir, tmp_path / "whole")


PARTLY = ("steps=6", "data.objectives={regions: 0.5, drop_caption: 0.5}", "model.contrast=infonce")


@pytest.fixture(scope="session")
def alone(captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process in which some steps leave parts of the networks unused, with a contrast."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    assert main(arguments(run_dir, captioned, *PARTLY)) == 0
    return run_dir


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_on_captioned_images_like_one(
    parallel: str, alone: Path, captioned: Path, tmp_path: Path
) -> None:
    launch_here(*arguments(tmp_path / "two", captioned, *PARTLY, f"compute.parallel={parallel}"), processes=2)
    losses = [[line["loss"] for line in read_metrics(run_dir)] for run_dir in (tmp_path / "two", alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.soak
def test_a_slurm_job_trains_on_captioned_images_like_a_local_run(
    on_cluster: LocalCluster, profile: str, captioned: Path, tmp_path: Path
) -> None:
    assert main(arguments(tmp_path / "there", captioned, "steps=20", "--slurm", profile)) == 0
    launch_here(*arguments(tmp_path / "here", captioned, "steps=20"))
    assert until_ended(tmp_path / "there").state == "FINISHED", log_of(tmp_path / "there")
    assert_same_weights(tmp_path / "there", tmp_path / "here")


def test_bad_pairs_are_listed_and_the_rest_is_trained_on(captioned: Path, tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    (root / "images").mkdir(parents=True)
    for path in (captioned / "images").iterdir():
        (root / "images" / path.name).write_bytes(path.read_bytes())
    (root / "images" / "broken.png").write_bytes(b"<html>404</html>")
    odd = [("broken", "a broken picture"), ("gone", "a picture that is not there"), ("1", "  \n ")]
    odd.append(("2", "wort " * 10_000 + "\U0001f9d1"))
    lines = [json.dumps({"image": f"images/{name}.png", "caption": text, "split": "train"}) for name, text in odd]
    for number in range(2, 30):
        split = {28: "validation", 29: "test"}.get(number, "train")
        lines.append(json.dumps({"image": f"images/{number}.png", "caption": "ein Würfel", "split": split}))
    (root / "captions.jsonl").write_text("\n".join([*lines, "{not json"]))
    assert main(arguments(tmp_path / "run", root, "data.max_bad_fraction=0.3", "steps=12")) == 0
    listed = (tmp_path / "run" / "bad_files.txt").read_text()
    assert all(name in listed for name in ("broken.png", "gone.png", "line 3\tno caption", "line 33\tnot JSON"))
    assert len(listed.splitlines()) == 4


def saved_towers(file: Path) -> TwoTowers:
    """Random towers, saved to a file in the format of open_clip."""
    towers = networks()[0].context_encoder
    assert isinstance(towers, TwoTowers)
    state = {f"visual.{name.removeprefix('tower.')}": value for name, value in towers.image.state_dict().items()}
    state |= {f"text.{name.removeprefix('tower.')}": value for name, value in towers.text.state_dict().items()}
    torch.save({**state, "logit_scale": torch.zeros(())}, file)
    return towers


def test_a_run_can_start_from_pretrained_towers_that_stay_fixed_as_targets(captioned: Path, tmp_path: Path) -> None:
    """The file of weights is read once; evaluation needs only the run."""
    file = tmp_path / "towers.pt"
    towers = saved_towers(file)
    frozen = ["stages.0.teacher={kind: frozen}", "steps=3", f"model.pretrained={file}"]
    slower = ["optim.rate_factors=[{prefix: context_encoder.text, factor: 1.0e-9}]", "optim.weight_decay=0"]
    assert main(arguments(tmp_path / "run", captioned, *frozen, *slower, "optim.final_weight_decay=0")) == 0
    file.unlink()
    served = jepa.load(tmp_path / "run").networks
    for name, value in served.target_encoder.image.state_dict().items():
        assert torch.equal(value, towers.image.state_dict()[name])
    for name, value in served.context_encoder.text.state_dict().items():
        torch.testing.assert_close(value, towers.text.state_dict()[name], atol=1e-6, rtol=0)
    assert not torch.equal(served.context_encoder.image.tower.proj, served.target_encoder.image.tower.proj)


@pytest.mark.parametrize("named", ["local-dir:{}", "{}/towers.pth"])
def test_a_run_keeps_its_pixel_statistics_when_the_folder_of_the_weights_is_gone(
    named: str, captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command, without a run directory, finds the run again."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pretrained"
    folder.mkdir()
    saved_towers(folder / "towers.pth")
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    stated = {"model_cfg": parse_yaml(TOWERS, "here"), "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    command = arguments(Path(), captioned, "steps=2", f"model.pretrained={named.format(folder)}")
    assert main(command) == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    written = run_dir / "config.yaml"
    config = read_yaml(written)
    assert {name: config["data"][f"pixel_{name}"] for name in pixels} == pixels
    old = {name: value for name, value in config["data"].items() if not name.startswith("pixel")}
    written.write_text(to_yaml(config | {"data": old}))  # as in runs of earlier versions
    assert main(command) == 0
    assert read_yaml(written) == config

    shutil.rmtree(folder)
    assert main(command) == 0  # a resumed run needs no weights
    grey = torch.full((3, 32, 32), 51, dtype=torch.uint8)  # .2 of white
    for modality in (jepa.load_modality(run_dir), jepa.load(run_dir).modality):
        seen = modality.view(grey, "").image[:, 0, 0]
        torch.testing.assert_close(seen, torch.tensor([0.1 / 0.4, 0.0, -0.1 / 0.6]))
    capsys.readouterr()
    shutil.rmtree(run_dir)
    assert main([*command, "--dry-run"]) == 1
    assert f"no weights '{named.format(folder)}' for" in capsys.readouterr().err


def test_mistakes_are_errors_without_a_traceback(
    captioned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, words in (
        ("model.size=convnext_base", "convnext_base has no plain patch tokens"),
        ("model.size=ViT-B-33", "open_clip has no architecture 'ViT-B-33'"),
        ("model.pretrained=nowhere.pt", "no weights 'nowhere.pt'"),
        ("data.prompts=[photo]", "prompts: 'photo' needs {} once"),
        ('data.prompts=["{} or {x}"]', "prompts: '{} or {x}' needs {} once"),
        ("data.objectives={words: 1, hidden_words: 0.02}", "hidden_words=0.02 hides 0 of 12 words"),
        ("data.crop_scale=[1.0,0.5]", "from low to high"),
        ("data.pixel_mean=[123,117,104]", "data.pixel_mean.0: "),
        ("data.pixel_std=[0.2,0.2,0]", "data.pixel_std.2: "),
        ("model.predictor.mask_tokens=3", "predictor.mask_tokens"),
        ("model.size.text_cfg.hf_tokenizer_name=/nowhere", "the tokenizer '/nowhere' is not on this machine"),
        ("model.target_layers=2", "only their last layer"),
        ("optim.rate_factors=[{prefix: words, factor: 2}]", "'words'"),
        ("data.source=coco", "annotations"),
    ):
        assert main(arguments(tmp_path / "run", captioned, wrong)) == 1, wrong
        output = capsys.readouterr().err
        assert words in output, output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("image_text/")])
def test_recipes_resolve_to_a_modality_with_masks(name: str, tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").touch()
    config, modality = resolve("image-text", read_recipe(name), [f"data.root={tmp_path}"])
    assert modality.streams[0].tokens.numel() == modality.grid[0] * modality.grid[1] + 1
    assert modality.sample_masks(2, seeded("masks", config.seed, 0))
