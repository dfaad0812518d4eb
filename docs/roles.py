"""Shows roles such as ``:class:`EventStore``` as code, in the reference that docstrings make."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

ROLE: Final = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?(?:[\w.]*\.)?(\w+)(\(\))?`")


class Roles(griffe.Extension):
    """Rewrites docstrings while they are loaded."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Replace the roles in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1\2`", obj.docstring.value)
