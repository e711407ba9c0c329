import pytest

from mosaics.cli import main
from testing_utils import tiny_dvae, tiny_pipeline, tiny_vqvae_pipeline


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders of tiny checkpoints: `dalle`, `classes` (a VQ-VAE-2 with priors) and `dvae`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_pipeline().save_pretrained(folder / "dalle")
    names = {0: "cat", 1: "dog", 2: "7"}
    pipe = tiny_vqvae_pipeline(num_classes=3)
    for prior in pipe.priors:
        prior.config.id2label = names
    pipe.save_pretrained(folder / "classes")
    tiny_dvae().save_pretrained(folder / "dvae")
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call
