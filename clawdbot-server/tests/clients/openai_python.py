"""OpenAI's client for Python: https://pypi.org/project/openai/"""
import asyncio
import json
import sys

import openai
from pydantic import BaseModel, Field

BASE = sys.argv[1]
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none")
MODEL = client.models.list().data[0].id
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
TOOL = {"type": "function", "function": {"name": "look", "strict": True, "parameters": {
    "type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["days"],
    "additionalProperties": False}}}
EXERCISED = []


def exercise(what):
    def note(function):
        result = function()
        if asyncio.iscoroutine(result):
            asyncio.run(result)
        EXERCISED.append(what)
    return note


@exercise("models")
def models():
    assert client.models.retrieve(MODEL).id == MODEL
    try:
        client.models.retrieve("none")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("a model that is not there")


@exercise("chat")
def chat():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8, temperature=0, n=2, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert 0 < answer.usage.completion_tokens <= 16
    assert answer.choices[0].message.content and answer.choices[0].finish_reason in ("length", "stop")


@exercise("chat streams, usage")
def stream():
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=12, temperature=0)
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=12, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens and not chunks[-1].choices
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, max_tokens=12, temperature=0) as events:
        assert "".join(event.delta for event in events if event.type == "content.delta") == text


@exercise("log-probabilities")
def logprobs():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=3)
    for entry in answer.choices[0].logprobs.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3 and entry.token is not None


@exercise("tool calls, streamed")
def tools():
    asked = {"model": MODEL, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required", "max_tokens": 100}
    call = client.chat.completions.create(**asked, temperature=0).choices[0].message.tool_calls[0]
    assert call.function.name == "look" and 1 <= json.loads(call.function.arguments)["days"] <= 9
    with client.chat.completions.stream(**asked, temperature=0) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds, kinds
    assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    assert final.choices[0].finish_reason == "tool_calls"
    answered = [*MESSAGES, {"role": "assistant", "tool_calls": [call.model_dump()]},
                {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(model=MODEL, messages=answered, tools=[TOOL], max_tokens=4).choices


@exercise("structured output")
def parsed():
    class Weather(BaseModel):
        sunny: bool
        days: int = Field(ge=1, le=9)

    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=100)
    assert isinstance(answer.choices[0].message.parsed, Weather)


@exercise("text completions, echo")
def completions():
    answer = client.completions.create(model=MODEL, prompt=["Once", "The sea"], max_tokens=4, n=2)
    assert len(answer.choices) == 4
    scored = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=0, echo=True, logprobs=1)
    assert scored.choices[0].text == "Once upon a time"
    assert scored.choices[0].logprobs.token_logprobs[0] is None
    streamed = client.completions.create(model=MODEL, prompt="Once", max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed)


@exercise("responses, streams, tools, parsing")
def responses():
    asked = {"model": MODEL, "input": "Tell me a story.", "max_output_tokens": 12, "temperature": 0}
    whole = client.responses.create(**asked)
    assert whole.output_text and whole.usage.output_tokens <= 12
    with client.responses.stream(**asked) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events.get_final_response().output_text == text == whole.output_text
    following = client.responses.create(**{**asked, "input": "Go on."}, previous_response_id=whole.id)
    assert following.usage.input_tokens > whole.usage.input_tokens
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    assert client.responses.input_items.list(whole.id).data[0].content[0].text == asked["input"]
    client.responses.delete(whole.id)
    function = {"type": "function", **TOOL["function"]}
    called = client.responses.create(**{**asked, "max_output_tokens": 100}, tools=[function], tool_choice="required")
    call = called.output[0]
    assert call.type == "function_call" and 1 <= json.loads(call.arguments)["days"] <= 9
    answered = client.responses.create(
        model=MODEL, previous_response_id=called.id, tools=[function], tool_choice="none", max_output_tokens=4,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}])
    assert answered.output

    class Weather(BaseModel):
        sunny: bool

    parsed = client.responses.parse(**{**asked, "max_output_tokens": 100}, text_format=Weather)
    assert isinstance(parsed.output_parsed, Weather)


@exercise("embeddings")
def embeddings():
    # The client asks for base64 unless it is told otherwise.
    pooling = {"pooling": "mean"}
    answer = client.embeddings.create(model=MODEL, input=["a", "b"], extra_body=pooling)
    plain = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float", extra_body=pooling)
    for one, other in zip(answer.data, plain.data):
        assert all(abs(a - b) < 1e-6 for a, b in zip(one.embedding, other.embedding))


@exercise("errors")
def errors():
    try:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=10**6)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error
    try:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1)
    except openai.BadRequestError as error:
        assert error.param == "temperature" and "temperature" in error.message, error


@exercise("closing a stream")
def closing():
    chunks = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=200, stream=True,
                                            extra_body={"ignore_eos": True})
    next(iter(chunks))
    chunks.close()


@exercise("many at once, async")
async def many():
    async with openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key="none") as many:
        asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
        answers = await asyncio.gather(*(many.chat.completions.create(**asked) for _ in range(32)))
    assert len({answer.choices[0].message.content for answer in answers}) == 1


print("; ".join(EXERCISED))
