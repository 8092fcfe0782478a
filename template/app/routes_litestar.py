"""Your endpoints. This file is yours: an update of the template never touches it.

A model is reached through `chat` alone, so every endpoint here has all five guardrails. An
endpoint without a model call is counted against the caller's rate limit by `chat.admit(caller)`.
"""

from litestar import Router, post
from litestar.params import JSONBody
from pydantic import BaseModel, Field

from .api.litestar import Chat, CurrentCaller
from .messages import ChatRequest, Message, Text


class Article(BaseModel):
    text: str = Field(min_length=1, description="What to summarise.")


class Summary(BaseModel):
    summary: str
    provider: str


@post("/v1/summaries", status_code=200, tags=["my endpoints"])
async def summarize(data: JSONBody[Article], chat: Chat, caller: CurrentCaller) -> Summary:
    """Summarises a text in one sentence."""
    request = ChatRequest(
        messages=(
            Message("system", (Text("Summarise the user's text in one sentence."),)),
            Message("user", (Text(data.text),)),
        ),
        max_output_tokens=200,
    )
    completion = await chat.complete(request, caller)
    return Summary(summary=completion.text, provider=completion.provider)


router = Router(path="/", route_handlers=[summarize])
