"""The scope of a pass, and the schedule it runs, with the real k-diffusion samplers."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from hidiffusion_ext.core import Schedule, Span
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.hosts.guiding import goes_on_from_uncond
from hidiffusion_ext.hosts.sampling import around_next_pass, cancel
from hidiffusion_ext.hosts.schedules import pass_schedule, unipc_timesteps
from modules import sd_samplers_common, shared
from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img, process_images


class Recorder:
    """A context that notes how it was opened and closed."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @contextmanager
    def __call__(self, schedule: Schedule) -> Iterator[None]:
        self.events.append(("opened", list(schedule.timesteps)))
        try:
            yield
        finally:
            self.events.append("closed")


def fake_sampler(func: Any) -> SimpleNamespace:
    wrap = SimpleNamespace(sigmas=torch.arange(1.0, 4.0), sigma_to_t=lambda sigmas: sigmas * 100)
    return SimpleNamespace(func=func, model_wrap=wrap, model_wrap_cfg=SimpleNamespace(total_steps=4))


def sigmas() -> Any:
    return torch.tensor([3.0, 2.0, 1.0, 0.0])


def refuse(error: Exception) -> None:
    raise AssertionError(error)


def test_one_pass_is_wrapped_and_then_nothing_is_left() -> None:
    record = Recorder()

    def func(model: str, x: str, *, sigmas: Any) -> str:
        record.events.append((model, x))
        return "samples"

    sampler = fake_sampler(func)
    around_next_pass(sampler, record, refuse, refuse)
    assert sampler.func("model", "x", sigmas=sigmas()) == "samples"
    assert record.events == [("opened", [300.0, 200.0, 100.0]), ("model", "x"), "closed"]
    assert sampler.func is func


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, sd_samplers_common.InterruptedException])
def test_the_context_closes_whatever_ends_the_pass(error: type[BaseException]) -> None:
    def func(*, sigmas: Any) -> None:
        raise error

    record, sampler = Recorder(), fake_sampler(func)
    around_next_pass(sampler, record, refuse, refuse)
    with pytest.raises(error):
        sampler.func(sigmas=sigmas())
    assert record.events[-1] == "closed"
    assert sampler.func is func


def test_another_model_in_the_middle_of_the_pass_opens_the_context_anew() -> None:
    record, failures = Recorder(), []

    def func(denoiser: Any, *, sigmas: Any) -> None:
        record.events.append("first model")
        denoiser.update_inner_model()
        record.events.append("second model")

    sampler = fake_sampler(func)
    denoiser = sampler.model_wrap_cfg
    denoiser.update_inner_model = lambda: record.events.append("switched")
    original = denoiser.update_inner_model
    around_next_pass(sampler, record, failures.append, refuse)
    sampler.func(denoiser, sigmas=sigmas())
    opened = ("opened", [300.0, 200.0, 100.0])
    assert record.events == [opened, "first model", "switched", "closed", opened, "second model", "closed"]
    assert denoiser.update_inner_model is original
    assert failures == []


def test_a_model_that_is_refused_after_the_switch_runs_unchanged() -> None:
    record, failures, opened = Recorder(), [], []

    def open_once(schedule: Schedule) -> Any:
        if opened:
            raise ValueError("refused")
        opened.append(schedule)
        return record(schedule)

    sampler = fake_sampler(lambda denoiser, *, sigmas: denoiser.update_inner_model())
    sampler.model_wrap_cfg.update_inner_model = lambda: record.events.append("switched")
    around_next_pass(sampler, open_once, failures.append, refuse)
    sampler.func(sampler.model_wrap_cfg, sigmas=sigmas())
    assert record.events[1:] == ["switched", "closed"]
    assert [str(error) for error in failures] == ["refused"]


def test_asked_twice_only_the_last_request_counts() -> None:
    first, second, sampler = Recorder(), Recorder(), fake_sampler(lambda *, sigmas: "samples")
    func = sampler.func
    around_next_pass(sampler, first, refuse, refuse)
    around_next_pass(sampler, second, refuse, refuse)
    sampler.func(sigmas=sigmas())
    assert first.events == []
    assert second.events[-1] == "closed"
    around_next_pass(sampler, first, refuse, refuse)
    cancel(sampler)
    assert sampler.func is func


