"""These tests use the stand-in's modules in their own process."""

import bare_k_diffusion
import pytest

bare_k_diffusion.install()

from job_host import Host  # noqa: E402  # needs k-diffusion

from hidiffusion_ext.webui.log import logger  # noqa: E402


@pytest.fixture(scope="module")
def fresh_host() -> Host:
    return Host()


@pytest.fixture
def host(fresh_host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The stand-in with this extension, started for the module's tests; its log is kept."""
    monkeypatch.setattr(logger.handlers[0], "emit", fresh_host.records.append)
    return fresh_host
