"""Descriptions of scenes: objects, camera, light and backdrop. An image is a function of a description.

World frame: metres, z up, ground at z = 0. B is the batch axis; a scene has K slots for objects.
"""

from dataclasses import dataclass

import numpy as np

from modalities.worlds.scenes.shapes import Floats, Ints

COLOURS = {  # name -> sRGB
    "red": (0.86, 0.15, 0.14),
    "orange": (0.96, 0.53, 0.12),
    "yellow": (0.95, 0.86, 0.20),
    "green": (0.20, 0.65, 0.25),
    "cyan": (0.20, 0.75, 0.80),
    "blue": (0.16, 0.32, 0.85),
    "purple": (0.55, 0.22, 0.70),
    "pink": (0.95, 0.55, 0.72),
    "brown": (0.48, 0.31, 0.18),
    "white": (0.92, 0.92, 0.90),
    "grey": (0.50, 0.50, 0.52),
}
MATERIALS = ("matte", "plastic", "metal")
PATTERNS = ("plain", "stripes", "checks", "dots", "tiles", "clouds", "rings", "zigzag", "lines", "crosses")


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Solids on the ground or in the air. Slot 0 is the main object; slots from `count` on are empty.

    A point p of the unit solid is at rotation @ (scale * p) + position.
    """

    count: Ints  # [B], 1..K
    shape: Ints  # [B, K] in CLASSES
    colour: Ints  # [B, K] in COLOURS
    material: Ints  # [B, K] in MATERIALS
    pattern: Ints  # [B, K] in PATTERNS
    rgb: Floats  # [B, K, 2, 3], linear: the named colour and the second colour of the pattern
    frequency: Floats  # [B, K], of the pattern on the unit solid
    scale: Floats  # [B, K, 3]
    radius: Floats  # [B, K], of a ball around the position that contains the object
    position: Floats  # [B, K, 3]
    rotation: Floats  # [B, K, 3, 3]
    clearance: Floats  # [B, K], height of the object above the ground, 0 if it rests there


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera: it maps a point x to focal * (right, up) . (x - position) / (forward . (x - position))."""

    position: Floats  # [B, 3]
    axes: Floats  # [B, 3, 3], rows right, up, forward
    focal: Floats  # [B], in halves of the image width


@dataclass(frozen=True, kw_only=True)
class Light:
    """A distant lamp and ambient light from the sky."""

    direction: Floats  # [B, 3], towards the lamp
    rgb: Floats  # [B, 3], linear
    ambient: Floats  # [B, 3], linear


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Two patterned planes n . x = offset, the ground and a wall (possibly infinitely far away), and a sky."""

    normal: Floats  # [B, 2, 3], towards the camera
    offset: Floats  # [B, 2]
    texture: Floats  # [B, 2, 3, 3], world to texture coordinates
    pattern: Ints  # [B, 2] in PATTERNS
    rgb: Floats  # [B, 2, 2, 3], linear, the two colours of the pattern
    sky: Floats  # [B, 2, 3], linear, at the horizon and overhead


@dataclass(frozen=True, kw_only=True)
class SceneBatch:
    """B scenes."""

    objects: Objects
    camera: Camera
    light: Light
    backdrop: Backdrop


def pattern_mix(kind: str, at: Floats) -> Floats:
    """Share of the second colour of a pattern at texture coordinates: [3, R] -> [R] in 0..1."""
    x, y, z = at
    match kind:
        case "stripes":
            mix = 3 * np.sin(x)
        case "checks":
            mix = 6 * np.sin(x) * np.sin(y) * np.cos(z)
        case "dots":
            mix = 7 * np.abs(np.sin(x) * np.sin(y) * np.cos(z)) - 3
        case "tiles":
            mix = 2 - 12 * np.minimum(np.minimum(np.abs(np.sin(x)), np.abs(np.sin(y))), np.abs(np.cos(z)))
        case "rings":
            mix = 3 * np.sin(np.float32(1.6) * np.sqrt(x * x + y * y + z * z))
        case "zigzag":
            mix = 3 * np.sin(x + 2 * np.arcsin(np.sin(y)))
        case "lines":
            mix = 6 * np.sin(np.float32(1.5) * z) - 3
        case "crosses":
            mix = 2 - 7 * np.abs(np.sin(x) * np.sin(y)) - 4 * np.abs(np.cos(z))
        case _:
            drift = np.sin(y * np.float32(0.7) + z), np.sin(x * np.float32(0.6) - z)
            mix = np.sin(x * np.float32(0.8) + 2 * drift[0]) * np.sin(y * np.float32(0.9) + 2 * drift[1])
    return np.clip(mix + np.float32(0.5), 0, 1)
