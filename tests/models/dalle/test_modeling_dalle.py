import math
import shutil

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from mosaics.models.dalle import DalleTransformer, DalleTransformerConfig
from mosaics.models.dalle.attention_patterns import ATTENTION_PATTERNS
from testing_utils import tiny_dalle

EVERY_PATTERN = {"num_hidden_layers": len(ATTENTION_PATTERNS), "attention_patterns": list(ATTENTION_PATTERNS)}


def batch(size: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of 12, 9, 6, ... tokens and their 4x4 codes."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1, 300, (size, 12), generator=generator)
    for row in range(size):
        text[row, 12 - 3 * (row % 4) :] = 0
    return text, torch.randint(32, (size, 4, 4), generator=generator)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="flex attention needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # inside torch.compile
def test_attention_implementations_agree():
    model = tiny_dalle(num_hidden_layers=1)  # flex attention compiles each pattern: many seconds
    outputs = {}
    for implementation in ("eager", "sdpa", "flex_attention"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            outputs[implementation] = model(*batch())
    for implementation in ("sdpa", "flex_attention"):
        for field in ("image_logits", "text_logits", "loss"):
            torch.testing.assert_close(outputs[implementation][field], outputs["eager"][field], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("pattern", ATTENTION_PATTERNS)
def test_flex_attention_has_the_same_masks(pattern, shifted):
    model = tiny_dalle(num_hidden_layers=1, attention_patterns=[pattern], shifted_patterns=shifted)
    expected = model.masks.table(pattern)
    mask = create_mask(model.masks.mask_function(pattern), None, None, *expected.shape, device="cpu")
    assert torch.equal(mask[0, 0], expected)


def test_eager_and_sdpa_have_equal_gradients():
    model = tiny_dalle(**EVERY_PATTERN)
    gradients = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        model(*batch()).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for eager, sdpa in zip(*gradients, strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=1e-3, atol=1e-6)


def test_layers_of_full_attention_are_given_no_mask():
    model = tiny_dalle(attention_patterns=["full", "full"])
    assert model.attention_masks(20, torch.device("cpu")) == {"full": None}
    assert not list(model.masks.buffers())


def test_the_loss_weighs_text_and_image_and_leaves_pads_out():
    model = tiny_dalle()
    text, indices = batch()
    output = model(text, indices)
    assert output.text_logits.shape == (3, 11, 300) and output.image_logits.shape == (3, 16, 32)
    text_terms, image_terms = [], []
    for row in range(3):
        for t in range(11):
            if text[row, t + 1] != 0:
                text_terms.append(-output.text_logits[row, t].log_softmax(-1)[text[row, t + 1]])
        for q in range(16):
            image_terms.append(-output.image_logits[row, q].log_softmax(-1)[indices[row].flatten()[q]])
    assert len(text_terms) == 11 + 8 + 5
    text_loss, image_loss = torch.stack(text_terms).mean(), torch.stack(image_terms).mean()
    torch.testing.assert_close(output.text_loss, text_loss)
    torch.testing.assert_close(output.image_loss, image_loss)
    torch.testing.assert_close(output.loss, text_loss / 8 + 7 * image_loss / 8)

    model.config.text_loss_weight, model.config.image_loss_weight = 0.0, 1.0
    torch.testing.assert_close(model(text, indices).loss, image_loss)


def test_microbatches_with_the_mean_number_of_targets_add_up_to_the_whole_batch():
    model = tiny_dalle()
    text, indices = batch(4)
    whole = model(text, indices).loss
    num_text_targets = int((text[:, 1:] != 0).sum()) / 2
    halves = [model(text[s], indices[s], num_text_targets=num_text_targets).loss for s in (slice(2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, whole)
    assert not torch.allclose((model(text[:2], indices[:2]).loss + model(text[2:], indices[2:]).loss) / 2, whole)


def test_a_batch_of_empty_texts_has_no_text_loss():
    model = tiny_dalle()
    _, indices = batch()
    output = model(torch.zeros(3, 12, dtype=torch.long), indices)
    assert output.text_loss.item() == 0
    torch.testing.assert_close(output.loss, 7 / 8 * output.image_loss)


def test_every_position_has_a_pad_vector_of_its_own():
    model = tiny_dalle()
    text, indices = batch()
    model(text, indices).loss.backward()
    used = model.text_embedding.pads.weight.grad.abs().sum(dim=-1) > 0
    assert used.tolist() == [False] * 6 + [True] * 6  # texts of 12, 9 and 6 tokens
    assert not bool(model.text_embedding.tokens.weight.grad[0].any())  # the pad token has no vector
    with torch.no_grad():
        before = model(text, indices).image_logits
        model.text_embedding.pads.weight[11] += 1.0
        after = model(text, indices).image_logits
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_rows_and_columns_of_the_grid_have_vectors():
    model = tiny_dalle()
    embedded = model.image_embedding(torch.zeros(1, 16, dtype=torch.long))[0]
    expected = (
        model.image_embedding.tokens.weight[0]
        + model.image_embedding.rows.weight[2]
        + model.image_embedding.columns.weight[1]
    )
    torch.testing.assert_close(embedded[2 * 4 + 1], expected)


def test_positions_of_the_grid_can_have_vectors_of_their_own():
    model = tiny_dalle(image_positions="learned")
    embedding = model.image_embedding
    expected = embedding.tokens.weight[0] + embedding.positions.weight[2 * 4 + 1]
    torch.testing.assert_close(embedding(torch.zeros(1, 16, dtype=torch.long))[0, 2 * 4 + 1], expected)
    assert embedding.positions.weight.shape == (16, 32) and not hasattr(embedding, "rows")


def test_sandwich_norm_makes_branches_independent_of_the_scale_of_their_last_layer():
    model = tiny_dalle(sandwich_norm=True)
    plain = tiny_dalle()
    with torch.no_grad():
        before, plain_before = model(*batch()).image_logits, plain(*batch()).image_logits
        for layer in (*model.layers, *plain.layers):
            for projection in (layer.attention.output, layer.feed_forward.down):
                projection.weight *= 100
        after, plain_after = model(*batch()).image_logits, plain(*batch()).image_logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-2)
    assert not torch.allclose(plain_after, plain_before, atol=0.1)


def test_head_norm_and_bias_are_the_last_steps():
    model = tiny_dalle(head_norm=True, head_bias=True)
    with torch.no_grad():
        before = model(*batch())
        model.text_head.bias += 2.0
        model.image_head.bias += 3.0
        after = model(*batch())
        torch.testing.assert_close(after.text_logits, before.text_logits + 2.0)
        torch.testing.assert_close(after.image_logits, before.image_logits + 3.0)
        model.head_norm.weight.zero_()
        assert torch.equal(model(*batch()).image_logits, model.image_head.bias.expand(3, 16, -1))


def enable_checkpointing(model: DalleTransformer) -> None:
    """By the name that this transformers has for it."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_dalle(hidden_dropout=0.1).train()
        if checkpointing:
            enable_checkpointing(model)
        torch.manual_seed(5)
        model(*batch()).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bfloat16_survives_large_activations(implementation):
    model = tiny_dalle(**EVERY_PATTERN, initializer_range=2.0)
    model = model.to(torch.bfloat16)
    model.set_attn_implementation(implementation)
    output = model(*batch())
    assert output.loss.dtype == torch.float32 and bool(output.loss.isfinite())
    output.loss.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_query_key_norm_bounds_the_scores_and_can_be_switched_off():
    loud = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(0))
    for qk_norm in (True, False):
        model = tiny_dalle(qk_norm=qk_norm, initializer_range=5.0)
        with torch.no_grad():
            query, key, _ = model.layers[0].attention.project(1000 * loud)
        largest = float((query @ key.transpose(-1, -2)).abs().max()) * model.layers[0].attention.scaling
        assert (largest <= 4.01) == qk_norm  # sqrt(head_size) = 4
        assert any("query_norm" in name for name, _ in model.named_parameters()) == qk_norm


def test_autocast_trains_in_bfloat16_with_a_float32_loss():
    model = tiny_dalle()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*batch())
    assert output.image_logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(*batch()).loss, rtol=0.02, atol=0.02)


def test_saving_and_loading_is_bit_equal_and_refills_the_masks(tmp_path):
    model = tiny_dalle(**EVERY_PATTERN, codebook_id="abc", shifted_patterns=True)
    model.save_pretrained(tmp_path)
    loaded = DalleTransformer.from_pretrained(tmp_path)
    assert loaded.config.layer_patterns == ATTENTION_PATTERNS and loaded.config.codebook_id == "abc"
    ours, theirs = dict(model.named_buffers()), dict(loaded.named_buffers())
    assert list(ours) == ["masks.row", "masks.column", "masks.conv", "masks.window", "masks.torus"] == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        assert torch.equal(model(*batch()).image_logits, loaded(*batch()).image_logits)
    assert torch.equal(model.generate(batch()[0], seed=0), loaded.generate(batch()[0], seed=0))


def test_initial_weights():
    model = tiny_dalle(initializer_range=0.02, hidden_size=128, num_hidden_layers=8)
    with torch.no_grad():
        assert abs(float(model.layers[0].attention.qkv.weight.std()) - 0.02) < 1e-3
        assert abs(float(model.layers[0].feed_forward.down.weight.std()) - 0.02 / 4) < 3e-4  # 1 / sqrt(2 * 8)
        assert abs(float(model(*batch()).image_loss) - math.log(32)) < 0.1


def test_the_model_learns_a_picture_by_heart():
    model = tiny_dalle(num_hidden_layers=3, initializer_range=0.02).train()
    text, indices = batch(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model(text, indices).loss.backward()
        optimizer.step()
    assert torch.equal(model.eval().generate(text, temperature=0), indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text, indices: (text[:, :7], indices),
            r"input_ids must be of shape \(batch, max_text_length=12\), got",
        ),
        (lambda text, indices: (text.float(), indices), "input_ids must be int64"),
        (lambda text, indices: (text + 300, indices), "input_ids must be from 0 to text_vocab_size - 1 = 299"),
        (lambda text, indices: (text, indices - 32), "indices must be from 0 to image_vocab_size - 1 = 31"),
        (lambda text, indices: (text, indices.flatten(1)), r"indices must be of shape \(batch=3, 4, 4\)"),
        (lambda text, indices: (text, indices[:2]), r"indices must be of shape \(batch=3, 4, 4\)"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_dalle()(*change(*batch()))


def test_the_default_configuration_is_the_papers_sequence():
    config = DalleTransformerConfig()
    assert (config.max_text_length, config.num_image_tokens, config.sequence_length) == (256, 1024, 1280)
    assert (config.text_vocab_size, config.image_vocab_size, config.feed_forward_size) == (16384, 8192, 2048)
    assert config.layer_patterns == ("row", "column", "row", "row", "row", "column", "row", "conv")
    assert (config.text_loss_weight, config.image_loss_weight) == (1 / 8, 7 / 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 33}, "hidden_size must be a multiple of num_attention_heads, got 33 and 8"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"image_grid_size": 0}, "image_grid_size must be at least 1"),
        ({"image_grid_size": 1000}, "image_grid_size must be at most 256"),
        ({"intermediate_size": 0}, "intermediate_size must be at least 1"),
        ({"pad_token_id": 16384}, "pad_token_id must be a text token"),
        ({"conv_kernel_size": 4}, "conv_kernel_size must be odd"),
        ({"attention_patterns": ["row"]}, "one pattern for each of the 8 layers"),
        ({"attention_patterns": ["rows"] * 8}, "must be of row, column, conv, full, window, torus, got 'rows'"),
        ({"shifted_patterns": True, "max_text_length": 1}, "last of at least 2 text tokens"),
        ({"image_positions": "rotary"}, "image_positions must be one of axial, learned, got 'rotary'"),
        ({"hidden_dropout": 1.0}, "hidden_dropout must be at least 0 and below 1"),
        ({"text_loss_weight": -1.0}, "text_loss_weight must be a finite number of at least 0"),
        ({"num_hidden_layers": "8"}, "num_hidden_layers"),
    ],
)
def test_a_bad_configuration_is_named(fields, message):
    with pytest.raises(Exception, match=message):
        DalleTransformerConfig(**fields)


def test_hidden_states_and_attention_weights_are_returned_when_asked_for():
    model = tiny_dalle()
    model.set_attn_implementation("eager")
    text, indices = torch.randint(1, 200, (2, 12)), torch.randint(32, (2, 4, 4))
    with torch.no_grad():
        plain = model(text, indices)
        output = model(text, indices, output_hidden_states=True, output_attentions=True)
        as_tuple = model(text, indices, return_dict=False)
        final = model.head_norm(model.final_norm(output.hidden_states[-1]))
        assert torch.equal(model.image_head(final[:, 11:]), output.image_logits)
    assert plain.hidden_states is None and plain.attentions is None
    assert (
        isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], plain.loss) and torch.equal(plain.loss, output.loss)
    )
    assert len(output.hidden_states) == 3 and output.hidden_states[0].shape == (2, 27, 32)
    for weights in output.attentions:
        assert weights.shape == (2, 2, 27, 27)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 27))
        assert not weights.triu(1).any()
