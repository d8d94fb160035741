"""The page in Chromium, as a person uses it: the pointer, the keyboard, two tabs, a small screen."""

import json
import re
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rxflow import LLM, Flow, TaskOutput
from rxflow.flow import start
from rxflow.runs import Runs
from rxflow.screens import web
from rxflow.tools import tool
from rxflow.types import RunPaused
from tests.adapters.serving import serve
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.programs import require
from tests.screens.voyages import Voyage, depth
from tests.screens.web_flows import Asking, AskingTwo, Trip, speaking
from tests.scripted import Scripted, calls
from tests.team import solo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

PATIENCE_MS = 60_000
HOSTILE = "<b>bold</b> <script>document.title = 'owned'</script> <img src=x onerror=\"document.title='owned'\"> end"
CONTRAST = """(selectors) => [...document.querySelectorAll(selectors.join(", "))].map((element) => {
  const read = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
  let behind = element;
  while (behind.parentElement && read(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const [one, two] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map((each) => luminance(read(each))).sort((a, b) => b - a);
  return [element.textContent, (one + 0.05) / (two + 0.05)];
})"""


@tool(needs_approval=True)
def pay(amount: float) -> str:
    """Pay an amount in euros."""
    return f"{amount:g} euros paid"


def name_a_figure(answer: TaskOutput) -> tuple[bool, Any]:
    has_figure = any(map(str.isdigit, answer.raw))
    return has_figure, answer.raw if has_figure else "name a figure"


