"""Drawing the toy world: small photos of coloured shapes on textured backgrounds, every pixel from one seed."""

from dataclasses import dataclass

import cv2
import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
SIZES = {"small": (0.145, 0.17), "large": (0.24, 0.28)}  # circumradius over the photo's shorter side
COLOURS = {  # hue in degrees, saturation, value; no background is as saturated, as dark or as bright
    "red": (0, 0.90, 0.85),
    "orange": (29, 0.95, 0.98),
    "yellow": (56, 0.90, 0.97),
    "green": (128, 0.80, 0.62),
    "blue": (222, 0.85, 0.85),
    "purple": (284, 0.70, 0.68),
    "white": (0, 0.02, 0.99),
    "black": (0, 0.10, 0.07),
}
GAP = 0.02  # free space between two objects, over the shorter side


@dataclass(frozen=True, eq=False)  # two objects are equal only if they are the same one
class Thing:
    """One object. `x`, `y` and `radius` in pixels, `contour` float (K, 2) as (x, y) in pixels."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    contour: np.ndarray


@dataclass(frozen=True)
class Scene:
    """The objects in a photo of `width` x `height` pixels."""

    width: int
    height: int
    things: tuple[Thing, ...]


def unit_contour(shape: str) -> np.ndarray:
    """The outline of a shape, float (K, 2) as (x, y) with y downwards; it lies in the unit circle."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    if shape == "circle":
        return circle * 0.85  # otherwise it would be the largest shape by far
    if shape == "square":
        return circle[6::12]
    if shape == "triangle":
        return circle[::16]
    if shape == "star":
        tips = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        return np.stack([np.sin(tips), -np.cos(tips)], axis=1) * np.where(np.arange(10) % 2, 0.42, 1)[:, None]
    if shape == "cross":
        arm, quarter_turn = np.array([(-0.3, -1), (0.3, -1), (0.3, -0.3)]), np.array([[0, -1], [1, 0]])
        points = np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, turns).T for turns in range(4)])
    else:
        y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
        points = np.stack([16 * np.sin(angles) ** 3, -y], axis=1)  # a heart
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


def random_scene(rng: np.random.Generator, count: int) -> Scene:
    """A scene of `count` objects that do not touch; each further object shares its shape or colour with the first.

    About one of them in twelve shares both. The photo's shorter side is 240 to 299 pixels, the longer one 1.2 to 1.4
    times that.
    """
    side = int(rng.integers(240, 300))
    width, height = int(side * rng.uniform(1.2, 1.4)), side
    if rng.random() < 0.25:
        width, height = height, width
    colours, sizes = tuple(COLOURS), tuple(SIZES)
    while True:  # now and then a crowded scene has no room for its last object
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(colours))
        kinds = [(shape, colour, str(rng.choice(sizes)))]
        for _ in range(count - 1):
            shared = rng.choice(("shape", "colour", "both"), p=(0.5, 0.42, 0.08))
            other_shape = shape if shared != "colour" else str(rng.choice(SHAPES))
            other_colour = colour if shared != "shape" else str(rng.choice(colours))
            kinds.append((other_shape, other_colour, str(rng.choice(sizes))))
        things: list[Thing] = []
        for kind in kinds:
            thing = _place(rng, kind, things, width, height)
            things += [thing] if thing else []
        if len(things) == count:
            return Scene(width, height, tuple(things))


def _place(
    rng: np.random.Generator, kind: tuple[str, str, str], others: list[Thing], width: int, height: int
) -> Thing | None:
    """An object of this kind, slightly rotated, in free space; None if 30 attempts find none."""
    shape, colour, size = kind
    side = min(width, height)
    radius = side * rng.uniform(*SIZES[size])
    for _ in range(30):
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(np.hypot(x - o.x, y - o.y) > radius + o.radius + GAP * side for o in others):
            angle = rng.uniform(-0.25, 0.25)  # radians: a square does not become a diamond, a cross stays upright
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            return Thing(shape, colour, size, x, y, radius, unit_contour(shape) @ rotation.T * radius + (x, y))
    return None


def paint(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The photo of a scene: RGB, uint8 (height, width, 3)."""
    image = _background(rng, scene.width, scene.height)
    for thing in scene.things:
        shadow = cv2.GaussianBlur(coverage(thing, scene, shift=0.06 * thing.radius), (0, 0), 0.06 * thing.radius + 0.5)
        image *= 1 - 0.35 * shadow[..., None]
        # The object has its colour, jittered and lit from one side.
        hue, saturation, value = COLOURS[thing.colour]
        hue += rng.normal(0, 4)
        saturation, value = min(1, saturation * rng.uniform(0.85, 1.05)), min(1, value * rng.uniform(0.9, 1.1))
        angle = rng.uniform(0, 2 * np.pi)
        x, y = np.arange(scene.width) - thing.x, np.arange(scene.height)[:, None] - thing.y
        along = (x * np.cos(angle) + y * np.sin(angle)) / thing.radius
        light = 1 + 0.12 * along.clip(-1, 1).astype(np.float32)
        surface = _rgb(hue, saturation, value) * light[..., None]  # (height, width, 3), about 0..255
        image += coverage(thing, scene)[..., None] * (surface - image)
    image += rng.uniform(2, 7) * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8)


def coverage(thing: Thing, scene: Scene, shift: float = 0.0) -> np.ndarray:
    """The part of each pixel that an object covers, float32 (height, width) in 0..1, antialiased."""
    fine = np.zeros((4 * scene.height, 4 * scene.width), np.uint8)
    # With 4 fractional bits. OpenCV's pixel centres have whole coordinates, those of COCO's contours lie at halves.
    points = np.round((4 * (thing.contour + shift) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], 255, shift=4)
    alpha = cv2.resize(fine, (scene.width, scene.height), interpolation=cv2.INTER_AREA)
    return alpha.astype(np.float32) / 255


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """A colour, float32 (3,) in 0..255, from its hue in degrees and its saturation and value in 0..1."""
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A dull colour with a gradient, clouds, and at times stripes or blots: float32 (height, width, 3) in 70..205."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = _rgb(rng.uniform(0, 360), rng.uniform(0, 0.25), rng.uniform(0.35, 0.72))
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    image += (rng.uniform(0, 30) * (x * np.cos(angle) + y * np.sin(angle)))[..., None].astype(np.float32)
    cells = int(rng.integers(3, 24))
    clouds = rng.normal(0, rng.uniform(3, 16), (cells, cells, 3)).astype(np.float32)
    image += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)
    pattern = rng.random()
    if pattern < 0.3:
        stripes = np.sin((x * np.sin(angle) + y * np.cos(angle)) * rng.uniform(8, 40))
        image += rng.uniform(4, 14) * stripes[..., None]
    elif pattern < 0.6:
        for _ in range(int(rng.integers(3, 10))):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = tuple(int(v) for v in rng.integers(8, 60, 2))
            shade = image[centre[1], centre[0]] + rng.normal(0, 14)
            cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, [float(v) for v in shade], -1, cv2.LINE_AA)
    return image.clip(70, 205)
