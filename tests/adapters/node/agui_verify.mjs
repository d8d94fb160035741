// Shows each recorded stream of events (one JSON array a line) to AG-UI's own verifier, as its clients do.
import { createInterface } from "node:readline";
import { enforceEvents, verifyEvents } from "@ag-ui/client";
import { from, lastValueFrom, toArray } from "rxjs";

console.warn = (warning) => console.log(JSON.stringify({ warning: String(warning) }));

for await (const line of createInterface({ input: process.stdin })) {
  const events = JSON.parse(line);
  try {
    const passed = await lastValueFrom(from(events).pipe(enforceEvents(), verifyEvents(false), toArray()));
    console.log(JSON.stringify({ passed: passed.length }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message) }));
  }
}
