"""Ray casting: the surface that each ray hits, its distance and its colour. R rays; vectors are [3, R]."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.description import MATERIALS, PATTERNS, SceneBatch, pattern_mix
from modalities.worlds.scenes.shapes import Floats, Ints, entry, outward

SKY = -1

# By material: strength and sharpness of highlights, share of mirrored surroundings.
_GLOSS = {"matte": (0.0, 1.0, 0.0), "plastic": (0.45, 40.0, 0.08), "metal": (0.9, 70.0, 0.6)}


class Caster:
    """Casts rays into one scene, or into F frames of it. Surfaces: objects by slot, then the ground, then the wall.

    Only objects may move and rotate between frames; `frame` [R] is the frame of each ray.
    """

    def __init__(self, frames: Sequence[SceneBatch], number: int, size: int) -> None:
        scenes = frames[0]
        objects, camera, light, backdrop = scenes.objects, scenes.camera, scenes.light, scenes.backdrop
        self.size, self.count = size, int(objects.count[number])
        self.ground = self.count
        present = (number, slice(self.count))
        self.shape = objects.shape[present].tolist()
        self.radius = objects.radius[present]
        self.position = np.stack([each.objects.position[present] for each in frames])  # [F, K, 3]
        self.rotation = np.stack([each.objects.rotation[present] for each in frames])  # [F, K, 3, 3]
        self.axes = camera.axes[number]
        self.moves, self.turns = _varies(self.position), _varies(self.rotation)  # [K]
        # The higher an object is above the ground, the less sky it hides from the ground below.
        clearance = np.stack([each.objects.clearance[present] for each in frames])
        self.closeness = np.float32(0.7) * np.exp(-np.square(clearance / self.radius))  # [F, K]
        self.to_local = self.rotation.swapaxes(-1, -2) / objects.scale[present][..., None]  # [F, K, 3, 3]
        self.gloss = [_GLOSS[MATERIALS[material]] for material in objects.material[present]]

        self.frequency = objects.frequency[present]
        textures = self.to_local[0] * self.frequency[:, None, None]
        self.texture = np.concatenate([textures, backdrop.texture[number]])  # [K + 2, 3, 3], in the first frame
        self.pattern = [PATTERNS[kind] for kind in (*objects.pattern[present], *backdrop.pattern[number])]
        self.rgb = np.concatenate([objects.rgb[present], backdrop.rgb[number]])  # [K + 2, 2, 3]

        self.eye, self.focal = camera.position[number], camera.focal[number]
        self.lamp, self.lamp_rgb, self.ambient = light.direction[number], light.rgb[number], light.ambient[number]
        x, y, z = self.lamp
        across = np.array([[0, z, -y], [-y * y - z * z, x * y, x * z]], dtype=np.float32)
        self.across = across / np.hypot(y, z)  # [2, 3], axes of a plane perpendicular to the light
        self.plane_normal, self.plane_offset = backdrop.normal[number], backdrop.offset[number]
        self.sky = backdrop.sky[number]

    def directions(self, row: NDArray[np.number], column: NDArray[np.number]) -> Floats:
        """Unit vectors [3, R] along rays through image points; whole numbers are pixel centres."""
        half = np.float32(self.size / 2)
        x, y = (column + 0.5).astype(np.float32) / half - 1, 1 - (row + 0.5).astype(np.float32) / half
        in_camera = np.stack([x, y, np.full_like(x, self.focal)])
        direction = self.axes.T @ in_camera
        direction /= _length(direction)
        return direction

    def cast(self, row: NDArray[np.number], column: NDArray[np.number], frame: Ints) -> tuple[Floats, Floats, Ints]:
        """Cast rays through image points, as in `directions`: -> sRGB [3, R], distance [R], surface [R]."""
        direction = self.directions(row, column)
        distance, surface = self._nearest(direction, frame)

        rgb = self._sky(direction[2])
        solid = np.argsort(surface.astype(np.int8), kind="stable")[np.count_nonzero(surface == SKY) :]
        ends = np.searchsorted(surface[solid], np.arange(len(self.pattern) + 1)).tolist()
        members = [slice(*pair) for pair in pairwise(ends)]
        rgb[:, solid] = self._shade(direction[:, solid], distance[solid], frame[solid], members)
        return np.sqrt(np.clip(rgb, 0, 1)), distance, surface

    def position_of(self, slot: int, frame: Ints) -> Floats:
        """Positions of an object: [3, R], or [3, 1] if it does not move."""
        path = self.position[:, slot].T  # [3, F]
        return path.take(frame, axis=1) if self.moves[slot] else path[:, :1]

    def _local(self, slot: int, vector: Floats, frame: Ints) -> Floats:
        """Vectors in the local frame of an object: [3, R] or [3, 1] -> [3, R], or [3, 1] if it does not rotate."""
        if self.turns[slot]:
            return np.einsum("rij,jr->ir", self.to_local[frame, slot], np.broadcast_to(vector, (3, frame.size)))
        return self.to_local[0, slot] @ vector

    def _nearest(self, direction: Floats, frame: Ints) -> tuple[Floats, Ints]:
        """The first hit of rays from the camera: [3, R] -> distance [R], surface [R]."""
        distance = np.full(direction.shape[1], np.inf, dtype=np.float32)
        surface = np.full(direction.shape[1], SKY)
        for slot in range(self.count):
            ray = np.flatnonzero(self.hits_ball(slot, direction, frame))
            if not ray.size:
                continue
            start = self._local(slot, self.eye[:, None] - self.position_of(slot, frame[ray]), frame[ray])
            hit = entry(self.shape[slot], start, self._local(slot, direction[:, ray], frame[ray]))
            closer = hit < distance[ray]
            distance[ray[closer]] = hit[closer]
            surface[ray[closer]] = slot
        for plane, (normal, offset) in enumerate(zip(self.plane_normal, self.plane_offset, strict=True)):
            hit = (offset - normal @ self.eye) / (normal @ direction)
            closer = (hit > 0) & (hit < distance)
            distance = np.where(closer, hit, distance)
            surface[closer] = self.ground + plane
        return distance, surface

    def hits_ball(self, slot: int, direction: Floats, frame: Ints) -> NDArray[np.bool_]:
        """Which rays from the camera hit the ball around an object: [3, R] -> [R]."""
        if self.moves[slot]:
            away = self.position_of(slot, frame) - self.eye[:, None]
            return _dot(away, direction) > np.sqrt(np.maximum(_dot(away, away) - self.radius[slot] ** 2, 0))
        offset = self.position[0, slot] - self.eye
        return offset @ direction > np.sqrt(np.maximum(offset @ offset - self.radius[slot] ** 2, 0))

    def in_shadow_tube(self, slot: int, point: Floats, frame: Ints) -> NDArray[np.bool_]:
        """Which points are in the tube of light rays through the ball around an object: [3, R] -> [R]."""
        x, y = self.across @ point - self.across @ self.position_of(slot, frame)
        return x * x + y * y < self.radius[slot] ** 2

    def _shade(self, direction: Floats, distance: Floats, frame: Ints, members: list[slice]) -> Floats:
        """Linear colours at the hits of rays, which are sorted by surface: [3, R]."""
        point = self.eye[:, None] + distance * direction
        normal, albedo, openness = np.empty_like(point), np.empty_like(point), np.ones_like(distance)
        for number, ray in enumerate(members):
            if ray.start == ray.stop:
                continue
            facing = self._normals(number, point[:, ray], frame[ray])
            normal[:, ray] = facing
            albedo[:, ray] = self._albedo(number, point[:, ray], direction[:, ray], distance[ray], facing, frame[ray])
        ground = members[self.ground]
        openness[ground] = self._openness(point[:, ground], frame[ground])

        bright = np.maximum(self.lamp @ normal, 0)
        lit = np.flatnonzero(bright > 0)
        bright[lit[self._shadowed(point[:, lit] + np.float32(0.015) * normal[:, lit], frame[lit])]] = 0
        open_sky = (np.float32(0.72) + np.float32(0.28) * normal[2]) * openness
        rgb = albedo * (self.lamp_rgb[:, None] * bright + self.ambient[:, None] * open_sky)
        for (strength, sharpness, mirror), ray in zip(self.gloss, members, strict=False):
            if strength and ray.start < ray.stop:
                halfway = self.lamp[:, None] - direction[:, ray]
                shine = _dot(halfway, normal[:, ray]) / _length(halfway)
                shine = np.float32(strength) * (bright[ray] > 0) * np.maximum(shine, 0) ** np.float32(sharpness)
                mirrored = self._mirrored(normal[:, ray], direction[:, ray], albedo[:, ray])
                rgb[:, ray] += self.lamp_rgb[:, None] * shine + np.float32(mirror) * (mirrored - rgb[:, ray])
        return rgb

    def _normals(self, surface: int, point: Floats, frame: Ints) -> Floats:
        """Unit normals at points of a surface: [3, R] -> [3, R] or [3, 1]."""
        if surface >= self.ground:
            return self.plane_normal[surface - self.ground, :, None]
        local = outward(self.shape[surface], self._local(surface, point - self.position_of(surface, frame), frame))
        if self.turns[surface]:
            normal = np.einsum("rji,jr->ir", self.to_local[frame, surface], local)
        else:
            normal = self.to_local[0, surface].T @ local
        return normal / _length(normal)

    def _albedo(
        self, surface: int, point: Floats, direction: Floats, distance: Floats, normal: Floats, frame: Ints
    ) -> Floats:
        """Colours of a surface; its pattern fades where a period is as small as a pixel: [3, R] or [3, 1]."""
        one, other = self.rgb[surface, :, :, None]
        pattern, texture = self.pattern[surface], self.texture[surface]
        if pattern == "plain":
            return one
        slant = np.maximum(np.abs(_dot(normal, direction)), np.float32(0.05))
        fineness = np.float32(1.6 / self.size) * np.sqrt((texture * texture).sum() / 3)
        contrast = np.clip(np.float32(1.6) - fineness * distance / slant, 0, 1)
        mix = pattern_mix(pattern, self._texture_at(surface, point, frame)) - np.float32(0.5)
        return one + (contrast * mix + np.float32(0.5)) * (other - one)

    def _texture_at(self, surface: int, point: Floats, frame: Ints) -> Floats:
        """Texture coordinates of points on a surface: [3, R] -> [3, R]."""
        if surface >= self.ground:
            return self.texture[surface] @ point
        offset = point - self.position_of(surface, frame)
        if self.turns[surface]:
            return self.frequency[surface] * self._local(surface, offset, frame)
        return self.texture[surface] @ offset

    def _shadowed(self, point: Floats, frame: Ints) -> NDArray[np.bool_]:
        """Which points are in the shadow of an object: [3, R] -> [R]."""
        shadowed = np.zeros(point.shape[1], dtype=np.bool_)
        projected = self.across @ point
        for slot in range(self.count):
            offset = projected - self.across @ self.position_of(slot, frame)
            ray = np.flatnonzero((offset[0] * offset[0] + offset[1] * offset[1] < self.radius[slot] ** 2) & ~shadowed)
            if not ray.size:
                continue
            start = self._local(slot, point[:, ray] - self.position_of(slot, frame[ray]), frame[ray])
            towards = self._local(slot, self.lamp[:, None], frame[ray])
            shadowed[ray] = np.isfinite(entry(self.shape[slot], start, towards))
        return shadowed

    def _openness(self, point: Floats, frame: Ints) -> Floats:
        """Share of the sky visible from points on the ground: [3, R] -> [R]."""
        openness = np.ones(point.shape[1], dtype=np.float32)
        for slot in range(self.count):
            openness *= 1 - self.sky_occlusion(slot, point, frame)
        return openness

    def sky_occlusion(self, slot: int, point: Floats, frame: Ints) -> Floats:
        """Share of the sky that an object hides from points on the ground: [3, R] -> [R]."""
        position = self.position_of(slot, frame)
        x, y = point[0] - position[0], point[1] - position[1]
        closeness = self.closeness[frame, slot] if self.moves[slot] else self.closeness[0, slot]
        return closeness * np.exp((x * x + y * y) / -np.square(np.float32(0.75) * self.radius[slot]))

    def _mirrored(self, normal: Floats, direction: Floats, albedo: Floats) -> Floats:
        """Reflected surroundings, tinted by the colour of the surface: [3, R]."""
        upwards = direction[2] - 2 * _dot(normal, direction) * normal[2]
        ground = self.rgb[self.ground].mean(axis=0)[:, None]
        blend = np.clip(upwards * 6 + np.float32(0.5), 0, 1)
        surroundings = ground + blend * (self._sky(upwards) - ground)
        return surroundings * (albedo * np.float32(1.1) + np.float32(0.2))

    def _sky(self, upwards: Floats) -> Floats:
        """Colours of the sky by the upward component of the direction: [R] -> [3, R]."""
        horizon, overhead = self.sky[:, :, None]
        return horizon + np.clip(upwards * np.float32(2.5), 0, 1) * (overhead - horizon)


def _varies(frames: Floats) -> list[bool]:
    """Which of K entries differ between frames: [F, K, ...] -> [K]."""
    return (frames != frames[0]).reshape(*frames.shape[:2], -1).any(axis=(0, 2)).tolist()


def _dot(one: Floats, other: Floats) -> Floats:
    product: Floats = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def _length(vector: Floats) -> Floats:
    return np.sqrt(_dot(vector, vector))
