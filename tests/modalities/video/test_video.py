"""Runs on videos: from files and from embedded clips, killed, in two processes, on SLURM."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import assert_same_weights, kill_after, launch_here, log_of, until_ended

from jepa.checkpoint import latest
from jepa.config import ConfigError
from jepa.encoder import gather_tokens
from jepa.launch import main, resolve
from jepa.training.log import read_metrics
from local_cluster import LocalCluster
from modalities.image.views import denormalise
from modalities.video import Video, VideoConfig
from modalities.video.whole import DecodedVideo

STEPS = 60
TINY = f"""
    data.source=folder data.frames=8 data.image_size=32 data.patch_size=8 model.size.width=48 model.size.depth=2
    model.size.heads=2 model.predictor.width=32 model.predictor.depth=1 model.predictor.heads=2 optim.batch_size=4
    steps={STEPS} log_every=1 checkpoint_every=10 evaluate.enabled=false evaluate.report=false
    compute.precision=fp32
""".split()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of fifteen videos each: a bright square moves to the right or to the left."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(30):
        name = "right" if number % 2 else "left"
        path = root / name / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        frames = np.full((10, 48, 64, 3), 8 * (number // 2), dtype=np.uint8)
        for moment in range(10):
            left = 4 * moment if name == "right" else 40 - 4 * moment
            frames[moment, number : 16 + number, left : left + 16] = 230
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    return root


def arguments(run_dir: Path, clips: Path, *more: str) -> list[str]:
    return ["--modality", "video", "--run-dir", str(run_dir), *TINY, f"data.root={clips}", *more]


def test_one_command_trains_evaluates_and_reports_on_videos(clips: Path, tmp_path: Path) -> None:
    more = ["evaluate.enabled=true", "evaluate.report=true", "evaluate.attentive_steps=5", "data.test_clips=2"]
    more += ["evaluate.low_shot_draws=1"]
    assert main(arguments(tmp_path / "run", clips, *more)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    row = results["tasks"]["class/linear"]
    assert row.keys() >= {"jepa", "random_init", "raw_input", "middle_frame", "motion_energy", "chance"}
    assert results["forecast"]["horizons"] == [1, 2]
    assert results["forecast"]["errors"].keys() == {"direct", "rolled", "repeat", "repeat_centred", "mean"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/webp" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_embedded_clips_are_evaluated_on_all_of_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = [f"data.scenes.{split}={count}" for split, count in {"train": 48, "validation": 24, "test": 24}.items()]
    evaluated = ["steps=2", "evaluate.enabled=true", "evaluate.attentive_steps=2", "evaluate.low_shot_draws=1"]
    small = [*TINY, *few, *evaluated, "data.source=scenes"]
    assert main(["--modality", "video", "--run-dir", str(tmp_path / "run"), *small]) == 0
    tasks = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]
    assert {name.partition("/")[0] for name in tasks} >= {"motion", "direction", "speed", "count", "next_x", "next_y"}
    assert tasks["motion/attentive"]["test_samples"] == 24


def test_a_video_is_evaluated_alike_whether_it_is_kept_whole_or_read_for_each_clip(clips: Path) -> None:
    seen = []
    for megabytes in (0.0, 8.0):
        sizes = {"frames": 8, "image_size": 32, "patch_size": 8, "crop_scale": (0.8, 1.0)}
        modality = Video(VideoConfig(source="folder", root=clips, whole_mb=megabytes, **sizes))
        inputs = modality.dataset("test")[0].inputs
        assert isinstance(inputs, DecodedVideo) == (megabytes > 0)
        seen.append(modality.evaluation_view(inputs))
    torch.testing.assert_close(*seen)


@pytest.mark.soak
def test_a_killed_and_resumed_run_on_videos_ends_with_the_weights_of_an_uninterrupted_one(
    clips: Path, tmp_path: Path
) -> None:
    launch_here(*arguments(tmp_path / "whole", clips, "compute.workers=2"))
    run_dir = tmp_path / "killed"
    kill_after(15, run_dir, *arguments(run_dir, clips, "compute.workers=1"))
    assert latest(run_dir).exists()
    assert "resumed from step" in launch_here(*arguments(run_dir, clips, "compute.workers=0"))
    assert_same_weights(run_dir, tmp_path / "whole")


def test_two_processes_train_on_videos_like_one(clips: Path, tmp_path: Path) -> None:
    more = ("steps=6", "loss.regulariser=vicreg", "checkpoint_every=6")
    launch_here(*arguments(tmp_path / "two", clips, *more), processes=2)
    launch_here(*arguments(tmp_path / "one", clips, *more))
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.soak
def test_a_slurm_job_trains_on_videos_like_a_local_run(
    on_cluster: LocalCluster, profile: str, clips: Path, tmp_path: Path
) -> None:
    assert main(arguments(tmp_path / "there", clips, "steps=20", "--slurm", profile)) == 0
    launch_here(*arguments(tmp_path / "here", clips, "steps=20"))
    assert until_ended(tmp_path / "there").state == "FINISHED", log_of(tmp_path / "there")
    assert_same_weights(tmp_path / "there", tmp_path / "here")


def test_a_broken_video_is_skipped_counted_and_listed(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "clips"
    whole = sorted((clips / "left").glob("*.mp4"))
    root.mkdir()
    for path in whole:
        (root / path.name).write_bytes(path.read_bytes())
    (root / "broken.mp4").write_bytes(b"<html>404</html>")
    more = ("data.max_bad_fraction=0.3", "steps=8", "data.whole_mb=0")
    assert main(arguments(tmp_path / "run", root, *more)) == 0
    assert "broken.mp4" in (tmp_path / "run" / "bad_files.txt").read_text()
    assert "1 of 16 samples could not be read" in capsys.readouterr().err


def test_an_image_gives_a_still_clip() -> None:
    modality = Video(VideoConfig(frames=4, image_size=32, patch_size=8))
    image = torch.randint(256, (3, 40, 32), dtype=torch.uint8)
    view = modality.evaluation_view(image)
    assert view.shape == (3, 4, 32, 32)
    assert torch.equal(view, view[:, :1].expand_as(view))
    assert torch.equal(denormalise(view[:, 0]), image[:, 4:36])


def test_training_clips_have_one_crop_and_baselines_have_their_values() -> None:
    modality = Video(VideoConfig(frames=4, image_size=32, patch_size=8, flip=True))
    still = torch.randint(256, (1, 3, 48, 64), dtype=torch.uint8).expand(9, -1, -1, -1)
    for seed in range(5):
        view = modality.training_view(DecodedVideo(still, 25.0), torch.Generator().manual_seed(seed))
        assert torch.equal(view, view[:, :1].expand_as(view))
    floors = modality.baselines(view)
    assert floors["motion_energy"].abs().max() == 0
    assert floors["middle_frame"].shape == (3 * 16 * 16,)
    assert floors["raw_input"].shape == (3 * 4 * 16 * 16,)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.tubelet=3", "data: tubelet 3 does not divide frames 16"),
        ("data.patch_size=10", "data: patch_size 10 does not divide image_size 64 x 64"),
        ("data.source=folder", "data: source 'folder' needs data.root"),
        ("data.views=3", "data: masking: .* sets do not divide among 3 views"),
        ("data.crop_aspect=[2.0,0.5]", "data.crop_aspect: .* from low to high"),
        ("data.masking=[]", "data.masking: .* should have at least 1 item"),
        ("data.decoder=opencv", "data.decoder: should be 'auto', 'decord', 'pyav' or 'torchcodec', not 'opencv'"),
    ],
)
def test_impossible_settings_are_errors(override: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve("video", {"data": {"image_size": 64, "patch_size": 8}}, [override])


def test_tubelets_equal_a_strided_convolution_of_frames_with_scaled_changes() -> None:
    video = torch.randn(2, 3, 8, 32, 32)
    plain = Video(VideoConfig(frames=8, image_size=32, patch_size=8)).embedding(12)
    weight = plain.get_parameter("project.weight").view(12, 3, 2, 8, 8)
    expected = F.conv3d(video, weight, plain.get_parameter("project.bias"), stride=(2, 8, 8)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(plain(video), expected)
    scaled = Video(VideoConfig(frames=8, image_size=32, patch_size=8, change_scale=5)).embedding(12)
    scaled.load_state_dict(plain.state_dict())
    first, second = video[:, :, 0::2], video[:, :, 1::2]
    enlarged = torch.stack((3 * first - 2 * second, 3 * second - 2 * first), dim=3).flatten(2, 3)  # mean -+ 5/2 change
    torch.testing.assert_close(scaled(video), plain(enlarged))
    keep = torch.tensor([[5, 0, 31], [8, 9, 2]])  # as the context encoder, which sees a part
    torch.testing.assert_close(scaled(video, keep), gather_tokens(plain(enlarged), keep))
