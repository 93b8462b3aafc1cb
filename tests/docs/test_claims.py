"""Every claim of the site holds: the page and this test call the same function."""

import pytest

from docs.claims import CLAIMS
from docs.claims._claim import KINDS


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if claim.slow else []) for name, claim in CLAIMS.items()]
)
def test_claim(name):
    failed = [check for check in CLAIMS[name].compute().checks if not check.holds]
    assert not failed


def test_claims_say_what_they_are():
    for claim in CLAIMS.values():
        assert claim.kind in KINDS
        assert claim.text.strip()
        assert claim.falsified_by.endswith(".")
        assert claim.source
