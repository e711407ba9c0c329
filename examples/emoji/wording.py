"""English for the captions: articles, plurals, and the ways to say one scene.

Every caption states the scene exactly: the same words never stand for two different layouts. Variants of one meaning
exist so that a plain prompt ("a lion", "lion on blue", "two lions") meets words the model has seen.
"""

from collections.abc import Callable, Mapping, Sequence

COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
STYLE_WORDS = {
    "fluent-3d": "3d",
    "noto": "noto",
    "noto-v1": "noto blob",
    "fluent-flat": "flat",
    "fluent-color": "soft gradient",
}
_AN = ("hour", "x-ray", "x ray")
_A = ("uni", "ewe", "euro", "one", "use", "ufo", "u-")
_TAIL_WORDS = {  # where the head of a name ends: "nest | with eggs", "face | blowing a kiss"
    *(
        "with",
        "without",
        "of",
        "in",
        "on",
        "at",
        "from",
        "for",
        "behind",
        "over",
        "under",
        "facing",
        "showing",
        "holding",
        "blowing",
    ),
    *("screaming", "savoring", "vomiting", "exhaling", "shaking", "fluttering", "increasing", "decreasing", "tilted"),
}
_SINGULAR_S = {
    *(
        "abacus",
        "bus",
        "busstop",
        "cactus",
        "canvas",
        "compass",
        "glass",
        "grass",
        "hibiscus",
        "lotus",
        "minibus",
        "octopus",
    ),
    *("rhinoceros", "hippopotamus", "trolleybus", "walrus", "asparagus", "kiss", "platypus"),
}
_MASS = {
    *(
        "bacon",
        "beer",
        "bread",
        "broccoli",
        "butter",
        "celery",
        "champagne",
        "cheese",
        "coffee",
        "coral",
        "corn",
        "curry",
        "custard",
        "dna",
    ),
    *(
        "flan",
        "fire",
        "fog",
        "fruit",
        "garlic",
        "ginger",
        "grass",
        "ice",
        "juice",
        "lightning",
        "meat",
        "milk",
        "money",
        "oden",
        "oil",
        "paella",
    ),
    *(
        "pasta",
        "popcorn",
        "pudding",
        "rice",
        "root vegetable",
        "sake",
        "salt",
        "soap",
        "spaghetti",
        "stew",
        "sushi",
        "tea",
        "toilet paper",
    ),
    *(
        "water",
        "whisky",
        "wood",
        "yarn",
        "badminton",
        "baseball",
        "basketball",
        "field hockey",
        "ice hockey",
        "lacrosse",
        "ping pong",
    ),
    *(
        "softball",
        "table tennis",
        "tennis",
        "volleyball",
        "soccer",
        "football",
        "golf",
        "hockey",
        "bowling",
        "camping",
        "ginger root",
    ),
    *(
        "baguette bread",
        "french bread",
        "cooked rice",
        "curry rice",
        "leafy green",
        "performing arts",
        "construction",
        "archery",
    ),
    *(
        "shaved ice",
        "ice cream",
        "soft ice cream",
        "green salad",
        "fog",
        "rice",
        "bubble tea",
        "thread",
        "poo",
        "poop",
        "luggage",
        "canned food",
    ),
}
_COUNTED_SPORTS = {"baseball", "basketball", "softball", "volleyball", "football"}
_DEFINITE = {"statue of liberty", "tokyo tower", "milky way", "kaaba"}
_NO_ARTICLE = {  # proper names, and names that are not nouns
    *(
        "mount fuji",
        "zzz",
        "hundred points",
        "locked",
        "unlocked",
        "dizzy",
        "dashing away",
        "foggy",
        "star-struck",
        "cooking",
        "camping",
    ),
    *(
        "rolling on the floor laughing",
        "pouring liquid",
        "money with wings",
        "meat on bone",
        "head shaking",
        "locked with key",
        "locked with pen",
    ),
}
_NO_PLURAL = {"bow and arrow", "speaker high volume", "speaker low volume", "speaker medium volume", "cooking", "mate"}
_IRREGULAR = {
    **{
        "goose": "geese",
        "mouse": "mice",
        "ox": "oxen",
        "leaf": "leaves",
        "wolf": "wolves",
        "knife": "knives",
        "tooth": "teeth",
    },
    **{
        "scarf": "scarves",
        "foot": "feet",
        "person": "people",
        "child": "children",
        "man": "men",
        "woman": "women",
        "loaf": "loaves",
    },
    **{
        word: word
        for word in (
            "fish",
            "sheep",
            "deer",
            "bison",
            "moose",
            "squid",
            "shrimp",
            "aircraft",
            "swordfish",
            "blowfish",
            "dice",
        )
    },
    **{
        "jellyfish": "jellyfish",
        "die": "dice",
        "potato": "potatoes",
        "tomato": "tomatoes",
        "mango": "mangoes",
        "volcano": "volcanoes",
    },
    **{"water buffalo": "water buffalo", "mosquito": "mosquitoes", "sheaf": "sheaves", "tornado": "tornadoes"},
}


