import pytest
import torch

from mosaics.models.dalle.attention_patterns import ATTENTION_PATTERNS, conv_offsets, may_attend, paper_patterns
from testing_utils import tiny_dalle


def allowed_keys(pattern: str, query: int, text_length: int, grid: int, kernel: int) -> set[int]:
    """The keys of one query, by the words of the definition."""
    if query < text_length:
        return set(range(query + 1))
    keys = set(range(text_length))
    q, half = query - text_length, (kernel - 1) // 2
    if pattern == "full":
        image = set(range(q + 1))
    elif pattern == "row":
        image = {q - back for back in range(grid + 1)}
    elif pattern == "column":
        image = set(range(q % grid, q + 1, grid))
    elif pattern == "window":
        row, column = divmod(q, grid)
        image = {
            grid * r + c for r in range(grid) for c in range(grid) if abs(r - row) <= half and abs(c - column) <= half
        }
    elif pattern == "torus":
        row, column = divmod(q, grid)
        steps = range(-half, half + 1)
        image = {grid * ((row + a) % grid) + (column + b) % grid for a in steps for b in steps}
    else:
        image = {q - back for back in range(half + 1)}
        image |= {q - (grid * a + b) for a in range(1, half + 1) for b in range(-half, half + 1)}
    return keys | {text_length + key for key in image if 0 <= key <= q}


@pytest.mark.parametrize("pattern", ATTENTION_PATTERNS)
@pytest.mark.parametrize(("grid", "kernel"), [(4, 3), (8, 11), (12, 11), (13, 5), (3, 11), (5, 1)])
def test_masks_equal_their_definition(pattern, grid, kernel):
    text_length = 5
    length = text_length + grid * grid
    position = torch.arange(length)
    sizes = {"text_length": text_length, "grid_size": grid, "kernel_size": kernel}
    mask = may_attend(pattern, position[:, None], position[None, :], **sizes)
    for query in range(length):
        keys = allowed_keys(pattern, query, text_length, grid, kernel)
        assert set(mask[query].nonzero()[:, 0].tolist()) == keys, (pattern, query)


def test_the_sizes_of_the_papers_patterns():
    position = torch.arange(256 + 1024)
    last = {}
    for pattern in ATTENTION_PATTERNS:
        mask = may_attend(pattern, position[-1:, None], position, text_length=256, grid_size=32, kernel_size=11)
        last[pattern] = int(mask.sum()) - 256
    assert last == {"row": 33, "column": 32, "conv": 61, "full": 1024, "window": 36, "torus": 121}
    assert conv_offsets(32, 11)[-1] == 5 * 32 + 5
    assert len(conv_offsets(8, 11)) == 46  # on a narrow grid offsets coincide


def test_the_papers_rule():
    patterns = paper_patterns(64)
    assert [i + 1 for i, pattern in enumerate(patterns) if pattern == "column"] == list(range(2, 64, 4))
    assert patterns[-1] == "conv"
    assert [patterns.count(name) for name in ("row", "column", "conv")] == [47, 16, 1]
    assert paper_patterns(1) == ("conv",)
    assert paper_patterns(2) == ("row", "conv")  # the last layer is convolutional whatever its number


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("pattern", ATTENTION_PATTERNS)
def test_the_output_depends_on_the_allowed_keys_and_on_no_others(pattern, implementation, shifted):
    fields = {"image_grid_size": 5, "max_text_length": 4 + shifted, "shifted_patterns": shifted}
    model = tiny_dalle(num_hidden_layers=1, attention_patterns=[pattern], **fields)
    model.set_attn_implementation(implementation)
    length = 4 + 25
    hidden = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = model.layers[0](hidden, model.attention_masks(length, hidden.device)[pattern])
    for query in range(length):
        (gradient,) = torch.autograd.grad(output[0, query].sum(), hidden, retain_graph=True)
        depends_on = set(gradient[0].abs().sum(dim=-1).nonzero()[:, 0].tolist())
        assert depends_on == allowed_keys(pattern, query, 4, 5, 3)


def test_image_logits_do_not_depend_on_the_tokens_they_predict_or_on_later_ones():
    patterns = list(ATTENTION_PATTERNS)
    model = tiny_dalle(num_hidden_layers=len(patterns), attention_patterns=patterns)
    text = torch.randint(1, 300, (1, 12), generator=torch.Generator().manual_seed(0))
    indices = torch.randint(32, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(text, indices).image_logits
        for q in range(16):
            changed = indices.flatten().clone()
            changed[q:] = (changed[q:] + 1) % 32
            after = model(text, changed.view(1, 4, 4)).image_logits
            assert torch.equal(after[:, : q + 1], logits[:, : q + 1])
            assert q == 15 or not torch.allclose(after[:, q + 1], logits[:, q + 1], atol=1e-4)
