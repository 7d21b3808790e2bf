"""One process of a host, and whatever people do with it one thing after another.

STORIES=500 makes it that many; CI makes 4. What fails is told as the shortest story that does.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
import stories
from any_options import values
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from job_host import Host
from plans import PARTS
from snapshot import snapshot
from stories import NEIGHBOURS, SEEN, Job, Made, Settings, Witness, at_call, claimed

from hidiffusion_ext.core import Method, patching
from hidiffusion_ext.core.options import SETTINGS, Choice
from hidiffusion_ext.core.parts.redilation import DISPERSION
from hidiffusion_ext.webui import infotext
from hidiffusion_ext.webui.infotext import FIRST_PASS, HIRES_PASS, REFUSED
from modules import sd_models, shared

STORIES = int(os.environ.get("STORIES", "4"))
CHECKPOINTS = ["tiny-sd1", "tiny-sd1-b", "tiny-sdxl"]
CANARY = Job(width=64, height=72)


def _values(name: str) -> st.SearchStrategy[Any]:
    setting = SETTINGS[name]
    is_number = isinstance(setting.default, (int, float)) and not isinstance(setting.default, (bool, Choice))
    return st.sampled_from([setting.minimum, setting.maximum]) if is_number else values(setting)


def _further() -> st.SearchStrategy[Settings]:
    """Some of the settings, with any of their values."""
    names = [name for name in SETTINGS if name not in ("enabled", "method", "native_size")]
    chosen = st.fixed_dictionaries({}, optional={name: _values(name) for name in names})
    return chosen.map(lambda found: tuple(found.items()))


sides = st.sampled_from([96, 64, 120])
JOBS = st.builds(
    Job, st.sampled_from([None, *Method]), sides, sides, st.booleans(), st.sampled_from([1, 2]), _further()
)
IN_ONE_PASS = JOBS.filter(lambda job: not job.hires)
"""The host itself leaves a job's own hires fix in the texts of its copies."""


class Failure(Exception):
    """What another extension raises."""


