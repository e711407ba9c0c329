"""Every model over the Hub's own protocol: there and back, and what goes wrong. The checks are in hub_sections.py."""

import re
import subprocess
from pathlib import Path

import pytest

from hub_process import names_in, sections_of

SCRIPT = Path(__file__).with_name("sharing_sections.py")
ROUND_TRIPS = re.findall(r"^    \"(\w+)\": ", SCRIPT.read_text(), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> subprocess.CompletedProcess:
    return sections_of(SCRIPT, tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("name", [*names_in(SCRIPT), *(f"round_trip_of_{kind}" for kind in ROUND_TRIPS)])
def test_hub(sections, name):
    assert f"ok {name}" in sections.stdout.splitlines(), sections.stderr[-6000:]


def test_every_model_and_pipeline_makes_the_round_trip():
    import mosaics

    shared = {name for name in mosaics.__all__ if hasattr(getattr(mosaics, name), "push_to_hub")}
    configs = {name for name in shared if name.endswith(("Config", "Processor"))} | {"PreTrainedModel"}
    assert set(ROUND_TRIPS) == shared - configs
