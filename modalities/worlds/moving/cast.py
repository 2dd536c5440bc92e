"""The cast of a clip, placed in the middle frame so that every kind of motion remains possible.

An anchor partly hides an occluded object behind it, and a partner floats beside the anchor at a gap; up to two other
objects float or stand farther away. Image lengths are in halves of the image width. A phase of 1 is the time from the
first frame to the middle. Directions are multiples of 45 degrees with a little jitter.
"""

from dataclasses import dataclass, replace

import numpy as np

from modalities.worlds.scenes import parts
from modalities.worlds.scenes.description import Camera, SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, RADII, SIZES, STRETCH, Draws, Solids
from modalities.worlds.scenes.shapes import CLASSES, Floats, Ints

PARTNER, ANCHOR, OCCLUDED = 0, 1, 2  # slots
APPROACH = (0.22, 0.33)  # share of its distance that the partner approaches or recedes in a phase
QUARTER_TURN = np.array([-1, 1], dtype=np.float32)  # (y, x) times this is (x, y) rotated by 90 degrees
_FEWEST = 3
_COMPACT = np.array([CLASSES.index(name) for name in ("sphere", "cube", "cylinder", "dome")])  # hide others well
_BENDS = np.array([2, 3, 5, 6])  # multiples of 45 degrees from the occluded object to the partner, around the anchor
_JITTER = np.radians(15)  # of directions
_ANCHOR_SIZE, _OCCLUDED_SIZE, _PARTNER_SIZE = (0.27, 0.33), (0.16, 0.19), (0.13, 0.29)
_HIDDEN = 0.4  # distance from the anchor's centre, in its radii, up to which the occluded object stays hidden
_REVEALED = 0.38  # greatest distance of the occluded object from the anchor's centre
_GAP = (0.03, 0.28)  # least, in addition to what the partner needs to rotate; greatest, if that leaves room
_SPEED, _LATEST = (0.22, 0.46), 0.75  # per phase; latest phase of a collision
_PAN = (0.14, 0.28)  # per phase
_INSIDE = 0.92  # the centres of the cast stay within this, if possible
_CANDIDATES = 24  # positions tried for each of the other objects


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Anchor, partner and occluded object in the image, with their speeds if they move."""

    turn: Ints  # [B], direction in which the occluded object comes out
    beside: Ints  # [B], direction from the anchor to the partner
    jitter: Floats  # [B, 2], radians, of these two directions
    focal: Floats  # [B]
    depth: Floats  # [B], of anchor and partner along the optical axis
    occluded_depth: Floats  # [B]
    solids: Solids  # of all slots
    gap: Floats  # [B], between partner and anchor
    centres: Floats  # [B, 3, 2], by slot
    axes: Floats  # [B, 3, 3]
    reveal_speed: Floats  # [B]
    speed: Floats  # [B], of the partner
    pan_speed: Floats  # [B]


def unit_vectors(eighths: Ints, jitter: Floats) -> Floats:
    """Directions in multiples of 45 degrees plus jitter in radians -> unit vectors [B, 2], right and up."""
    angle = eighths * np.float32(np.pi / 4) + jitter
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def to_world(plane: Floats, axes: Floats) -> Floats:
    """Vectors in the image plane, [B, 2] right and up, and camera axes [B, 3, 3] -> [B, 3] in the world frame."""
    vector: Floats = (plane[:, None] @ axes[:, :2])[:, 0].astype(np.float32)
    return vector


def draw_cast(draws: Draws, turn: Ints) -> Cast:
    """A random cast whose occluded object comes out in given directions [B]."""
    bend = _BENDS[draws.integers(len(_BENDS))]
    jitter = draws.uniform(2, low=-_JITTER, high=_JITTER)
    reveal, beside = unit_vectors(turn, jitter[:, 0]), unit_vectors(turn + bend, jitter[:, 1])
    focal, depth = draws.uniform(low=1.9, high=2.2), draws.uniform(low=4.2, high=5.4)
    axes = parts.camera_axes(draws.uniform(low=-0.3, high=0.06), draws.uniform(low=-0.08, high=0.08))
    sizes, occluded_depth, solids = _draw_solids(draws, focal, depth)
    contact, gap = _gap(draws, solids, to_world(beside, axes), focal / depth)
    slowest = np.maximum(_SPEED[0], gap / np.float32(_LATEST))
    speed = slowest + draws.uniform() * (np.maximum(_SPEED[1], slowest * np.float32(1.1)) - slowest)
    pan_speed = draws.uniform(low=_PAN[0], high=_PAN[1])
    hiding, reveal_speed = _draw_reveal(draws, sizes)

    partner = beside * (contact + gap)[:, None]
    occluded = reveal * hiding[:, :1] + reveal[:, ::-1] * QUARTER_TURN * hiding[:, 1:]
    anchor, pan = np.zeros_like(partner), pan_speed[:, None]
    side = speed[:, None] * beside[:, ::-1] * QUARTER_TURN
    ends = [centre + offset for centre in (anchor, occluded, partner) for offset in (-pan, pan)]
    ends += [occluded + reveal * reveal_speed[:, None]]
    ends += [partner + side, partner - side, partner + beside * speed[:, None]]
    middle = _room(draws, np.stack(ends, axis=1))
    return Cast(
        turn=turn,
        beside=turn + bend,
        jitter=jitter,
        focal=focal,
        depth=depth,
        occluded_depth=occluded_depth,
        solids=solids,
        gap=gap,
        centres=middle[:, None] + np.stack([partner, anchor, occluded], axis=1),
        axes=axes,
        reveal_speed=reveal_speed,
        speed=speed,
        pan_speed=pan_speed,
    )


def _draw_solids(draws: Draws, focal: Floats, depth: Floats) -> tuple[Floats, Floats, Solids]:
    """Image sizes of the cast [B, 3], depth of the occluded object [B], and the solids of all slots."""
    shape = draws.integers(len(CLASSES), MAX_OBJECTS)
    shape[:, ANCHOR] = _COMPACT[draws.integers(len(_COMPACT))]
    ranges = (_PARTNER_SIZE, _ANCHOR_SIZE, _OCCLUDED_SIZE)
    sizes = np.stack([draws.uniform(low=low, high=high) for low, high in ranges], axis=1)

    # So deep that the occluded object passes behind the anchor without touching it.
    bound = RADII[shape] * SIZES[shape] * np.float32(STRETCH[1])
    behind = depth * (1 + bound[:, ANCHOR] * sizes[:, ANCHOR] / focal) + np.float32(0.1)
    occluded_depth = behind / (1 - bound[:, OCCLUDED] * sizes[:, OCCLUDED] / focal)
    size = draws.uniform(MAX_OBJECTS, low=0.5, high=0.8)
    size[:, :3] = sizes * np.stack([depth, depth, occluded_depth], axis=1) / focal[:, None]
    rotation = parts.draw_resting_rotations(draws, shape)
    rotation[:, :3] = _random_rotations(draws, 3)
    stretch = draws.uniform(MAX_OBJECTS, low=STRETCH[0], high=STRETCH[1])
    return sizes, occluded_depth, parts.make_solids(shape, size, stretch, rotation)


def _gap(draws: Draws, solids: Solids, across: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Distance between the centres of anchor and partner in contact, and the gap beyond that: [B], [B].

    across: direction [B, 3] from anchor to partner; scale: image length per metre. The gap leaves the ball around the
    partner free, so that it can rotate.
    """
    far = parts.object_support(solids.shape, solids.scale, solids.rotation, across[:, None])[:, ANCHOR]
    near = parts.object_support(solids.shape, solids.scale, solids.rotation, -across[:, None])[:, PARTNER]
    least = np.float32(_GAP[0]) + (solids.radius[:, PARTNER] - near) * scale
    return (far + near) * scale, least + draws.uniform() * np.maximum(np.float32(_GAP[1]) - least, np.float32(0.05))


