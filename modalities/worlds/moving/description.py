"""Descriptions of clips: a scene in the middle, and what moves, turns or pans around that moment.

Everything but the motion is told by the middle scene; a clip is its description followed forwards and backwards.
"""

from dataclasses import dataclass, replace

import numpy as np

from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.shapes import Floats, Ints

MOTIONS = ("moving", "turning", "approaching", "receding", "colliding", "appearing", "disappearing", "panning")
DIRECTIONS = ("right", "up right", "up", "up left", "left", "down left", "down", "down right")  # steps of 45 degrees


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """B clips of F frames. Velocities hold before the event (0) and after it (1), and are the same without one."""

    frames: int
    middle: SceneBatch  # at frame F // 2
    motion: Ints  # [B] in MOTIONS
    direction: Ints  # [B] in DIRECTIONS, -1 for none
    main: Ints  # [B], slot of the object that the labels are about, -1 for none
    speed: Floats  # [B], picture widths a frame, nan for none
    velocity: Floats  # [B, 2, K, 3], metres a frame
    event: Floats  # [B], the frame of the collision, which need not be a whole number; without one, the middle
    spin: Floats  # [B, K, 3], rotation vectors of objects, radians a frame
    pan: Floats  # [B, 3], rotation vector of the camera, radians a frame

    @property
    def middle_frame(self) -> int:
        """The frame that tells nothing of the motion."""
        return self.frames // 2


def scenes_at(clips: ClipBatch, frame: float) -> SceneBatch:
    """The scenes at a frame, which need not be a whole number nor within the clip."""
    since_middle = np.float32(frame - clips.middle_frame)
    middle, objects, camera = clips.middle, clips.middle.objects, clips.middle.camera
    shift = displacement(clips, frame)
    moved = replace(
        objects,
        position=objects.position + shift,
        rotation=rotations(clips.spin * since_middle) @ objects.rotation,
        aloft=np.maximum(objects.aloft + shift[..., 2], 0),
    )
    turned = camera.axes @ rotations(clips.pan * since_middle).swapaxes(-1, -2)
    return replace(middle, objects=moved, camera=replace(camera, axes=turned))


def displacement(clips: ClipBatch, frame: float) -> Floats:
    """How far objects are from where they stand in the middle: [B, K, 3] metres."""
    event, middle = clips.event, clips.middle_frame
    before = np.minimum(frame, event) - np.minimum(middle, event)  # [B] frames
    after = np.maximum(frame, event) - np.maximum(middle, event)
    spent = np.stack([before, after], axis=1).astype(np.float32)
    shift: Floats = (spent[..., None, None] * clips.velocity).sum(axis=1)
    return shift


def in_picture(scenes: SceneBatch) -> Floats:
    """Where the middles of objects are seen: [B, K, 2], right and up, the middle of the picture 0 and its edges 1."""
    seen = (scenes.objects.position - scenes.camera.position[:, None]) @ scenes.camera.axes.swapaxes(-1, -2)
    return (scenes.camera.focal[:, None, None] * seen[..., :2] / seen[..., 2:]).astype(np.float32)


def rotations(vector: Floats) -> Floats:
    """Rotations about an axis by as many radians as the vector is long: [..., 3] -> [..., 3, 3]; of zero, exactly I."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    nil = np.zeros_like(x)
    rows = [[nil, -z, y], [z, nil, -x], [-y, x, nil]]
    cross = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    sine = np.sinc(angle / np.pi)
    versine = np.sinc(angle / (2 * np.pi)) ** 2 / 2  # (1 - cos angle) / angle ** 2
    turned: Floats = (np.eye(3) + sine * cross + versine * (cross @ cross)).astype(np.float32)
    return turned
