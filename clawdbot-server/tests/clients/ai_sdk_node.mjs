// Vercel's AI SDK: https://www.npmjs.com/package/@ai-sdk/openai-compatible
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, streamText, tool } from "ai";

const provider = createOpenAICompatible({ name: "clawdbot", baseURL: `${process.argv[2]}/v1`, includeUsage: true });
const { data } = await (await fetch(`${process.argv[2]}/v1/models`)).json();
const model = provider(data[0].id);
const prompt = "Tell me a story.";
const exercised = [];

const whole = await generateText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
const streamed = streamText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
let text = "";
for await (const part of streamed.textStream) text += part;
assert.equal(text, whole.text);
assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
exercised.push("text, streams, usage");

const schema = jsonSchema({ type: "object", properties: { days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["days"], additionalProperties: false });
const tools = { look: tool({ description: "Looks.", inputSchema: schema }) };
const called = await generateText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 100, temperature: 0 });
assert.ok(called.toolCalls[0].toolName === "look" && called.toolCalls[0].input.days >= 1);
const calling = streamText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 100, temperature: 0 });
assert.deepEqual((await calling.toolCalls)[0].input, called.toolCalls[0].input);
exercised.push("tool calls, streamed");

await assert.rejects(generateText({ model, prompt, maxOutputTokens: 1e6, maxRetries: 0 }), (error) => /context/.test(error.message));
exercised.push("errors");
console.log(exercised.join("; "));
