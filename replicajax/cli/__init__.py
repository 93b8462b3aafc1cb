"""The `replicajax` command."""

from replicajax.cli._app import main as main