def solo_flow(model: Scripted, *, agent: dict[str, Any] | None = None, **task: Any) -> type[Flow[dict[str, Any]]]:
    class Solo(Flow[dict[str, Any]]):
        @start()
        def work(self) -> str:
            return str(solo(model, agent=agent, **task).kickoff().raw)

    return Solo


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Debian's browser; its sandbox refuses root, as whom CI may run.
        browser = playwright.chromium.launch(executable_path=require("chromium", "chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, flow: type[Flow[Any]], *, width: int = 1200, expected: str = "nothing", **options: Any
) -> Generator[Page]:
    """A tab with the page. What goes wrong in it fails the test."""
    faults: list[str] = []
    with Runs() as runs, serve(web.create_app(flow, runs=runs)) as url:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        try:
            yield page
        finally:
            context.close()
    assert [each for each in faults if expected not in each] == []


def begin(page: Page, inputs: str | None = None) -> None:
    if inputs is not None:
        page.get_by_label("Inputs, as JSON").fill(inputs)
    page.get_by_role("button", name="Start").click()


def expect_text(page: Page, selector: str, text: str) -> None:
    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#state")).to_have_text(state, timeout=PATIENCE_MS)


class TestARun:
    def test_text_arrives_while_the_model_speaks(self, browser: Browser, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three", hold_after=2))
        with opened(browser, speaking(llm)) as page:
            begin(page)
            expect(page.locator(".said")).to_have_text("one two", timeout=PATIENCE_MS)
            expect_state(page, "running")
            expect_text(page, "#methods", "report: ▶ running")
            provider.release()
            expect_state(page, "completed")
            expect(page.locator(".said")).to_have_text("one two three")
            expect(page.locator("#result")).to_have_text("one two three")
            expect_text(page, "#methods", "report: ✓ finished")
            expect(page.locator('#graph [data-method="report"]')).to_have_attribute("data-is", "finished")

    def test_a_reload_in_the_middle_loses_nothing(self, browser: Browser, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three", hold_after=1))
        with opened(browser, speaking(llm)) as page:
            begin(page)
            expect_text(page, ".said", "one")
            page.reload()
            expect_text(page, ".said", "one")
            provider.release()
            expect_state(page, "completed")
            expect(page.locator(".said")).to_have_text("one two three")

    def test_a_tab_that_is_opened_late_shows_all(self, browser: Browser, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three"))
        with opened(browser, speaking(llm)) as page:
            begin(page)
            expect_state(page, "completed")
            late = page.context.new_page()
            late.goto(page.url)
            expect_state(late, "completed")
            for selector in (".said", "#result", "#methods", "#tokens", "#cost", "#time"):
                expect(late.locator(selector)).to_have_text(page.locator(selector).inner_text())

    def test_an_address_that_is_announced_twice_is_read_once(self, browser: Browser) -> None:
        """As when Start is pressed before the page has looked for a run in its address."""
        with opened(browser, solo_flow(Scripted("one two three"))) as page:
            run_id = page.request.post(f"{page.url}api/runs", data={}).json()["id"]
            page.evaluate("(id) => { location.hash = id; dispatchEvent(new Event('hashchange')); }", run_id)
            expect_state(page, "completed")
            expect(page.locator(".said")).to_have_text("one two three")

    def test_stop_closes_the_connection_of_the_provider(self, browser: Browser, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three", hold_after=1))
        with opened(browser, speaking(llm)) as page:
            begin(page)
            expect_text(page, ".said", "one")
            page.get_by_role("button", name="Stop").click()
            provider.wait_until(lambda state: state.disconnects)
            expect_state(page, "cancelled")
            expect(page.locator("#error")).to_have_text("stopped in the browser")
            expect_text(page, "#methods", "report: ■ cancelled")
            expect(page.locator(".lane .is")).to_have_text("■ cancelled")
            expect(page.get_by_role("button", name="Stop")).to_be_hidden()

    def test_an_error_is_shown(self, browser: Browser) -> None:
        with opened(browser, Trip) as page:
            begin(page, '{"topic": "storm"}')
            expect_state(page, "failed")
            expect_text(page, "#error", "no ship in <b>the west</b>")
            expect_text(page, "#methods", "report: ✗ failed")

    @pytest.mark.parametrize(
        ("inputs", "said"),
        [("{", "the inputs are not JSON"), ('{"count": "many"}', "count"), ("[1]", "not an object")],
    )
    def test_inputs_that_do_not_fit_are_refused_on_the_page(self, browser: Browser, inputs: str, said: str) -> None:
        with opened(browser, Trip, expected="the server responded with a status of 422") as page:
            begin(page, inputs)
            expect_text(page, "#refused", said)
            expect_state(page, "no run")


class TestInputs:
    @pytest.mark.parametrize("width", [1300, 400])
    def test_the_box_shows_all_lines_of_the_inputs(self, browser: Browser, width: int) -> None:
        with opened(browser, Trip, width=width) as page:
            box = page.get_by_label("Inputs, as JSON")
            hidden = "(box) => box.scrollHeight - box.clientHeight"
            assert box.evaluate(hidden) <= 0
            height = box.evaluate("(box) => box.offsetHeight")
            box.fill(json.dumps(dict.fromkeys("abcdef", 1), indent=2))
            assert box.evaluate(hidden) <= 0
            box.fill("{}")
            assert box.evaluate("(box) => box.offsetHeight") < height

    def test_the_box_of_many_inputs_leaves_room_for_the_button(self, browser: Browser) -> None:
        with opened(browser, Trip, width=400) as page:
            page.get_by_label("Inputs, as JSON").fill("\n" * 500)
            assert page.get_by_label("Inputs, as JSON").evaluate("(box) => box.offsetHeight / innerHeight") <= 0.5


class TestPeople:
    def test_a_question_is_answered(self, browser: Browser) -> None:
        with opened(browser, Asking) as page:
            begin(page)
            expect_text(page, ".question", "In whose <i>name</i>?")
            page.get_by_label("Your answer").fill("Ada")
            page.get_by_role("button", name="Answer").click()
            expect_state(page, "completed")
            expect(page.locator("#result")).to_have_text("a plan for Ada")
            expect(page.locator(".question")).to_have_count(0)

    def test_a_run_that_is_paused_can_be_stopped(self, browser: Browser) -> None:
        with Runs() as runs, serve(web.create_app(Asking, runs=runs)) as url:
            with ThreadPoolExecutor() as elsewhere:  # playwright keeps a loop in this thread, which stands still
                run = elsewhere.submit(runs.start, Asking()).result()
            with pytest.raises(RunPaused):
                run.result(PATIENCE_MS / 1000)
            page = browser.new_page()
            page.goto(f"{url}/#{run.id}")
            expect_state(page, "paused")
            page.get_by_role("button", name="Stop").click()
            expect_state(page, "cancelled")
            expect(page.locator(".question")).to_have_count(0)
            assert run.status == "cancelled"
            page.close()

    def test_a_question_that_a_resumed_run_asks_again_stands_there_once(self, browser: Browser) -> None:
        with Runs() as runs, serve(web.create_app(AskingTwo, runs=runs)) as url:
            with ThreadPoolExecutor() as elsewhere:
                run = elsewhere.submit(runs.start, AskingTwo()).result()
            with pytest.raises(RunPaused):
                run.result(PATIENCE_MS / 1000)
            page = browser.new_page()
            page.goto(f"{url}/#{run.id}")
            expect_state(page, "paused")
            for text in ("Where?", "Who?"):
                box = page.locator(".question").filter(has_text=text)
                expect(box).to_have_count(1)
                box.get_by_label("Your answer").fill(text.replace("?", "!"))
                box.get_by_role("button", name="Answer").click()
                expect(box).to_have_count(0)
            expect_state(page, "completed")
            expect(page.locator("#result")).to_have_text("Where! Who!")
            page.close()

    @pytest.mark.parametrize(
        ("name", "reason", "told"), [("Approve", "", "12 euros paid"), ("Deny", "too dear", "too dear")]
    )
    def test_an_approval_is_given_or_not(self, browser: Browser, name: str, reason: str, told: str) -> None:
        model = Scripted(calls(("pay", {"amount": 12})), "Done.")
        with opened(browser, solo_flow(model, agent={"tools": [pay]})) as page:
            begin(page)
            expect_text(page, ".question pre", '"amount": 12')
            page.get_by_label("Your answer").fill(reason)
            page.get_by_role("button", name=name).click()
            expect_state(page, "completed")
            assert told in str(model.requests[-1].messages)


def test_a_call_that_cost_nothing_leaves_the_cost_known(browser: Browser) -> None:
    class Twice(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            with suppress(ConnectionError):
                solo(Scripted(ConnectionError("refused"))).kickoff()
            return str(solo(Scripted("calm")).kickoff())

    with opened(browser, Twice) as page:
        begin(page)
        expect_state(page, "completed")
        expect(page.locator("#cost")).to_have_text("$0.5000")


class TestText:
    def test_what_was_retracted_is_struck_out(self, browser: Browser) -> None:
        with opened(browser, solo_flow(Scripted("Plenty of soup", "9 litres"), guardrail=name_a_figure)) as page:
            begin(page)
            expect_state(page, "completed")
            expect(page.locator(".said .retracted")).to_have_text("Plenty of soup")
            expect(page.locator(".said .retracted")).to_have_css("text-decoration-line", "line-through")
            expect(page.locator(".said span:not(.retracted)")).to_have_text("9 litres")

    def test_the_text_of_models_is_not_markup(self, browser: Browser) -> None:
        model = Scripted(calls(("depth", {"place": HOSTILE})), HOSTILE)
        with opened(browser, solo_flow(model, agent={"role": HOSTILE, "tools": [depth]}, name=HOSTILE)) as page:
            begin(page)
            expect_state(page, "completed")
            expect(page.locator(".said")).to_have_text(HOSTILE)
            expect_text(page, ".tool", f"11 metres at {HOSTILE}")
            expect(page.locator("#result")).to_have_text(HOSTILE)
            assert page.locator("main :is(b, i, script, img)").count() == 0
            assert page.title() == "Solo"

    def test_tools_stand_where_they_were_called(self, browser: Browser) -> None:
        unknown, known = (calls((name, {"place": "the bar"})) for name in ("nothing", "depth"))
        model = Scripted(["Let me see. ", *unknown], ["Once more. ", *known], "We can pass.")
        with opened(browser, solo_flow(model, agent={"tools": [depth]})) as page:
            begin(page)
            expect_state(page, "completed")
            expect(page.locator(".lane")).to_have_count(1)
            shown = page.locator(".lane > *:not(h3)").evaluate_all("all => all.map(each => each.innerText.trim())")
            assert shown == ["Let me see.", "✗ nothing", "Once more.", "✓ depth", "We can pass."]

    def test_each_word_is_shown_as_it_comes(
        self, browser: Browser, record_testsuite_property: Callable[[str, object], None]
    ) -> None:
        """The time to the page is in the report: it depends on the machine, so it is not a bound here."""
        gates = [Gate() for _ in range(20)]
        pieces: list[Any] = [each for number, gate in enumerate(gates) for each in (f"{number} ", gate)]
        with opened(browser, solo_flow(Scripted(pieces))) as page:
            begin(page)
            page.wait_for_selector(".said")
            page.evaluate(
                """() => { window.shown = []; new MutationObserver(() => shown.push(Date.now()))
                .observe(document.querySelector(".said"), { childList: true, subtree: true, characterData: true }); }"""
            )
            opened_at: list[float] = []
            for number, gate in enumerate(gates):
                said = "".join(f"{each} " for each in range(number + 1)).strip()
                expect(page.locator(".said")).to_have_text(said, timeout=PATIENCE_MS)
                opened_at.append(time.time() * 1000)
                gate.open()
            expect_state(page, "completed")
            delays = [at - since for at, since in zip(page.evaluate("shown"), opened_at, strict=False)]
            record_testsuite_property("ms from the model to the page", sorted(delays)[len(delays) // 2])


class TestForEveryone:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [360, 1200])
    def test_nothing_is_wider_than_the_screen_and_all_can_be_read(
        self, browser: Browser, width: int, scheme: Any
    ) -> None:
        with opened(browser, Voyage, width=width, color_scheme=scheme) as page:
            begin(page)
            expect_state(page, "completed")
            page.locator(".tool summary").first.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shown = [
                "h1",
                "h2",
                "#state",
                "dt",
                "dd",
                "label",
                "button",
                "#runs span",
                "#methods li",
                ".lane h3",
                "small",
            ]
            contrasts = page.evaluate(CONTRAST, [*shown, ".is", ".said", ".tool summary", ".tool pre", "#result"])
            assert len(contrasts) > 20
            assert [each for each in contrasts if each[1] < 4.5] == []

    def test_one_long_word_does_not_widen_the_page(self, browser: Browser) -> None:
        word = "x" * 500
        with opened(browser, solo_flow(Scripted(word), agent={"role": word}, name=word), width=360) as page:
            begin(page)
            expect_state(page, "completed")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360

    def test_the_keyboard_alone_starts_and_stops_a_run(self, browser: Browser, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two", hold_after=1))
        with opened(browser, speaking(llm)) as page:
            press_until_focused(page, "Start")
            page.keyboard.press("Enter")
            expect_text(page, ".said", "one")
            press_until_focused(page, "Stop")
            page.keyboard.press("Enter")
            expect_state(page, "cancelled")

    def test_all_that_can_be_used_has_a_name(self, browser: Browser) -> None:
        with opened(browser, Asking) as page:
            begin(page)
            expect_text(page, ".question", "In whose")
            tree = page.locator("body").aria_snapshot()
            for role in ("button", "textbox", "link", "region", "status"):
                assert re.search(rf'- {role} "', tree) or role == "status", tree
            assert not re.search(r"- (button|textbox|link)$", tree, re.MULTILINE), tree


def press_until_focused(page: Page, name: str) -> None:
    """Press Tab until the button of that name has the focus."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == name:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"{name} cannot be reached by the keyboard")
