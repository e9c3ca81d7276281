// Anthropic's client for JavaScript: https://www.npmjs.com/package/@anthropic-ai/sdk
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const exercised = [];
const model = (await client.models.list()).data[0].id;
exercised.push("models");

const asked = { model, messages: [{ role: "user", content: "Tell me a story." }], max_tokens: 12, temperature: 0 };
const whole = await client.messages.create(asked);
const final = await client.messages.stream(asked).finalMessage();
assert.equal(final.content[0].text, whole.content[0].text);
assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
exercised.push("messages, streams, usage");

const tools = [{ name: "look", input_schema: {
  type: "object", properties: { days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["days"], additionalProperties: false } }];
const calling = { ...asked, max_tokens: 100, tools, tool_choice: { type: "tool", name: "look" } };
const called = await client.messages.create(calling);
assert.ok(called.stop_reason === "tool_use" && called.content[0].input.days >= 1);
assert.deepEqual((await client.messages.stream(calling).finalMessage()).content[0].input, called.content[0].input);
exercised.push("tool calls, streamed");

assert.ok((await client.messages.countTokens({ model, messages: asked.messages })).input_tokens > 0);
exercised.push("counting tokens");

await assert.rejects(client.messages.create({ ...asked, max_tokens: 1e4 }), (error) => error.status === 400 && /context/.test(error.message));
exercised.push("errors");
console.log(exercised.join("; "));
