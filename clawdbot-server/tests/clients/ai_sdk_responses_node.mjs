// Vercel's AI SDK with OpenAI's Responses: https://www.npmjs.com/package/@ai-sdk/openai
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";

const provider = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const { data } = await (await fetch(`${process.argv[2]}/v1/models`)).json();
const model = provider.responses(data[0].id);
const prompt = "Tell me a story.";
const exercised = [];

const whole = await generateText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
const streamed = streamText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
let text = "";
for await (const part of streamed.textStream) text += part;
assert.equal(text, whole.text);
assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
exercised.push("responses, streams, usage");

const schema = jsonSchema({ type: "object", properties: { days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["days"], additionalProperties: false });
const tools = { look: tool({ description: "Looks.", inputSchema: schema }) };
const called = await generateText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 100, temperature: 0 });
assert.ok(called.toolCalls[0].toolName === "look" && called.toolCalls[0].input.days >= 1);
const calling = streamText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 100, temperature: 0 });
assert.deepEqual((await calling.toolCalls)[0].input, called.toolCalls[0].input);
exercised.push("tool calls, streamed");
console.log(exercised.join("; "));
