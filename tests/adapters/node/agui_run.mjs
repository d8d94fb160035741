// Runs an agent behind an URL with AG-UI's HTTP client, and prints what it then knows.
import { HttpAgent } from "@ag-ui/client";

const [url, text] = process.argv.slice(2);
const agent = new HttpAgent({ url, threadId: "thread" });
agent.messages = [{ id: "asked", role: "user", content: text }];
const seen = { outcome: null, error: null, custom: [] };
try {
  const done = await agent.runAgent(
    { runId: "run" },
    {
      onRunFinishedEvent: ({ event }) => void (seen.outcome = event.outcome),
      onRunErrorEvent: ({ event }) => void (seen.error = event.message),
      onCustomEvent: ({ event }) => void seen.custom.push(event.name),
    },
  );
  seen.result = done.result;
} catch (error) {
  seen.thrown = String(error.message);
}
console.log(JSON.stringify({ ...seen, messages: agent.messages, state: agent.state }));
