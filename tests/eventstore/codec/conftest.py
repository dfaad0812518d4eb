"""A codec that knows the types of `tests.eventstore.codec.support`."""

from __future__ import annotations

import pytest

from eventstore.codec.codec import Codec
from tests.eventstore.codec.support import CLASSES


@pytest.fixture
def codec() -> Codec:
    codec = Codec()
    for cls in CLASSES:
        codec.register(cls)
    return codec
