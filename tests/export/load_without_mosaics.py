"""Loads exported models where Mosaics cannot be imported: python -I load_without_mosaics.py FOLDER.

For every subfolder: the model through AutoModel, and what its methods give for the stored inputs, into `found.pt`.
"""

import sys
from pathlib import Path


class Absent:
    """Mosaics is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mosaics":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent())

import torch  # noqa: E402
from transformers import AutoConfig, AutoModel  # noqa: E402


def plain(value):
    """Outputs as dictionaries: their classes are of the exported code."""
    return {name: plain(part) for name, part in value.items()} if hasattr(value, "items") else value


def main(root: Path) -> None:
    for folder in sorted((root / "models").iterdir()):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model.config) is type(config) and type(model).__module__.startswith("transformers_modules.")
        calls = torch.load(root / f"{folder.name}-calls.pt")
        with torch.no_grad():
            found = {
                name: plain(getattr(model, name)(*inputs, **options)) for name, (inputs, options) in calls.items()
            }
            found["parameters"] = dict(model.state_dict())
        model.save_pretrained(root / "again" / folder.name)  # the code goes along
        assert list((root / "again" / folder.name).glob("modeling_*.py"))
        torch.save(found, root / f"{folder.name}-found.pt")
    assert not [name for name in sys.modules if name.partition(".")[0] == "mosaics"]
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    try:
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    except OSError as error:
        assert "truncated" in str(error), error
    else:
        raise AssertionError("loaded a truncated file")


main(Path(sys.argv[1]))
