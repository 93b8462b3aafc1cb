"""What is the user's to mend, and what is a bug."""

import dis
from pathlib import Path

import replicajax

_PACKAGE = Path(replicajax.__file__).parent
_RAISE = dis.opmap["RAISE_VARARGS"]


def refused(error: BaseException) -> bool:
    """Whether a `raise` of this package's own made the error: it says in words which argument is wrong.

    The same classes come out of JAX, numpy or a slip in a line of ours when there is a bug, which keeps its traceback.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or not isinstance(error, (ValueError, TypeError, OSError)):
        return False
    code = at.tb_frame.f_code
    return Path(code.co_filename).is_relative_to(_PACKAGE) and code.co_code[at.tb_lasti] == _RAISE
