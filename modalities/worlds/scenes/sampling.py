"""Random scenes as functions of (seed, index), with independent labels."""

import numpy as np

from modalities.worlds.scenes import parts
from modalities.worlds.scenes.description import Camera, SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, SIZES, STRETCH, Draws, Solids
from modalities.worlds.scenes.shapes import CLASSES, Floats, Ints

_NEAREST = (2.0, 3.6)  # metres to the nearest point of the main object
_BEHIND = (0.25, 7.0)  # metres by which the others are farther away
_MAIN_SIZE, _OTHER_SIZE = (1.0, 1.25), (0.35, 0.6)
_RESTING_SIZE = (0.9, 1.15)  # of the main object of captioned scenes
_ROOM = 0.55  # how far from the image centre the main object may be, in halves of the width
_SMALLEST = 0.12  # radius of the other objects in the image, in halves of its width
_LARGEST = 0.5  # the same, relative to the main object
_CANDIDATES = 80  # positions tried for each of the other objects


def sample_scenes(seed: int, indices: Ints, captioned: bool = False) -> SceneBatch:
    """Scenes [B] by their indices [B].

    Each shape has its own pattern, in any colours. Class of the main object, number of objects, distance, size, pose,
    position in the image, colours, materials, light and backdrop are drawn independently; any 50 consecutive indices
    from a multiple of 50 contain every pair of class and count once. The main object is the nearest: the nearest points
    of the others are at least 0.25 m farther away. Objects touch the ground in any pose, the main one anywhere in the
    image, partly outside it if it is near an edge. It alone has a pattern, a bold one; backdrops are pale.

    captioned: the scenes of the world of captions. Objects rest on the ground, the main one is inside the image;
    patterns may be faint, in any scale; backdrops have any colours and patterns.
    """
    draws = Draws(seed, 0, indices)
    count, main_shape = _balanced_labels(seed, indices)
    solids = _draw_solids(draws, main_shape, captioned)
    camera, position = _draw_positions(draws, solids, captioned)
    objects = parts.draw_objects(draws, count, solids, position)
    light, backdrop = parts.draw_light(draws), parts.draw_backdrop(draws)
    if not captioned:
        objects, backdrop = parts.bold(draws, objects), parts.muted(draws, backdrop)
    return SceneBatch(objects=objects, camera=camera, light=light, backdrop=backdrop)


def _balanced_labels(seed: int, indices: Ints) -> tuple[Ints, Ints]:
    """Number of objects, and class of the main one: [B] each."""
    pairs = len(CLASSES) * MAX_OBJECTS
    blocks, offsets = np.divmod(indices, pairs)
    orders = {block: np.random.default_rng((seed, 1, block)).permutation(pairs) for block in np.unique(blocks).tolist()}
    pair = np.array([orders[block][offset] for block, offset in zip(blocks.tolist(), offsets.tolist(), strict=True)])
    return pair // len(CLASSES) + 1, pair % len(CLASSES)


def _draw_solids(draws: Draws, main_shape: Ints, captioned: bool) -> Solids:
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, 0] = main_shape
    low, high = _RESTING_SIZE if captioned else _MAIN_SIZE
    size = draws.uniform(MAX_OBJECTS, low=_OTHER_SIZE[0], high=_OTHER_SIZE[1])
    size[:, 0] = draws.uniform(low=low, high=high)
    stretch = draws.uniform(MAX_OBJECTS, low=STRETCH[0], high=STRETCH[1])
    resting = parts.draw_resting_rotations(draws, shape)
    return parts.make_solids(shape, size, stretch, resting if captioned else parts.draw_rotations(draws, MAX_OBJECTS))


