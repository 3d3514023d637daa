"""Sentences about toy scenes, and the resolver that finds the objects that a sentence means.

A sentence is made from a `Meaning`. It may refer to an object only if the resolver finds that object alone, under a
strict and under a loose notion of "left", "above", ... alike: an object that is barely further left is not called so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from toy.scenes import COLOURS, SHAPES, Scene, Thing

SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
ANYTHING = ("thing", "object")  # the noun of a sentence that does not name the shape
PLACES = {  # each with its words before and after the noun
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
MARGIN = 0.15  # how much further left is clearly further left, as a part of the photo's width (or height)


@dataclass(frozen=True)
class Meaning:
    """What a sentence says: attributes (None: not mentioned), and a place or a relation to another object."""

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
    """The objects that fit a meaning; with `strict=False` also those that somebody might take for it."""
    found = [thing for thing in scene.things if has_attributes(thing, meaning)]
    if meaning.place:  # the one in that half of the photo with no other further towards that side
        margin = MARGIN if strict else -MARGIN
        distance = {thing: _towards(meaning.place, thing, scene)[0] for thing in found}
        return [
            thing
            for thing in found
            if distance[thing] < 0.5 - margin / 2
            and all(distance[other] > distance[thing] + margin for other in found if other != thing)
        ]
    if meaning.relation:
        anchors = resolve(scene, meaning.anchor, strict)
        return [t for t in found if any(_holds(meaning.relation, t, anchor, scene, strict) for anchor in anchors)]
    return found


def is_unambiguous(scene: Scene, meaning: Meaning, thing: Thing) -> bool:
    """Whether a sentence of this meaning clearly refers to `thing` alone, and its anchor to one object."""
    if meaning.anchor and len(resolve(scene, meaning.anchor)) != 1:
        return False
    return all(resolve(scene, meaning, strict) == [thing] for strict in (True, False))


def has_attributes(thing: Thing, meaning: Meaning) -> bool:
    """Whether what a meaning says of size, colour and shape is true of an object."""
    said = ((meaning.size, thing.size), (meaning.colour, thing.colour), (meaning.shape, thing.shape))
    return all(wanted in (None, actual) for wanted, actual in said)


def _towards(side: str, thing: Thing, scene: Scene) -> tuple[float, float]:
    """An object's distance from a side of the photo, and its position along that side, as parts of the photo."""
    x, y = thing.x / scene.width, thing.y / scene.height
    if side in ("left", "right"):
        return (x if side == "left" else 1 - x), y
    return (y if side in ("top", "above") else 1 - y), x


def _holds(relation: str, thing: Thing, anchor: Thing, scene: Scene, strict: bool) -> bool:
    """Whether the object lies on that side of the anchor, and further that way than to either side of it."""
    if thing == anchor:
        return False
    (a, along_a), (b, along_b) = _towards(relation, thing, scene), _towards(relation, anchor, scene)
    ahead, aside = b - a, abs(along_a - along_b)
    return ahead > MARGIN and aside < 0.8 * ahead if strict else ahead > MARGIN / 3 and aside < 1.5 * ahead


def attribute_meanings(thing: Thing) -> list[Meaning]:
    """All ways to describe an object by some of its attributes, among them its colour or its shape."""
    return [
        Meaning(size, colour, shape)
        for size in (None, thing.size)
        for colour in (None, thing.colour)
        for shape in (None, thing.shape)
        if colour or shape
    ]


def meanings(scene: Scene, thing: Thing) -> Iterator[Meaning]:
    """Every unambiguous meaning for one object of a scene."""
    endings = [{}, *({"place": place} for place in PLACES)]
    for other in scene.things:
        anchors = [a for a in attribute_meanings(other) if a.shape and len(resolve(scene, a)) == 1]
        relations = [relation for relation in RELATIONS if _holds(relation, thing, other, scene, strict=True)]
        endings += [{"relation": relation, "anchor": anchor} for relation in relations for anchor in anchors]
    candidates = (replace(base, **ending) for base in attribute_meanings(thing) for ending in endings)
    return (meaning for meaning in candidates if is_unambiguous(scene, meaning, thing))


def absent_meanings(scene: Scene) -> Iterator[Meaning]:
    """Meanings that nothing in a scene fits, not even loosely: each is a true one with one word changed.

    A changed attribute is one that nothing there has. With a changed place or relation the attributes are still right.
    """
    shapes, colours = {thing.shape for thing in scene.things}, {thing.colour for thing in scene.things}
    others = {"shape": set(SHAPES) - shapes, "colour": set(COLOURS) - colours, "place": PLACES, "relation": RELATIONS}
    for meaning in (meaning for thing in scene.things for meaning in meanings(scene, thing)):
        for name in ("shape", "colour") if meaning.kind == "attribute" else (meaning.kind,):
            changed = [replace(meaning, **{name: value}) for value in sorted(others[name]) if getattr(meaning, name)]
            yield from (candidate for candidate in changed if not resolve(scene, candidate, strict=False))


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
    """Up to 4 different sentences for an object. Those by attribute or place are more frequent than by relation."""
    by_kind: dict[str, list[Meaning]] = {}
    for meaning in meanings(scene, thing):
        by_kind.setdefault(meaning.kind, []).append(meaning)
    kinds = [kind for kind in ("attribute", "place") * 2 if kind in by_kind]
    if "relation" in by_kind and (rng.random() < 0.5 or len(kinds) < 4):
        kinds[-1:] = ["relation"]
    chosen: dict[str, Meaning] = {}
    for kind in kinds:
        # People say what kind of thing they mean, and its colour rather than its size.
        weights = np.array([1 + 5 * bool(m.shape) + 4 * bool(m.colour) for m in by_kind[kind]], float)
        meaning = by_kind[kind][rng.choice(len(weights), p=weights / weights.sum())]
        chosen.setdefault(phrase(rng, meaning), meaning)
    order = rng.permutation(len(chosen))
    return [list(chosen.items())[index] for index in order]


def vocabulary() -> list[str]:
    """Every word that a sentence can contain, in alphabetical order."""
    phrases = [*SHAPES, *COLOURS, *ANYTHING, "the a an", *(word for words in SIZE_WORDS.values() for word in words)]
    phrases += [text for around in PLACES.values() for texts in around for text in texts]
    phrases += [text for texts in RELATIONS.values() for text in texts]
    return sorted({word for text in phrases for word in text.replace("{}", "").split()})
