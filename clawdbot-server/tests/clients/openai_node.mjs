// OpenAI's client for JavaScript: https://www.npmjs.com/package/openai
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const messages = [{ role: "user", content: "Tell me a story." }];
const exercised = [];
const model = (await client.models.list()).data[0].id;
await assert.rejects(client.models.retrieve("none"), (error) => error.status === 404 && error.code === "model_not_found");
exercised.push("models");

const asked = { model, messages, max_tokens: 12, temperature: 0 };
const whole = await client.chat.completions.create(asked);
let text = "";
let usage;
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);
exercised.push("chat, streams, usage");

const tools = [{ type: "function", function: { name: "look", strict: true, parameters: {
  type: "object", properties: { days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["days"], additionalProperties: false } } }];
const stream = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", max_tokens: 100, temperature: 0 });
const call = (await stream.finalChatCompletion()).choices[0].message.tool_calls[0];
const { days } = JSON.parse(call.function.arguments);
assert.ok(call.id && call.function.name === "look" && days >= 1 && days <= 9);
exercised.push("tool calls, streamed");

const schema = { type: "object", properties: { sunny: { type: "boolean" } }, required: ["sunny"], additionalProperties: false };
const json = await client.chat.completions.create({
  model, messages, max_tokens: 60, response_format: { type: "json_schema", json_schema: { name: "weather", schema, strict: true } } });
assert.equal(typeof JSON.parse(json.choices[0].message.content).sunny, "boolean");
exercised.push("structured output");

const told = { model, input: "Tell me a story.", max_output_tokens: 12, temperature: 0 };
const response = await client.responses.create(told);
const telling = client.responses.stream(told);
let deltas = "";
telling.on("response.output_text.delta", (event) => { deltas += event.delta; });
assert.equal((await telling.finalResponse()).output_text, response.output_text);
assert.equal(deltas, response.output_text);
exercised.push("responses, streams");

const texts = await client.completions.create({ model, prompt: ["Once", "The sea"], max_tokens: 4 });
assert.equal(texts.choices.length, 2);
exercised.push("text completions");

const vectors = await client.embeddings.create({ model, input: ["a", "b"], pooling: "mean" });
assert.ok(vectors.data.length === 2 && vectors.data[0].embedding.every(Number.isFinite));
exercised.push("embeddings");

await assert.rejects(client.chat.completions.create({ ...asked, max_tokens: 1e6 }), (error) => error.code === "context_length_exceeded");
exercised.push("errors");

const controller = new AbortController();
const endless = await client.chat.completions.create({ ...asked, max_tokens: 200, ignore_eos: true, stream: true }, { signal: controller.signal });
for await (const _ of endless) { controller.abort(); break; }
exercised.push("closing a stream");
console.log(exercised.join("; "));
