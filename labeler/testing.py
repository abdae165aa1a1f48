"""For the tests of a plugin: everything that a plugin has to keep, as checks for pytest.

::

    import pytest
    from labeler.testing import checks_of

    @pytest.mark.parametrize("check", checks_of("tone.py"), ids=str)
    def test_contract(check):
        check()
"""

from labeler.conformance import Broken, Check, checks_of

__all__ = ["Broken", "Check", "checks_of"]
