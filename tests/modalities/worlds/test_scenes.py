"""Scenes: functions of (seed, index), rendered as described, labelled correctly, cached only when complete."""

import pickle
import time
from dataclasses import fields, replace
from pathlib import Path

import fork_server
import numpy as np
import pytest

from modalities.worlds.scenes import shapes as scene_shapes
from modalities.worlds.scenes.dataset import Scenes, ScenesConfig
from modalities.worlds.scenes.description import COLOURS, Objects, SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, SIZES
from modalities.worlds.scenes.render import FAR, RenderedScenes, render
from modalities.worlds.scenes.sampling import sample_scenes
from modalities.worlds.scenes.shapes import CLASSES, Floats
from modalities.worlds.scenes.worker import depth_cells, scene_labels


def arrays(scenes: SceneBatch) -> dict[str, np.ndarray]:
    parts = {part.name: getattr(scenes, part.name) for part in fields(scenes)}
    return {f"{name}.{each.name}": getattr(part, each.name) for name, part in parts.items() for each in fields(part)}


@pytest.fixture(scope="module")
def many() -> SceneBatch:
    return sample_scenes(5, np.arange(2400))


@pytest.fixture(scope="module")
def rendered() -> tuple[SceneBatch, RenderedScenes]:
    scenes = sample_scenes(1, np.arange(180))
    return scenes, render(scenes, 64)


def test_a_scene_and_its_image_do_not_depend_on_the_batch() -> None:
    together, alone, later = (np.arange(7, 27), np.array([19]), np.array([19, 3, 1000]))
    batches = [sample_scenes(2, indices) for indices in (together, alone, later)]
    for name, whole in arrays(batches[0]).items():
        assert whole.dtype in (np.float32, np.int64), name
        np.testing.assert_array_equal(whole[12], arrays(batches[1])[name][0], err_msg=name)
        np.testing.assert_array_equal(whole[12], arrays(batches[2])[name][0], err_msg=name)
    images = [render(batch, 32) for batch in batches]
    for other in images[1:]:
        np.testing.assert_array_equal(images[0].images[12], other.images[0])
        np.testing.assert_array_equal(images[0].depth[12], other.depth[0])
    assert not np.array_equal(images[0].images[12], render(sample_scenes(3, alone), 32).images[0])


