"""The cast of a clip and where it stands in the middle frame: so that every motion may follow, whichever will.

An anchor hides a part of a veiled object behind it, a partner floats beside the anchor at a gap, up to two others float
or stand farther away. Lengths in the picture are in halves of its width; a phase of 1 is the time from the first frame
to the middle; directions are in eighths of a turn, and a little off.
"""

from dataclasses import dataclass, replace

import numpy as np

from modalities.worlds.scenes.description import Camera, SceneBatch
from modalities.worlds.scenes.parts import (
    MAX_OBJECTS,
    RADII,
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

PARTNER, ANCHOR, VEILED = 0, 1, 2  # slots
COMING = (0.22, 0.33)  # what the partner comes or goes in a phase, of its distance
QUARTER = np.array([-1, 1], dtype=np.float32)  # times (y, x): a quarter of a turn
_FEWEST = 3
_COMPACT = np.array([CLASSES.index(name) for name in ("sphere", "cube", "cylinder", "dome")])  # that hide others
_BENDS = np.array([2, 3, 5, 6])  # eighths of a turn from the veiled one to the partner, seen from the anchor
_JITTER = np.radians(15)  # about the directions
_ANCHOR_SIZE, _VEILED_SIZE, _PARTNER_SIZE = (0.27, 0.33), (0.16, 0.19), (0.13, 0.29)
_HIDDEN = 0.4  # of the anchor's radius: how far from its middle the veiled one is still hidden
_UNVEILED = 0.38  # how far the veiled one is from the middle of the anchor, at most
_GAP = (0.03, 0.28)  # least, beyond what the partner needs to turn; most, if that leaves any
_SPEED, _LATEST = (0.22, 0.46), 0.75  # a phase; the phase of a collision
_PAN = (0.14, 0.28)  # a phase
_INSIDE = 0.92  # where the middles of the cast stay, if there is room
_CANDIDATES = 24  # places tried for each of the others


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The cast in the picture, and how fast those move that will."""

    turn: Ints  # [B], where the veiled one comes out
    beside: Ints  # [B], from the anchor to the partner
    jitter: Floats  # [B, 2], radians by which these two are off
    focal: Floats  # [B]
    depth: Floats  # [B], of anchor and partner along the view
    veiled_depth: Floats  # [B]
    things: Solids
    gap: Floats  # [B], that partner and anchor must close to touch
    place: Floats  # [B, 3, 2], of the cast
    axes: Floats  # [B, 3, 3]
    unveil_speed: Floats  # [B]
    speed: Floats  # [B], of the partner
    pan_speed: Floats  # [B]


def towards(eighths: Ints, jitter: Floats) -> Floats:
    """Directions [B, 2], right and up."""
    angle = eighths * np.float32(np.pi / 4) + jitter
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def in_world(plane: Floats, axes: Floats) -> Floats:
    """Vectors across the view of a camera, [B, 2] right and up, [B, 3, 3] its axes -> [B, 3]."""
    vector: Floats = (plane[:, None] @ axes[:, :2])[:, 0].astype(np.float32)
    return vector


def lay_out(draws: Draws, turn: Ints) -> Layout:
    """Draw a cast whose veiled object comes out in given directions [B]."""
    bend = _BENDS[draws.integers(len(_BENDS))]
    jitter = draws.uniform(2, low=-_JITTER, high=_JITTER)
    unveil, beside = towards(turn, jitter[:, 0]), towards(turn + bend, jitter[:, 1])
    focal, depth = draws.uniform(low=1.9, high=2.2), draws.uniform(low=4.2, high=5.4)
    axes = camera_axes(draws.uniform(low=-0.3, high=0.06), draws.uniform(low=-0.08, high=0.08))
    seen, veiled_depth, things = _cast(draws, focal, depth)
    contact, gap = _gap(draws, things, in_world(beside, axes), focal / depth)
    slowest = np.maximum(_SPEED[0], gap / np.float32(_LATEST))
    speed = slowest + draws.uniform() * (np.maximum(_SPEED[1], slowest * np.float32(1.1)) - slowest)
    pan_speed = draws.uniform(low=_PAN[0], high=_PAN[1])
    hiding, unveil_speed = _unveiling(draws, seen)

    partner = beside * (contact + gap)[:, None]
    veiled = unveil * hiding[:, :1] + unveil[:, ::-1] * QUARTER * hiding[:, 1:]
    anchor, pan = np.zeros_like(partner), pan_speed[:, None]
    side = speed[:, None] * beside[:, ::-1] * QUARTER
    ends = [place + reach for place in (anchor, veiled, partner) for reach in (-pan, pan)]
    ends += [veiled + unveil * unveil_speed[:, None], partner + side, partner - side, partner + beside * speed[:, None]]
    middle = _room(draws, np.stack(ends, axis=1))
    return Layout(
        turn=turn,
        beside=turn + bend,
        jitter=jitter,
        focal=focal,
        depth=depth,
        veiled_depth=veiled_depth,
        things=things,
        gap=gap,
        place=middle[:, None] + np.stack([partner, anchor, veiled], axis=1),
        axes=axes,
        unveil_speed=unveil_speed,
        speed=speed,
        pan_speed=pan_speed,
    )


def _cast(draws: Draws, focal: Floats, depth: Floats) -> tuple[Floats, Floats, Solids]:
    """How large the three are seen [B, 3], how deep the veiled one is [B], and all solids."""
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, ANCHOR] = _COMPACT[draws.integers(len(_COMPACT))]
    sizes = (_PARTNER_SIZE, _ANCHOR_SIZE, _VEILED_SIZE)
    seen = np.stack([draws.uniform(low=low, high=high) for low, high in sizes], axis=1)

    # So deep that the veiled one passes behind the anchor without touching it.
    bound = RADII[shape] * SIZES[shape] * np.float32(STRETCH[1])
    behind = depth * (1 + bound[:, ANCHOR] * seen[:, ANCHOR] / focal) + np.float32(0.1)
    veiled_depth = behind / (1 - bound[:, VEILED] * seen[:, VEILED] / focal)
    size = draws.uniform(MAX_OBJECTS, low=0.5, high=0.8)
    size[:, :3] = seen * np.stack([depth, depth, veiled_depth], axis=1) / focal[:, None]
    rotation = resting_rotations(draws, shape)
    rotation[:, :3] = _any_rotations(draws, 3)
    stretch = draws.uniform(MAX_OBJECTS, low=STRETCH[0], high=STRETCH[1])
    return seen, veiled_depth, solids(shape, size, stretch, rotation)


def _gap(draws: Draws, things: Solids, across: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """How far apart the middles of anchor and partner are as they touch, and what they are beyond that: [B], [B].

    across: direction [B, 3] from anchor to partner; scale: picture lengths a metre. The gap leaves the ball around the
    partner free, so that it can turn.
    """
    far = reached(things.shape, things.scale, things.rotation, across[:, None])[:, ANCHOR]
    near = reached(things.shape, things.scale, things.rotation, -across[:, None])[:, PARTNER]
    least = np.float32(_GAP[0]) + (things.radius[:, PARTNER] - near) * scale
    return (far + near) * scale, least + draws.uniform() * np.maximum(np.float32(_GAP[1]) - least, np.float32(0.05))


def _unveiling(draws: Draws, seen: Floats) -> tuple[Floats, Floats]:
    """How far out and aside the veiled object is, and a speed that takes it from hiding into sight: [B, 2], [B]."""
    farthest = np.float32(_HIDDEN) * seen[:, ANCHOR]
    aside = farthest * draws.uniform(low=-0.6, high=0.6)
    hidden = np.sqrt(farthest * farthest - aside * aside)
    sight = seen[:, ANCHOR] + np.float32(0.4) * seen[:, VEILED]
    least = (sight - hidden) / 2 + np.float32(0.01)
    away = least + draws.uniform() * (np.float32(_UNVEILED) - least)
    slowest = np.maximum(away - hidden, sight - away)
    speed = (slowest + draws.uniform() * np.maximum(away + hidden - slowest, 0)) * np.float32(1.05)
    return np.stack([away, aside], axis=-1), speed


def _room(draws: Draws, ends: Floats) -> Floats:
    """A place [B, 2] for the middle of the cast that keeps points [B, J, 2] around it in the picture."""
    low, high = -_INSIDE - ends.min(axis=1), _INSIDE - ends.max(axis=1)
    low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
    place: Floats = np.where(low < high, low + draws.uniform(2) * (high - low), (low + high) / 2).astype(np.float32)
    return place


def _any_rotations(draws: Draws, count: int) -> Floats:
    """Uniform over all rotations: [B, count, 3, 3] (Shoemake 1992)."""
    share, one, other = np.moveaxis(draws.uniform(count, 3), -1, 0)
    one, other = 2 * np.pi * one, 2 * np.pi * other
    inner, outer = np.sqrt(1 - share), np.sqrt(share)
    x, y, z, w = inner * np.sin(one), inner * np.cos(one), outer * np.sin(other), outer * np.cos(other)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    turned: Floats = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2).astype(np.float32)
    return turned


def middle_scene(draws: Draws, layout: Layout, others: Ints) -> SceneBatch:
    """The scene of the middle frame with `others` [B] objects beside the cast of three."""
    camera, position = _stage(draws, layout)
    objects = painted(draws, _FEWEST + others, layout.things, position)
    objects = replace(objects, aloft=np.maximum(objects.position[..., 2] - layout.things.height, 0))
    return SceneBatch(objects=objects, camera=camera, light=light(draws), backdrop=backdrop(draws))


def _stage(draws: Draws, layout: Layout) -> tuple[Camera, Floats]:
    """A camera so high that nothing of the cast ever touches the ground, and where everything stands: [B, K, 3]."""
    depth = np.stack([layout.depth, layout.depth, layout.veiled_depth], axis=1)[..., None]
    flat = np.concatenate([layout.place * depth / layout.focal[:, None, None], depth], axis=-1)
    offset = flat @ layout.axes  # [B, 3, 3], from the eye

    travel = np.stack([layout.speed, 0 * layout.speed, layout.unveil_speed], axis=1) * depth[..., 0]
    travel /= layout.focal[:, None]
    lowest = (offset[..., 2] * np.float32(1 + COMING[1]) - layout.things.radius[:, :3] - travel).min(axis=1)
    eye = np.zeros_like(offset[:, 0])
    eye[:, 2] = np.maximum(-lowest, 2) + draws.uniform(low=0.1, high=0.8)
    camera = Camera(position=eye, axes=layout.axes, focal=layout.focal)
    position = np.zeros_like(layout.things.scale)
    position[:, :3] = eye[:, None] + offset
    for slot in range(_FEWEST, MAX_OBJECTS):
        position[:, slot] = _stand_apart(draws, slot, camera, layout, position)
    return camera, position


def _stand_apart(draws: Draws, slot: int, camera: Camera, layout: Layout, position: Floats) -> Floats:
    """A place behind the cast: [B, 3], that of some candidates that is least covered in the picture."""
    things, offered = layout.things, draws.uniform(_CANDIDATES, 3)
    nearest = (layout.veiled_depth + things.radius[:, VEILED] + things.radius[:, slot])[:, None]
    away = nearest + offered[..., 1] * np.maximum(np.float32(13) - nearest, 1)
    flat = np.float32(0.9) * (2 * offered[..., [0, 2]] - 1) / camera.focal[:, None, None]
    place = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1) * away[..., None] @ camera.axes
    place += camera.position[:, None]
    place[..., 2] = np.maximum(place[..., 2], things.height[:, slot, None])  # [B, M, 3], on the ground if not above it

    everything = np.concatenate([position[:, :slot], place], axis=1) - camera.position[:, None]
    seen = everything @ camera.axes.swapaxes(-1, -2)
    seen[..., :2] *= camera.focal[:, None, None] / seen[..., 2:]
    before, here = seen[:, None, :slot], seen[:, slot:, None]  # [B, 1, slot, 3], [B, M, 1, 3]
    size = camera.focal[:, None, None] * things.radius[:, None, :slot] / before[..., 2]
    clear = np.hypot(here[..., 0] - before[..., 0], here[..., 1] - before[..., 1]) - size
    inside = np.float32(0.9) - np.abs(here[:, :, 0, :2]).max(axis=-1)
    gaps = np.linalg.norm(place[:, :, None] - position[:, None, :slot], axis=-1)
    apart = gaps - things.radius[:, None, :slot] - things.radius[:, slot, None, None]
    worst = np.minimum(np.minimum(clear.min(axis=-1), inside), 60 * np.minimum(apart.min(axis=-1), 0))
    chosen: Floats = place[np.arange(len(place)), np.minimum(worst, 0).argmax(axis=1)]
    return chosen
