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


@dataclass(frozen=True)
class Thing:
    """One object; x, y and radius in pixels, `contour` (K, 2) float in pixels (x, y)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    contour: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What is drawn in a photo of this size in pixels."""

    width: int
    height: int
    things: tuple[Thing, ...]


def unit_contour(shape: str) -> np.ndarray:
    """The outline of a shape, (K, 2) as (x, y) with y downwards, inside the unit circle and touching it."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    around = np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    if shape == "circle":
        return around * 0.85  # else a circle would be the largest shape by far
    if shape == "square":
        return around[6::12]
    if shape == "triangle":
        return around[::16]
    if shape == "star":
        tips = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        return np.stack([np.sin(tips), -np.cos(tips)], axis=1) * np.where(np.arange(10) % 2, 0.42, 1)[:, None]
    points = _OTHER_SHAPES[shape]()
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


def _cross() -> np.ndarray:
    arm = [(-0.3, -1), (0.3, -1), (0.3, -0.3)]
    turns = [np.array([[0, -1], [1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, 1], [-1, 0]])]
    return np.concatenate([np.array(arm), *(np.array(arm) @ turn.T for turn in turns)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


_OTHER_SHAPES = {"cross": _cross, "heart": _heart}


def random_scene(rng: np.random.Generator, count: int, shorter: tuple[int, int] = (240, 300)) -> Scene:
    """A scene of `count` objects that do not touch; each further object shares its shape or colour with the first.

    `shorter`: range of the photo's shorter side in pixels; the longer one is 1.2 to 1.4 times as long.
    """
    side = int(rng.integers(*shorter))
    width, height = int(side * rng.uniform(1.2, 1.4)), side
    if rng.random() < 0.25:
        width, height = height, width
    while True:  # a crowded scene finds no place for its last object now and then
        things: list[Thing] = []
        for kind in _kinds(rng, count):
            thing = _placed(rng, kind, things, width, height)
            things += [thing] if thing else []
        if len(things) == count:
            return Scene(width, height, tuple(things))


def _kinds(rng: np.random.Generator, count: int) -> list[tuple[str, str, str]]:
    """(shape, colour, size) of each object. One distractor in twelve is the first object's twin."""
    colours = tuple(COLOURS)
    kinds = [(str(rng.choice(SHAPES)), str(rng.choice(colours)), str(rng.choice(tuple(SIZES))))]
    shape, colour, _ = kinds[0]
    for _ in range(count - 1):
        shares = rng.choice(("shape", "colour", "both"), p=(0.5, 0.42, 0.08))
        other_shape = shape if shares != "colour" else str(rng.choice(SHAPES))
        other_colour = colour if shares != "shape" else str(rng.choice(colours))
        kinds.append((other_shape, other_colour, str(rng.choice(tuple(SIZES)))))
    return kinds


def _placed(
    rng: np.random.Generator, kind: tuple[str, str, str], others: list[Thing], width: int, height: int
) -> Thing | None:
    """An object of this kind at a free place, slightly turned; None where 30 tries find none."""
    shape, colour, size = kind
    side = min(width, height)
    radius = side * rng.uniform(*SIZES[size])
    for _ in range(30):
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(np.hypot(x - o.x, y - o.y) > radius + o.radius + GAP * side for o in others):
            turn = rng.uniform(-0.25, 0.25)  # radians: a square stays no diamond, a cross upright
            matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            return Thing(shape, colour, size, x, y, radius, unit_contour(shape) @ matrix.T * radius + (x, y))
    return None


def paint(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """The photo of a scene, uint8 (height, width, 3) in RGB."""
    image = _background(rng, scene.width, scene.height)
    for thing in scene.things:
        shadow = cv2.GaussianBlur(coverage(thing, scene, shift=0.06 * thing.radius), (0, 0), 0.06 * thing.radius + 0.5)
        image *= 1 - 0.35 * shadow[..., None]
        alpha = coverage(thing, scene)[..., None]
        image += alpha * (_surface(rng, thing, scene) - image)
    image += rng.uniform(2, 7) * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8)


def coverage(thing: Thing, scene: Scene, shift: float = 0.0) -> np.ndarray:
    """How much of each pixel the object covers: float32 (height, width) in 0..1, antialiased."""
    fine = np.zeros((4 * scene.height, 4 * scene.width), np.uint8)
    # 4 fractional bits; a pixel's centre has whole coordinates in OpenCV and lies at a half in COCO's contours.
    points = np.round((4 * (thing.contour + shift) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], 255, shift=4)
    alpha = cv2.resize(fine, (scene.width, scene.height), interpolation=cv2.INTER_AREA)
    return alpha.astype(np.float32) / 255


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """A colour, float32 (3,) in 0..255, from hue in degrees and saturation and value in 0..1."""
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _surface(rng: np.random.Generator, thing: Thing, scene: Scene) -> np.ndarray:
    """The colour of an object's pixels: its colour jittered, lit from one side, (height, width, 3) in 0..255."""
    hue, saturation, value = COLOURS[thing.colour]
    colour = rgb(
        hue + rng.normal(0, 4), min(1, saturation * rng.uniform(0.85, 1.05)), min(1, value * rng.uniform(0.9, 1.1))
    )
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.arange(scene.width) - thing.x) * np.cos(angle) + (np.arange(scene.height) - thing.y)[:, None] * np.sin(
        angle
    )
    light = 1 + 0.12 * (along / thing.radius).clip(-1, 1).astype(np.float32)
    return colour * light[..., None]


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A dull colour with a gradient, clouds, and at times stripes or blots: float32 (height, width, 3) in 0..255."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = rgb(rng.uniform(0, 360), rng.uniform(0, 0.25), rng.uniform(0.35, 0.72))
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    image += (rng.uniform(0, 30) * (x * np.cos(angle) + y * np.sin(angle)))[..., None].astype(np.float32)
    cells = int(rng.integers(3, 24))
    clouds = rng.normal(0, rng.uniform(3, 16), (cells, cells, 3)).astype(np.float32)
    image += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)
    pattern = rng.random()
    if pattern < 0.3:
        waves = np.sin((x * np.sin(angle) + y * np.cos(angle)) * rng.uniform(8, 40))
        image += rng.uniform(4, 14) * waves[..., None]
    elif pattern < 0.6:
        for _ in range(int(rng.integers(3, 10))):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = tuple(int(v) for v in rng.integers(8, 60, 2))
            shade = image[centre[1], centre[0]] + rng.normal(0, 14)
            cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, [float(v) for v in shade], -1, cv2.LINE_AA)
    return image.clip(70, 205)
