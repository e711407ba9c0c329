"""What the tests of the demo share: pipelines, and the demo as a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaics import DallePipeline, default_checkpoint
from testing_utils import tiny_dalle, tiny_dvae, tiny_tokenizer

SERVER = Path(__file__).parents[1] / "demo_server.py"


@pytest.fixture(scope="session")
def pipe() -> DallePipeline:
    pipe = DallePipeline.from_pretrained(default_checkpoint())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe_without_clip() -> DallePipeline:
    tokenizer, dvae = tiny_tokenizer(), tiny_dvae().eval()
    pipe = DallePipeline(tokenizer, tiny_dalle(tokenizer, dvae), dvae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the demo over the embedded checkpoint, in a process that can reach no other machine."""
    pytest.importorskip("gradio", reason='the demo needs gradio: pip install "mosaics[demo]"')
    folder = tmp_path_factory.mktemp("server")
    reached, errors = folder / "reached.txt", folder / "errors.txt"
    command = [sys.executable, str(SERVER), str(reached)]
    with (
        errors.open("w") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        lines = iter(process.stdout.readline, "")
        address = next((line.split()[-1] for line in lines if line.startswith("serving at ")), None)
        if address is None:
            pytest.fail(f"the demo did not start:\n{errors.read_text()[-3000:]}")
        yield address
        process.communicate(timeout=30)  # ends its standard input, and with it the server
    assert process.returncode == 0
    assert reached.read_text() == "", "the server tried to reach other machines"
