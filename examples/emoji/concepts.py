"""What each emoji is called: concepts with their names, groups, short names and keywords."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .packages import PackageFolder

_SHORT_CODE_SETS = ("cldr", "emojibase", "github", "iamcal", "joypixels")


@dataclass(frozen=True)
class Concept:
    """One emoji, whatever its artwork. `hex` is its normalised code points."""

    hex: str
    emoji: str
    name: str
    group: str
    subgroup: str
    alt: tuple[str, ...]
    keywords: tuple[str, ...]


def normalised_hex(code: str) -> str:
    """Code points in lower case, joined by `-`, without the variation selector and leading zeros."""
    return "-".join(part.lstrip("0") for part in code.lower().split("-") if part != "fe0f")


def read_concepts(packages: PackageFolder) -> dict[str, Concept]:
    """All concepts without skin tones, by normalised code points."""
    messages = packages.json("emojibase-data", "en/messages.json")
    groups, subgroups = ({row["order"]: row["message"] for row in messages[kind]} for kind in ("groups", "subgroups"))
    short_codes = _read_short_codes(packages)
    annotations = _read_annotations(packages)
    library = {_hex_of(emoji): words for emoji, words in packages.json("emojilib", "dist/emoji-en-US.json").items()}
    concepts = {}
    for row in packages.json("emojibase-data", "en/data.json"):
        code, name = normalised_hex(row["hexcode"]), row["label"]
        words = [*annotations.get(code, ()), *row.get("tags", ())]
        words += [word.replace("_", " ") for word in library.get(code, ())]
        concepts[code] = Concept(
            hex=code,
            emoji=row["emoji"],
            name=name,
            group=groups.get(row.get("group"), ""),
            subgroup=subgroups.get(row.get("subgroup"), ""),
            alt=tuple(sorted(short_codes.get(code, set()) - {name})),
            keywords=tuple(word for word in dict.fromkeys(words) if word != name),
        )
    return concepts


def _hex_of(emoji: str) -> str:
    return normalised_hex("-".join(f"{ord(character):x}" for character in emoji))


def _read_short_codes(packages: PackageFolder) -> dict[str, set[str]]:
    """Short codes as words, from five sets."""
    found: dict[str, set[str]] = {}
    for name in _SHORT_CODE_SETS:
        for code, words in packages.json("emojibase-data", f"en/shortcodes/{name}.json").items():
            words = [words] if isinstance(words, str) else words
            found.setdefault(normalised_hex(code), set()).update(word.replace("_", " ") for word in words)
    return found


def _read_annotations(packages: PackageFolder) -> dict[str, list[str]]:
    """CLDR keywords; the plain annotations have precedence over the derived ones."""
    derived = packages.json("cldr-annotations-derived-full", "annotationsDerived/en/annotations.json")
    plain = packages.json("cldr-annotations-full", "annotations/en/annotations.json")
    rows = {**derived["annotationsDerived"]["annotations"], **plain["annotations"]["annotations"]}
    return {_hex_of(emoji): row["default"] for emoji, row in rows.items() if "default" in row}


class SlugIndex:
    """Finds a concept by the words in an icon's name, where no code point does.

    Args:
        concepts: The concepts to find.
    """

    def __init__(self, concepts: Iterable[Concept]) -> None:
        self._codes: dict[str, str] = {}
        concepts = list(concepts)
        for concept in concepts:
            self._codes.setdefault(_slug(concept.name), concept.hex)
        for concept in concepts:
            for word in concept.alt:
                self._codes.setdefault(_slug(word), concept.hex)

    def find(self, icon: str) -> str | None:
        """Code points of the concept that an icon name means, or `None`."""
        variants = (icon, f"{icon}-face", re.sub(r"-\d$", "", icon), re.sub(r"^flag-for-(flag-)?", "flag-", icon))
        return next((self._codes[_slug(name)] for name in variants if _slug(name) in self._codes), None)


def _slug(name: str) -> str:
    name = re.sub("['’]", "", name.lower().replace("&", " and "))
    return re.sub("[^a-z0-9]+", "", name)
