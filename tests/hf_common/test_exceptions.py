"""The table of exceptions is exact: a listed test must fail, and as the table says."""

import unittest

import pytest

from hf_common.exceptions import EXCEPTIONS, Excepted, with_exceptions
from hf_common.model_testers import TESTERS

BY_NAME = Excepted("It cannot apply.", "no such field")


def case(outcome: BaseException | None) -> type:
    def test_something(self):
        if outcome is not None:
            raise outcome

    return type("Case", (), {"test_something": test_something})


def test_an_excepted_test_is_an_expected_failure():
    listed = with_exceptions(case(KeyError("no such field 'x'")), {"test_some*": BY_NAME})
    with pytest.raises(pytest.xfail.Exception, match="cannot apply"):
        listed().test_something()


@pytest.mark.parametrize("outcome", [None, unittest.SkipTest("no accelerator")])
def test_a_listed_test_that_passes_or_skips_itself_fails(outcome):
    listed = with_exceptions(case(outcome), {"test_something": BY_NAME})
    with pytest.raises(pytest.fail.Exception, match="listed as an exception, but it"):
        listed().test_something()


def test_a_listed_test_that_ends_with_another_error_fails():
    listed = with_exceptions(case(KeyError("another")), {"test_something": BY_NAME})
    with pytest.raises(KeyError, match="another"):
        listed().test_something()


def test_a_name_that_no_test_has_is_an_error():
    with pytest.raises(AssertionError, match="test_other"):
        with_exceptions(case(None), {"test_other": BY_NAME})


def test_every_class_has_an_entry():
    assert set(EXCEPTIONS) == set(TESTERS) | {"DallePipeline", "VQVAEPipeline"}