@pytest.mark.parametrize("wrap", [functools.wraps, lambda func: lambda wrapper: wrapper], ids=["named", "bare"])
def test_what_another_extension_puts_around_a_request_stays(wrap: Any) -> None:
    """Whether it takes over the attributes of what it wraps, or not."""
    first, second, asked, sampler = Recorder(), Recorder(), [], fake_sampler(lambda *, sigmas: "samples")
    around_next_pass(sampler, first, refuse, refuse)
    ours = sampler.func

    @wrap(ours)
    def theirs(**kwargs: Any) -> str:
        asked.append(kwargs)
        return ours(**kwargs)

    sampler.func = theirs
    around_next_pass(sampler, second, refuse, refuse)
    assert sampler.func(sigmas=sigmas()) == "samples"
    assert len(asked) == 1
    assert first.events == []
    assert [event for event in second.events if event == "closed"] == ["closed"]
    assert sampler.func is theirs
    around_next_pass(sampler, second, refuse, refuse)
    cancel(sampler)
    assert sampler.func is theirs
    assert sampler.func(sigmas=sigmas()) == "samples"
    assert second.events.count("closed") == 1


def test_a_request_has_no_marks_of_others() -> None:
    """An extension that finds its own mark on our wrapper would take ours for its own, and ours off."""

    def func(*, sigmas: Any) -> str:
        return "samples"

    func.theirs = "mark"  # type: ignore[attr-defined]
    sampler = fake_sampler(func)
    around_next_pass(sampler, Recorder(), refuse, refuse)
    assert not hasattr(sampler.func, "theirs")
    assert inspect.signature(sampler.func) == inspect.signature(func)


@pytest.mark.parametrize("error", [None, RuntimeError("the host's"), KeyboardInterrupt()])
def test_a_context_that_cannot_be_closed_costs_nothing(error: BaseException | None) -> None:
    unclosed: list[Exception] = []

    @contextmanager
    def failing(schedule: Schedule) -> Iterator[None]:
        try:
            yield
        finally:
            raise ValueError("ours")

    def func(*, sigmas: Any) -> str:
        if error:
            raise error
        return "samples"

    sampler = fake_sampler(func)
    around_next_pass(sampler, failing, refuse, unclosed.append)
    if error is None:
        assert sampler.func(sigmas=sigmas()) == "samples"
    else:
        with pytest.raises(type(error)) as caught:
            sampler.func(sigmas=sigmas())
        assert caught.value is error
    assert [str(one) for one in unclosed] == ["ours"]


@pytest.mark.parametrize("arguments", [{"sigmas": "not a tensor"}, {"timesteps": None}, {}])
def test_a_schedule_that_cannot_be_read_lets_the_pass_run_unchanged(arguments: dict[str, Any]) -> None:
    record, failures = Recorder(), []
    sampler = fake_sampler(lambda **kwargs: "samples")
    around_next_pass(sampler, record, failures.append, refuse)
    assert sampler.func(**arguments) == "samples"
    assert record.events == []
    assert len(failures) == 1


def test_a_sampler_without_a_function_is_refused() -> None:
    failures: list[Exception] = []
    around_next_pass(SimpleNamespace(), Recorder(), failures.append, refuse)
    assert "SimpleNamespace" in str(failures[0])


