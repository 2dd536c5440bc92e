"""Descriptions of clips: the scene in the middle frame, and the motion before and after it.

The middle scene determines everything but the motion; the other frames follow from it forwards and backwards in time.
"""

from dataclasses import dataclass, replace

import numpy as np

from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.shapes import Floats, Ints

MOTIONS = ("moving", "turning", "approaching", "receding", "colliding", "appearing", "disappearing", "panning")
DIRECTIONS = ("right", "up right", "up", "up left", "left", "down left", "down", "down right")  # steps of 45 degrees


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """B clips of F frames. Velocities are given before (0) and after (1) the event; without an event they are equal."""

    frames: int
    middle: SceneBatch  # at frame F // 2
    motion: Ints  # [B] in MOTIONS
    direction: Ints  # [B] in DIRECTIONS, -1 for none
    main: Ints  # [B], slot of the labelled object, -1 for none
    speed: Floats  # [B], image widths per frame, nan for none
    velocity: Floats  # [B, 2, K, 3], metres per frame
    event: Floats  # [B], frame of the collision, possibly fractional; the middle frame if there is none
    spin: Floats  # [B, K, 3], rotation vectors of objects, radians per frame
    pan: Floats  # [B, 3], rotation vector of the camera, radians per frame

    @property
    def middle_frame(self) -> int:
        """Index of the middle frame, which alone does not reveal the motion."""
        return self.frames // 2


def scenes_at(clips: ClipBatch, frame: float) -> SceneBatch:
    """The scenes at a frame, which may be fractional or outside the clip."""
    since_middle = np.float32(frame - clips.middle_frame)
    middle, objects, camera = clips.middle, clips.middle.objects, clips.middle.camera
    shift = displacement(clips, frame)
    moved = replace(
        objects,
        position=objects.position + shift,
        rotation=rotations(clips.spin * since_middle) @ objects.rotation,
        clearance=np.maximum(objects.clearance + shift[..., 2], 0),
    )
    axes = camera.axes @ rotations(clips.pan * since_middle).swapaxes(-1, -2)
    return replace(middle, objects=moved, camera=replace(camera, axes=axes))


def displacement(clips: ClipBatch, frame: float) -> Floats:
    """Displacement of objects from their positions in the middle frame: [B, K, 3] metres."""
    event, middle = clips.event, clips.middle_frame
    before = np.minimum(frame, event) - np.minimum(middle, event)  # [B] frames
    after = np.maximum(frame, event) - np.maximum(middle, event)
    duration = np.stack([before, after], axis=1).astype(np.float32)
    shift: Floats = (duration[..., None, None] * clips.velocity).sum(axis=1)
    return shift


def image_positions(scenes: SceneBatch) -> Floats:
    """Centres of objects in the image: [B, K, 2], right and up, 0 in the middle of the image and 1 at its edges."""
    in_view = (scenes.objects.position - scenes.camera.position[:, None]) @ scenes.camera.axes.swapaxes(-1, -2)
    return (scenes.camera.focal[:, None, None] * in_view[..., :2] / in_view[..., 2:]).astype(np.float32)


def rotations(vector: Floats) -> Floats:
    """Rotation vectors, in radians, to matrices: [..., 3] -> [..., 3, 3]; exactly the identity for zero."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    nil = np.zeros_like(x)
    rows = [[nil, -z, y], [z, nil, -x], [-y, x, nil]]
    cross = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    sine = np.sinc(angle / np.pi)
    versine = np.sinc(angle / (2 * np.pi)) ** 2 / 2  # (1 - cos angle) / angle ** 2
    matrices: Floats = (np.eye(3) + sine * cross + versine * (cross @ cross)).astype(np.float32)
    return matrices
