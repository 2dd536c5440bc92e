"""Clips: the middle frame does not reveal the motion, and labels agree with the frames."""

import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from modalities.worlds.moving.cast import ANCHOR, OCCLUDED, PARTNER
from modalities.worlds.moving.dataset import MovingScenes, MovingScenesConfig
from modalities.worlds.moving.description import (
    DIRECTIONS,
    MOTIONS,
    ClipBatch,
    displacement,
    image_positions,
    rotations,
    scenes_at,
)
from modalities.worlds.moving.render import RenderedClips, render_clips
from modalities.worlds.moving.sampling import BLOCK, balanced_labels, make_clips, sample_clips
from modalities.worlds.moving.worker import clip_labels, label_delay
from modalities.worlds.scenes.description import Objects
from modalities.worlds.scenes.parts import SIZES, Draws
from modalities.worlds.scenes.render import render
from modalities.worlds.scenes.shapes import support

FRAMES, SIDE = 16, 64
KIND = {name: number for number, name in enumerate(MOTIONS)}
Rendered = tuple[ClipBatch, RenderedClips, np.ndarray]


@pytest.fixture(scope="module")
def many() -> ClipBatch:
    return sample_clips(5, np.arange(10 * BLOCK), FRAMES)


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    clips = sample_clips(1, np.arange(BLOCK, BLOCK + 96), FRAMES)
    images = render_clips(clips, SIDE)
    return clips, images, clip_labels(clips, images)


