// The page of a flow: it starts runs, follows one, answers its questions and stops it.
//
// A run is a list of events (docs/events.schema.json). The page reads them from the run's log by server-sent events,
// from the first one, so a reload and a late second tab show all of it. Text of models is only ever set as text.

const $ = (id) => document.getElementById(id);
const STATES = { running: "▶ running", finished: "✓ finished", failed: "✗ failed", cancelled: "■ cancelled", paused: "‖ paused" };
const ENDS = new Set(["completed", "failed", "cancelled", "lost", "paused"]);

let flows = {};
let kinds = [];
let view = null;
let wanted = null;  // the run that the address names

// --- Talking to the server ------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(`api/${path}`, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `${response.status} ${response.statusText}`);
  return answer;
}

function showRefusal(error) {
  $("refused").textContent = error ? error.message : "";
  $("refused").hidden = !error;
}

// --- Small helpers for elements -------------------------------------------------------------------------------------

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function show(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

// --- One run --------------------------------------------------------------------------------------------------------

class RunView {
  constructor(id, flow) {
    this.id = id;
    this.flow = flow;
    this.spans = new Map();    // span_id → {kind, name, parent}
    this.lanes = new Map();    // speaker → lane
    this.segments = [];        // pieces of text with the labels that a retraction names
    this.tools = new Map();    // span_id → element
    this.questions = new Map();
    this.usage = { total: 0, isEstimated: false, cost: 0, isKnown: true, calls: 0 };
    this.startedAt = null;
    this.lastAt = null;
    this.isOver = false;
    this.lastSeq = -1;
    for (const part of ["lanes", "questions", "methods"]) $(part).replaceChildren();
    $("error").hidden = true;
    $("outcome").hidden = true;
    $("result").textContent = "";
    $("tokens").textContent = $("cost").textContent = $("time").textContent = "–";
    this.drawGraph();
    this.connect();
    this.clock = setInterval(() => this.showTime(), 500);
  }

  connect() {
    this.isOver = false;
    this.setState("running");
    this.source = new EventSource(`api/runs/${encodeURIComponent(this.id)}/events?after=${this.lastSeq}`);
    for (const kind of kinds) this.source.addEventListener(kind, (message) => this.read(message));
    this.source.addEventListener("end", () => this.end());
  }

  close() {
    this.source.close();
    clearInterval(this.clock);
  }

  read(message) {
    const { kind, data } = JSON.parse(message.data);
    if (data.seq <= this.lastSeq) return;  // a reconnection may repeat what has been shown
    this.lastSeq = data.seq;
    this.lastAt = data.at;
    if (data.replayed && /^(StreamChunk|LLM|Tool)/.test(kind)) return;  // as is_repeated in rxflow/types/events.py
    if (this.startedAt === null) {
      this.startedAt = data.at;
      this.showTime();
    }
    const handle = this[`on${kind}`] ?? (kind.endsWith("Started") ? this.open : this.shut);
    handle.call(this, data, kind);
  }

  // Spans

  open(event, kind) {
    const origin = event.origin;
    const name = origin.namespace?.at(-1) ?? kind;
    this.spans.set(origin.span_id, { kind: kind.replace(/Started$/, ""), name, parent: origin.parent_span_id });
    if (kind === "MethodStarted" && this.isOurs(origin)) this.setMethod(origin.flow_method, "running");
    if (kind === "AgentStarted") this.setLane(this.laneOf(origin), "running");
  }

  shut(event, kind) {
    const state = /(Finished|Failed|Cancelled)$/.exec(kind)?.[1].toLowerCase();
    if (!state || !event.origin) return;
    const origin = event.origin;
    if (kind.startsWith("Method") && this.isOurs(origin)) this.setMethod(origin.flow_method, state);
    if (kind.startsWith("Agent")) this.setLane(this.laneOf(origin), state);
    if (kind.startsWith("LLM")) this.addUsage(event);
    if (kind.startsWith("Flow") && state === "failed" && !this.spans.get(origin.span_id)?.parent) this.showError(event.error);
  }

  isOurs(origin) {
    // Methods of a nested flow have the names of another graph.
    return (origin.namespace ?? []).length <= 2;
  }

  // Text

  laneOf(labels) {
    const speaker = [labels.flow_method, labels.crew_name, labels.task_name || labels.task_id, labels.agent_role];
    const key = JSON.stringify([...speaker, labels.task_id]);
    let lane = this.lanes.get(key);
    if (!lane) {
      const who = labels.agent_role || labels.flow_method || "model";
      const where = [labels.flow_method, labels.crew_name, labels.task_name].filter((each) => each && each !== who);
      const is = make("span", { class: "is" });
      const box = make("article", { class: "lane", "aria-label": who },
        make("h3", {}, who, make("small", {}, [...new Set(where)].join(" › ")), is));
      lane = { box, is, said: null, call: null, segment: null };
      this.lanes.set(key, lane);
      $("lanes").append(box);
    }
    return lane;
  }

  setLane(lane, state) {
    lane.state = state;
    lane.is.textContent = STATES[state];
    lane.is.dataset.state = state === "finished" ? "completed" : state;
  }

  say(labels, text, thought) {
    const lane = this.laneOf(labels);
    const call = JSON.stringify([labels.llm_call_id, labels.span_id, labels.attempt, thought]);
    if (!lane.said) {
      lane.said = make("div", { class: "said" });
      lane.box.append(lane.said);
    }
    if (lane.call !== call) {
      if (lane.segment) lane.said.append("\n");
      lane.call = call;
      const element = make("span", thought ? { class: "thought" } : {});
      lane.segment = { element, labels };
      this.segments.push(lane.segment);
      lane.said.append(element);
    }
    lane.segment.element.append(text);
  }

  onStreamChunk(chunk) {
    if (chunk.chunk_type === "text") this.say(chunk, chunk.content, false);
  }

  onReasoningChunk(event) {
    this.say(event.origin, event.content, true);
  }

  onRetracted(event) {
    // As Retracted.covers in rxflow/types/events.py.
    const within = event.origin.namespace ?? [];
    const call = event.origin.llm_call_id;
    const spans = event.span_ids ?? [];
    const calls = event.llm_call_ids ?? [];
    for (const { element, labels } of this.segments) {
      const isCovered = event.attempts.includes(labels.attempt ?? 0)
        && within.every((name, at) => (labels.namespace ?? [])[at] === name)
        && (!call || labels.llm_call_id === call)
        && (!spans.length || spans.includes(labels.span_id))
        && (!calls.length || !labels.llm_call_id || calls.includes(labels.llm_call_id));
      if (isCovered) element.classList.add("retracted");
    }
  }

  // Tools

  onToolStarted(event, kind) {
    this.open(event, kind);
    const output = make("pre", {}, "…");
    const box = make("details", { class: "tool" },
      make("summary", {}, `… ${event.tool_name}`), make("pre", {}, show(event.arguments)), output);
    this.tools.set(event.origin.span_id, { box, output });
    const lane = this.laneOf(event.origin);
    lane.box.append(box);
    lane.said = lane.call = lane.segment = null;  // what is said next stands below the tool
  }

  endTool(event, mark, text) {
    const tool = this.tools.get(event.origin.span_id);
    if (!tool) return;
    tool.box.firstChild.textContent = `${mark} ${event.tool_name}`;
    tool.output.textContent = text;
  }

  onToolFinished(event) { this.endTool(event, "✓", show(event.result)); }
  onToolFailed(event) { this.endTool(event, "✗", describe(event.error)); }
  onToolCancelled(event) { this.endTool(event, "■", event.reason); }

  onToolProgress(event) {
    const tool = this.tools.get(event.origin.span_id);
    const of = event.total == null ? "" : ` of ${event.total}`;
    if (tool) tool.output.textContent = `${event.progress}${of} ${event.message}`;
  }

  // People

  onInputRequested(event) {
    const input = make("input", { "aria-label": "Your answer" });
    const answers = make("form", { class: "answers" });
    const answer = (value) => ask(`runs/${encodeURIComponent(this.id)}/answers/${encodeURIComponent(event.request_id)}`,
      { value }).then(() => { if (this.isOver) this.connect(); })  // it had paused, and goes on
      .catch((error) => { note.textContent = error.message; note.hidden = false; });
    const button = (text, value, style) => {
      const element = make("button", { type: "button", class: style }, text);
      element.addEventListener("click", () => answer(value));
      answers.append(element);
    };
    if (event.kind === "approval") {
      button("Approve", { approved: true }, "approve");
      input.placeholder = "a reason, if not";
      answers.append(input);
      const deny = make("button", { type: "submit", class: "deny" }, "Deny");
      answers.append(deny);
      answers.addEventListener("submit", (submitted) => {
        submitted.preventDefault();
        answer({ approved: false, reason: input.value });
      });
    } else {
      for (const option of event.options ?? []) button(option, option, "option");
      answers.append(input, make("button", { type: "submit" }, "Answer"));
      answers.addEventListener("submit", (submitted) => { submitted.preventDefault(); answer(input.value); });
    }
    const note = make("p", { role: "alert", hidden: "" });
    const box = make("section", { class: "question", "aria-label": "Question" }, make("p", {}, event.message));
    if (Object.keys(event.arguments ?? {}).length) box.append(make("pre", {}, show(event.arguments)));
    box.append(answers, note);
    this.questions.get(event.request_id)?.remove();  // a resumed run asks again what is still open
    this.questions.set(event.request_id, box);
    $("questions").append(box);
  }

  onInputReceived(event) {
    this.questions.get(event.request_id)?.remove();
    this.questions.delete(event.request_id);
  }

  // Figures

  addUsage(event) {
    const usage = event.usage ?? {};
    this.usage.calls += 1;
    this.usage.total += usage.total_tokens ?? 0;
    this.usage.isEstimated ||= Boolean(usage.is_estimated);
    const isReported = [usage.total_tokens, usage.prompt_tokens, usage.completion_tokens].some((each) => each != null);
    if (event.cost != null) this.usage.cost += event.cost;
    else if (isReported) this.usage.isKnown = false;  // a call that failed before its answer is not billed
    const about = this.usage.isEstimated ? "≈ " : "";
    $("tokens").textContent = about + this.usage.total.toLocaleString();
    $("cost").textContent = this.usage.isKnown ? `${about}$${this.usage.cost.toFixed(4)}` : "not known";
  }

  showTime() {
    if (this.startedAt === null) return;
    const end = this.isOver ? this.lastAt : Date.now() / 1000;
    $("time").textContent = `${Math.max(0, end - this.startedAt).toFixed(1)} s`;
  }

  // The graph

  async drawGraph() {
    $("graph").replaceChildren();
    if (!(this.flow in flows)) return;  // a run of the store that another program began
    const answer = await ask(`flows/${encodeURIComponent(this.flow)}`);
    if (view !== this) return;
    const svg = new DOMParser().parseFromString(answer.svg, "image/svg+xml").documentElement;
    $("graph").replaceChildren(document.importNode(svg, true));
    for (const name of answer.methods) {
      const is = make("span", {}, "–");
      $("methods").append(make("li", { "data-method": name }, `${name}: `, is));
    }
    for (const [name, state] of this.methods ?? []) this.setMethod(name, state);
  }

  setMethod(name, state) {
    (this.methods ??= new Map()).set(name, state);
    const node = document.querySelector(`#graph [data-method="${CSS.escape(name)}"]`);
    if (node) node.dataset.is = state;
    const item = document.querySelector(`#methods [data-method="${CSS.escape(name)}"] span`);
    if (item) item.textContent = STATES[state];
  }

  // The whole

  setState(state) {
    $("state").dataset.state = state;
    $("state").textContent = state;
    $("stop").hidden = ENDS.has(state) && state !== "paused";
  }

  closeAll(state) {
    // A run that is stopped from outside says nothing about what it was doing.
    for (const [name, is] of this.methods ?? []) if (is === "running") this.setMethod(name, state);
    for (const lane of this.lanes.values()) if (lane.state === "running") this.setLane(lane, state);
  }

  showError(error) {
    $("error").dataset.is = $("state").dataset.state;
    $("error").textContent = describe(error);
    $("error").hidden = false;
  }

  async end() {
    this.isOver = true;
    this.source.close();
    const { status, error, result } = await ask(`runs/${encodeURIComponent(this.id)}`);
    if (view !== this) return;
    this.showTime();
    this.setState(status);
    this.closeAll(status === "paused" ? "paused" : "cancelled");
    if (error) this.showError(error);
    if (status !== "paused") $("questions").replaceChildren();
    if (result !== undefined && result !== null) {
      $("result").textContent = show(result);
      $("outcome").hidden = false;
    }
    listRuns();
  }
}

function describe(error) {
  if (!error) return "";
  return typeof error === "string" ? error : `${error.type ?? "Error"}: ${error.message ?? ""}`;
}

// --- The list of runs, and the address ------------------------------------------------------------------------------

async function listRuns() {
  const { runs } = await ask("runs");
  $("runs").replaceChildren(...runs.map((run) => {
    const link = make("a", { href: `#${run.id}`, title: run.id }, make("span", {}, `${run.flow} ${run.id.slice(0, 8)}`),
      make("span", { "data-state": run.status }, run.status));
    if (view?.id === run.id) link.setAttribute("aria-current", "true");
    return make("li", {}, link);
  }));
}

async function follow() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id || wanted === id) return;
  wanted = id;  // before the answer comes: the address may change again until then
  view?.close();
  view = null;
  try {
    const run = await ask(`runs/${encodeURIComponent(id)}`);
    if (wanted !== id) return;
    view = new RunView(id, run.flow);
    await listRuns();
  } catch (error) {
    wanted = null;
    $("error").dataset.is = "";
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

$("start").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  showRefusal(null);
  try {
    const text = $("inputs").value.trim();
    const { id } = await ask("runs", { flow: $("flow").value, inputs: text ? JSON.parse(text) : {} });
    location.hash = id;
  } catch (error) {
    showRefusal(error instanceof SyntaxError ? new Error(`the inputs are not JSON: ${error.message}`) : error);
  }
});

$("stop").addEventListener("click", async () => {
  $("stop").disabled = true;
  try {
    await ask(`runs/${encodeURIComponent(view.id)}/cancel`, { reason: "stopped in the browser" });
    if (view.isOver) await view.end();  // it was paused: no event says that it is cancelled
  } finally {
    $("stop").disabled = false;
  }
});

addEventListener("hashchange", follow);

const answer = await ask("flows");
({ flows, kinds } = answer);
const names = Object.keys(flows);
$("flow").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
$("choice").hidden = names.length < 2;
$("title").textContent = document.title = names.length === 1 ? names[0] : "rxflow";
const fit = () => {
  const box = $("inputs");
  box.style.height = "auto";  // otherwise it would never become smaller
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
};
const fill = () => {
  $("inputs").value = JSON.stringify(flows[$("flow").value].inputs, null, 2);
  fit();
};
$("flow").addEventListener("change", fill);
$("inputs").addEventListener("input", fit);
addEventListener("resize", fit);
if ($("inputs").value) fit();  // a reload keeps what was typed
else fill();
$("inputs").disabled = false;  // not before: what is typed would be mixed with what is filled in
await listRuns();
await follow();
