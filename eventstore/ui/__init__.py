"""The explorer: what happened in a store, in the browser.

:func:`create_app` makes an ASGI application for one store. It reads, and changes nothing unless it
is told that it may (``allow_edits``). An edge: it may import anything, and only the command line
imports it. It needs the extra ``ui``.
"""

from __future__ import annotations

from eventstore.ui.app import create_app

__all__ = ["create_app"]
