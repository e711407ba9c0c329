"""The public npm packages that the emoji set is built from: fetched with `npm pack`, checked, and read as tarballs."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """One npm package: what to ask for, the file that `npm pack` writes, and that file's digest."""

    name: str
    version: str
    digest: str

    @property
    def filename(self) -> str:
        """Name of the tarball."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES = {
    package.name: package
    for package in (
        Package("@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
        Package("@iconify-json/noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
        Package(
            "@iconify-json/fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"
        ),
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        Package(
            "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
        ),
        Package("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
        Package("emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303"),
        Package("cldr-annotations-full", "48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"),
        Package(
            "cldr-annotations-derived-full",
            "48.2.0",
            "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
        ),
    )
}


class PackageFolder:
    """The tarballs in a folder, fetched where they are missing.

    Args:
        folder: Where the tarballs are, or go.

    Raises:
        RuntimeError: If a tarball is missing and cannot be fetched, or is not the one that is expected.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES.values():
            self._fetch(package)

    def json(self, package: str, member: str) -> Any:
        """The content of a JSON file of a package."""
        with tarfile.open(self.folder / PACKAGES[package].filename) as tar:
            return json.load(tar.extractfile(f"package/{member}"))

    def files(self, package: str, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Names below `prefix`, and contents, in order of the names."""
        start = f"package/{prefix}/"
        with tarfile.open(self.folder / PACKAGES[package].filename) as tar:
            members = {member.name: member for member in tar if member.isfile() and member.name.startswith(start)}
            contents = {name: tar.extractfile(member).read() for name, member in members.items()}
        for name in sorted(contents):
            yield name.removeprefix(start), contents[name]

    def _fetch(self, package: Package) -> None:
        path = self.folder / package.filename
        asked = f"{package.name}@{package.version}"
        if not path.is_file():
            npm = shutil.which("npm")
            if npm is None:
                raise RuntimeError(
                    f"{path} is missing and npm is not installed: install npm, or run `npm pack {asked}`."
                )
            done = subprocess.run([npm, "pack", asked], cwd=self.folder, capture_output=True, text=True, check=False)
            if done.returncode or not path.is_file():
                raise RuntimeError(f"`npm pack {asked}` failed: {done.stderr.strip()[-500:]}")
        found = sha256(path.read_bytes()).hexdigest()
        if found != package.digest:
            raise RuntimeError(f"{path} has SHA-256 {found}, expected {package.digest}: delete it and run again.")
