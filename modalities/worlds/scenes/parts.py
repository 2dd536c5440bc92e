"""The parts of scenes and clips: solids, their colours and patterns, light and backdrop, drawn independently."""

from dataclasses import dataclass, replace

import numpy as np

from modalities.worlds.scenes.description import COLOURS, MATERIALS, PATTERNS, Backdrop, Light, Objects
from modalities.worlds.scenes.shapes import CLASSES, RESTING_TILTS, Floats, Ints, support

MAX_OBJECTS = 5
STRETCH = (0.87, 1.17)  # range of the stretch along the z axis, for all shapes but spheres
_SPHERE = CLASSES.index("sphere")
_PATTERN_OF = {  # each shape has its own pattern, which identifies it as well as the shape does
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
_MARKINGS = np.array([PATTERNS.index(_PATTERN_OF[name]) for name in CLASSES])
_BOLD_FREQUENCY = {  # of the pattern on the unit solid: low enough to be seen in images of 64 pixels
    "sphere": 7.0,
    "cube": 8.0,
    "cylinder": 6.5,
    "cone": 6.0,
    "torus": 7.0,
    "pyramid": 9.0,
    "capsule": 5.0,
    "dome": 7.0,
    "prism": 7.0,
    "cross": 6.0,
}
_BOLD_FREQUENCIES = np.array([_BOLD_FREQUENCY[name] for name in CLASSES], dtype=np.float32)
_LUMINANCE = np.array([0.3, 0.59, 0.11], dtype=np.float32)
_GROUNDS = np.array([PATTERNS.index(kind) for kind in ("plain", "clouds")])


class Draws:
    """Uniform random numbers in [0, 1) for B items; each item's depend on seed, kind of draw and item index only."""

    def __init__(self, seed: int, kind: int, indices: Ints) -> None:
        generators = (np.random.default_rng((seed, kind, int(index))) for index in indices)
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
class Solids:
    """Objects without positions and colours."""

    shape: Ints  # [B, K]
    scale: Floats  # [B, K, 3]
    radius: Floats  # [B, K]
    rotation: Floats  # [B, K, 3, 3]
    height: Floats  # [B, K], of the position above the ground


def make_solids(shape: Ints, size: Floats, stretch: Floats, rotation: Floats) -> Solids:
    """Solids of given sizes and poses: [B, K], [B, K], [B, K], [B, K, 3, 3]."""
    size = size * SIZES[shape]
    stretch = np.where(shape == _SPHERE, np.float32(1), stretch)
    scale = np.stack([size, size, size * stretch], axis=-1)
    height = object_support(shape, scale, rotation, np.array([0, 0, -1], dtype=np.float32))
    return Solids(shape=shape, scale=scale, radius=RADII[shape] * scale.max(axis=-1), rotation=rotation, height=height)


def camera_axes(pitch: Floats, roll: Floats) -> Floats:
    """Right, up and forward axes of a camera pitched up and then rolled, in radians: [B], [B] -> [B, 3, 3]."""
    nil, one = np.zeros_like(pitch), np.ones_like(pitch)
    right = np.stack([one, nil, nil], axis=-1)
    up = np.stack([nil, -np.sin(pitch), np.cos(pitch)], axis=-1)
    forward = np.stack([nil, np.cos(pitch), np.sin(pitch)], axis=-1)
    sine, cosine = np.sin(roll)[:, None], np.cos(roll)[:, None]
    return np.stack([cosine * right + sine * up, cosine * up - sine * right, forward], axis=1)


def draw_objects(draws: Draws, count: Ints, solids: Solids, position: Floats) -> Objects:
    """Solids with random colours, patterns and materials."""
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
        clearance=np.zeros_like(solids.radius),
    )


def bold(draws: Draws, objects: Objects) -> Objects:
    """The same objects, of which the main one alone has a pattern: of strong contrast, at a scale of its shape.

    Either colour may be the ground of the pattern, so that bright and dark parts say nothing of the shape. No object is
    a mirror, which would hide its pattern.
    """
    named = np.sqrt(objects.rgb[:, :, 0])  # [B, K, 3]
    opposite = ((named @ _LUMINANCE)[..., None] < 0.5).astype(np.float32)  # white or black
    other = named + (opposite - named) * draws.uniform(MAX_OBJECTS, 1, low=0.75)
    swapped = draws.uniform(MAX_OBJECTS, 1, 1) < 0.5
    pair, main = np.stack([named, other], axis=2), np.arange(MAX_OBJECTS) == 0
    return replace(
        objects,
        rgb=np.where(swapped, pair[:, :, ::-1], pair) ** 2,
        frequency=_BOLD_FREQUENCIES[objects.shape] * draws.uniform(MAX_OBJECTS, low=0.9, high=1.1),
        pattern=np.where(main, objects.pattern, PATTERNS.index("plain")),
        material=draws.integers(MATERIALS.index("metal"), MAX_OBJECTS),
    )