def plain_name(name: str) -> str:
    """The name as a person types it: lower case, straight apostrophes."""
    return name.replace("’", "'").lower()


def _split_head(name: str) -> tuple[str, str]:
    """Parts `"nest with eggs"` into its head `"nest"` and the rest `" with eggs"`."""
    words = name.split(" ")
    for index, word in enumerate(words[1:], start=1):
        if word in _TAIL_WORDS:
            return " ".join(words[:index]), " " + " ".join(words[index:])
    return name, ""


def is_plural_or_mass(name: str) -> bool:
    """Whether `name` takes no article, such as `"grapes"` or `"broccoli"`."""
    name = plain_name(name)
    head, _ = _split_head(name)
    last = head.split(" ")[-1]
    if head in _COUNTED_SPORTS:
        return False
    if name in _MASS or head in _MASS or name in _NO_ARTICLE:
        return True
    return last.endswith("s") and not last.endswith("ss") and last not in _SINGULAR_S


def with_article(name: str) -> str:
    """Puts the article before a name: `"an owl"`, `"a unicorn"`, `"grapes"`, `"the milky way"`."""
    name = plain_name(name)
    if name in _DEFINITE:
        return f"the {name}"
    if is_plural_or_mass(name):
        return name
    if name.startswith(_AN) or (name[0] in "aeiou8" and not name.startswith(_A)):
        return f"an {name}"
    return f"a {name}"


def plural(name: str) -> str | None:
    """The plural of a countable name (`"nests with eggs"`), or `None` where there is none."""
    name = plain_name(name)
    if is_plural_or_mass(name) or name in _DEFINITE or name in _NO_PLURAL:
        return None
    head, rest = _split_head(name)
    if " and " in head:
        return None
    first, _, last = head.rpartition(" ")
    if head in _IRREGULAR:
        return _IRREGULAR[head] + rest
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("man"):
        last = last[:-3] + "men"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and len(last) > 1 and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{first} {last}".strip() + rest


def _place(colour: str, pick: Callable[[Sequence], str]) -> str:
    """How a caption names the background. A caption without a colour means white."""
    if colour == "white":
        return pick(("", "", "", "", "", " on a white background", " on white", ", white background"))
    return pick(
        (f" on a {colour} background", f" on a {colour} background", f" on {colour}", f", {colour} background")
    )


def _object_caption(scene: Mapping, names: Sequence[str], pick: Callable[[Sequence], str]) -> str:
    name, noun = plain_name(names[0]), with_article(names[0])
    if scene["style_named"]:
        word = STYLE_WORDS[scene["style"]]
        return pick((f"a {word} emoji of {name}", f"a {word} emoji of {noun}", f"{noun}, {word} style"))
    return pick((noun, noun, noun, noun, name, f"an emoji of {noun}", f"a picture of {noun}"))


def _relation_caption(scene: Mapping, names: Sequence[str], pick: Callable[[Sequence], str]) -> str:
    a, b = with_article(names[0]), with_article(names[1])
    if scene["relation"] == "above":
        return pick((f"{a} above {b}", f"{a} above {b}", f"{b} below {a}", f"{b} under {a}", f"{a} on top of {b}"))
    left = f"{a} to the left of {b}"
    return pick(
        (
            left,
            left,
            f"{a} left of {b}",
            f"{b} to the right of {a}",
            f"{b} right of {a}",
            f"{a} and {b}",
            f"{a} next to {b}",
        )
    )


def _count_caption(scene: Mapping, names: Sequence[str], pick: Callable[[Sequence], str]) -> str:
    number, many = COUNT_WORDS[scene["count"]], plural(names[0])
    copies = f"{number} copies of {plain_name(names[0])}"
    return copies if many is None else pick((copies, f"{number} {many}", f"{number} {many}"))


_CAPTIONS = {"object": _object_caption, "relation": _relation_caption, "count": _count_caption}


def caption_of(scene: Mapping, names: Sequence[str], pick: Callable[[Sequence], str]) -> str:
    """Says a scene in words.

    Args:
        scene: A scene of [`emoji.scenes.EmojiScenes`].
        names: The word for each object, in the scene's order: its name or one of its other names.
        pick: Chooses one of several equal wordings; `lambda options: options[0]` gives the standard caption.
    """
    return _CAPTIONS[scene["kind"]](scene, names, pick) + _place(scene["colour"], pick) + pick(("",) * 29 + (".",))
