"""diffusers' own common tests on every pipeline class."""

import pytest
import torch

from hf_common.exceptions import EXCEPTIONS, with_exceptions
from hf_common.library_tests import diffusers_tests
from mosaics import DallePipeline, VQVAEPipeline
from testing_utils import tiny_clip, tiny_dalle, tiny_dvae, tiny_tokenizer, tiny_vqvae_pipeline

library = diffusers_tests()
pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore:Class-scoped fixtures defined as instance methods"),
    pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning"),  # what the tests still say
]
LONG = 1024  # tokens: one of the prompts is long


class PipelineTesterConfig(library.BasePipelineTesterConfig):
    """What `PipelineTesterMixin` asks of a pipeline's test class."""

    # Those of diffusion, `num_inference_steps` and `latents`, have no meaning for a pipeline that draws codes.
    optional_input_params = frozenset({"num_images_per_prompt", "generator", "output_type", "return_dict"})
    output_shape = torch.Size((3, 16, 16))

    def test_inference_batch_single_identical(self):
        super().test_inference_batch_single_identical(additional_params_copy_to_batched_inputs=[])


class TestDallePipeline(PipelineTesterConfig, library.PipelineTesterMixin):
    pipeline_class = DallePipeline
    required_input_params_in_call_signature = frozenset({"prompt", "guidance_scale"})
    batch_input_params = frozenset({"prompt"})

    def get_dummy_components(self):
        tokenizer, dvae = tiny_tokenizer(max_length=LONG), tiny_dvae().eval()
        clip, processor = tiny_clip(tokenizer)
        parts = {"tokenizer": tokenizer, "transformer": tiny_dalle(tokenizer, dvae), "dvae": dvae}
        return parts | {"clip": clip, "clip_processor": processor}

    def get_dummy_inputs(self):
        return {"prompt": "a lion on a blue background", "generator": self.get_generator(), "output_type": "pt"}


class TestVQVAEPipeline(PipelineTesterConfig, library.PipelineTesterMixin):
    pipeline_class = VQVAEPipeline
    optional_input_params = PipelineTesterConfig.optional_input_params - {"num_images_per_prompt"}
    required_input_params_in_call_signature = frozenset({"class_labels"})
    batch_input_params = frozenset({"class_labels"})

    def get_dummy_components(self):
        return dict(tiny_vqvae_pipeline(num_classes=3).components)

    def get_dummy_inputs(self):
        return {"class_labels": 1, "generator": self.get_generator(), "output_type": "pt"}


for case in (TestDallePipeline, TestVQVAEPipeline):
    with_exceptions(case, EXCEPTIONS[case.pipeline_class.__name__])
