"""Options that change nothing are taken; those that would change the result are refused, with what to do instead."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

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
REFUSED = [(kind, name) for kind in KINDS for name in _options.REFUSED if name not in _options.IGNORED[kind]]


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


@pytest.mark.parametrize(("kind", "name"), [each for each in IGNORED if each != ("Crew", "usage_metrics")])
def test_it_can_be_read_back(kind: str, name: str) -> None:
    plain = build(kind)
    if kind != "Flow":
        assert getattr(plain, name) == _options.IGNORED[kind][name]
        setattr(plain, name, "other")
        assert getattr(plain, name) == "other"
    value = object()
    assert getattr(build(kind, **{name: value}), name) is value


@pytest.mark.parametrize("kind", ["Agent", "Task", "Crew"])
def test_copies_and_equal_ones_do_not_share_it(kind: str) -> None:
    made: Any = build(kind, security_config="one")
    copied = made.copy()
    copied.security_config = "other"
    assert (made.security_config, copied.security_config) == ("one", "other")
    assert "security_config" not in made.model_dump()


def test_a_list_that_was_not_given_is_one_of_its_own() -> None:
    first, second = an_agent(Scripted("Done")), an_agent(Scripted("Done"))
    first.callbacks.append(print)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert getattr(first, "callbacks") == [print]  # noqa: B009
    assert getattr(second, "callbacks") == []  # noqa: B009


@pytest.mark.parametrize("kind", ["Agent", "Task", "Crew"])
def test_an_attribute_that_does_not_exist_is_an_error(kind: str) -> None:
    made: Any = build(kind)
    with pytest.raises(AttributeError, match="colour"):
        _ = made.colour
    with pytest.raises(ValueError, match="colour"):
        made.colour = "red"


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


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in _options.ABSENT_METHODS.items() for name in names]
)
def test_a_method_that_rxflow_does_not_have_says_what_to_do_instead(kind: str, name: str) -> None:
    made = build(kind)
    with pytest.raises(AttributeError, match=f"{kind} has no method '{name}': .* .*"):
        getattr(made, name)
    assert not hasattr(made, name)


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
    assert {name: repr(getattr(made, name)) for name in free} == {name: repr(getattr(plain, name)) for name in free}


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


class TestConfigOfACrew:
    """Agents and tasks are mappings there, and a task names its agent by the role."""

    TEAM: ClassVar[dict[str, Any]] = {
        "agents": [WHO, {**WHO, "role": "Editor", "llm": "rxflow/demo"}],
        "tasks": [{**WHAT, "agent": "Editor"}],
        "name": "team",
    }

    @pytest.mark.parametrize("as_given", [dict, json.dumps])
    def test_a_crew_is_built_of_it(self, as_given: Callable[[Any], Any]) -> None:
        crew = Crew(config=as_given(self.TEAM), verbose=False)
        assert [agent.role for agent in crew.agents] == ["R", "Editor"]
        assert (crew.name, crew.tasks[0].agent) == ("team", crew.agents[1])
        assert crew.kickoff().raw

    def test_what_is_given_by_name_goes_before_it(self) -> None:
        assert Crew(config=self.TEAM, name="other").name == "other"

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"agents": [WHO]}, "config of a Crew is a mapping with agents and tasks; got"),
            ([], "config of a Crew is a mapping with agents and tasks; got"),
            ("agents: []", "config of a Crew is not JSON"),
            ({**TEAM, "tasks": [{**WHAT, "agent": "Nobody"}]}, "names the agent 'Nobody'; config has 'R', 'Editor'"),
            ({**TEAM, "tasks": [WHAT]}, "has no agent"),
            ({**TEAM, "planning": True}, r"Crew\(planning=True\) is not supported"),
            ({**TEAM, "agents": [{"role": "R"}]}, "missing: goal, backstory"),
        ],
    )
    def test_what_cannot_be_built_is_refused(self, wrong: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Crew(config=wrong)


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
    assert not own & set(_options.IGNORED[kind])
    assert not own & set(_options.REFUSED)
    assert not set(_options.IGNORED[kind]) & set(_options.REFUSED)


def accept(output: Any) -> tuple[bool, Any]:
    return True, output


class Report(BaseModel):
    title: str = "r"


class TestAsJson:
    """What JSON cannot hold is left out with a warning; the rest is there, and makes an equal one."""

    @pytest.mark.parametrize(
        ("kind", "name", "value", "written"),
        [
            ("Agent", "guardrail", accept, None),
            ("Agent", "step_callback", accept, None),
            ("Task", "guardrail", accept, None),
            ("Task", "guardrails", [accept, "be brief"], ["be brief"]),
            ("Task", "callback", accept, None),
            ("Task", "output_pydantic", Report, None),
            ("Crew", "task_callback", accept, None),
            ("Crew", "before_kickoff_callbacks", [accept], []),
        ],
    )
    def test_functions_and_classes_are_left_out(self, kind: str, name: str, value: object, written: object) -> None:
        given: dict[str, Any] = {name: value}
        made: Any = Crew(agents=[], tasks=[], **given) if kind == "Crew" else build(kind, **given)
        with pytest.warns(UserWarning, match=rf"{kind}\.{name} is left out: .* cannot be JSON-serialized"):
            dumped = made.model_dump(mode="json")
        assert dumped[name] == written
        with pytest.warns(UserWarning, match="cannot be JSON-serialized"):
            assert made.model_dump_json()
        assert made.model_dump()[name] == value

    def test_a_model_that_is_not_given_is_left_out_without_a_word(self) -> None:
        assert Agent(**WHO).model_dump(mode="json")["llm"] is None
        with pytest.warns(UserWarning, match=r"Agent\.llm is left out"):
            assert Agent(**WHO, llm="rxflow/demo").model_dump(mode="json")["llm"] is None

    def test_so_is_what_stands_deeper(self) -> None:
        task = Task(**WHAT, agent=Agent(**WHO, guardrail=accept))
        with pytest.warns(UserWarning, match=r"Agent\.guardrail is left out"):
            assert task.model_dump(mode="json")["agent"]["role"] == "R"

    def test_the_rest_can_be_read_back(self) -> None:
        task = Task(**WHAT, agent=Agent(**WHO), guardrail="be brief", output_file="a.txt")
        written = task.model_dump(mode="json")
        assert Task.model_validate(written).model_dump(mode="json") == written
        assert Task.model_validate_json(task.model_dump_json()).model_dump(mode="json") == written
