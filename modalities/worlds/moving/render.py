"""Pictures of clips: where the camera rests, the middle frame in full, and of the others what differs from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.description import ClipBatch, scenes_at
from modalities.worlds.scenes.caster import Caster
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.render import Pictures

_INVISIBLE = 0.002  # share of the light of the sky whose loss shows in no picture


@dataclass(frozen=True, kw_only=True)
class Films:
    """B clips of F frames of S x S pixels; objects: the slot of the object seen at each pixel, -1 for none."""

    images: NDArray[np.uint8]  # [B, F, 3, S, S], sRGB
    objects: NDArray[np.int8]  # [B, F, S, S]


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def film(clips: ClipBatch, size: int) -> Films:
    """Pictures of size x size pixels. The middle one depends on the middle scene alone."""
    batch = len(clips.motion)
    images = np.empty((batch, clips.frames, 3, size, size), dtype=np.uint8)
    objects = np.empty((batch, clips.frames, size, size), dtype=np.int8)
    scenes = [scenes_at(clips, frame) for frame in range(clips.frames)]
    for number in range(batch):
        if clips.pan[number].any():
            for frame in range(clips.frames):
                pictures, caster = _painted(scenes[frame], number, size)
                images[number, frame], objects[number, frame] = pictures.image[0], pictures.objects(caster)[0]
        else:
            still, _ = _painted(scenes[clips.middle_frame], number, size)
            pictures, caster = still.repeated(clips.frames), Caster(scenes, number, size)
            pictures.paint(caster, _touched(caster, still, clips.middle_frame))
            images[number], objects[number] = pictures.image, pictures.objects(caster)
    return Films(images=images, objects=objects)


def _painted(scenes: SceneBatch, number: int, size: int) -> tuple[Pictures, Caster]:
    pictures, caster = Pictures.blank(1, size), Caster([scenes], number, size)
    pictures.paint(caster, np.ones((1, size, size), dtype=np.bool_))
    return pictures, caster


def _touched(caster: Caster, still: Pictures, middle: int) -> NDArray[np.bool_]:
    """Where frames may differ from the middle one [F, S, S]: objects are or were there, or in the way of light."""
    frames, (_, size, _) = len(caster.position), still.surface.shape
    row, column = np.divmod(np.arange(size * size), size)
    direction = caster.directions(row, column)
    point = caster.eye[:, None] + still.distance.reshape(-1) * direction
    on_ground = still.surface.reshape(-1) == caster.ground
    touched = np.zeros((frames, size * size), dtype=np.bool_)
    for slot in np.flatnonzero(np.array(caster.moves) | np.array(caster.turns)).tolist():
        for frame in range(frames):
            now = np.full(row.shape, frame)
            touched[frame] |= caster.met(slot, direction, now) | caster.under(slot, point, now)
            touched[frame] |= on_ground & (caster.covered(slot, point, now) > _INVISIBLE)
        touched |= touched[middle]
    touched[middle] = False
    return _widened(touched.reshape(frames, size, size))


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels around, whose edges may have changed."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    across = wide.copy()
    across[..., 1:] |= wide[..., :-1]
    across[..., :-1] |= wide[..., 1:]
    return across
