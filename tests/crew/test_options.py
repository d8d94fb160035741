"""Options that change nothing are taken; those that would change the result are refused, with what to do instead."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rxflow import Agent, Crew, Flow, Task, _options
from rxflow.flow.flow import start
from tests.scripted import Scripted
from tests.team import a_crew, a_task, an_agent

KINDS = ("Agent", "Task", "Crew", "Flow")
WHO: dict[str, Any] = {"role": "R", "goal": "g", "backstory": "b"}
WHAT: dict[str, Any] = {"description": "d", "expected_output": "e"}
IGNORED = [(kind, name) for kind, names in _options.IGNORED.items() for name in sorted(names)]
REFUSED = [
    (kind, name)
    for kind in KINDS
    for name in _options.REFUSED
    if name not in _options.IGNORED[kind] and not (name == "config" and kind in ("Agent", "Task"))
]


class Plain(Flow):
    @start()
    def begin(self) -> int:
        return 1


def build(kind: str, **options: Any) -> object:
    match kind:
        case "Agent":
            return Agent(**{**WHO, **options})
        case "Task":
            return Task(**{**WHAT, **options})
        case "Crew":
            return a_crew(a_task(an_agent(Scripted("Done"))), **options)
        case _:
            return Plain(**options)


@pytest.mark.parametrize(("kind", "name"), IGNORED)
def test_an_option_that_changes_nothing_is_taken_at_any_value(kind: str, name: str) -> None:
    for value in (None, False, True, 2, "text", object()):
        build(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_an_option_that_would_change_the_result_is_refused_in_one_sentence_each(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{kind}\({name}=True\) is not supported\. It would .+; .+\.") as raised:
        build(kind, **{name: True})
    assert "Extra inputs are not permitted" not in str(raised.value)


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_the_same_option_is_taken_where_it_says_off(kind: str, name: str) -> None:
    off_values: tuple[Any, ...] = (None, False, [], {}, "")
    for off in off_values:
        build(kind, **{name: off})


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_refused_and_a_close_one_suggested(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} has no option 'colour'") as raised:
        build(kind, colour="red")
    assert "did you mean" not in str(raised.value)
    close = {"Agent": ("bakstory", "backstory"), "Task": ("descripton", "description"), "Crew": ("taks", "tasks")}
    wrong, right = close.get(kind, ("nmae", "name"))
    with pytest.raises(ValueError, match=f"{kind} has no option '{wrong}'; did you mean '{right}'?"):
        build(kind, **{wrong: "x"})


def test_a_crew_of_nobody_and_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Crew needs agents and tasks"):
        Crew()


def test_a_long_value_is_shown_in_short() -> None:
    with pytest.raises(ValidationError, match=r"Agent\(knowledge_sources=\['x{1,12}\.\.\.") as raised:
        build("Agent", knowledge_sources=["x" * 10_000])
    assert len(str(raised.value)) < 1_000


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"Agent needs role, goal, backstory, by name or .*; missing: goal, backstory"):
        Agent(role="R")
    with pytest.raises(ValueError, match="missing: expected_output"):
        Task(description="d")


@pytest.mark.parametrize("level", [0, 1, 2, True, False])
def test_levels_of_verbosity_are_on_or_off(level: int) -> None:
    for made in (build("Agent", verbose=level), build("Crew", verbose=level)):
        assert isinstance(made, Agent | Crew)
        assert made.verbose is bool(level)


@pytest.mark.parametrize("kind", ["Agent", "Task", "Crew"])
def test_none_stands_for_the_default(kind: str) -> None:
    models: dict[str, type[BaseModel]] = {"Agent": Agent, "Task": Task, "Crew": Crew}
    fields = models[kind].model_fields
    free = [name for name in fields if name not in {*WHO, *WHAT, "agents", "tasks", "id"}]
    made, plain = build(kind, **dict.fromkeys(free)), build(kind)
    assert {name: getattr(made, name) for name in free} == {name: getattr(plain, name) for name in free}


def test_a_context_of_none_still_means_no_context() -> None:
    assert Task(**WHAT).takes_all_context
    assert not Task(**WHAT, context=None).takes_all_context


def test_a_model_is_asked_the_same_with_and_without_what_changes_nothing() -> None:
    plain, full = Scripted("Done"), Scripted("Done")
    a_crew(a_task(an_agent(plain))).kickoff()
    ignored: dict[str, dict[str, Any]] = {kind: dict.fromkeys(names, 1) for kind, names in _options.IGNORED.items()}
    a_crew(a_task(an_agent(full, **ignored["Agent"]), **ignored["Task"]), **ignored["Crew"]).kickoff()
    assert full.requests == plain.requests


class TestConfig:
    def test_options_may_come_from_a_mapping(self) -> None:
        agent = Agent(config={**WHO, "verbose": 2, "max_iter": 7})
        assert (agent.role, agent.verbose, agent.max_iter) == ("R", True, 7)
        task = Task(config=WHAT, agent=agent)
        assert (task.description, task.expected_output, task.agent) == ("d", "e", agent)

    def test_what_is_given_by_name_goes_before_it(self) -> None:
        agent = Agent(config={**WHO, "max_iter": 7}, role="Other", max_iter=None)  # type: ignore[arg-type]
        assert (agent.role, agent.goal, agent.max_iter) == ("Other", "g", 7)

    def test_it_is_left_as_it_was(self) -> None:
        config = {**WHO, "tools": None}
        build("Agent", config=config)
        assert config == {**WHO, "tools": None}

    def test_what_it_lacks_is_named(self) -> None:
        with pytest.raises(ValueError, match="missing: goal"):
            Agent(config={"role": "R", "backstory": "b"})

    def test_what_is_not_an_option_is_a_warning_at_the_line_that_builds(self) -> None:
        with pytest.warns(
            UserWarning, match="'max_itr' in config is not an option of Agent.*mean 'max_iter'"
        ) as warned:
            Agent(config={**WHO, "max_itr": 3})
        assert warned[0].filename == __file__

    def test_an_option_of_crewai_in_it_is_refused_like_any_other(self) -> None:
        with pytest.raises(ValueError, match=r"Agent\(reasoning=True\) is not supported"):
            build("Agent", config={**WHO, "reasoning": True})

    @pytest.mark.parametrize("wrong", ["researcher", ["role"], 3])
    def test_what_is_not_a_mapping_is_refused(self, wrong: object) -> None:
        with pytest.raises(ValueError, match=r"config is a mapping of options, \{'role': …\} for instance; got "):
            build("Agent", config=wrong)


class TestOptionsThatDoSomething:
    def test_an_agent_s_step_callback_goes_before_the_crew_s(self) -> None:
        steps: list[str] = []

        def note(whose: str) -> Callable[[object], None]:
            return lambda step: steps.append(whose)

        mine = an_agent(Scripted("Done"), step_callback=note("agent's"))
        other = an_agent(Scripted("Done"), "Other")
        a_crew(a_task(mine), a_task(other), step_callback=note("crew's")).kickoff()
        assert steps == ["agent's", "crew's"]

    def test_without_a_system_prompt_who_it_is_stands_in_the_first_message(self) -> None:
        model = Scripted("Done")
        a_crew(a_task(an_agent(model, use_system_prompt=False))).kickoff()
        ((message,),) = model.conversations
        assert message["role"] == "user"
        assert message["content"].startswith("You are Writer. Has written a lot\nYour goal: Write well\n\nWrite\n\n")

    def test_the_date_is_told_as_it_is_to_be_written(self) -> None:
        model = Scripted("Done")
        a_crew(a_task(an_agent(model, inject_date=True, date_format="the day %%"))).kickoff()
        assert model.requests[0].last_user_text.endswith("\n\nCurrent date: the day %")


@pytest.mark.parametrize("kind", ["Agent", "Task", "Crew"])
def test_the_tables_have_no_option_that_the_class_has_itself(kind: str) -> None:
    models: dict[str, type[BaseModel]] = {"Agent": Agent, "Task": Task, "Crew": Crew}
    own = set(models[kind].model_fields) - {"config"}
    assert not own & _options.IGNORED[kind]
    assert not own & set(_options.REFUSED)
    assert not _options.IGNORED[kind] & set(_options.REFUSED)