def _draw_reveal(draws: Draws, sizes: Floats) -> tuple[Floats, Floats]:
    """Position of the occluded object along and across its way out, and a speed that brings it out: [B, 2], [B]."""
    farthest = np.float32(_HIDDEN) * sizes[:, ANCHOR]
    aside = farthest * draws.uniform(low=-0.6, high=0.6)
    hidden = np.sqrt(farthest * farthest - aside * aside)
    sight = sizes[:, ANCHOR] + np.float32(0.4) * sizes[:, OCCLUDED]
    least = (sight - hidden) / 2 + np.float32(0.01)
    away = least + draws.uniform() * (np.float32(_REVEALED) - least)
    slowest = np.maximum(away - hidden, sight - away)
    speed = (slowest + draws.uniform() * np.maximum(away + hidden - slowest, 0)) * np.float32(1.05)
    return np.stack([away, aside], axis=-1), speed


def _room(draws: Draws, ends: Floats) -> Floats:
    """A position [B, 2] of the anchor that keeps points [B, J, 2], relative to it, inside the image."""
    low, high = -_INSIDE - ends.min(axis=1), _INSIDE - ends.max(axis=1)
    low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
    position: Floats = np.where(low < high, low + draws.uniform(2) * (high - low), (low + high) / 2).astype(np.float32)
    return position


