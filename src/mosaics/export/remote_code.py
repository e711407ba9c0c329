"""A saved model with its own code: `AutoModel` loads it where Mosaics is not installed."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoModel, PreTrainedModel

from mosaics.export.flat_source import flatten

LEFT_OUT = ("HubSharingMixin",)  # uploads with a card; without it `push_to_hub` is that of transformers
HEADER = '''# Copyright The Mosaics authors.
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with
# the License. You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on
# an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the
# specific language governing permissions and limitations under the License.
"""{class_name} and all that it needs of Mosaics {version}, in one file.

Loads with `transformers.AutoModel.from_pretrained(..., trust_remote_code=True)`, without Mosaics. Written by
`mosaics.export.export_remote_code`: change the modules that are named below, and export again.
"""

'''


def export_remote_code(
    model: PreTrainedModel | str | os.PathLike, folder: str | os.PathLike, **arguments: Any
) -> Path:
    """Saves a model with its code, so that it loads without Mosaics.

    `AutoModel.from_pretrained(folder, trust_remote_code=True)` then gives the same model: `encode`, `decode`,
    `generate` and the strict loading of this package are in the one file of code. Where Mosaics is installed and
    imported, its own class is taken, and the code in the folder is not run.

    Args:
        model: A Mosaics model, or a folder or Hub id to load it from.
        folder: Folder to write to; made if it does not exist.
        **arguments: As in `save_pretrained`.

    Returns:
        The file of code, `modeling_<name>.py`.

    Raises:
        ExportError: The code of the class cannot be put into one file. Nothing is written then.
        TypeError: It is not a Mosaics model.
        WeightsError: A weight is NaN or infinite. Nothing is written then.
    """
    if isinstance(model, str | os.PathLike):
        model = AutoModel.from_pretrained(model)
    kind = type(model)
    if not kind.__module__.startswith("mosaics.models."):
        raise TypeError(f"export_remote_code expects a model of Mosaics, got a {kind.__module__}.{kind.__qualname__}.")
    code = HEADER.format(class_name=kind.__name__, version=version("mosaics")) + flatten(kind.__module__, LEFT_OUT)
    stem = kind.__module__.rpartition(".")[2]
    folder = Path(folder)
    model.save_pretrained(folder, **arguments)
    (folder / f"{stem}.py").write_text(code, encoding="utf-8")
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"{stem}.{type(model.config).__name__}",
        "AutoModel": f"{stem}.{kind.__name__}",
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder / f"{stem}.py"
