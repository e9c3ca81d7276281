"""Anthropic's client for Python: https://pypi.org/project/anthropic/"""
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = client.models.list().data[0].id
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 12,
         "extra_body": {"temperature": 0}}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {
    "type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["days"],
    "additionalProperties": False}}
EXERCISED = ["models"]

whole = client.messages.create(**ASKED)
assert whole.content[0].text and whole.stop_reason in ("max_tokens", "end_turn")
assert whole.usage.input_tokens + whole.usage.cache_read_input_tokens > 0
with client.messages.stream(**ASKED) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == final.content[0].text == whole.content[0].text
assert final.usage.output_tokens == whole.usage.output_tokens and final.stop_reason == whole.stop_reason
EXERCISED.append("messages, streams, usage")

asked = {**ASKED, "max_tokens": 100, "tools": [TOOL], "tool_choice": {"type": "any"}}
called = client.messages.create(**asked)
call = called.content[0]
assert called.stop_reason == "tool_use" and call.name == "look" and 1 <= call.input["days"] <= 9
with client.messages.stream(**asked) as stream:
    assert stream.get_final_message().content[0].input == call.input
answered = [*ASKED["messages"], {"role": "assistant", "content": called.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}]
assert client.messages.create(**{**ASKED, "messages": answered, "tools": [TOOL]}).content
EXERCISED.append("tool calls, streamed")

counted = client.messages.count_tokens(model=MODEL, messages=ASKED["messages"]).input_tokens
assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
EXERCISED.append("counting tokens")

for wrong, error in [({"max_tokens": 10**4}, anthropic.BadRequestError), ({"model": "none"}, anthropic.NotFoundError)]:
    try:
        client.messages.create(**{**ASKED, **wrong})
    except error as found:
        assert found.body["type"] == "error" and found.request_id, found
    else:
        raise AssertionError(wrong)
EXERCISED.append("errors")

with client.messages.stream(**{**ASKED, "max_tokens": 200, "extra_body": {"ignore_eos": True}}) as stream:
    next(iter(stream))
EXERCISED.append("closing a stream")
print("; ".join(EXERCISED))
