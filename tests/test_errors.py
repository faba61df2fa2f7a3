"""What the command line ends with."""

from peftport.errors import BadInput, PeftportError, RunFailed


def test_bad_input_and_a_failed_run_end_with_different_codes():
    assert (BadInput.exit_code, RunFailed.exit_code) == (2, 1)


def test_both_are_told_without_a_traceback_and_can_be_caught_together():
    assert issubclass(BadInput, PeftportError)
    assert issubclass(RunFailed, PeftportError)
    assert not issubclass(BadInput, RunFailed)
    assert str(BadInput("x is missing.")) == "x is missing."
