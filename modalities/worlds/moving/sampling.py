"""Clips drawn from (seed, index) alone: first the scene in the middle, the same for every motion, then a motion.

The partner moves past the anchor, turns, comes, goes or hits it; the veiled object leaves its hiding place or goes
there; or the camera pans. See moving_layout for who they are, and for units.
"""

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.description import DIRECTIONS, MOTIONS, ClipBatch
from modalities.worlds.moving.layout import (
    ANCHOR,
    COMING,
    PARTNER,
    QUARTER,
    VEILED,
    Layout,
    in_world,
    lay_out,
    middle_scene,
    towards,
)
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, SIZES, Draws
from modalities.worlds.scenes.shapes import Floats, Ints

BLOCK = 192  # consecutive clips, from a multiple of it, that hold all motions, turns of the layout and counts once
_CLIPS, _ORDERS = 2, 3  # what random numbers are for: 0 and 1 are scenes
_TURN = (0.9, 1.8)  # radians a phase


def sample_clips(seed: int, indices: Ints, frames: int) -> ClipBatch:
    """Clips [B] of F frames by their numbers [B]."""
    draws = Draws(seed, _CLIPS, indices)
    motion, turn, others = balanced(seed, indices)
    return clips_of(draws, motion, turn, others, frames)


def balanced(seed: int, indices: Ints) -> tuple[Ints, Ints, Ints]:
    """Motion, eighths of a turn of the layout, and number of objects beside the three of the cast: [B] each."""
    blocks, places = np.divmod(indices, BLOCK)
    known = np.unique(blocks).tolist()
    orders = {block: np.random.default_rng((seed, _ORDERS, block)).permutation(BLOCK) for block in known}
    number = np.array([orders[block][place] for block, place in zip(blocks.tolist(), places.tolist(), strict=True)])
    return number % len(MOTIONS), number // len(MOTIONS) % 8, number // (8 * len(MOTIONS))


def clips_of(draws: Draws, motion: Ints, turn: Ints, others: Ints, frames: int) -> ClipBatch:
    """Clips of given motions. The middle scene is drawn first and does not look at the motion."""
    layout = lay_out(draws, turn)
    middle = middle_scene(draws, layout, others)
    half = frames // 2
    side, early, pan = 2 * draws.integers(2), draws.integers(2) == 1, draws.integers(len(DIRECTIONS))
    coming = (draws.uniform(1, low=COMING[0], high=COMING[1]) / half).astype(np.float32)

    unveiling, panning = _is(motion, "appearing", "disappearing"), _is(motion, "panning")
    direction = _directions(layout, motion, side, pan)
    pace = np.where(unveiling, layout.unveil_speed, np.where(panning, layout.pan_speed, layout.speed))
    pace = (pace / half).astype(np.float32)  # a frame
    off = np.where(_is(motion, "moving", "colliding"), layout.jitter[:, 1], layout.jitter[:, 0])
    heading = towards(direction, off)
    deep = np.where(unveiling, layout.veiled_depth, layout.depth)
    across = in_world(heading * (pace * deep / layout.focal)[:, None].astype(np.float32), layout.axes)  # metres a frame
    closing = layout.gap / layout.speed * half  # frames
    spin = np.zeros((len(motion), MAX_OBJECTS, 3), dtype=np.float32)
    turned = _turning(draws, middle.objects.rotation[:, PARTNER])
    spin[:, PARTNER] = turned * _is(motion, "turning")[:, None] / half
    about = in_world(heading[:, ::-1] * QUARTER, layout.axes)  # the picture moves against the camera
    return ClipBatch(
        frames=frames,
        middle=middle,
        motion=motion,
        direction=direction,
        main=np.where(panning, -1, np.where(unveiling, VEILED, PARTNER)),
        speed=np.where(direction >= 0, pace / 2, np.nan).astype(np.float32),
        velocity=_velocities(middle, motion, across, coming),
        event=(half + np.where(_is(motion, "colliding"), np.where(early, -closing, closing), 0)).astype(np.float32),
        spin=spin,
        pan=(about * (panning * pace / layout.focal)[:, None]).astype(np.float32),
    )


def _is(motion: Ints, *names: str) -> NDArray[np.bool_]:
    return np.isin(motion, [MOTIONS.index(name) for name in names])


def _directions(layout: Layout, motion: Ints, side: Ints, pan: Ints) -> Ints:
    """Where the main object moves in the picture, in eighths of a turn, -1 if nowhere: [B]."""
    going = {
        "moving": layout.beside + 2 * side - 2,
        "colliding": layout.beside + 4,
        "appearing": layout.turn,
        "disappearing": layout.turn + 4,
        "panning": pan,
    }
    direction = np.full(len(motion), -1)
    for name, eighths in going.items():
        direction = np.where(_is(motion, name), eighths % len(DIRECTIONS), direction)
    return direction


def _velocities(middle: SceneBatch, motion: Ints, across: Floats, coming: Floats) -> Floats:
    """Before and after the event: [B, 2, K, 3] metres a frame; coming [B, 1], of the distance a frame."""
    objects = middle.objects
    velocity = np.zeros((len(motion), 2, MAX_OBJECTS, 3), dtype=np.float32)
    moving, unveiling, hits = _is(motion, "moving"), _is(motion, "appearing", "disappearing"), _is(motion, "colliding")
    velocity[moving, :, PARTNER] = across[moving, None]
    velocity[unveiling, :, VEILED] = across[unveiling, None]
    near = (middle.camera.position - objects.position[:, PARTNER]) * coming
    velocity[_is(motion, "approaching"), :, PARTNER] = near[_is(motion, "approaching"), None]
    velocity[_is(motion, "receding"), :, PARTNER] = -near[_is(motion, "receding"), None]

    # Masses as sizes cubed; without loss of energy the two part as fast as they met.
    mass = (objects.scale[..., 0] / SIZES[objects.shape]) ** 3
    partner, anchor = mass[:, PARTNER, None], mass[:, ANCHOR, None]
    velocity[hits, 0, PARTNER] = across[hits]
    velocity[hits, 1, PARTNER] = (across * (partner - anchor) / (partner + anchor))[hits]
    velocity[hits, 1, ANCHOR] = (across * 2 * partner / (partner + anchor))[hits]
    return velocity


def _turning(draws: Draws, rotation: Floats) -> Floats:
    """Rotation vectors [B, 3] of objects about an axis across their own, so that every kind of solid looks turned."""
    tilt = draws.uniform(2, low=-0.35, high=0.35)
    axis = np.stack([tilt[:, 0], np.ones_like(tilt[:, 0]), tilt[:, 1]], axis=-1)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    signed = (2 * draws.integers(2, 1) - 1) * draws.uniform(1, low=_TURN[0], high=_TURN[1])
    turned: Floats = (rotation @ (axis * signed)[..., None])[..., 0].astype(np.float32)
    return turned
