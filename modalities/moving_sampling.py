"""Clips drawn from (seed, index) alone: first the scene in the middle, the same for every motion, then a motion.

The cast stands ready for every motion at all times. An anchor hides a part of a veiled object behind it, a partner
floats beside the anchor at a gap, up to two others float or stand farther away. The partner moves past the anchor,
turns, comes, goes or hits it; the veiled one leaves its hiding place or goes there; or the camera pans. Lengths in the
picture are in halves of its width; a phase of 1 is the time from the first frame to the middle.
"""

from dataclasses import dataclass, replace

import numpy as np

from modalities.moving_world import DIRECTIONS, MOTIONS, ClipBatch
from modalities.scene_parts import (
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
from modalities.scene_shapes import CLASSES, Floats, Ints
from modalities.scene_world import Camera, SceneBatch

BLOCK = 192  # consecutive clips, from a multiple of it, that hold all motions, turns of the layout and counts once
PARTNER, ANCHOR, VEILED = 0, 1, 2  # slots
_CLIPS = 2  # what the random numbers are for: 0 and 1 are scenes
_FEWEST = 3
_COMPACT = np.array([CLASSES.index(name) for name in ("sphere", "cube", "cylinder", "dome")])  # that hide others
_BENDS = np.array([2, 3, 5, 6])  # eighths of a turn from the veiled one to the partner, seen from the anchor
_JITTER = np.radians(15)  # about the directions
_ANCHOR_SIZE, _VEILED_SIZE, _PARTNER_SIZE = (0.27, 0.33), (0.16, 0.19), (0.13, 0.29)
_HIDDEN = 0.4  # of the anchor's radius: how far from its middle the veiled one is still hidden
_UNVEILED = (0.15, 0.38)  # how far the veiled one is from the middle of the anchor
_GAP = (0.03, 0.28)
_SPEED, _LATEST = (0.22, 0.46), 0.75  # a phase; the phase of a collision
_PAN = (0.14, 0.28)
_TURN = (0.9, 1.8)  # radians a phase
_COMING = (0.22, 0.33)  # of the distance, a phase
_INSIDE = 0.92
_CANDIDATES = 24
_QUARTER = np.array([-1, 1], dtype=np.float32)  # times (y, x): a quarter of a turn


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The cast in the picture. Directions [B, 2] are right and up; the motions that may follow are drawn already."""

    unveil: Floats  # where the veiled one comes out
    beside: Floats  # from the anchor to the partner
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


def sample_clips(seed: int, indices: Ints, frames: int) -> ClipBatch:
    """Clips [B] of F frames by their numbers [B]."""
    draws = Draws(seed, _CLIPS, indices)
    motion, turn, others = balanced(seed, indices)
    return clips_of(draws, motion, turn, others, frames)


def balanced(seed: int, indices: Ints) -> tuple[Ints, Ints, Ints]:
    """Motion, eighths of a turn of the layout, and number of objects beside the three of the cast: [B] each."""
    blocks, places = np.divmod(indices, BLOCK)
    orders = {block: np.random.default_rng((seed, 3, block)).permutation(BLOCK) for block in np.unique(blocks).tolist()}
    number = np.array([orders[block][place] for block, place in zip(blocks.tolist(), places.tolist(), strict=True)])
    return number % len(MOTIONS), number // len(MOTIONS) % 8, number // (8 * len(MOTIONS))


def clips_of(draws: Draws, motion: Ints, turn: Ints, others: Ints, frames: int) -> ClipBatch:
    """Clips of given motions. The middle scene is drawn first and does not look at the motion."""
    bend = _BENDS[draws.integers(len(_BENDS))]
    jitter = draws.uniform(2, low=-_JITTER, high=_JITTER)
    layout = _layout(draws, _towards(turn, jitter[:, 0]), _towards(turn + bend, jitter[:, 1]))
    camera, position = _stage(draws, layout)
    objects = painted(draws, _FEWEST + others, layout.things, position)
    objects = replace(objects, aloft=np.maximum(objects.position[..., 2] - layout.things.height, 0))
    middle = SceneBatch(objects=objects, camera=camera, light=light(draws), backdrop=backdrop(draws))
    return _followed(draws, middle, layout, motion, turn, bend, jitter, frames)


def _towards(eighths: Ints, jitter: Floats) -> Floats:
    angle = eighths * np.float32(np.pi / 4) + jitter
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def _layout(draws: Draws, unveil: Floats, beside: Floats) -> _Layout:
    focal, depth = draws.uniform(low=1.9, high=2.2), draws.uniform(low=4.2, high=5.4)
    axes = camera_axes(draws.uniform(low=-0.3, high=0.06), draws.uniform(low=-0.08, high=0.08))
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, ANCHOR] = _COMPACT[draws.integers(len(_COMPACT))]
    seen = np.stack([draws.uniform(low=low, high=high) for low, high in (_PARTNER_SIZE, _ANCHOR_SIZE, _VEILED_SIZE)], 1)

    # So deep that the veiled one passes behind the anchor without touching it.
    bound = RADII[shape] * SIZES[shape] * np.float32(STRETCH[1])
    behind = depth * (1 + bound[:, ANCHOR] * seen[:, ANCHOR] / focal) + np.float32(0.1)
    veiled_depth = behind / (1 - bound[:, VEILED] * seen[:, VEILED] / focal)
    size = draws.uniform(MAX_OBJECTS, low=0.5, high=0.8)
    size[:, :3] = seen * np.stack([depth, depth, veiled_depth], axis=1) / focal[:, None]
    rotation = resting_rotations(draws, shape)
    rotation[:, :3] = _any_rotations(draws, 3)
    things = solids(shape, size, draws.uniform(MAX_OBJECTS, low=STRETCH[0], high=STRETCH[1]), rotation)

    # The partner can turn about itself within its ball, which the gap leaves free.
    across = (beside[:, None] @ axes[:, :2])[:, 0]
    far = reached(shape, things.scale, rotation, across[:, None])[:, ANCHOR]
    near = reached(shape, things.scale, rotation, -across[:, None])[:, PARTNER]
    scale = focal / depth
    least = _GAP[0] + (things.radius[:, PARTNER] - near) * scale
    gap = least + draws.uniform() * np.maximum(np.float32(_GAP[1]) - least, np.float32(0.05))
    slowest = np.maximum(_SPEED[0], gap / np.float32(_LATEST))
    speed = slowest + draws.uniform() * (np.maximum(_SPEED[1], slowest * np.float32(1.1)) - slowest)
    pan_speed = draws.uniform(low=_PAN[0], high=_PAN[1])
    hiding, unveil_speed = _unveiling(draws, seen)

    partner = beside * ((far + near) * scale + gap)[:, None]
    veiled = unveil * hiding[:, :1] + unveil[:, ::-1] * _QUARTER * hiding[:, 1:]
    sweep, side = speed[:, None] * beside, speed[:, None] * beside[:, ::-1] * _QUARTER
    reach = pan_speed[:, None]
    ends = [0 * partner - reach, 0 * partner + reach, veiled - reach, veiled + reach, partner - reach, partner + reach]
    ends += [veiled + unveil * unveil_speed[:, None], partner + side, partner - side, partner + sweep]
    middle = _room(draws, np.stack(ends, axis=1))
    return _Layout(
        unveil=unveil,
        beside=beside,
        focal=focal,
        depth=depth,
        veiled_depth=veiled_depth,
        things=things,
        gap=gap,
        place=middle[:, None] + np.stack([partner, 0 * partner, veiled], axis=1),
        axes=axes,
        unveil_speed=unveil_speed,
        speed=speed,
        pan_speed=pan_speed,
    )


def _unveiling(draws: Draws, seen: Floats) -> tuple[Floats, Floats]:
    """How far out and aside the veiled object is, and a speed that takes it from hiding into sight: [B, 2], [B]."""
    farthest = np.float32(_HIDDEN) * seen[:, ANCHOR]
    aside = farthest * draws.uniform(low=-0.6, high=0.6)
    hidden = np.sqrt(farthest * farthest - aside * aside)
    sight = seen[:, ANCHOR] + np.float32(0.4) * seen[:, VEILED]
    least = (sight - hidden) / 2 + np.float32(0.01)
    away = least + draws.uniform() * (np.float32(_UNVEILED[1]) - least)
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


def _stage(draws: Draws, layout: _Layout) -> tuple[Camera, Floats]:
    """A camera so high that nothing of the cast ever touches the ground, and where everything stands: [B, K, 3]."""
    depth = np.stack([layout.depth, layout.depth, layout.veiled_depth], axis=1)[..., None]
    flat = np.concatenate([layout.place * depth / layout.focal[:, None, None], depth], axis=-1)
    offset = flat @ layout.axes  # [B, 3, 3], from the eye

    travel = np.stack([layout.speed, 0 * layout.speed, layout.unveil_speed], axis=1) * depth[..., 0]
    travel /= layout.focal[:, None]
    lowest = (offset[..., 2] * np.float32(1 + _COMING[1]) - layout.things.radius[:, :3] - travel).min(axis=1)
    eye = np.zeros_like(offset[:, 0])
    eye[:, 2] = np.maximum(-lowest, 2) + draws.uniform(low=0.1, high=0.8)
    camera = Camera(position=eye, axes=layout.axes, focal=layout.focal)
    position = np.zeros_like(layout.things.scale)
    position[:, :3] = eye[:, None] + offset
    for slot in range(_FEWEST, MAX_OBJECTS):
        position[:, slot] = _stand_apart(draws, slot, camera, layout, position)
    return camera, position


def _stand_apart(draws: Draws, slot: int, camera: Camera, layout: _Layout, position: Floats) -> Floats:
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


def _followed(
    draws: Draws, middle: SceneBatch, layout: _Layout, motion: Ints, turn: Ints, bend: Ints, jitter: Floats, frames: int
) -> ClipBatch:
    """The motions, from the middle scene."""
    kind = {name: motion == number for number, name in enumerate(MOTIONS)}
    half = frames // 2
    side, early = 2 * draws.integers(2), draws.integers(2) == 1
    pan = draws.integers(len(DIRECTIONS))
    direction = np.select(
        [kind["moving"], kind["colliding"], kind["appearing"], kind["disappearing"], kind["panning"]],
        [turn + bend + 2 * side - 2, turn + bend + 4, turn, turn + 4, pan],
        -1,
    )
    direction = np.where(direction >= 0, direction % len(DIRECTIONS), -1)
    unveiling = kind["appearing"] | kind["disappearing"]
    pace = np.where(unveiling, layout.unveil_speed, np.where(kind["panning"], layout.pan_speed, layout.speed)) / half
    heading = _towards(direction, np.where(kind["moving"] | kind["colliding"], jitter[:, 1], jitter[:, 0]))
    deep = np.where(unveiling, layout.veiled_depth, layout.depth)
    across = ((heading * (pace * deep / layout.focal)[:, None])[:, None] @ layout.axes[:, :2])[:, 0]  # metres a frame

    velocity = np.zeros((len(motion), 2, MAX_OBJECTS, 3), dtype=np.float32)
    velocity[kind["moving"], :, PARTNER] = across[kind["moving"], None]
    velocity[unveiling, :, VEILED] = across[unveiling, None]
    coming = (middle.camera.position - middle.objects.position[:, PARTNER]) / half
    coming *= draws.uniform(1, low=_COMING[0], high=_COMING[1])
    velocity[kind["approaching"], :, PARTNER] = coming[kind["approaching"], None]
    velocity[kind["receding"], :, PARTNER] = -coming[kind["receding"], None]

    # Masses as sizes cubed; without loss of energy the two part as fast as they met.
    mass = (middle.objects.scale[..., 0] / SIZES[middle.objects.shape]) ** 3
    partner, anchor = mass[:, PARTNER, None], mass[:, ANCHOR, None]
    hits = kind["colliding"]
    velocity[hits, 0, PARTNER] = across[hits]
    velocity[hits, 1, PARTNER] = (across * (partner - anchor) / (partner + anchor))[hits]
    velocity[hits, 1, ANCHOR] = (across * 2 * partner / (partner + anchor))[hits]
    closing = layout.gap / layout.speed * half  # frames
    event = half + np.where(hits, np.where(early, -closing, closing), 0)

    spin = np.zeros((len(motion), MAX_OBJECTS, 3), dtype=np.float32)
    spin[:, PARTNER] = _turning(draws, middle.objects.rotation[:, PARTNER]) * kind["turning"][:, None] / half
    about = (heading[:, ::-1] * _QUARTER)[:, None] @ layout.axes[:, :2]  # pictures go where the camera leaves
    return ClipBatch(
        frames=frames,
        middle=middle,
        motion=motion,
        direction=direction,
        main=np.where(kind["panning"], -1, np.where(unveiling, VEILED, PARTNER)),
        speed=np.where(direction >= 0, pace / 2, np.nan).astype(np.float32),
        velocity=velocity,
        event=event.astype(np.float32),
        spin=spin,
        pan=about[:, 0] * (kind["panning"] * pace / layout.focal)[:, None].astype(np.float32),
    )


def _turning(draws: Draws, rotation: Floats) -> Floats:
    """Rotation vectors [B, 3] of objects about an axis across their own, so that every kind of solid looks turned."""
    tilt = draws.uniform(2, low=-0.35, high=0.35)
    axis = np.stack([tilt[:, 0], np.ones_like(tilt[:, 0]), tilt[:, 1]], axis=-1)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    signed = (2 * draws.integers(2, 1) - 1) * draws.uniform(1, low=_TURN[0], high=_TURN[1])
    turned: Floats = (rotation @ (axis * signed)[..., None])[..., 0].astype(np.float32)
    return turned
