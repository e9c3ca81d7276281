"""LangChain's chat model over OpenAI's interface: https://pypi.org/project/langchain-openai/"""
import sys

from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

BASE = f"{sys.argv[1]}/v1"
OPTIONS = {"model": "builtin", "base_url": BASE, "api_key": "none", "temperature": 0}


class Look(BaseModel):
    """Looks at the weather."""

    days: int = Field(ge=1, le=9)


chat = ChatOpenAI(**OPTIONS, max_tokens=60)
whole = chat.invoke("Tell me a story.")
assert "".join(chunk.content for chunk in chat.stream("Tell me a story.")) == whole.content
assert whole.usage_metadata["output_tokens"] > 0
calls = chat.bind_tools([Look], tool_choice="required").invoke("Tell me a story.").tool_calls
assert calls[0]["name"] == "Look" and 1 <= calls[0]["args"]["days"] <= 9
parsed = chat.with_structured_output(Look, method="json_schema").invoke("Tell me a story.")
assert isinstance(parsed, Look)
assert OpenAI(**OPTIONS, max_tokens=8).invoke("Once")
print("chat; streams, usage; tool calls; structured output; text completions")
