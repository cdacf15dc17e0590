"""An old name is answered with the new one."""

from worker.contract.renamed import explain_renamed


def test_an_old_name_is_told_with_the_new_one_and_any_other_is_not() -> None:
    """Both stand in the message, so that it can be acted on at once."""
    table = {"loop.share": "loop.ratio"}
    assert explain_renamed("loop.share", table) == "'loop.share' has been renamed to 'loop.ratio'"
    assert explain_renamed("loop.ratio", table) is None
    assert explain_renamed("share", table) is None
