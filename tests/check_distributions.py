"""Checks what `python -m build` made: `make build`.

The wheel and the source distribution have what they should and nothing else, and each, installed into an environment
of its own, runs the README's first Python lines. The dependencies are those of the running interpreter.
"""

import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mosaics"
SUFFIXES = {".py", ".pyi", ".typed"}
IN_SOURCE = ("README.md", "LICENSE", "pyproject.toml")  # beside the package: what it is built from
FOREIGN = re.compile(r"(^|/)(outputs|site|dist|build|\.cache|\.venv|\.git|__pycache__|\.ci)/|\.py[cod]$")


def package_files() -> set[str]:
    """What an installed package has, relative to `site-packages`: modules, stubs and the embedded checkpoint."""
    files = {path for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES}
    files |= {path for path in (PACKAGE / "checkpoints").rglob("*") if path.is_file()}
    return {str(path.relative_to(PACKAGE.parent)) for path in files if "__pycache__" not in path.parts}


def compare(name: str, found: set[str], expected: set[str], exact: bool) -> None:
    foreign = {path for path in found if FOREIGN.search(path)} | (found - expected if exact else set())
    if expected - found or foreign:
        raise SystemExit(f"{name} lacks {sorted(expected - found)[:10]} and must not have {sorted(foreign)[:10]}.")


def only(pattern: str) -> Path:
    paths = list((ROOT / "dist").glob(pattern))
    if len(paths) != 1:
        raise SystemExit(
            f"expected one dist/{pattern}, found {len(paths)}: run `make build`, which empties dist first."
        )
    return paths[0]


def run_readme(distribution: Path) -> None:
    """Installs a distribution without its dependencies, which a path file lends it, and runs the first screen."""
    code = "\n".join(
        re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[:2]
    )
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "venv", with_pip=True)
        python = Path(folder) / "venv" / "bin" / "python"
        libraries = Path(folder) / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
        (libraries / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-installed"]
        subprocess.run([python, *install, distribution], check=True)
        origin = "import mosaics; print(mosaics.__file__)"
        done = subprocess.run([python, "-c", origin], check=True, cwd=folder, capture_output=True, text=True)
        if not Path(done.stdout.strip()).is_relative_to(libraries):
            raise SystemExit(f"{distribution.name} was not what ran, but {done.stdout.strip()}.")
        subprocess.run([python, "-c", code], check=True, cwd=folder)
        for picture in ("lion.png", "cats.png"):
            if not (Path(folder) / picture).is_file():
                raise SystemExit(f"the README's lines wrote no {picture} with {distribution.name}.")
    print(f"{distribution.name}: {distribution.stat().st_size / 1e6:.1f} MB, complete, and the README's lines run")


def main() -> None:
    wheel, source = only("*.whl"), only("*.tar.gz")
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    compare(wheel.name, in_wheel, package_files(), exact=True)
    with tarfile.open(source) as archive:
        in_source = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    compare(source.name, in_source, {f"src/{name}" for name in package_files()} | set(IN_SOURCE), exact=False)
    for distribution in (wheel, source):
        run_readme(distribution)


if __name__ == "__main__":
    main()
