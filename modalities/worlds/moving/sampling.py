"""Random clips as functions of (seed, index): first the middle scene, independently of the motion, then a motion.

The partner moves past the anchor, rotates, approaches, recedes or hits the anchor; or the occluded object comes out or
goes into hiding; or the camera pans. See moving.cast for these roles and for units.
"""

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.cast import (
    ANCHOR,
    APPROACH,
    OCCLUDED,
    PARTNER,
    QUARTER_TURN,
    Cast,
    draw_cast,
    middle_scene,
    to_world,
    unit_vectors,
)
from modalities.worlds.moving.description import DIRECTIONS, MOTIONS, ClipBatch
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, SIZES, Draws
from modalities.worlds.scenes.shapes import Floats, Ints

BLOCK = 192  # as many consecutive clips, from a multiple of it, have every motion, direction and count once
_CLIPS, _ORDERS = 2, 3  # kinds of random draws; scenes use 0 and 1
_TURN = (0.9, 1.8)  # radians per phase


def sample_clips(seed: int, indices: Ints, frames: int) -> ClipBatch:
    """Clips [B] of F frames by their indices [B]."""
    draws = Draws(seed, _CLIPS, indices)
    motion, turn, others = balanced_labels(seed, indices)
    return make_clips(draws, motion, turn, others, frames)


def balanced_labels(seed: int, indices: Ints) -> tuple[Ints, Ints, Ints]:
    """Motion, direction of the cast, and number of objects beside the three of the cast: [B] each."""
    blocks, offsets = np.divmod(indices, BLOCK)
    unique = np.unique(blocks).tolist()
    orders = {block: np.random.default_rng((seed, _ORDERS, block)).permutation(BLOCK) for block in unique}
    number = np.array([orders[block][offset] for block, offset in zip(blocks.tolist(), offsets.tolist(), strict=True)])
    return number % len(MOTIONS), number // len(MOTIONS) % 8, number // (8 * len(MOTIONS))


def make_clips(draws: Draws, motion: Ints, turn: Ints, others: Ints, frames: int) -> ClipBatch:
    """Clips with given motions. The middle scene is drawn first and is independent of the motion."""
    cast = draw_cast(draws, turn)
    middle = middle_scene(draws, cast, others)
    half = frames // 2
    side, early, pan = 2 * draws.integers(2), draws.integers(2) == 1, draws.integers(len(DIRECTIONS))
    approach = (draws.uniform(1, low=APPROACH[0], high=APPROACH[1]) / half).astype(np.float32)

    revealing, panning = _is(motion, "appearing", "disappearing"), _is(motion, "panning")
    direction = _directions(cast, motion, side, pan)
    pace = np.where(revealing, cast.reveal_speed, np.where(panning, cast.pan_speed, cast.speed))
    pace = (pace / half).astype(np.float32)  # per frame
    jitter = np.where(_is(motion, "moving", "colliding"), cast.jitter[:, 1], cast.jitter[:, 0])
    heading = unit_vectors(direction, jitter)
    deep = np.where(revealing, cast.occluded_depth, cast.depth)
    across = to_world(heading * (pace * deep / cast.focal)[:, None].astype(np.float32), cast.axes)  # metres per frame
    closing = cast.gap / cast.speed * half  # frames
    spin = np.zeros((len(motion), MAX_OBJECTS, 3), dtype=np.float32)
    spin_vector = _spin_vectors(draws, middle.objects.rotation[:, PARTNER])
    spin[:, PARTNER] = spin_vector * _is(motion, "turning")[:, None] / half
    about = to_world(heading[:, ::-1] * QUARTER_TURN, cast.axes)  # the image moves against the camera
    return ClipBatch(
        frames=frames,
        middle=middle,
        motion=motion,
        direction=direction,
        main=np.where(panning, -1, np.where(revealing, OCCLUDED, PARTNER)),
        speed=np.where(direction >= 0, pace / 2, np.nan).astype(np.float32),
        velocity=_velocities(middle, motion, across, approach),
        event=(half + np.where(_is(motion, "colliding"), np.where(early, -closing, closing), 0)).astype(np.float32),
        spin=spin,
        pan=(about * (panning * pace / cast.focal)[:, None]).astype(np.float32),
    )


def _is(motion: Ints, *names: str) -> NDArray[np.bool_]:
    return np.isin(motion, [MOTIONS.index(name) for name in names])


def _directions(cast: Cast, motion: Ints, side: Ints, pan: Ints) -> Ints:
    """Direction in which the main object moves in the image, index in DIRECTIONS, -1 for none: [B]."""
    directions = {
        "moving": cast.beside + 2 * side - 2,
        "colliding": cast.beside + 4,
        "appearing": cast.turn,
        "disappearing": cast.turn + 4,
        "panning": pan,
    }
    direction = np.full(len(motion), -1)
    for name, eighths in directions.items():
        direction = np.where(_is(motion, name), eighths % len(DIRECTIONS), direction)
    return direction


def _velocities(middle: SceneBatch, motion: Ints, across: Floats, approach: Floats) -> Floats:
    """Velocities before and after the event: [B, 2, K, 3] metres per frame; approach [B, 1]: share of the distance."""
    objects = middle.objects
    velocity = np.zeros((len(motion), 2, MAX_OBJECTS, 3), dtype=np.float32)
    moving, revealing, hits = _is(motion, "moving"), _is(motion, "appearing", "disappearing"), _is(motion, "colliding")
    velocity[moving, :, PARTNER] = across[moving, None]
    velocity[revealing, :, OCCLUDED] = across[revealing, None]
    towards_camera = (middle.camera.position - objects.position[:, PARTNER]) * approach
    velocity[_is(motion, "approaching"), :, PARTNER] = towards_camera[_is(motion, "approaching"), None]
    velocity[_is(motion, "receding"), :, PARTNER] = -towards_camera[_is(motion, "receding"), None]

    # An elastic collision of masses proportional to the cube of the size.
    mass = (objects.scale[..., 0] / SIZES[objects.shape]) ** 3
    partner, anchor = mass[:, PARTNER, None], mass[:, ANCHOR, None]
    velocity[hits, 0, PARTNER] = across[hits]
    velocity[hits, 1, PARTNER] = (across * (partner - anchor) / (partner + anchor))[hits]
    velocity[hits, 1, ANCHOR] = (across * 2 * partner / (partner + anchor))[hits]
    return velocity


def _spin_vectors(draws: Draws, rotation: Floats) -> Floats:
    """Rotation vectors [B, 3] about an axis across the objects' own, so that every solid visibly rotates."""
    tilt = draws.uniform(2, low=-0.35, high=0.35)
    axis = np.stack([tilt[:, 0], np.ones_like(tilt[:, 0]), tilt[:, 1]], axis=-1)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    signed = (2 * draws.integers(2, 1) - 1) * draws.uniform(1, low=_TURN[0], high=_TURN[1])
    vectors: Floats = (rotation @ (axis * signed)[..., None])[..., 0].astype(np.float32)
    return vectors
