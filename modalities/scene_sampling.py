"""Scenes drawn from (seed, index) alone, so that nothing that is asked about them can be told from anything else."""

from dataclasses import dataclass

import numpy as np

from modalities.scene_shapes import CLASSES, RESTING_TILTS, Floats, Ints, reach
from modalities.scene_world import (
    COLOURS,
    MATERIALS,
    PATTERNS,
    Backdrop,
    Camera,
    Light,
    Objects,
    SceneBatch,
)

MAX_OBJECTS = 5
_NEAREST = (2.0, 3.6)
_BEHIND = (0.25, 7.0)
_MAIN_SIZE, _OTHER_SIZE = (0.9, 1.15), (0.35, 0.6)
_SMALLEST = 0.12
_LARGEST = 0.5  # the same, as a share of the main object's
_CANDIDATES = 80  # places tried for each of the other objects
_SPHERE = CLASSES.index("sphere")
_KINDS = {  # markings by which a kind of thing is known as well as by its shape
    "sphere": "stripes",
    "cube": "checks",
    "cylinder": "dots",
    "cone": "tiles",
    "torus": "plain",
    "pyramid": "clouds",
    "capsule": "rings",
    "dome": "zigzag",
    "prism": "lines",
    "cross": "crosses",
}
_MARKINGS = np.array([PATTERNS.index(_KINDS[kind]) for kind in CLASSES])
_GROUNDS = np.array([PATTERNS.index(kind) for kind in ("plain", "clouds")])


class _Draws:
    """Uniform numbers in [0, 1) that depend on the seed and on each scene's own index."""

    def __init__(self, seed: int, indices: Ints) -> None:
        generators = (np.random.default_rng((seed, 0, int(index))) for index in indices)
        self.table = np.stack([generator.random(1536, dtype=np.float32) for generator in generators])
        self.used = 0

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Floats:
        """[B, *shape]."""
        size = int(np.prod(shape, dtype=np.int64))
        drawn = self.table[:, self.used : self.used + size].reshape(-1, *shape)
        self.used += size
        return np.float32(low) + drawn * np.float32(high - low)

    def integers(self, below: int, *shape: int) -> Ints:
        """[B, *shape]."""
        return (self.uniform(*shape) * below).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Solids:
    """Objects before they have a place and a colour."""

    shape: Ints  # [B, K]
    scale: Floats  # [B, K, 3]
    radius: Floats  # [B, K]
    rotation: Floats  # [B, K, 3, 3]
    height: Floats  # [B, K], of the origin over ground


def sample_scenes(seed: int, indices: Ints) -> SceneBatch:
    """Scenes [B] by their numbers [B].

    Each shape has markings of its own, in any colours and at any scale. Class of the main object, number of objects,
    distance, size, place in the image, colours, materials, light and backdrop are drawn independently of each other;
    any 50 consecutive numbers from a multiple of 50 hold every pair of class and count once. The main object is the
    nearest one: the nearest points of others are 0.25 farther.
    """
    draws = _Draws(seed, indices)
    count, main_shape = _balanced(seed, indices)
    solids = _solids(draws, main_shape)
    camera, position = _places(draws, solids)
    objects = _objects(draws, count, solids, position)
    return SceneBatch(objects=objects, camera=camera, light=_light(draws), backdrop=_backdrop(draws))


def _balanced(seed: int, indices: Ints) -> tuple[Ints, Ints]:
    """Number of objects and class of the main one: ([B], [B])."""
    pairs = len(CLASSES) * MAX_OBJECTS
    blocks, places = np.divmod(indices, pairs)
    orders = {block: np.random.default_rng((seed, 1, block)).permutation(pairs) for block in np.unique(blocks).tolist()}
    pair = np.array([orders[block][place] for block, place in zip(blocks.tolist(), places.tolist(), strict=True)])
    return pair // len(CLASSES) + 1, pair % len(CLASSES)