FIRST_ORDER = ["Euler a", "Euler", "LMS", "DPM++ 2M", "DPM++ 2M SDE", "DDIM"]
SECOND_ORDER = ["Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "Restart"]
WITHOUT_SCHEDULER = ["DPM fast", "DPM adaptive", "DDIM"]
SCHEDULERS = ["Automatic", "Uniform", "Karras", "Exponential", "SGM Uniform", "Simple", "Normal", "DDIM", "Beta"]
SCHEDULERS += ["Polyexponential", "KL Optimal", "Align Your Steps"]


class Pass:
    """One pass of the host's sampler over a model that answers zeros.

    Attributes:
        schedule: What was read of it before it started.
        evaluations: (timestep that reached the model, steps the sampler had finished) per evaluation.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, strength: float | None, **settings: Any) -> None:
        self.schedule = Schedule([0])
        self.evaluations: list[tuple[float, int]] = []
        self.finished = 0
        monkeypatch.setattr(shared.sd_model, "apply_model", self._model)
        common = {"sd_model": shared.sd_model, "width": 64, "height": 64, "prompt": "a cat", "seed": 1, **settings}
        if strength is None:
            p: Any = StableDiffusionProcessingTxt2Img(**common)
        else:
            image = Image.new("RGB", (64, 64))
            p = StableDiffusionProcessingImg2Img(**common, init_images=[image], denoising_strength=strength)
        p.scripts = self
        process_images(p)

    def __getattr__(self, hook: str) -> Any:
        return lambda *args, **kwargs: None

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        callback = p.sampler.callback_state

        def count(state: Any) -> None:
            self.finished += 1
            callback(state)

        p.sampler.callback_state = count
        around_next_pass(p.sampler, self._record, refuse, refuse)

    @contextmanager
    def _record(self, schedule: Schedule) -> Iterator[None]:
        self.schedule = schedule
        yield

    def _model(self, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        self.evaluations.append((float(t.max()), self.finished))
        return torch.zeros_like(x)

    def last_inside(self, span: Span) -> int:
        """The sampler's last step with an evaluation in the span, -1 if none is."""
        return max((finished for t, finished in self.evaluations if self.schedule.inside(span, t)), default=-1)


STRENGTHS = [None, 0.75, 0.4]


def passes() -> Iterator[Any]:
    """Every sampler with some of the schedulers, each at a strength in turn; the others are for longer runs."""
    for i, sampler in enumerate(FIRST_ORDER + SECOND_ORDER):
        for j, scheduler in enumerate(SCHEDULERS[:1] if sampler in WITHOUT_SCHEDULER else SCHEDULERS):
            for k, strength in enumerate(STRENGTHS):
                marks = () if i % 3 == j % 3 and k == (i + j) % len(STRENGTHS) else pytest.mark.slow
                yield pytest.param(sampler, scheduler, strength, marks=marks)


@pytest.mark.parametrize(("sampler", "scheduler", "strength"), list(passes()))
def test_a_span_ends_at_its_noise_and_after_the_steps_that_are_said(
    monkeypatch: pytest.MonkeyPatch, sampler: str, scheduler: str, strength: float | None
) -> None:
    for steps in (8, 20):
        run = Pass(monkeypatch, strength, steps=steps, sampler_name=sampler, scheduler=scheduler)
        assert run.evaluations[0][0] == pytest.approx(run.schedule.timesteps[0], abs=0.5)
        for share in (0.2, 0.4, 0.7):
            span, end = Span(0, share), 1000 * (1 - share)
            assert all(run.schedule.inside(span, t) == (t > end) for t, _ in run.evaluations if abs(t - end) > 1)
            if sampler != "Restart":
                assert run.schedule.steps == run.finished
                said = len(run.schedule.steps_inside(span))
                assert abs(run.last_inside(span) + 1 - said) <= (sampler in SECOND_ORDER)


def test_restart_enters_the_first_steps_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pass(monkeypatch, None, steps=40, sampler_name="Restart", scheduler="Karras")
    steps = [run.schedule.step(t) for t, _ in run.evaluations]
    assert any(later < earlier for earlier, later in zip(steps, steps[1:]))
    assert steps[-1] == run.schedule.steps - 1


@pytest.mark.parametrize("sampler", ["DPM fast", "DPM adaptive"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_samplers_without_a_schedule_count_in_the_logarithm_of_the_noise(
    monkeypatch: pytest.MonkeyPatch, sampler: str, strength: float | None
) -> None:
    run = Pass(monkeypatch, strength, steps=20, sampler_name=sampler)
    steps = [run.schedule.step(t) for t, _ in run.evaluations]
    assert steps[0] == 0
    assert steps[-1] >= 0.7 * run.schedule.steps
    assert 0 < sum(step < 0.4 * run.schedule.steps for step in steps) < len(steps)


def unipc(model: Any, x: Any, timesteps: Any, is_img2img: bool = False) -> None:
    """The arguments of the host's."""


@pytest.mark.parametrize(("arguments", "begin"), [({}, 999), ({"is_img2img": True}, 901)])
def test_unipc_evaluates_as_often_as_it_is_asked(arguments: dict[str, Any], begin: int) -> None:
    timesteps = torch.arange(0, 1000, 100) + 1
    schedule = pass_schedule(SimpleNamespace(func=unipc), {"timesteps": timesteps, **arguments})
    assert schedule.timesteps == pytest.approx([begin * (1 - step / 10) for step in range(10)])


def test_the_other_spacings_of_unipc() -> None:
    quadratic = unipc_timesteps(999, 4, "time_quadratic")
    assert quadratic == pytest.approx([((1000**0.5) * (1 - k / 4) + k / 4) ** 2 - 1 for k in range(4)])
    even = unipc_timesteps(999, 5, "logSNR")
    assert even[0] == pytest.approx(999)
    ratios = [math.log(1 / DISCRETE.noise(timestep) - 1) for timestep in [*even, 0]]
    assert torch.tensor(ratios).diff().tolist() == pytest.approx([(ratios[-1] - ratios[0]) / 5] * 5, rel=1e-2)


def test_samplers_that_add_noise_before_they_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pass(monkeypatch, None, steps=20, sampler_name="Euler", s_churn=10.0)
    plain = Pass(monkeypatch, None, steps=20, sampler_name="Euler")
    assert [t for t, _ in run.evaluations] == pytest.approx(run.schedule.timesteps, abs=0.5)
    assert sum(a > b + 1 for a, b in zip(run.schedule.timesteps, plain.schedule.timesteps)) >= 15
    within = Pass(monkeypatch, None, steps=20, sampler_name="Euler", s_churn=10.0, s_tmin=2.0, s_tmax=5.0)
    assert [t for t, _ in within.evaluations] == pytest.approx(within.schedule.timesteps, abs=0.5)


def test_samplers_that_go_on_from_the_negative_prompt() -> None:
    @torch.no_grad()
    def ddim_cfgpp(model: Any, x: Any, timesteps: Any) -> Any:
        """As A1111's: it asks the denoiser."""
        return x + model.last_noise_uncond

    @torch.no_grad()
    def sample_euler_ancestral_cfg_pp(model: Any, x: Any, sigmas: Any) -> Any:
        """As the Forge family's: the host tells it after guidance."""
        uncond = None

        def post_cfg_function(args: Any) -> Any:
            nonlocal uncond
            uncond = args["uncond_denoised"]
            return args["denoised"]

        return model(x, post_cfg_function) + uncond

    def sample_euler_cfg_pp(model: Any, x: Any, sigmas: Any) -> Any:
        return sample_euler_ancestral_cfg_pp(model, x, sigmas)

    for func in (ddim_cfgpp, sample_euler_ancestral_cfg_pp, sample_euler_cfg_pp):
        assert goes_on_from_uncond(SimpleNamespace(func=func))
    assert not goes_on_from_uncond(SimpleNamespace(func=unipc))
    assert not goes_on_from_uncond(None)


def test_timesteps_come_from_the_model_that_is_sampled() -> None:
    """As with reForge's extension for CosXL: timesteps are a quarter of the logarithm of sigma."""

    def timestep(sigmas: torch.Tensor) -> torch.Tensor:
        return 0.25 * sigmas.log()

    sampling = SimpleNamespace(sigmas=torch.linspace(math.log(0.002), math.log(80), 1000).exp(), timestep=timestep)
    patcher = SimpleNamespace(model=SimpleNamespace(model_sampling=sampling))
    sampler = fake_sampler(None)
    sampler.model_wrap.inner_model = SimpleNamespace(forge_objects=SimpleNamespace(unet=patcher))
    sigmas = torch.linspace(math.log(80), math.log(0.002), 20).exp()
    schedule = pass_schedule(sampler, {"sigmas": torch.cat([sigmas, torch.zeros(1)])})
    assert schedule.timesteps == pytest.approx((0.25 * sigmas.log()).tolist())
    assert len(schedule.steps_inside(Span(0, 0.4))) == 8
