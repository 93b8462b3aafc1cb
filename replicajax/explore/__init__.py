"""`replicajax explore`: an interactive page of the theory, on this machine alone."""

from replicajax.explore._serve import serve as serve
