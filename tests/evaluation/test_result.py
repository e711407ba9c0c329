"""A result is read by people and by programs."""

import json
import math

from mosaics.evaluation.result import EvaluationResult, Measured


def some_result() -> EvaluationResult:
    result = EvaluationResult("reconstruction", "outputs/dvae", "pictures", 8)
    result.record("psnr", Measured(math.inf, "2 of 8 pictures come back exactly"))
    result.record("perplexity", Measured([3.5, 7.0], "of each level"))
    result.record("ssim", Measured(math.nan))
    result.record_missing("lpips", "its weights are not here.")
    return result


def test_json_has_null_and_a_reason_for_what_it_cannot_say():
    found = json.loads(json.dumps(some_result().to_dict(), allow_nan=False))
    assert found["metrics"] == {"psnr": None, "perplexity": [3.5, 7.0], "ssim": None, "lpips": None}
    assert found["remarks"]["psnr"] == "infinite: 2 of 8 pictures come back exactly"
    assert found["remarks"]["ssim"] == "not a number"
    assert found["remarks"]["lpips"] == "its weights are not here."


def test_the_table_shows_every_number_and_why_one_is_missing():
    table = some_result().table()
    assert "on 8 pictures of pictures" in table.splitlines()[0]
    assert "PSNR" in table and "inf dB  (higher is better)" in table
    assert "3.5, 7 codes" in table
    assert "LPIPS: its weights are not here." in table
