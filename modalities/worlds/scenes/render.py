"""Renders scenes by ray casting: colour, distance and object of each pixel.

One ray per pixel; pixels that differ from a neighbour get four more, whose mean replaces their colour. Images are
rendered one at a time, so that an image does not depend on its batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.caster import SKY, Caster
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.shapes import Floats, Ints

FAR = 20.0  # metres; greater distances, such as that of the sky, are cut to this
_CONTRAST = 24  # difference between neighbours (of 256) above which a pixel gets more rays
_INSIDE_PIXEL = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))  # rotated grid, in pixels


@dataclass(frozen=True, kw_only=True)
class RenderedScenes:
    """B rendered scenes of S x S pixels.

    depth: distance in metres along the ray through the centre of a pixel, at most FAR. objects: slot of the visible
    object, -1 for none.
    """

    images: NDArray[np.uint8]  # [B, 3, S, S], sRGB
    depth: Floats  # [B, S, S]
    objects: NDArray[np.int8]  # [B, S, S]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """F images of S x S pixels, to be painted."""

    image: NDArray[np.uint8]  # [F, 3, S, S], sRGB
    coarse: NDArray[np.uint8]  # [F, 3, S, S], the same with one ray per pixel
    distance: Floats  # [F, S, S], metres along the ray through the centre of a pixel, inf for the sky
    surface: Ints  # [F, S, S], numbered as in Caster

    @staticmethod
    def blank(frames: int, size: int) -> "Canvas":
        """An empty canvas."""
        image, square = np.zeros((frames, 3, size, size), dtype=np.uint8), (frames, size, size)
        distance, surface = np.full(square, np.inf, dtype=np.float32), np.full(square, SKY)
        return Canvas(image=image, coarse=image.copy(), distance=distance, surface=surface)

    def repeated(self, frames: int) -> "Canvas":
        """Copies for F frames, to be painted over."""
        return Canvas(
            image=self.image.repeat(frames, axis=0),
            coarse=self.coarse.repeat(frames, axis=0),
            distance=self.distance.repeat(frames, axis=0),
            surface=self.surface.repeat(frames, axis=0),
        )

    def paint(self, caster: Caster, where: NDArray[np.bool_]) -> None:
        """Paint the pixels that are True in `where` [F, S, S]."""
        frame, row, column = np.nonzero(where)
        rgb, self.distance[where], self.surface[where] = caster.cast(row, column, frame)
        self.coarse[frame, :, row, column] = self.image[frame, :, row, column] = np.rint(rgb * 255).T

        frame, row, column = np.nonzero(_edges(self.coarse, self.surface) & where)
        down = np.concatenate([row + offset for _, offset in _INSIDE_PIXEL])
        across = np.concatenate([column + offset for offset, _ in _INSIDE_PIXEL])
        rays = len(_INSIDE_PIXEL)
        finer = caster.cast(down, across, np.tile(frame, rays))[0].reshape(3, rays, -1).mean(axis=1)
        self.image[frame, :, row, column] = np.rint(finer * 255).T

    def objects(self, caster: Caster) -> NDArray[np.int8]:
        """The slot of the object at each pixel, -1 for none: [F, S, S]."""
        return np.where(self.surface < caster.count, self.surface, -1).astype(np.int8)


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def render(scenes: SceneBatch, size: int) -> RenderedScenes:
    """Render scenes at size x size pixels."""
    batch = len(scenes.camera.focal)
    images = np.empty((batch, 3, size, size), dtype=np.uint8)
    depth = np.empty((batch, size, size), dtype=np.float32)
    objects = np.empty((batch, size, size), dtype=np.int8)
    everywhere = np.ones((1, size, size), dtype=np.bool_)
    for number in range(batch):
        caster, canvas = Caster([scenes], number, size), Canvas.blank(1, size)
        canvas.paint(caster, everywhere)
        images[number] = canvas.image[0]
        depth[number] = np.minimum(canvas.distance[0], np.float32(FAR))
        objects[number] = canvas.objects(caster)[0]
    return RenderedScenes(images=images, depth=depth, objects=objects)


def _edges(image: NDArray[np.uint8], surface: Ints) -> NDArray[np.bool_]:
    """Pixels that differ visibly from a neighbour: [F, 3, S, S], [F, S, S] -> [F, S, S]."""
    found = np.zeros(surface.shape, dtype=np.bool_)
    levels = image.astype(np.int16)
    across = (np.abs(levels[..., 1:] - levels[..., :-1]).max(axis=1) > _CONTRAST) | (
        surface[..., 1:] != surface[..., :-1]
    )
    down = (np.abs(levels[..., 1:, :] - levels[..., :-1, :]).max(axis=1) > _CONTRAST) | (
        surface[:, 1:] != surface[:, :-1]
    )
    found[..., 1:] |= across
    found[..., :-1] |= across
    found[:, 1:] |= down
    found[:, :-1] |= down
    return found
