"""transformers' own common tests on every model class."""

import unittest

import pytest

import mosaics
from hf_common.exceptions import EXCEPTIONS, with_exceptions
from hf_common.library_tests import transformers_tests
from hf_common.model_testers import TESTERS

library = transformers_tests()
pytestmark = pytest.mark.peer


def existing_norms(config) -> None:
    """Less rounding between attention implementations; transformers also sets fields that the config has not."""
    if hasattr(config, "layer_norm_eps"):
        config.layer_norm_eps = 1.0


library.set_config_for_less_flaky_test = existing_norms


def case(name: str) -> type:
    model_class = getattr(mosaics, name)
    has_tokens = model_class.main_input_name in ("input_ids", "indices")
    attributes = {
        "all_model_classes": (model_class,),
        "additional_model_inputs": ["indices"] if name == "DalleTransformer" else [],
        "has_attentions": name == "DalleTransformer",
        "test_resize_embeddings": has_tokens,
        "test_can_init_all_missing_weights_before_2023": True,  # run it: it goes by the year in the file's first lines
        "setUp": lambda self: setattr(self, "model_tester", TESTERS[name]()),
    }
    case = type(f"{name}Test", (library.ModelTesterMixin, unittest.TestCase), attributes)
    return with_exceptions(case, EXCEPTIONS[name])


globals().update({f"{name}Test": case(name) for name in TESTERS})