def test_class_and_count_are_balanced_and_independent(many: SceneBatch) -> None:
    pairs = np.bincount(many.objects.shape[:, 0] * MAX_OBJECTS + many.objects.count - 1)
    np.testing.assert_array_equal(pairs, np.full(50, len(many.objects.count) // 50))


def test_class_count_and_distance_are_independent_of_everything_else(many: SceneBatch) -> None:
    objects, camera, backdrop = many.objects, many.camera, many.backdrop
    main = objects.position[:, 0] - camera.position
    x, y, z = (camera.axes * main[:, None]).sum(axis=-1).T
    others = {
        "colour": np.eye(len(COLOURS))[objects.colour[:, 0]],
        "rgb": objects.rgb[:, 0, 0],
        "material": objects.material[:, :1],
        "position in the image": np.stack([camera.focal * x / z, camera.focal * y / z], axis=1),
        "size": (objects.scale[:, 0, :1] / SIZES[objects.shape[:, :1]]),
        "distance": nearest_points(objects, main)[:, None],
        "ground": backdrop.rgb[:, 0].reshape(-1, 6),
        "light": many.light.direction,
        "other shapes": np.eye(len(CLASSES))[objects.shape[:, 1]],
    }
    labels = {"class": np.eye(len(CLASSES))[objects.shape[:, 0]], "count": objects.count[:, None].astype(float)}
    for label, values in labels.items():
        for name, drawn in others.items():
            assert strongest_correlation(values, drawn) < 0.1, (label, name)
    nearest = others.pop("distance")
    for name in ("colour", "rgb", "material", "ground", "light", "other shapes"):
        assert strongest_correlation(nearest, others[name]) < 0.1, ("distance", name)


def nearest_points(objects: Objects, main: Floats) -> Floats:
    """Distance from the camera to the nearest point of main objects at [B, 3], for rays that are parallel."""
    distance = np.linalg.norm(main, axis=1)
    local = (objects.rotation[:, 0] * (-main / distance[:, None])[..., None]).sum(axis=-2) * objects.scale[:, 0]
    extent = [
        scene_shapes.support(int(kind), to[:, None])[0] for kind, to in zip(objects.shape[:, 0], local, strict=True)
    ]
    return distance - np.array(extent, dtype=np.float32)


def strongest_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Over all pairs of columns of [S, P] and [S, Q]; chance gives about 0.02 * 3 for 2400 samples."""
    joint = np.corrcoef(one.T, other.T)[: one.shape[1], one.shape[1] :]
    return float(np.abs(joint).max())


def test_solids_rest_on_the_ground_and_do_not_overlap(many: SceneBatch) -> None:
    objects = many.objects
    present = np.arange(MAX_OBJECTS) < objects.count[:, None]
    gaps = np.linalg.norm(objects.position[:, :, None] - objects.position[:, None], axis=-1)
    gaps = gaps - objects.radius[:, :, None] - objects.radius[:, None]
    both = present[:, :, None] & present[:, None] & ~np.eye(MAX_OBJECTS, dtype=bool)
    assert gaps[both].min() > -0.05  # between bounding balls; the objects are smaller
    down = -objects.rotation[..., 2, :] * objects.scale
    for kind in range(len(CLASSES)):
        chosen = objects.shape == kind
        lowest = objects.position[chosen][:, 2] - scene_shapes.support(kind, down[chosen].T)
        np.testing.assert_allclose(lowest, 0, atol=1e-5)


@pytest.mark.parametrize("kind", range(len(CLASSES)), ids=CLASSES)
def test_rays_enter_a_solid_on_its_surface_inside_its_support_and_against_its_normal(kind: int) -> None:
    rng = np.random.default_rng(kind)
    origin = rng.normal(size=(3, 4000)).astype(np.float32)
    origin *= 4 / np.linalg.norm(origin, axis=0)
    direction = (rng.uniform(-1, 1, size=(3, 4000)) - origin).astype(np.float32)
    with np.errstate(all="ignore"):
        distance = scene_shapes.entry(kind, origin, direction)
        hit = np.isfinite(distance)
        point = (origin + distance * direction)[:, hit]
        normal = scene_shapes.outward(kind, point)
        normal /= np.linalg.norm(normal, axis=0)
        back_in = scene_shapes.entry(kind, point + 0.03 * normal, -normal)
    assert 0.2 < hit.mean() < 0.95
    assert (
        (normal * direction[:, hit]).sum(axis=0) < 0.05 * 4
    ).mean() > 0.98  # sphere tracing makes a torus slightly thicker
    assert (np.abs(back_in - 0.03) < 0.02).mean() > 0.97  # a step off the surface and back hits it again
    directions = rng.normal(size=(3, 200)).astype(np.float32)
    assert ((directions.T @ point).max(axis=1) <= scene_shapes.support(kind, directions) + 0.03).all()


def test_the_depth_of_a_ball_straight_ahead_is_its_distance_minus_its_radius() -> None:
    scene = sample_scenes(0, np.arange(1))
    ball = replace(
        scene.objects,
        count=np.array([1]),
        shape=np.zeros_like(scene.objects.shape),
        scale=np.full_like(scene.objects.scale, 0.7),
        radius=np.full_like(scene.objects.radius, 0.7),
        position=np.broadcast_to(np.float32([0, 5, 2]), scene.objects.position.shape).copy(),
    )
    axes = np.array([[[1, 0, 0], [0, 0, 1], [0, 1, 0]]], dtype=np.float32)
    camera = replace(scene.camera, position=np.array([[0, 0, 2]], dtype=np.float32), axes=axes)
    image = render(replace(scene, objects=ball, camera=camera), 65)
    assert image.depth[0, 32, 32] == pytest.approx(4.3, abs=1e-4)
    assert image.objects[0, 32, 32] == 0
    covered = (
        np.pi * 0.7**2 / (5**2 - 0.7**2) * (camera.focal[0] * 65 / 2) ** 2
    )  # area of the projected cone around the ball
    assert (image.objects == 0).sum() == pytest.approx(covered, rel=0.05)
    assert image.depth.max() <= FAR


def test_labels_agree_with_the_images(rendered: tuple[SceneBatch, RenderedScenes]) -> None:
    scenes, images = rendered
    found = scene_labels(scenes, images)
    for number, (objects, depth) in enumerate(zip(images.objects, images.depth, strict=True)):
        pixels = np.bincount(objects[objects >= 0], minlength=MAX_OBJECTS)
        assert pixels.argmax() == 0 or pixels[0] > 80
        assert found[number]["count"] == (pixels >= 0.003 * objects.size).sum() <= scenes.objects.count[number]
        assert found[number]["depth"] == depth[objects == 0].min() == depth[objects >= 0].min()
        assert CLASSES[found[number]["class"]] == CLASSES[scenes.objects.shape[number, 0]]
    assert (found["count"] == scenes.objects.count).mean() > 0.88  # some objects are hidden
    assert np.corrcoef(found["depth"], found["class"])[0, 1] == pytest.approx(0, abs=0.2)
    assert found["depth"].min() > 1.95
    assert found["depth"].max() < 3.9


def test_raw_pixels_hardly_reveal_the_class() -> None:
    scenes = [sample_scenes(2, np.arange(start, start + 50)) for start in range(0, 900, 50)]
    classes = np.concatenate([each.objects.shape[:, 0] for each in scenes])
    pixels = np.concatenate([render(each, 16).images for each in scenes]).reshape(len(classes), -1).astype(np.float32)
    squares = (pixels**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * pixels @ pixels.T
    np.fill_diagonal(distance, np.inf)
    nearest = classes[distance.argsort(axis=1)[:, :5]]  # [S, 5]
    assert (
        nearest == classes[:, None]
    ).mean() < 0.13  # by chance 0.1 with a deviation of 0.005; upright solids give 0.15


def test_depth_cells_are_means_at_every_size(rendered: tuple[SceneBatch, RenderedScenes]) -> None:
    depth = rendered[1].depth[:3]
    cells = depth_cells(depth)
    assert cells.shape == (3, 16, 16)
    np.testing.assert_allclose(cells[1, 2, 3], depth[1, 8:12, 12:16].mean(), rtol=1e-3)
    assert depth_cells(depth[:, :30, :30]).shape == (3, 8, 8)
    np.testing.assert_allclose(depth_cells(np.full((1, 30, 30), 7, dtype=np.float32)), 7)


def test_splits_have_different_scenes_and_survive_pickling(tmp_path: Path) -> None:
    config = ScenesConfig(train=6, validation=6, test=6)
    splits = [Scenes(config, split, 16, tmp_path) for split in ("train", "validation", "test")]
    images = {sample.inputs.numpy().tobytes() for split in splits for sample in map(split.__getitem__, range(6))}
    assert len(images) == 18
    stored = pickle.dumps(splits[0])
    assert len(stored) < 1000
    again = pickle.loads(stored)
    assert len(again) == 6
    assert (again[5].inputs == splits[0][5].inputs).all()
    assert again[5].labels["depth"] == splits[0][5].labels["depth"]
    assert again[5].labels["depth_map"].shape == (4, 4)
    with pytest.raises(IndexError):
        again[6]


def test_impossible_seeds_and_counts_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scenes\.test is 0"):
        Scenes(ScenesConfig(test=0), "test", 16, tmp_path)
    with pytest.raises(ValueError, match=r"scenes\.seed is -1"):
        Scenes(ScenesConfig(seed=-1), "train", 16, tmp_path)


def open_scenes(folder: str, count: str) -> None:
    """Open the training split in another process, and print where it is."""
    print(Scenes(ScenesConfig(train=int(count)), "train", 32, Path(folder)).folder.name)


def test_a_killed_render_leaves_no_cache(tmp_path: Path) -> None:
    count = 300
    process = fork_server.start("call", __file__, "open_scenes", str(tmp_path), str(count))
    deadline = time.monotonic() + 60
    while not any(path.stat().st_blocks for path in tmp_path.glob("*.part-*/images.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and ".part-" not in path.name]

    scenes = Scenes(ScenesConfig(train=count), "train", 32, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [scenes.folder]
    for index in (0, 65, 299, count - 1):
        expected = render(sample_scenes(0, np.array([index])), 32)
        np.testing.assert_array_equal(scenes[index].inputs.numpy(), expected.images[0])


def test_concurrent_processes_get_the_same_complete_cache(tmp_path: Path) -> None:
    processes = [fork_server.start("call", __file__, "open_scenes", str(tmp_path), "70") for _ in range(2)]
    ended = [process.finish() for process in processes]
    folders = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert [process.stdout.strip() for process in ended] == 2 * folders
    assert sum("rendering scenes" in process.stderr for process in ended) == 1
