"""Scenes drawn from (seed, index) alone, so that nothing that is asked about them can be told from anything else."""

import numpy as np

from modalities.worlds.scenes.description import Camera, SceneBatch
from modalities.worlds.scenes.parts import (
    MAX_OBJECTS,
    SIZES,
    STRETCH,
    Draws,
    Solids,
    backdrop,
    camera_axes,
    light,
    painted,
    reached,
    resting_rotations,
    solids,
)
from modalities.worlds.scenes.shapes import CLASSES, Floats, Ints

_NEAREST = (2.0, 3.6)
_BEHIND = (0.25, 7.0)
_MAIN_SIZE, _OTHER_SIZE = (0.9, 1.15), (0.35, 0.6)
_SMALLEST = 0.12
_LARGEST = 0.5  # the same, as a share of the main object's
_CANDIDATES = 80  # places tried for each of the other objects


def sample_scenes(seed: int, indices: Ints) -> SceneBatch:
    """Scenes [B] by their numbers [B].

    Each shape has markings of its own, in any colours and at any scale. Class of the main object, number of objects,
    distance, size, place in the image, colours, materials, light and backdrop are drawn independently of each other;
    any 50 consecutive numbers from a multiple of 50 hold every pair of class and count once. The main object is the
    nearest one: the nearest points of others are 0.25 farther.
    """
    draws = Draws(seed, 0, indices)
    count, main_shape = _balanced(seed, indices)
    things = _solids(draws, main_shape)
    camera, position = _places(draws, things)
    objects = painted(draws, count, things, position)
    return SceneBatch(objects=objects, camera=camera, light=light(draws), backdrop=backdrop(draws))


def _balanced(seed: int, indices: Ints) -> tuple[Ints, Ints]:
    """Number of objects and class of the main one: ([B], [B])."""
    pairs = len(CLASSES) * MAX_OBJECTS
    blocks, places = np.divmod(indices, pairs)
    orders = {block: np.random.default_rng((seed, 1, block)).permutation(pairs) for block in np.unique(blocks).tolist()}
    pair = np.array([orders[block][place] for block, place in zip(blocks.tolist(), places.tolist(), strict=True)])
    return pair // len(CLASSES) + 1, pair % len(CLASSES)


def _solids(draws: Draws, main_shape: Ints) -> Solids:
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, 0] = main_shape
    size = draws.uniform(MAX_OBJECTS, low=_OTHER_SIZE[0], high=_OTHER_SIZE[1])
    size[:, 0] = draws.uniform(low=_MAIN_SIZE[0], high=_MAIN_SIZE[1])
    stretch = draws.uniform(MAX_OBJECTS, low=STRETCH[0], high=STRETCH[1])
    return solids(shape, size, stretch, resting_rotations(draws, shape))


def _places(draws: Draws, solids: Solids) -> tuple[Camera, Floats]:
    """A camera, and where the objects stand [B, K, 3]: the main one at the drawn distance, the others behind it."""
    position = np.zeros_like(solids.scale)
    focal = draws.uniform(low=1.9, high=2.3)
    eye = np.zeros_like(position[:, 0])
    eye[:, 2] = draws.uniform(low=1.7, high=3.8)
    nearest = draws.uniform(low=_NEAREST[0], high=_NEAREST[1])

    # How far from the middle of the image the main object may be: by its size alone, so that no class has its place.
    half = np.float32(1.35) * solids.scale[:, 0, 0] / SIZES[solids.shape[:, 0]]
    room = np.maximum(np.float32(0.95) - focal * half / (nearest + half), 0)
    across = draws.uniform(low=-1.0, high=1.0) * room
    above = draws.uniform() * (room + np.minimum(room, np.float32(0.3))) - room
    away = nearest + half
    for _ in range(3):  # until its nearest point, which depends on where it is seen from, has the drawn distance
        position[:, 0] = _stand(eye, across / focal, away, solids.height[:, 0])
        towards = eye - position[:, 0]
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        away = nearest + reached(solids.shape, solids.scale, solids.rotation, towards[:, None])[:, 0]
    axes = _aim(eye, position[:, 0], above / focal, draws.uniform(low=-0.1, high=0.1))
    camera = Camera(position=eye, axes=axes, focal=focal)
    for slot in range(1, MAX_OBJECTS):
        position[:, slot] = _free_place(draws, slot, camera, nearest, solids, position)
    return camera, position


def _free_place(draws: Draws, slot: int, camera: Camera, nearest: Floats, solids: Solids, position: Floats) -> Floats:
    """A place for the object of a slot: [B, 3], the first of random candidates that meets every wish.

    Wished for: in the image and not tiny; balls around objects apart; in the image no object's centre behind a nearer
    one. Where none meets all, the one that comes closest.
    """
    offered = draws.uniform(_CANDIDATES, 2)  # [B, M, 2]
    radius, own = solids.radius, solids.radius[:, slot, None]
    away = nearest[:, None] + own + _BEHIND[0] + offered[..., 1] * np.float32(_BEHIND[1] - _BEHIND[0])  # [B, M]
    sideways = (2 * offered[..., 0] - 1) / camera.focal[:, None]
    place = _stand(camera.position[:, None], sideways, away, solids.height[:, slot, None])  # [B, M, 3]

    everything = np.concatenate([position[:, :slot], place], axis=1) - camera.position[:, None]
    seen = (everything[:, :, None, :] * camera.axes[:, None]).sum(axis=-1)  # [B, slot + M, 3]
    seen[..., :2] *= camera.focal[:, None, None] / seen[..., 2:]
    before, here = seen[:, None, :slot], seen[:, slot:, None]  # [B, 1, slot, 3], [B, M, 1, 3]
    focal = camera.focal[:, None, None]
    before_size, here_size = focal * radius[:, None, :slot] / before[..., 2], focal * own[..., None] / here[..., 2]

    apart = (
        np.linalg.norm(place[:, :, None] - position[:, None, :slot], axis=-1) - own[..., None] - radius[:, None, :slot]
    )
    nearer_size = np.where(before[..., 2] < here[..., 2], before_size, here_size)
    visible = np.hypot(here[..., 0] - before[..., 0], here[..., 1] - before[..., 1]) - nearer_size
    inside = np.float32(0.97) - np.abs(here[:, :, 0, :2]).max(axis=-1) - np.float32(0.5) * here_size[..., 0]
    margins = [
        60 * (apart.min(axis=-1) - np.float32(0.02)),
        visible.min(axis=-1),
        inside,
        here_size[..., 0] - np.float32(_SMALLEST),
        np.float32(_LARGEST) * before_size[..., 0] - here_size[..., 0],
    ]
    worst = np.minimum(np.min(margins, axis=0), 0)  # [B, M], 0 where every wish is met
    chosen: Floats = place[np.arange(len(place)), worst.argmax(axis=1)]
    return chosen


def _stand(eye: Floats, sideways: Floats, away: Floats, height: Floats) -> Floats:
    """The point at a height over ground, at a distance from the eye, to the side by a tangent: -> [..., 3]."""
    level = np.sqrt(np.maximum(away**2 - (eye[..., 2] - height) ** 2, np.float32(0.01)))
    angle = np.arctan(sideways)
    return np.stack([level * np.sin(angle), level * np.cos(angle), np.broadcast_to(height, level.shape)], axis=-1)


def _aim(eye: Floats, point: Floats, above: Floats, roll: Floats) -> Floats:
    """Camera axes [B, 3, 3] that show a point above the middle of the image by a tangent, rolled by an angle."""
    offset = point - eye
    return camera_axes(np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1])) - np.arctan(above), roll)
