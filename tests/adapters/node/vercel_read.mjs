// Reads the UI message stream behind an URL with one version of the AI SDK, and prints the last message.
const [version, url] = process.argv.slice(2);
const { DefaultChatTransport, readUIMessageStream } = await import(version);

const transport = new DefaultChatTransport({ api: url });
const stream = await transport.sendMessages({
  chatId: "chat",
  trigger: "submit-message",
  messages: [{ id: "asked", role: "user", parts: [{ type: "text", text: "Is it low tide?" }] }],
});
const errors = [];
let last = null;
let count = 0;
for await (const message of readUIMessageStream({ stream, onError: (error) => errors.push(String(error.message)) })) {
  last = message;
  count += 1;
}
console.log(JSON.stringify({ count, errors, message: last }));
