"""Every claim of the site holds: the page and this test call the same function."""

import pytest

from docs.claims import CLAIMS
from docs.claims._claim import KINDS, listed

SAMPLED = "fisher-allocation", "message-passing", "five-sites", "zero-temperature"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.optimized) if name in SAMPLED else name for name in CLAIMS]
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


def test_each_is_listed_once_with_its_label():
    lines = list(listed(CLAIMS.values()))
    for claim in CLAIMS.values():
        (line,) = (line for line in lines if f"/{claim.name}.md" in line)
        assert f"[{claim.kind}]{{.badge .{claim.kind}}} |" in line
