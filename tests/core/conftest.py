"""UNets that tests share are behind each file what they were."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from snapshot import snapshot


@pytest.fixture(scope="module", autouse=True)
def shared_unets_stay_as_they_are() -> Iterator[None]:
    yield
    if "unets" in sys.modules:  # a host's own Python may have nothing to make them of
        from unets import SHARED

        assert all(snapshot(unet) == state for unet, state in SHARED)