def _solids(draws: _Draws, main_shape: Ints) -> _Solids:
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, 0] = main_shape
    size = draws.uniform(MAX_OBJECTS, low=_OTHER_SIZE[0], high=_OTHER_SIZE[1])
    size[:, 0] = draws.uniform(low=_MAIN_SIZE[0], high=_MAIN_SIZE[1])
    size = size * SIZES[shape]
    stretch = np.where(shape == _SPHERE, np.float32(1), draws.uniform(MAX_OBJECTS, low=0.87, high=1.17))
    scale = np.stack([size, size, size * stretch], axis=-1)
    rotation = _resting_rotations(draws, shape)
    height = _reach(shape, scale, rotation, np.array([0, 0, -1], dtype=np.float32))
    return _Solids(
        shape=shape, scale=scale, radius=_RADII[shape] * scale.max(axis=-1), rotation=rotation, height=height
    )


def _places(draws: _Draws, solids: _Solids) -> tuple[Camera, Floats]:
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
        away = nearest + _reach(solids.shape, solids.scale, solids.rotation, towards[:, None])[:, 0]
    axes = _aim(eye, position[:, 0], above / focal, draws.uniform(low=-0.1, high=0.1))
    camera = Camera(position=eye, axes=axes, focal=focal)
    for slot in range(1, MAX_OBJECTS):
        position[:, slot] = _free_place(draws, slot, camera, nearest, solids, position)
    return camera, position


def _objects(draws: _Draws, count: Ints, solids: _Solids, position: Floats) -> Objects:
    """Colours, patterns and materials for solids."""
    colour = draws.integers(len(COLOURS), MAX_OBJECTS)
    named = np.array(list(COLOURS.values()), dtype=np.float32)[colour] * draws.uniform(
        MAX_OBJECTS, 1, low=0.85, high=1.08
    )
    named = np.clip(named + draws.uniform(MAX_OBJECTS, 3, low=-0.05, high=0.05), 0.02, 1)
    extreme = (draws.uniform(MAX_OBJECTS, 1) < 0.5).astype(np.float32)  # white or black
    other = named + (extreme - named) * draws.uniform(MAX_OBJECTS, 1, low=0.55, high=0.95)
    return Objects(
        count=count,
        shape=solids.shape,
        colour=colour,
        material=draws.integers(len(MATERIALS), MAX_OBJECTS),
        pattern=_MARKINGS[solids.shape],
        rgb=np.stack([named, other], axis=2) ** 2,
        frequency=draws.uniform(MAX_OBJECTS, low=7.0, high=12.0),
        scale=solids.scale,
        radius=solids.radius,
        position=position,
        rotation=solids.rotation,
    )


def _free_place(draws: _Draws, slot: int, camera: Camera, nearest: Floats, solids: _Solids, position: Floats) -> Floats:
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
    pitch = np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1])) - np.arctan(above)
    nil, one = np.zeros_like(pitch), np.ones_like(pitch)
    right = np.stack([one, nil, nil], axis=-1)
    up = np.stack([nil, -np.sin(pitch), np.cos(pitch)], axis=-1)
    forward = np.stack([nil, np.cos(pitch), np.sin(pitch)], axis=-1)
    sine, cosine = np.sin(roll)[:, None], np.cos(roll)[:, None]
    return np.stack([cosine * right + sine * up, cosine * up - sine * right, forward], axis=1)