def draw_rotations(draws: Draws, count: int) -> Floats:
    """Rotations [B, K, 3, 3], uniformly distributed (Shoemake 1992)."""
    share = draws.uniform(count)
    one, other = draws.uniform(count, high=2 * np.pi), draws.uniform(count, high=2 * np.pi)
    return rotations_of(share, one, other)


def rotations_of(share: Floats, one: Floats, other: Floats) -> Floats:
    """Rotations [B, K, 3, 3] from a number in [0, 1) and two angles, uniform if these [B, K] are (Shoemake 1992)."""
    near, far = np.sqrt(1 - share), np.sqrt(share)
    x, y, z, w = near * np.sin(one), near * np.cos(one), far * np.sin(other), far * np.cos(other)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def draw_resting_rotations(draws: Draws, shape: Ints) -> Floats:
    """Random resting poses, rotated about the vertical: [B, K] -> [B, K, 3, 3]."""
    most = max(map(len, RESTING_TILTS))
    tilts = np.radians([[row[pose % len(row)] for pose in range(most)] for row in RESTING_TILTS]).astype(np.float32)
    tilt = tilts[shape, draws.integers(most, shape.shape[1])]
    turn = draws.uniform(shape.shape[1], high=2 * np.pi)
    (c, s), (ct, st), nil = (np.cos(turn), np.sin(turn)), (np.cos(tilt), np.sin(tilt)), np.zeros_like(turn)
    rows = [[c, -s * ct, s * st], [s, c * ct, -c * st], [nil, st, ct]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def object_support(shape: Ints, scale: Floats, rotation: Floats, direction: Floats) -> Floats:
    """How far objects extend in a direction: [B, K], [B, K, 3], [B, K, 3, 3], [..., 3] -> [B, K]."""
    local = (rotation * direction[..., None]).sum(axis=-2) * scale  # [B, K, 3]
    extent = np.empty(shape.shape, dtype=np.float32)
    for number in np.unique(shape):
        of_kind = shape == number
        extent[of_kind] = support(int(number), local[of_kind].T)
    return extent


def draw_light(draws: Draws) -> Light:
    """A lamp at a random height and direction, and the ambient light."""
    around, above = draws.uniform(high=2 * np.pi), draws.uniform(low=0.6, high=1.25)
    direction = np.stack([np.cos(above) * np.sin(around), np.cos(above) * np.cos(around), np.sin(above)], axis=-1)
    warmth = draws.uniform(low=-1.0, high=1.0)[:, None] * np.array([0.22, 0.02, -0.22], dtype=np.float32)
    strength = draws.uniform(1, low=0.75, high=1.15)
    return Light(
        direction=direction, rgb=(1 + warmth) * strength, ambient=(1 - warmth) * draws.uniform(1, low=0.22, high=0.45)
    )


def draw_backdrop(draws: Draws) -> Backdrop:
    """Ground, wall and sky."""
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

    # [B, planes, colours]: the two colours of a plane are similar, so that objects stand out by their patterns
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


def muted(draws: Draws, backdrop: Backdrop) -> Backdrop:
    """The same planes and sky in pale colours of their own, without patterns."""
    shade = draws.uniform(3, 1, low=0.4, high=0.75) + draws.uniform(3, 2, low=-0.05, high=0.05)
    hue, saturation = draws.uniform(3, 1) + draws.uniform(3, 2, high=0.08), draws.uniform(3, 1, high=0.25)
    rgb = _from_hsv(hue, np.broadcast_to(saturation, hue.shape), shade) ** 2  # [B, ground, wall and sky, 2, 3]
    return replace(backdrop, pattern=np.zeros_like(backdrop.pattern), rgb=rgb[:, :2], sky=rgb[:, 2])


def _from_hsv(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Hue, saturation and value, [...] each -> RGB [..., 3]."""
    wheel = np.clip(np.abs((hue[..., None] * 6 + np.array([0, 4, 2], dtype=np.float32)) % 6 - 3) - 1, 0, 1)
    return (value[..., None] * (1 + saturation[..., None] * (wheel - 1))).astype(np.float32)


def _bounding_radii() -> Floats:
    """Radius of a ball around each unit solid: its greatest support over many directions."""
    count = np.arange(2000)
    z, turn = 1 - (2 * count + 1) / 2000, count * np.pi * (1 + 5**0.5)
    level = np.sqrt(1 - z * z)
    sphere = np.stack([level * np.cos(turn), level * np.sin(turn), z]).astype(np.float32)
    return np.array([support(number, sphere).max() * 1.002 for number in range(len(CLASSES))], dtype=np.float32)


# At these sizes every class covers the same image area on average, so that the area does not reveal the class.
SIZES = np.array([1.01, 0.95, 1.07, 1.0, 1.0, 0.97, 1.12, 0.96, 0.97, 1.06], dtype=np.float32)
RADII = _bounding_radii()
