"""Renders clips. If the camera does not move, only the differences from the middle frame are rendered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.description import ClipBatch, scenes_at
from modalities.worlds.scenes.caster import Caster
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.render import Canvas

_INVISIBLE = 0.002  # loss of sky light that is too small to change a pixel


@dataclass(frozen=True, kw_only=True)
class RenderedClips:
    """B rendered clips of F frames of S x S pixels. objects: slot of the visible object, -1 for none."""

    images: NDArray[np.uint8]  # [B, F, 3, S, S], sRGB
    objects: NDArray[np.int8]  # [B, F, S, S]


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def render_clips(clips: ClipBatch, size: int) -> RenderedClips:
    """Render clips at size x size pixels. The middle frame depends on the middle scene only."""
    batch = len(clips.motion)
    images = np.empty((batch, clips.frames, 3, size, size), dtype=np.uint8)
    objects = np.empty((batch, clips.frames, size, size), dtype=np.int8)
    scenes = [scenes_at(clips, frame) for frame in range(clips.frames)]
    for number in range(batch):
        if clips.pan[number].any():
            for frame in range(clips.frames):
                canvas, caster = _painted(scenes[frame], number, size)
                images[number, frame], objects[number, frame] = canvas.image[0], canvas.objects(caster)[0]
        else:
            still, _ = _painted(scenes[clips.middle_frame], number, size)
            canvas, caster = still.repeated(clips.frames), Caster(scenes, number, size)
            canvas.paint(caster, _changed(caster, still, clips.middle_frame))
            images[number], objects[number] = canvas.image, canvas.objects(caster)
    return RenderedClips(images=images, objects=objects)


def _painted(scenes: SceneBatch, number: int, size: int) -> tuple[Canvas, Caster]:
    canvas, caster = Canvas.blank(1, size), Caster([scenes], number, size)
    canvas.paint(caster, np.ones((1, size, size), dtype=np.bool_))
    return canvas, caster


def _changed(caster: Caster, still: Canvas, middle: int) -> NDArray[np.bool_]:
    """Pixels [F, S, S] that may differ from the middle frame, because a moving object covers or shadows them."""
    frames, (_, size, _) = len(caster.position), still.surface.shape
    row, column = np.divmod(np.arange(size * size), size)
    direction = caster.directions(row, column)
    point = caster.eye[:, None] + still.distance.reshape(-1) * direction
    on_ground = still.surface.reshape(-1) == caster.ground
    changed = np.zeros((frames, size * size), dtype=np.bool_)
    for slot in np.flatnonzero(np.array(caster.moves) | np.array(caster.turns)).tolist():
        for frame in range(frames):
            now = np.full(row.shape, frame)
            changed[frame] |= caster.hits_ball(slot, direction, now) | caster.in_shadow_tube(slot, point, now)
            changed[frame] |= on_ground & (caster.sky_occlusion(slot, point, now) > _INVISIBLE)
        changed |= changed[middle]
    changed[middle] = False
    return _widened(changed.reshape(frames, size, size))


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and all neighbouring pixels, whose anti-aliasing may have changed."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    across = wide.copy()
    across[..., 1:] |= wide[..., :-1]
    across[..., :-1] |= wide[..., 1:]
    return across
