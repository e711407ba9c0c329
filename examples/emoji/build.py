"""Builds the emoji archive from its public packages, at 64 pixels or larger.

    python examples/emoji/build.py --output emoji128.parquet --size 128 --packages ~/emoji-packages

It needs `npm` (or the tarballs in the folder `--packages`) and `pip install resvg-py`, about 52 MB of packages and, at
64 pixels, a few CPU minutes. Every tarball is checked against its SHA-256.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from emoji.archive import DEFAULT_ARCHIVE, EmojiPicture, write_archive
from emoji.concepts import Concept, SlugIndex, normalised_hex, read_concepts
from emoji.packages import PackageFolder
from emoji.rendering import render_icon, square_webp

# style: (package of the drawings, package whose chars.json names their code points, licence)
ICON_STYLES = {
    "noto": ("@iconify-json/noto", "@iconify-json/noto", "Apache-2.0"),
    "noto-v1": ("@iconify-json/noto-v1", "@iconify-json/noto", "Apache-2.0"),
    "fluent-color": ("@iconify-json/fluent-emoji", "@iconify-json/fluent-emoji-flat", "MIT"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "@iconify-json/fluent-emoji-flat", "MIT"),
}


def match_icons(packages: PackageFolder, style: str, concepts: dict[str, Concept]) -> tuple[dict[str, str], list[str]]:
    """Finds the icon of each concept: first by code points, then by name.

    Returns:
        Icon names by the concept's code points, and the names of icons that match nothing.
    """
    drawings, characters, _ = ICON_STYLES[style]
    codes: dict[str, list[str]] = {}
    for code, icon in packages.json(characters, "chars.json").items():
        codes.setdefault(icon, []).append(normalised_hex(code))
    slugs = SlugIndex(concepts.values())
    chosen: dict[str, str] = {}
    nameless = []
    for icon in packages.json(drawings, "icons.json")["icons"]:
        known = codes.get(icon, [])
        code = next((code for code in known if code in concepts), None)
        if code is not None:
            chosen.setdefault(code, icon)
        elif not any(_has_skin_tone(other) for other in known):
            nameless.append(icon)
    unmatched = []
    for icon in nameless:  # after all code points, so that a guess by name never takes the place of a sure match
        code = slugs.find(icon)
        if code is None:
            unmatched.append(icon)
        else:
            chosen.setdefault(code, icon)
    return chosen, unmatched


def _has_skin_tone(code: str) -> bool:
    return any(f"1f3f{tone}" in code.split("-") for tone in "bcdef")


def build_style(
    packages: PackageFolder, style: str, concepts: dict[str, Concept], size: int
) -> Iterator[EmojiPicture]:
    """The pictures of a style of drawings."""
    package, _, licence = ICON_STYLES[style]
    icons = packages.json(package, "icons.json")
    chosen, unmatched = match_icons(packages, style, concepts)
    print(f"{style}: {len(chosen)} concepts; {len(unmatched)} icons match none, such as {unmatched[:3]}", flush=True)
    for code, icon in chosen.items():
        image = square_webp(render_icon(icons["icons"][icon], icons, size), size)
        if image is not None:
            yield _picture(image, style, licence, concepts[code])


def build_fluent_3d(packages: PackageFolder, concepts: dict[str, Concept], size: int) -> Iterator[EmojiPicture]:
    """The pictures of the rendered style, which are rasters named by code points."""
    files = {}
    for name, data in packages.files("@lobehub/fluent-emoji-3d", "assets"):
        files[normalised_hex(name.removesuffix(".webp"))] = data  # of two spellings of one concept the last stays
    files = {code: data for code, data in files.items() if code in concepts}
    print(f"fluent-3d: {len(files)} concepts", flush=True)
    for code, data in files.items():
        image = square_webp(Image.open(io.BytesIO(data)).convert("RGBA"), size)
        if image is not None:
            yield _picture(image, "fluent-3d", "MIT", concepts[code])


def _picture(image: bytes, style: str, licence: str, concept: Concept) -> EmojiPicture:
    path = f"{style}/{concept.hex}.webp"
    return EmojiPicture(image=image, path=path, style=style, licence=licence, **vars(concept))


def main() -> None:
    """Builds the archive that the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Builds the emoji archive from its public packages.", allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_ARCHIVE, help="parquet file to write (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels, up to 256 (%(default)s)")
    parser.add_argument("--packages", type=Path, default=Path("emoji-packages"), help="folder of the npm tarballs")
    arguments = parser.parse_args()
    if not 16 <= arguments.size <= 256:
        parser.error(f"--size must be between 16 and 256 (the rasters have 256 pixels), got {arguments.size}")
    try:
        packages = PackageFolder(arguments.packages)
        concepts = read_concepts(packages)
        pictures = list(build_fluent_3d(packages, concepts, arguments.size))
        for style in ICON_STYLES:
            pictures.extend(build_style(packages, style, concepts, arguments.size))
    except RuntimeError as error:
        sys.exit(f"build.py: {error}")
    count = write_archive(pictures, arguments.output, arguments.size)
    print(f"{arguments.output}: {count} pictures, {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