def test_the_middle_frame_is_bitwise_the_same_for_all_motions() -> None:
    motions = np.arange(len(MOTIONS))
    for index, turn, others in ((3, 0, 2), (8, 5, 0)):
        draws = Draws(4, 2, np.full(len(MOTIONS), index))
        clips = make_clips(draws, motions, np.full(8, turn), np.full(8, others), FRAMES)
        images = render_clips(clips, 48).images
        assert (images[:, FRAMES // 2] == images[0, FRAMES // 2]).all()
        for frame in (0, FRAMES - 1):
            assert len({image.tobytes() for image in images[:, frame]}) == len(MOTIONS)


def test_motion_is_independent_of_the_middle_scene(many: ClipBatch) -> None:
    objects, camera = many.middle.objects, many.middle.camera
    drawn = {
        "position": image_positions(many.middle)[:, :3].reshape(-1, 6),
        "size": objects.scale[..., 0],
        "height of the camera": camera.position[:, 2:],
        "count": objects.count[:, None],
        "colour": objects.rgb[:, :3, 0].reshape(-1, 9),
        "light": many.middle.light.direction,
        "ground": many.middle.backdrop.rgb.reshape(-1, 12),
    }
    motion = np.eye(len(MOTIONS))[many.motion]
    for name, values in drawn.items():
        strongest = np.abs(np.corrcoef(motion.T, values.T)[: len(MOTIONS), len(MOTIONS) :]).max()
        assert strongest < 0.1, name  # chance gives about 0.02 * 3


def test_motions_directions_and_counts_are_balanced(many: ClipBatch) -> None:
    motion, turn, others = balanced_labels(5, np.arange(7 * BLOCK, 8 * BLOCK))
    assert len(set(zip(motion.tolist(), turn.tolist(), others.tolist(), strict=True))) == BLOCK
    np.testing.assert_array_equal(np.bincount(many.motion), np.full(8, 240))
    for name in ("moving", "colliding", "appearing", "disappearing", "panning"):
        times = np.bincount(many.direction[many.motion == KIND[name]], minlength=8)
        assert times.min() > 12, name
        assert times.max() < 52, name
    assert (many.direction[np.isin(many.motion, [KIND[name] for name in ("turning", "approaching")])] == -1).all()


def test_a_clip_does_not_depend_on_its_batch() -> None:
    together, alone = sample_clips(2, np.arange(7, 27), 8), sample_clips(2, np.array([19]), 8)
    for part in fields(together):
        if isinstance(one := getattr(together, part.name), np.ndarray):
            np.testing.assert_array_equal(one[12], getattr(alone, part.name)[0], err_msg=part.name)
    numbers = np.array([19, 3])
    np.testing.assert_array_equal(
        render_clips(sample_clips(2, numbers, 8), 24).images[0], render_clips(alone, 24).images[0]
    )
    assert not np.array_equal(
        render_clips(sample_clips(3, numbers, 8), 24).images[0], render_clips(alone, 24).images[0]
    )


def test_rendering_only_the_changes_gives_the_whole_frame(rendered: Rendered) -> None:
    clips, images, _ = rendered
    for frame in (0, 5, 11, 15):
        whole = render(scenes_at(clips, frame), SIDE)
        assert (whole.objects != images.objects[:, frame]).mean() < 1e-5
        off = np.abs(whole.images.astype(int) - images.images[:, frame])
        assert (off > 0).mean() < 1e-3
        assert (off > 1).mean() < 1e-4


def centroids(images: RenderedClips, number: int, slot: int) -> np.ndarray:
    """Centroids of an object per frame, in image widths from the left and lower edge: [F, 2]; nan if it is cut off."""
    found = np.full((FRAMES, 2), np.nan)
    masks = images.objects[number] == slot
    for frame, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        cut = mask[[0, -1]].any() or mask[:, [0, -1]].any()
        if rows.size >= 0.9 * masks.sum(axis=(1, 2)).max() and not cut:
            found[frame] = (columns.mean() + 0.5) / SIDE, 1 - (rows.mean() + 0.5) / SIDE
    return found


def test_direction_speed_and_next_position_agree_with_the_frames(rendered: Rendered) -> None:
    clips, images, labels = rendered
    checked = np.zeros(len(MOTIONS), dtype=int)
    for number, label in enumerate(labels):
        slot = ANCHOR if clips.main[number] < 0 else clips.main[number]
        path, frame = centroids(images, number, slot), np.arange(FRAMES)
        use = np.isfinite(path[:, 0])
        if label["motion"] == KIND["colliding"]:
            use &= frame < label["collision"]
        if label["direction"] < 0 or use.sum() < 4:
            continue
        velocity, start = np.polyfit(frame[use], path[use], 1)
        error = np.degrees(np.arctan2(velocity[1], velocity[0])) - 45 * label["direction"]
        assert abs((error + 180) % 360 - 180) < 22, (number, MOTIONS[label["motion"]])
        assert np.hypot(*velocity) == pytest.approx(label["speed"], rel=0.2), (number, MOTIONS[label["motion"]])
        if label["motion"] == KIND["moving"] and use.sum() >= 10:  # nothing covers it, so the fit is good
            x, y = start + velocity * (FRAMES - 1 + label_delay(FRAMES))
            assert label["next_x"] == pytest.approx(x, abs=0.06)
            assert label["next_y"] == pytest.approx(1 - y, abs=0.06)
        checked[label["motion"]] += 1
    assert (checked[[KIND[name] for name in ("moving", "colliding", "appearing", "disappearing", "panning")]] > 1).all()


def test_approaching_objects_grow_receding_ones_shrink_and_turning_ones_stay(rendered: Rendered) -> None:
    clips, images, labels = rendered
    area = (images.objects == PARTNER).sum(axis=(2, 3)).astype(float)
    whole = np.array([np.isfinite(centroids(images, number, PARTNER)[-1, 0]) for number in range(len(area))])
    growth = area[:, -1] / np.maximum(area[:, 0], 1)
    assert (growth[(labels["motion"] == KIND["approaching"]) & whole] > 1.5).all()
    assert (growth[labels["motion"] == KIND["receding"]] < 0.8).all()
    positions = np.stack([image_positions(scenes_at(clips, frame))[:, PARTNER] for frame in (0, FRAMES - 1)])
    still = np.isin(labels["motion"], [KIND[name] for name in ("turning", "approaching", "receding")])
    np.testing.assert_allclose(positions[0, still], positions[1, still], atol=1e-4)
    ratio = np.linalg.norm(clips.spin[:, PARTNER], axis=-1)
    assert ((ratio > 0.1) == (labels["motion"] == KIND["turning"])).all()


def test_appearing_objects_start_hidden_and_disappearing_ones_end_hidden(rendered: Rendered) -> None:
    clips, images, labels = rendered
    alone = replace(clips.middle.objects, position=clips.middle.objects.position.copy())
    alone.position[:, [PARTNER, ANCHOR, 3, 4], 1] = -50  # behind the camera
    lonely, ends = replace(clips, middle=replace(clips.middle, objects=alone)), (0, FRAMES - 1)
    whole = np.stack([render(scenes_at(lonely, frame), SIDE).objects for frame in ends], axis=1) == OCCLUDED
    share = (images.objects[:, ends] == OCCLUDED).sum(axis=(2, 3)) / np.maximum(whole.sum(axis=(2, 3)), 1)
    for name, hidden, shown in (("appearing", 0, -1), ("disappearing", -1, 0)):
        chosen = labels["motion"] == KIND[name]
        assert share[chosen, hidden].max() < 0.4, name
        assert share[chosen, hidden].mean() < 0.1, name
        assert share[chosen, shown].min() > 0.4, name
        assert share[chosen, shown].mean() > 0.8, name
    others = np.isin(labels["motion"], [KIND[name] for name in ("moving", "turning", "approaching", "receding")])
    assert np.abs(share[others, 0] - share[others, -1]).max() < 0.2


def test_objects_collide_at_their_smallest_distance_and_conserve_momentum_and_energy(many: ClipBatch) -> None:
    hits = many.motion == KIND["colliding"]
    event, frames = many.event[hits], np.arange(0, FRAMES - 1, 0.05)
    assert (np.abs(event - FRAMES // 2) < 0.76 * FRAMES / 2).all()
    assert 0.4 < (event < FRAMES // 2).mean() < 0.6
    paths = np.stack([displacement(many, frame)[hits] for frame in frames])  # [F, B, K, 3]
    paths = paths + many.middle.objects.position[hits]
    gaps = np.linalg.norm(paths[:, :, PARTNER] - paths[:, :, ANCHOR], axis=-1)
    assert np.abs(frames[gaps.argmin(axis=0)] - event).max() < 0.06

    mass = (many.middle.objects.scale[hits, :, 0] / SIZES[many.middle.objects.shape[hits]])[..., None] ** 3
    velocity = many.velocity[hits]
    momentum, energy = (velocity * mass[:, None]).sum(axis=2), (velocity**2 * mass[:, None]).sum(axis=(2, 3))
    np.testing.assert_allclose(momentum[:, 0], momentum[:, 1], atol=1e-6)
    np.testing.assert_allclose(energy[:, 0], energy[:, 1], rtol=1e-4)


def test_moving_objects_touch_neither_each_other_nor_the_ground() -> None:
    clips = sample_clips(6, np.arange(BLOCK), FRAMES)
    middle = clips.middle.objects.position
    for frame in range(0, FRAMES, 3):
        now = scenes_at(clips, frame).objects
        for one, other in ((PARTNER, ANCHOR), (PARTNER, OCCLUDED), (ANCHOR, OCCLUDED)):
            apart = now.position[:, other] - now.position[:, one]
            rooms = []
            for axis in (
                apart,
                middle[:, other] - middle[:, one],
            ):  # a plane perpendicular to either axis may separate the two
                unit = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
                along = (apart * unit).sum(axis=-1)
                rooms.append(along - extent(now, one, unit) - extent(now, other, -unit))
            assert np.max(rooms, axis=0).min() > -0.03, (frame, one, other)  # metres; solids have a diameter of about 1
        assert (now.position[:, :3, 2] - now.radius[:, :3]).min() > -1e-4


def extent(objects: Objects, slot: int, direction: np.ndarray) -> np.ndarray:
    local = (objects.rotation[:, slot] * direction[..., None]).sum(axis=-2) * objects.scale[:, slot]
    return np.array(
        [support(int(kind), to[:, None])[0] for kind, to in zip(objects.shape[:, slot], local, strict=True)]
    )


def test_rotations_follow_the_right_hand_rule() -> None:
    quarter = rotations(np.array([[0, 0, np.pi / 2], [0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(quarter[0] @ [1, 0, 0], [0, 1, 0], atol=1e-6)
    assert (quarter[1] == np.eye(3)).all()
    matrices = rotations(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * 2)
    np.testing.assert_allclose(matrices @ matrices.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-5)


def test_splits_have_different_clips_are_cached_and_omit_labels_that_do_not_apply(tmp_path: Path) -> None:
    config = MovingScenesConfig(train=14, validation=5, test=5)
    splits = [MovingScenes(config, split, 6, 16, tmp_path) for split in ("train", "validation", "test")]
    clips = {sample.inputs.numpy().tobytes() for split in splits for sample in map(split.__getitem__, range(5))}
    assert len(clips) == 15
    again = pickle.loads(pickle.dumps(MovingScenes(config, "train", 6, 16, tmp_path)))
    assert again.folder == splits[0].folder
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3
    expected = render_clips(sample_clips(0, np.arange(14), 6), 16)
    for index in range(14):
        inputs, labels = again[index].inputs, again[index].labels
        np.testing.assert_array_equal(inputs.numpy(), expected.images[index])
        assert inputs.shape == (6, 3, 16, 16)
        assert not (inputs[1:] == inputs[:-1]).all()
        motion = MOTIONS[int(labels["motion"])]
        moves = motion in ("moving", "colliding", "appearing", "disappearing", "panning")
        assert ("direction" in labels) == ("speed" in labels) == moves
        assert ("collision" in labels) == (motion == "colliding")
        assert ("next_x" in labels) == ("next_y" in labels) == (motion != "panning")
        assert 0 <= int(labels.get("direction", 0)) < len(DIRECTIONS)
        assert 2 <= int(labels["count"]) <= 5
    with pytest.raises(IndexError):
        again[14]


def test_impossible_clips_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scenes\.test is 0"):
        MovingScenes(MovingScenesConfig(test=0), "test", 16, 64, tmp_path)
    with pytest.raises(ValueError, match=r"scenes\.seed is -1"):
        MovingScenes(MovingScenesConfig(seed=-1), "train", 16, 64, tmp_path)
    with pytest.raises(ValueError, match=r"at least 4 frames of 8 pixels.*2 frames of 64"):
        MovingScenes(MovingScenesConfig(), "train", 2, 64, tmp_path)
