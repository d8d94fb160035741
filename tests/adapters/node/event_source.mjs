// Reads a stream of server-sent events with the browser's own client, until its "end", and prints what came.
const [url, ...names] = process.argv.slice(2);
const source = new EventSource(url);
const awake = setInterval(() => {}, 1000); // its timer for the next try keeps no process alive
const show = (event) => console.log(JSON.stringify({ name: event.type, id: event.lastEventId, data: event.data }));
for (const name of names) source.addEventListener(name, show);
source.addEventListener("end", (event) => {
  show(event);
  source.close();
  clearInterval(awake);
});
source.addEventListener("error", () => {
  console.log(JSON.stringify({ name: "error", closed: source.readyState === EventSource.CLOSED }));
});
