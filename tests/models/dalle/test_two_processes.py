"""Candidates shared out among processes are those that one process draws."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import torch

from mosaics.models.dalle.modeling_dalle import DalleTransformer
from testing_utils import tiny_dalle

SHARE = textwrap.dedent(
    """
    import json, sys, torch
    from mosaics.models.dalle.modeling_dalle import DalleTransformer
    from mosaics.sampling import candidate_uniforms

    folder, rank, text = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    model = DalleTransformer.from_pretrained(folder).eval()
    mine = list(range(rank, 8, 2))
    uniforms = candidate_uniforms(5, [0] * len(mine), mine, model.config.num_image_tokens)
    print(json.dumps(model.generate(torch.tensor(text), len(mine), uniforms=uniforms).tolist()))
    """
)


def test_two_processes_draw_the_candidates_of_one(tmp_path):
    model = tiny_dalle().eval()
    model.save_pretrained(tmp_path)
    text = torch.randint(1, model.config.text_vocab_size, (1, model.config.max_text_length))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = DalleTransformer.from_pretrained(tmp_path).eval().generate(text, 8, seed=5)
    finally:
        torch.set_num_threads(threads)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(tmp_path), str(rank), json.dumps(text.tolist())],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for rank in range(2)
    ]
    shares = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in processes]
    assert torch.equal(torch.tensor(shares[0]), together[0::2])
    assert torch.equal(torch.tensor(shares[1]), together[1::2])
