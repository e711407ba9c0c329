"""Which concepts and combinations are kept from training: a fixed hash of names, whatever the style, seed or version.

- a **concept** (3 %) is held out whole: none of its pictures is drawn for training;
- a **pair** of seen concepts (5 %) is held out in every relation and order;
- a **pair in one relation** (5 %): "a cat above a dog" is held out while "a dog above a cat" may be trained;
- an **object on a colour** (5 %) is held out in every kind of scene, and
- an **object in a number** (5 %): "three lions", while "two lions" may be trained.

White is never held out, because a prompt without a colour means white.
"""

from collections.abc import Mapping
from hashlib import blake2b

CONCEPT_SHARE = 0.03
COMBINATION_SHARE = 0.05
_SALT = "mosaics emoji split 1"
_SAME_PICTURE = {
    "grinning cat": "cat face"
}  # the Fluent artwork is the same file, so the two are held out or seen together


def _held_out(kind: str, *names: str, share: float) -> bool:
    digest = blake2b("\0".join((_SALT, kind, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def concept_held_out(name: str) -> bool:
    """Whether every picture of this concept is kept from training."""
    return _held_out("concept", _SAME_PICTURE.get(name, name), share=CONCEPT_SHARE)


def pair_held_out(first: str, second: str) -> bool:
    """Whether the two concepts are never trained together, in either order."""
    return _held_out("pair", *sorted((first, second)), share=COMBINATION_SHARE)


def relation_held_out(relation: str, first: str, second: str) -> bool:
    """Whether `first` is never trained in this relation (`"left of"` or `"above"`) to `second`."""
    return _held_out("relation", relation, first, second, share=COMBINATION_SHARE)


def colour_held_out(name: str, colour: str) -> bool:
    """Whether the concept is never trained on this background."""
    return colour != "white" and _held_out("colour", name, colour, share=COMBINATION_SHARE)


def count_held_out(name: str, count: int) -> bool:
    """Whether the concept is never trained in this number (1 is always trained)."""
    return count > 1 and _held_out("count", name, str(count), share=COMBINATION_SHARE)


def held_out(scene: Mapping) -> tuple[str, ...]:
    """What in a scene is kept from training: any of `concept`, `pair`, `relation`, `colour`, `count`, in this order.

    Training scenes give `()`.
    """
    first, second = scene["object"], scene["other"]
    names = [name for name in (first, second) if name]
    found = {
        "concept": any(concept_held_out(name) for name in names),
        "pair": bool(second) and pair_held_out(first, second),
        "relation": bool(second) and relation_held_out(scene["relation"], first, second),
        "colour": any(colour_held_out(name, scene["colour"]) for name in names),
        "count": count_held_out(first, scene["count"]),
    }
    return tuple(kind for kind, answer in found.items() if answer)