def _random_rotations(draws: Draws, count: int) -> Floats:
    """Uniformly random rotations: [B, count, 3, 3] (Shoemake 1992)."""
    share, one, other = np.moveaxis(draws.uniform(count, 3), -1, 0)
    return parts.rotations_of(share, 2 * np.pi * one, 2 * np.pi * other)


def middle_scene(draws: Draws, cast: Cast, others: Ints) -> SceneBatch:
    """The scene of the middle frame, with `others` [B] objects beside the cast of three."""
    camera, position = _stage(draws, cast)
    objects = parts.draw_objects(draws, _FEWEST + others, cast.solids, position)
    objects = replace(objects, clearance=np.maximum(objects.position[..., 2] - cast.solids.height, 0))
    light, backdrop = parts.draw_light(draws), parts.draw_backdrop(draws)
    return SceneBatch(objects=objects, camera=camera, light=light, backdrop=backdrop)


def _stage(draws: Draws, cast: Cast) -> tuple[Camera, Floats]:
    """A camera high enough that the cast never touches the ground, and object positions [B, K, 3]."""
    depth = np.stack([cast.depth, cast.depth, cast.occluded_depth], axis=1)[..., None]
    flat = np.concatenate([cast.centres * depth / cast.focal[:, None, None], depth], axis=-1)
    offset = flat @ cast.axes  # [B, 3, 3], from the camera

    travel = np.stack([cast.speed, 0 * cast.speed, cast.reveal_speed], axis=1) * depth[..., 0]
    travel /= cast.focal[:, None]
    lowest = (offset[..., 2] * np.float32(1 + APPROACH[1]) - cast.solids.radius[:, :3] - travel).min(axis=1)
    eye = np.zeros_like(offset[:, 0])
    eye[:, 2] = np.maximum(-lowest, 2) + draws.uniform(low=0.1, high=0.8)
    camera = Camera(position=eye, axes=cast.axes, focal=cast.focal)
    position = np.zeros_like(cast.solids.scale)
    position[:, :3] = eye[:, None] + offset
    for slot in range(_FEWEST, MAX_OBJECTS):
        position[:, slot] = _place_other(draws, slot, camera, cast, position)
    return camera, position


def _place_other(draws: Draws, slot: int, camera: Camera, cast: Cast, position: Floats) -> Floats:
    """A position behind the cast: [B, 3], the least covered of some random candidates."""
    solids, drawn = cast.solids, draws.uniform(_CANDIDATES, 3)
    nearest = (cast.occluded_depth + solids.radius[:, OCCLUDED] + solids.radius[:, slot])[:, None]
    away = nearest + drawn[..., 1] * np.maximum(np.float32(13) - nearest, 1)
    flat = np.float32(0.9) * (2 * drawn[..., [0, 2]] - 1) / camera.focal[:, None, None]
    candidates = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1) * away[..., None] @ camera.axes
    candidates += camera.position[:, None]
    candidates[..., 2] = np.maximum(candidates[..., 2], solids.height[:, slot, None])  # [B, M, 3], not below the ground

    everything = np.concatenate([position[:, :slot], candidates], axis=1) - camera.position[:, None]
    in_view = everything @ camera.axes.swapaxes(-1, -2)
    in_view[..., :2] *= camera.focal[:, None, None] / in_view[..., 2:]
    before, here = in_view[:, None, :slot], in_view[:, slot:, None]  # [B, 1, slot, 3], [B, M, 1, 3]
    size = camera.focal[:, None, None] * solids.radius[:, None, :slot] / before[..., 2]
    clear = np.hypot(here[..., 0] - before[..., 0], here[..., 1] - before[..., 1]) - size
    inside = np.float32(0.9) - np.abs(here[:, :, 0, :2]).max(axis=-1)
    gaps = np.linalg.norm(candidates[:, :, None] - position[:, None, :slot], axis=-1)
    apart = gaps - solids.radius[:, None, :slot] - solids.radius[:, slot, None, None]
    worst = np.minimum(np.minimum(clear.min(axis=-1), inside), 60 * np.minimum(apart.min(axis=-1), 0))
    best: Floats = candidates[np.arange(len(candidates)), np.minimum(worst, 0).argmax(axis=1)]
    return best