def _draw_positions(draws: Draws, solids: Solids, captioned: bool) -> tuple[Camera, Floats]:
    """A camera and object positions [B, K, 3]: the main object at a random distance, the others behind it."""
    position = np.zeros_like(solids.scale)
    focal = draws.uniform(low=1.9, high=2.3)
    eye = np.zeros_like(position[:, 0])
    eye[:, 2] = draws.uniform(low=1.7, high=3.8)
    nearest = draws.uniform(low=_NEAREST[0], high=_NEAREST[1])

    half = np.float32(1.35) * solids.scale[:, 0, 0] / SIZES[solids.shape[:, 0]]
    if captioned:
        # How far from the image centre the main object may be: by size alone, as position must not reveal class.
        room = np.maximum(np.float32(0.95) - focal * half / (nearest + half), 0)
        across = draws.uniform(low=-1.0, high=1.0) * room
        above = draws.uniform() * (room + np.minimum(room, np.float32(0.3))) - room
    else:
        across, above = draws.uniform(low=-_ROOM, high=_ROOM), draws.uniform(low=-_ROOM, high=_ROOM)
    away = nearest + half
    for _ in range(3):  # its nearest point depends on the view; iterate until that has the drawn distance
        position[:, 0] = _ground_point(eye, across / focal, away, solids.height[:, 0])
        towards = eye - position[:, 0]
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        away = nearest + parts.object_support(solids.shape, solids.scale, solids.rotation, towards[:, None])[:, 0]
    axes = _aim(eye, position[:, 0], above / focal, draws.uniform(low=-0.1, high=0.1))
    camera = Camera(position=eye, axes=axes, focal=focal)
    for slot in range(1, MAX_OBJECTS):
        position[:, slot] = _free_position(draws, slot, camera, nearest, solids, position)
    return camera, position


def _free_position(
    draws: Draws, slot: int, camera: Camera, nearest: Floats, solids: Solids, position: Floats
) -> Floats:
    """A position for the object of a slot: [B, 3], the first random candidate that meets all conditions.

    Conditions: inside the image and neither tiny nor large there; no overlap with other objects; no object's centre
    behind a nearer object. If no candidate meets all of them, the one with the smallest violation is taken.
    """
    drawn = draws.uniform(_CANDIDATES, 2)  # [B, M, 2]
    radius, own = solids.radius, solids.radius[:, slot, None]
    away = nearest[:, None] + own + _BEHIND[0] + drawn[..., 1] * np.float32(_BEHIND[1] - _BEHIND[0])  # [B, M]
    sideways = (2 * drawn[..., 0] - 1) / camera.focal[:, None]
    candidates = _ground_point(camera.position[:, None], sideways, away, solids.height[:, slot, None])  # [B, M, 3]

    everything = np.concatenate([position[:, :slot], candidates], axis=1) - camera.position[:, None]
    in_view = (everything[:, :, None, :] * camera.axes[:, None]).sum(axis=-1)  # [B, slot + M, 3]
    in_view[..., :2] *= camera.focal[:, None, None] / in_view[..., 2:]
    before, here = in_view[:, None, :slot], in_view[:, slot:, None]  # [B, 1, slot, 3], [B, M, 1, 3]
    focal = camera.focal[:, None, None]
    before_size, here_size = focal * radius[:, None, :slot] / before[..., 2], focal * own[..., None] / here[..., 2]

    gaps = np.linalg.norm(candidates[:, :, None] - position[:, None, :slot], axis=-1)
    apart = gaps - own[..., None] - radius[:, None, :slot]
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
    worst = np.minimum(np.min(margins, axis=0), 0)  # [B, M], 0 if all conditions are met
    best: Floats = candidates[np.arange(len(candidates)), worst.argmax(axis=1)]
    return best


def _ground_point(eye: Floats, sideways: Floats, away: Floats, height: Floats) -> Floats:
    """The point at a height above ground and a distance from the eye, `sideways` by a tangent: -> [..., 3]."""
    level = np.sqrt(np.maximum(away**2 - (eye[..., 2] - height) ** 2, np.float32(0.01)))
    angle = np.arctan(sideways)
    return np.stack([level * np.sin(angle), level * np.cos(angle), np.broadcast_to(height, level.shape)], axis=-1)


def _aim(eye: Floats, point: Floats, above: Floats, roll: Floats) -> Floats:
    """Axes [B, 3, 3] of a camera that sees a point `above` (a tangent) the image centre, rolled by an angle."""
    offset = point - eye
    return parts.camera_axes(np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1])) - np.arctan(above), roll)
