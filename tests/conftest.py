"""What holds for every test: none depends on chance, on how fast the machine is, or how busy."""

import os
import random
from contextlib import suppress

import pytest
import torch

LONGER = {"LAW_CASES", "STORIES", "FAULT_CASES", "FALLBACK_CASES", "HOST_FAULTS"}
"""Variables that ask for more cases, which then are others each time; without them the cases are always the same."""

# A host's own Python, in which `core/test_host_unets.py` can run, need not have Hypothesis.
with suppress(ModuleNotFoundError):
    from hypothesis import HealthCheck, Phase, settings

    longer = settings(
        deadline=None,
        # A fixture that lasts over all examples of a test is meant to: a host that is started once.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.register_profile("longer", longer)
    shrinking = settings(longer, derandomize=True, database=None)
    settings.register_profile("shrinking", shrinking)
    # The search for the shortest case that fails takes minutes.
    settings.register_profile("project", shrinking, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("longer" if LONGER & os.environ.keys() else "project")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test draws the same numbers alone and after others."""
    random.seed(0)
    torch.manual_seed(0)
