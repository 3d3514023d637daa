"""Sentences about toy scenes, and the resolver that says which objects a sentence means.

A sentence comes from a `Meaning`; it is used for an object only if the resolver finds this object alone, once with
strict and once with loose notions of "left", "above", ...: what is only just left of something is not spoken of.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dataset.toy.scenes import COLOURS, SHAPES, Scene, Thing

SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
ANYTHING = ("thing", "object")  # the noun of a sentence that names no shape
# Each place with the words before and behind the noun.
PLACES = {
    "left": (("left {}", "leftmost {}"), ("{} on the left", "{} on the left side")),
    "right": (("right {}", "rightmost {}"), ("{} on the right", "{} on the right side")),
    "top": (("top {}", "upper {}"), ("{} at the top",)),
    "bottom": (("bottom {}", "lower {}"), ("{} at the bottom",)),
}
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SIDES = {"left": (1, 0), "right": (-1, 0), "top": (0, 1), "bottom": (0, -1), "above": (0, 1), "below": (0, -1)}

MARGIN = 0.15  # what is "clearly" further left, in parts of the photo's width (or height)


@dataclass(frozen=True)
class Meaning:
    """What a sentence says: attributes (None: not said), and a place or a relation to another object."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    relation: str | None = None
    anchor: "Meaning | None" = None

    @property
    def kind(self) -> str:
        return "place" if self.place else "relation" if self.relation else "attribute"


def resolve(scene: Scene, meaning: Meaning, strict: bool = True) -> list[Thing]:
    """The objects that fit a meaning. Loosely (`strict=False`) also those that someone might take for it."""
    found = [thing for thing in scene.things if has_attributes(thing, meaning)]
    if meaning.place:
        return [thing for thing in found if _is_at(meaning.place, thing, found, scene, strict)]
    if meaning.relation:
        anchors = resolve(scene, meaning.anchor, strict)
        return [
            thing
            for thing in found
            if any(_holds(meaning.relation, thing, anchor, scene, strict) for anchor in anchors)
        ]
    return found


def is_unambiguous(scene: Scene, meaning: Meaning, thing: Thing) -> bool:
    """Whether a sentence of this meaning names `thing` and nothing else, with a margin; so for its anchor too."""
    if meaning.anchor and len(resolve(scene, meaning.anchor)) != 1:
        return False
    return all([found is thing for found in resolve(scene, meaning, strict)] == [True] for strict in (True, False))


def has_attributes(thing: Thing, meaning: Meaning) -> bool:
    """Whether what a meaning says of size, colour and shape is true of an object."""
    return (
        meaning.shape in (None, thing.shape)
        and meaning.colour in (None, thing.colour)
        and meaning.size in (None, thing.size)
    )


def _towards(side: str, thing: Thing, scene: Scene) -> tuple[float, float]:
    """Distance from the side and position along it, in parts of the photo; smaller is nearer to the side."""
    x, y = thing.x / scene.width, thing.y / scene.height
    dx, dy = _SIDES[side]
    return (x if dx > 0 else 1 - x, y) if dx else (y if dy > 0 else 1 - y, x)


def _is_at(place: str, thing: Thing, among: list[Thing], scene: Scene, strict: bool) -> bool:
    """The object lies in that half of the photo, and nothing of the same description is further there."""
    margin = MARGIN if strict else -MARGIN
    position = _towards(place, thing, scene)[0]
    others = [_towards(place, other, scene)[0] for other in among if other is not thing]
    return position < 0.5 - margin / 2 and all(other > position + margin for other in others)


def _holds(relation: str, thing: Thing, anchor: Thing, scene: Scene, strict: bool) -> bool:
    """The object lies on that side of the anchor, more so than beside it."""
    if thing is anchor:
        return False
    (a, along_a), (b, along_b) = _towards(relation, thing, scene), _towards(relation, anchor, scene)
    ahead, aside = b - a, abs(along_a - along_b)
    return ahead > MARGIN and aside < 0.8 * ahead if strict else ahead > MARGIN / 3 and aside < 1.5 * ahead