def _resting_rotations(draws: _Draws, shape: Ints) -> Floats:
    """A resting pose, turned about the vertical: [B, K] -> [B, K, 3, 3]."""
    most = max(map(len, RESTING_TILTS))
    tilts = np.radians([[row[pose % len(row)] for pose in range(most)] for row in RESTING_TILTS]).astype(np.float32)
    tilt = tilts[shape, draws.integers(most, shape.shape[1])]
    turn = draws.uniform(shape.shape[1], high=2 * np.pi)
    (c, s), (ct, st), nil = (np.cos(turn), np.sin(turn)), (np.cos(tilt), np.sin(tilt)), np.zeros_like(turn)
    rows = [[c, -s * ct, s * st], [s, c * ct, -c * st], [nil, st, ct]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _reach(shape: Ints, scale: Floats, rotation: Floats, direction: Floats) -> Floats:
    """How far objects reach from their position in a direction: [B, K], [B, K, 3], [B, K, 3, 3], [..., 3] -> [B, K]."""
    local = (rotation * direction[..., None]).sum(axis=-2) * scale  # [B, K, 3]
    reached = np.empty(shape.shape, dtype=np.float32)
    for number in np.unique(shape):
        of_kind = shape == number
        reached[of_kind] = reach(int(number), local[of_kind].T)
    return reached


def _light(draws: _Draws) -> Light:
    around, above = draws.uniform(high=2 * np.pi), draws.uniform(low=0.6, high=1.25)
    direction = np.stack([np.cos(above) * np.sin(around), np.cos(above) * np.cos(around), np.sin(above)], axis=-1)
    warmth = draws.uniform(low=-1.0, high=1.0)[:, None] * np.array([0.22, 0.02, -0.22], dtype=np.float32)
    strength = draws.uniform(1, low=0.75, high=1.15)
    return Light(
        direction=direction,
        rgb=(1 + warmth) * strength,
        ambient=(1 - warmth) * draws.uniform(1, low=0.22, high=0.45),
    )


def _backdrop(draws: _Draws) -> Backdrop:
    batch = len(draws.table)
    ahead = draws.uniform(low=-0.6, high=0.6)
    flat, away = np.zeros((batch, 3), dtype=np.float32), np.zeros((batch, 3), dtype=np.float32)
    flat[:, 2], away[:, 0], away[:, 1] = 1, -np.sin(ahead), -np.cos(ahead)
    distance = np.where(draws.uniform() < 0.55, -draws.uniform(low=13.5, high=17.0), np.float32(-np.inf))

    turn = draws.uniform(high=2 * np.pi)
    along = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1)
    across = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], axis=-1)
    level = np.stack([np.cos(ahead), -np.sin(ahead), 0 * ahead], axis=-1)
    texture = np.stack([np.stack([along, across, 0 * flat], axis=1), np.stack([level, flat, 0 * flat], axis=1)], axis=1)
    fineness = np.stack([draws.uniform(low=1.5, high=6.0), draws.uniform(low=1.0, high=3.0)], axis=1)

    # [B, planes, colours]: the two colours of a plane are close, so that objects stand out by their markings
    hue = draws.uniform(2, 1) + draws.uniform(2, 2, high=0.08)
    saturation = draws.uniform(2, 1, high=0.5) + draws.uniform(2, 2, high=0.1)
    value = draws.uniform(2, 1, low=0.3, high=0.85) + draws.uniform(2, 2, low=-0.05, high=0.05)
    sky_hue, sky_value = draws.uniform(2), draws.uniform(2, low=0.45, high=0.95)
    return Backdrop(
        normal=np.stack([flat, away], axis=1),
        offset=np.stack([np.zeros_like(distance), distance], axis=1),
        texture=texture * fineness[..., None, None],
        pattern=_GROUNDS[draws.integers(len(_GROUNDS), 2)],
        rgb=_from_hsv(hue, saturation, np.clip(value, 0.08, 0.95)) ** 2,
        sky=_from_hsv(sky_hue, draws.uniform(2, low=0.05, high=0.5), sky_value) ** 2,
    )


def _from_hsv(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """[...] each -> RGB [..., 3]."""
    wheel = np.clip(np.abs((hue[..., None] * 6 + np.array([0, 4, 2], dtype=np.float32)) % 6 - 3) - 1, 0, 1)
    return (value[..., None] * (1 + saturation[..., None] * (wheel - 1))).astype(np.float32)


def _bounding_radii() -> Floats:
    """Radius of a ball around each unit solid: the farthest that it reaches in any of many directions."""
    count = np.arange(2000)
    z, turn = 1 - (2 * count + 1) / 2000, count * np.pi * (1 + 5**0.5)
    level = np.sqrt(1 - z * z)
    sphere = np.stack([level * np.cos(turn), level * np.sin(turn), z]).astype(np.float32)
    return np.array([reach(number, sphere).max() * 1.002 for number in range(len(CLASSES))], dtype=np.float32)


# Sizes at which every class covers the same area of the image on average, so that area does not tell the class.
SIZES = np.array([1.01, 0.95, 1.07, 1.0, 1.0, 0.97, 1.12, 0.96, 0.97, 1.06], dtype=np.float32)
_RADII = _bounding_radii()
