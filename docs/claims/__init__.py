"""What the sources claim and what this project found: each a function that computes the evidence, for its page and its test."""

from docs.claims import findings as findings
from docs.claims import formats as formats
from docs.claims import learning as learning
from docs.claims import scaling as scaling
from docs.claims._claim import CLAIMS as CLAIMS
