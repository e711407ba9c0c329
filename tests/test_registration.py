"""What `import mosaics` registers, and what it costs. Each case is a fresh process: registration happens once."""

import subprocess
import sys

import pytest

CHECK = """
from mosaics import *
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
import diffusers, diffusers.pipelines.pipeline_utils, transformers.pipelines
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
assert MODEL_MAPPING[DiscreteVAEConfig] is DiscreteVAE and MODEL_MAPPING[DalleTransformerConfig] is DalleTransformer
for name in ("VQVAE", "VQVAE2", "AudioVQVAE", "PixelCNN", "WaveNet"):
    assert MODEL_MAPPING[globals()[f"{name}Config"]] is globals()[name], name
assert CONFIG_MAPPING["mosaics_dalle_pipeline"] is DallePipelineConfig
assert diffusers.DallePipeline is DallePipeline and diffusers.VQVAEPipeline is VQVAEPipeline
assert "mosaics" in LOADABLE_CLASSES
assert "text-to-image" in transformers.pipelines.PIPELINE_REGISTRY.supported_tasks
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_mosaics_imports_none_of_the_large_libraries():
    code = "import sys, mosaics; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    assert not {"torch", "transformers", "diffusers", "datasets", "accelerate", "numpy"} & set(run(code).split())


def test_a_pipeline_imports_no_package_that_it_does_not_need():
    code = "import sys, mosaics; mosaics.DallePipeline; mosaics.VQVAEPipeline; print(*sorted(sys.modules))"
    modules = run(code).split()
    packages = {name.split(".")[0] for name in modules}
    assert not {"datasets", "pyarrow", "pandas", "gradio", "torchmetrics", "tensorboard", "typer"} & packages
    parts = {name.split(".")[1] for name in modules if name.startswith("mosaics.")}
    assert not {"training", "converters", "evaluation", "demo", "cli"} & parts


@pytest.mark.parametrize(
    "first",
    [
        "import transformers.models.auto.modeling_auto, diffusers.pipelines.pipeline_utils, mosaics",
        "import mosaics.models.dalle.modeling_dalle, mosaics.registration; mosaics.registration.register()",
        "import mosaics, importlib.util; importlib.util.find_spec('transformers.pipelines'); mosaics.DallePipeline",
        "import mosaics.pipelines.vqvae",
        "import mosaics.models.pixelcnn.gated_layer",
        "import mosaics.models.wavenet.decoder",
    ],
)
def test_everything_is_registered_whatever_is_imported_first(first):
    run(f"{first}\n{CHECK}")


def test_an_unknown_name_is_an_attribute_error():
    import mosaics

    with pytest.raises(AttributeError, match="Dall3"):
        _ = mosaics.Dall3
    assert "DallePipeline" in dir(mosaics) and mosaics.__version__
