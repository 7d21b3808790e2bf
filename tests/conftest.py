"""What holds for every test: none depends on how fast the machine is, or how busy."""

from contextlib import suppress

# A host's own Python, in which `core/test_host_unets.py` can run, need not have Hypothesis.
with suppress(ModuleNotFoundError):
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "project",
        deadline=None,
        # A fixture that lasts over all examples of a test is meant to: a host that is started once.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("project")