class Stories(RuleBasedStateMachine):
    """What is done in one process, and what holds after each of it."""

    host: Host
    canaries: ClassVar[dict[Any, Made]] = {}
    done = Bundle("done")

    def __init__(self) -> None:
        super().__init__()
        self.neighbours: dict[str, ExitStack] = {}
        self.references: dict[Any, Made] = {}
        shared.opts.data["sd_model_checkpoint"] = sd_models.checkpoint_aliases[CHECKPOINTS[0]].title
        sd_models.load_model(sd_models.select_checkpoint())  # a new one, whatever became of that of another story
        self.settled()

    def teardown(self) -> None:
        for neighbour in self.neighbours.values():
            neighbour.close()

    def settled(self) -> None:
        """The UNet may be another one now, and is to stay what it is."""
        self.state = snapshot(stories.unet())

    @property
    def surroundings(self) -> tuple[str, ...]:
        """What a picture depends on beside its job."""
        name = shared.sd_model.sd_checkpoint_info.name
        return name, *sorted({"lora", "hypertile"} & self.neighbours.keys())

    @rule(checkpoint=st.sampled_from(CHECKPOINTS))
    def load(self, checkpoint: str) -> None:
        there = list(self.neighbours)
        for name in there:
            self.neighbours.pop(name).close()
        stories.load(checkpoint)
        for name in there:
            self.come_or_go(name)
        self.settled()

    @rule(neighbour=st.sampled_from(list(NEIGHBOURS)))
    def come_or_go(self, neighbour: str) -> None:
        if neighbour in self.neighbours:
            self.neighbours.pop(neighbour).close()
        else:
            self.neighbours[neighbour] = ExitStack()
            self.neighbours[neighbour].enter_context(NEIGHBOURS[neighbour]())
        self.settled()

    @rule(target=done, job=JOBS)
    def make(self, job: Job) -> Job:
        self.same(job, self.told(stories.new(job)))
        return job

    @rule(job=done)
    def make_again(self, job: Job) -> None:
        self.same(job, self.told(stories.new(job)))

    @rule(first=IN_ONE_PASS, then=IN_ONE_PASS, by_copy=st.booleans(), made_before=st.booleans())
    def go_on(self, first: Job, then: Job, by_copy: bool, made_before: bool) -> None:
        """A script changes a job, or a copy of it, after it has been made or has not."""
        p = stories.new(first)
        if made_before:
            self.same(first, self.told(p))
        changed = copy.copy(p) if by_copy else p
        stories.ask(changed, then)
        self.same(then, self.told(changed))
        if by_copy:
            self.same(first, self.told(copy.copy(p)))

    @rule(job=IN_ONE_PASS.filter(lambda job: job.method), methods=st.permutations(list(Method)))
    def plot(self, job: Job, methods: list[Method]) -> None:
        """X/Y/Z over some methods, cell by cell as the host makes them."""
        p = stories.new(job)
        axis = stories.axis("method")
        for method in methods[:2]:
            cell = copy.copy(p)
            axis.apply(cell, method.value, [method.value])
            self.same(Job(method, job.width, job.height, job.hires, job.batch, job.more), self.told(cell))

    @rule(job=JOBS, call=st.integers(1, 8))
    def interrupt(self, job: Job, call: int) -> None:
        with at_call(call, shared.state.interrupt) as calls:
            made = self.told(stories.new(job))
        if len(calls) < call:
            self.same(job, made)

    @rule(job=JOBS, call=st.integers(1, 8), for_good=st.booleans())
    def fail(self, job: Job, call: int, for_good: bool) -> None:
        """Another extension's hook raises in a call of the UNet, once or from then on."""
        p, passes = stories.new(job), list[str]()

        def act() -> None:
            if for_good or not passes:
                passes.append(HIRES_PASS if p.is_hr_pass else FIRST_PASS)
                raise Failure

        try:
            with at_call(call, act):
                made = self.told(p)
        except Failure:
            assert for_good or passes[0] not in self.reference(job).said
        else:
            assert self.same(job, made) if not passes else not for_good
            if passes:
                self.tells_what_failed(job, made, hires=passes[0] == HIRES_PASS)

    @rule(job=JOBS, call=st.integers(1, 4))
    def ask_meanwhile(self, job: Job, call: int) -> None:
        """The plan, while a picture is made that is as planned."""
        expected, answers = self.plan(job), list[Any]()

        def act() -> None:
            if not answers:
                answers.append(self.plan(job))

        with at_call(call, act):
            said = self.same(job, self.told(stories.new(job))).said
        assert answers in ([], [expected])
        for one in expected["passes"] if job.method else []:
            key = HIRES_PASS if one["name"] == "Hires pass" else FIRST_PASS
            assert said.get(key, "") == (one["text"] if one["active"] else "")

    @invariant()
    def the_unet_is_what_it_was(self) -> None:
        assert snapshot(stories.unet()) == self.state

    @invariant()
    def a_picture_without_us_is_what_it_was(self) -> None:
        made = stories.make(stories.new(CANARY))
        assert made == self.canaries.setdefault(self.surroundings, made)
        assert not made.said

    def reference(self, job: Job) -> Made:
        """What a new job makes."""
        key = self.surroundings, job
        if key not in self.references:
            self.references[key] = stories.make(stories.new(job))
        return self.references[key]

    def same(self, job: Job, made: Made) -> Made:
        """What a job made, which is what a new one like it makes."""
        assert made == self.reference(job)
        return made

    def told(self, p: Any) -> Made:
        """Makes a job, whose text tells what the UNet was seen to do."""
        witness = Witness(p)
        with witness.looking():
            made = stories.make(p)
        for hires in (False, True):
            assert claimed(made.said, hires=hires) == witness.seen[hires]
        return made

    def tells_what_failed(self, job: Job, made: Made, *, hires: bool) -> None:
        """After a failure that came once: what is left out of the pass, which is of what is in it, or all of us."""
        (text,) = (text for text in made.said[REFUSED].split("; ") if "(Failure)" in text)
        named = {name for name in (*PARTS, DISPERSION) if name in text}
        assert text.startswith("no " if named else "switched off")
        assert named & SEEN <= claimed(self.reference(job).said, hires=hires)

    def plan(self, job: Job) -> Any:
        query = {"width": job.width, "height": job.height, "steps": 3, "sampler_name": "Euler a", **job.settings}
        query |= {"method": job.method or Method.HIDIFFUSION}
        if job.hires:
            query |= {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7}
        del query["enabled"]
        values = {name: getattr(value, "value", value) for name, value in query.items()}
        answer = self.host.client.get("/hidiffusion/v1/plan", params=values)
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_whatever_is_done_with_a_host(host: Host) -> None:
    Stories.host = host
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=STORIES, stateful_step_count=5, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def hook_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        patching, "change_output", lambda stack, module, change: module.register_forward_hook(lambda *_: None)
    )


def text_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(infotext, "forget", lambda params: None)


@pytest.mark.parametrize("leak", [hook_stays, text_stays])
def test_a_story_would_tell(host: Host, monkeypatch: pytest.MonkeyPatch, leak: Callable[..., None]) -> None:
    Stories.host = host
    story = Stories()
    leak(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):  # noqa: PT012  # whichever of them it is
        story.go_on(Job(Method.HIDIFFUSION), Job(None), by_copy=True, made_before=True)
        story.the_unet_is_what_it_was()


@pytest.mark.parametrize("more", [(), (("msw_msa", False),)])
def test_a_failure_that_comes_once_is_told(host: Host, more: Settings) -> None:
    """With windows to go on with, and without."""
    Stories.host = host
    Stories().fail(Job(Method.SCALECRAFTER, more=more), call=2, for_good=False)