def attribute_meanings(thing: Thing) -> list[Meaning]:
    """All ways to describe an object by some of its attributes, colour or shape among them."""
    return [
        Meaning(size, colour, shape)
        for size in (None, thing.size)
        for colour in (None, thing.colour)
        for shape in (None, thing.shape)
        if colour or shape
    ]


def meanings(scene: Scene, thing: Thing) -> Iterator[Meaning]:
    """Every unambiguous meaning for one object of a scene."""
    bases = attribute_meanings(thing)
    endings = [{}, *({"place": place} for place in PLACES)]
    for other in scene.things:
        anchors = [a for a in attribute_meanings(other) if a.shape and len(resolve(scene, a)) == 1]
        relations = [relation for relation in RELATIONS if _holds(relation, thing, other, scene, strict=True)]
        endings += [{"relation": relation, "anchor": anchor} for relation in relations for anchor in anchors]
    candidates = (replace(base, **ending) for base in bases for ending in endings)
    return (meaning for meaning in candidates if is_unambiguous(scene, meaning, thing))


def _noun_phrase(rng: np.random.Generator, meaning: Meaning) -> str:
    words = [str(rng.choice(SIZE_WORDS[meaning.size]))] if meaning.size else []
    words += [meaning.colour] if meaning.colour else []
    return " ".join([*words, meaning.shape or str(rng.choice(ANYTHING))])


def phrase(rng: np.random.Generator, meaning: Meaning) -> str:
    """One of the sentences for a meaning, with or without an article."""
    text = _noun_phrase(rng, meaning)
    if meaning.place:
        text = str(rng.choice(PLACES[meaning.place][rng.integers(2)])).format(text)
    if meaning.relation:
        anchor = _noun_phrase(rng, meaning.anchor)
        article = "the" if rng.random() < 0.5 else "an" if anchor[0] in "aeiou" else "a"
        text += f" {rng.choice(RELATIONS[meaning.relation])} {article} {anchor}"
    return f"the {text}" if rng.random() < 0.5 else text


def sentences(rng: np.random.Generator, scene: Scene, thing: Thing) -> list[tuple[str, Meaning]]:
    """Up to 4 different sentences for an object: by attribute and by place twice as often as by relation."""
    by_kind: dict[str, list[Meaning]] = {}
    for meaning in meanings(scene, thing):
        by_kind.setdefault(meaning.kind, []).append(meaning)
    kinds = [kind for kind in ("attribute", "place") * 2 if kind in by_kind]
    if "relation" in by_kind and (rng.random() < 0.5 or len(kinds) < 4):
        kinds[-1:] = ["relation"]
    chosen: dict[str, Meaning] = {}
    for kind in kinds:
        meaning = _choose(rng, by_kind[kind])
        chosen.setdefault(phrase(rng, meaning), meaning)
    order = rng.permutation(len(chosen))
    return [list(chosen.items())[index] for index in order]


def _choose(rng: np.random.Generator, possible: list[Meaning]) -> Meaning:
    """One of the meanings; people name what kind of thing they mean, and its colour rather than its size."""
    weights = np.array([1 + 5 * bool(m.shape) + 4 * bool(m.colour) for m in possible], float)
    return possible[rng.choice(len(possible), p=weights / weights.sum())]


def vocabulary() -> list[str]:
    """Every word that a sentence can contain."""
    phrases = [*SHAPES, *COLOURS, *ANYTHING, "the a an", *(word for words in SIZE_WORDS.values() for word in words)]
    phrases += [text for around in PLACES.values() for texts in around for text in texts]
    phrases += [text for texts in RELATIONS.values() for text in texts]
    return sorted({word for text in phrases for word in text.replace("{}", "").split()})
