"""Other words for a concept: short names of the set that are fit for a caption, and everyday words people type."""

from collections.abc import Sequence

from .archive import EmojiPicture

# Each word belongs to one concept here, even where the set gives it to several or to none.
EVERYDAY_NAMES = {
    **{
        "automobile": ("car", "red car"),
        "delivery truck": ("truck",),
        "sailboat": ("boat", "sailing boat"),
        "airplane": ("plane",),
    },
    **{
        "sport utility vehicle": ("blue car", "suv"),
        "fire engine": ("fire truck",),
        "flying saucer": ("ufo",),
        "bicycle": ("bike",),
    },
    **{
        "locomotive": ("steam train",),
        "high-speed train": ("fast train",),
        "passenger ship": ("cruise ship",),
        "motorcycle": ("motorbike",),
    },
    **{
        "alarm clock": ("clock",),
        "mobile phone": ("phone", "smartphone"),
        "desktop computer": ("computer",),
        "television": ("tv",),
    },
    **{
        "hot beverage": ("coffee", "cup of coffee"),
        "hamburger": ("burger",),
        "doughnut": ("donut",),
        "red apple": ("apple",),
    },
    **{
        "steaming bowl": ("bowl of noodles", "ramen"),
        "cooked rice": ("bowl of rice",),
        "shortcake": ("cake", "piece of cake"),
    },
    **{
        "cheese wedge": ("cheese",),
        "glass of milk": ("milk",),
        "beer mug": ("beer",),
        "ear of corn": ("corn",),
        "hot pepper": ("chili",),
    },
    **{
        "wine glass": ("glass of wine", "red wine"),
        "pizza": ("slice of pizza",),
        "tangerine": ("orange",),
        "french fries": ("fries",),
    },
    **{
        "deciduous tree": ("tree",),
        "evergreen tree": ("fir tree", "pine tree"),
        "blossom": ("flower",),
        "red heart": ("heart",),
    },
    **{
        "crescent moon": ("moon",),
        "ringed planet": ("planet", "saturn"),
        "high voltage": ("lightning bolt",),
        "globe showing Americas": ("earth",),
    },
    **{
        "honeybee": ("bee",),
        "lady beetle": ("ladybug", "ladybird"),
        "rhinoceros": ("rhino",),
        "hippopotamus": ("hippo",),
        "ewe": ("sheep",),
    },
    **{
        "T-Rex": ("dinosaur", "tyrannosaurus"),
        "sauropod": ("brachiosaurus",),
        "crocodile": ("alligator",),
        "spouting whale": ("blue whale",),
    },
    **{
        "baby chick": ("chick",),
        "chicken": ("hen",),
        "bug": ("caterpillar",),
        "polar bear": ("white bear",),
        "blowfish": ("puffer fish",),
    },
    **{
        "soccer ball": ("ball", "football"),
        "trophy": ("golden cup",),
        "wrapped gift": ("gift", "present"),
        "game die": ("dice",),
    },
    **{
        "video game": ("game controller",),
        "bullseye": ("target",),
        "Christmas tree": ("xmas tree",),
        "jack-o-lantern": ("halloween pumpkin",),
    },
    **{
        "light bulb": ("bulb", "lamp"),
        "open book": ("book",),
        "closed book": ("red book",),
        "couch and lamp": ("couch", "sofa"),
    },
    **{
        "gem stone": ("diamond", "gem"),
        "running shoe": ("sneaker", "shoe"),
        "t-shirt": ("shirt",),
        "necktie": ("tie",),
        "backpack": ("rucksack",),
    },
    **{
        "top hat": ("hat",),
        "carpentry saw": ("saw",),
        "kitchen knife": ("knife",),
        "magnifying glass tilted left": ("magnifying glass",),
    },
    **{
        "wastebasket": ("trash can",),
        "envelope": ("letter",),
        "money bag": ("bag of money",),
        "headphone": ("headphones",),
    },
    **{
        "grinning face": ("happy face", "smiley"),
        "crying face": ("sad face",),
        "pile of poo": ("poo", "poop"),
        "face with tears of joy": ("laughing face",),
    },
    **{
        "smiling face with sunglasses": ("cool face",),
        "loudly crying face": ("sobbing face",),
        "enraged face": ("red angry face",),
    },
    **{
        "exploding head": ("mind blown",),
        "collision": ("explosion",),
        "sun with face": ("smiling sun",),
        "water wave": ("wave", "sea"),
    },
}

_UNFIT = {
    *(
        "shit",
        "hankey",
        "wtf",
        "lmao",
        "lol",
        "rofl",
        "gun",
        "pistol",
        "mag",
        "mag right",
        "flags",
        "feet",
        "flipper",
        "calling",
        "date",
    ),
    *(
        "birthday",
        "party",
        "art",
        "notes",
        "stars",
        "yen",
        "dollar",
        "euro",
        "pound",
        "chart",
        "barber",
        "dash",
        "anger",
        "leaves",
        "office",
    ),
    *(
        "medal military",
        "medal sports",
        "medium volumne",
        "rice scene",
        "tada",
        "clapper",
        "island",
        "park",
        "fu",
        "metal",
    ),
}


def other_names(pictures: Sequence[EmojiPicture]) -> dict[str, tuple[str, ...]]:
    """For each concept, the other words it may have in a caption.

    A word is taken only if it is plain, and names or abbreviates no second concept among the pictures; so a caption
    stays exact. `EVERYDAY_NAMES` come first and decide where a word is contested.
    """
    concepts = {picture.name for picture in pictures}
    plain = {name.lower() for name in concepts}
    names = {
        concept: [word for word in words if word not in plain]
        for concept, words in EVERYDAY_NAMES.items()
        if concept in concepts
    }
    claimed = plain | {word for words in EVERYDAY_NAMES.values() for word in words}
    owners: dict[str, set[str]] = {}
    for picture in pictures:
        for word in picture.alt:
            if picture.group != "smileys & emotion" or word.endswith(("face", "cat", "monkey")):  # not "angry", "sad"
                owners.setdefault(word.lower(), set()).add(picture.name)
    for word, having in owners.items():
        if len(having) == 1 and word not in claimed and word not in _UNFIT and _is_plain(word):
            names.setdefault(next(iter(having)), []).append(word)
    return {concept: tuple(words) for concept, words in names.items() if words}


def _is_plain(word: str) -> bool:
    return all(character.isalpha() or character in " -'" for character in word)
