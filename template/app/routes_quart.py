"""Your endpoints. This file is yours: an update of the template never touches it.

A model is reached through `chat` alone, so every endpoint here has all five guardrails. An
endpoint without a model call is counted against the caller's rate limit by `chat.admit(caller)`.
"""

from pydantic import BaseModel, Field
from quart import Blueprint
from quart_schema import tag_blueprint, validate_request, validate_response

from .api.quart import current_caller, current_chat
from .messages import ChatRequest, Message, Text

router = Blueprint("routes", __name__)
tag_blueprint(router, ["my endpoints"])


class Article(BaseModel):
    text: str = Field(min_length=1, description="What to summarise.")


class Summary(BaseModel):
    summary: str
    provider: str


@router.post("/v1/summaries")
@validate_request(Article)
@validate_response(Summary)
async def summarize(data: Article) -> Summary:
    """Summarises a text in one sentence."""
    chat, caller = current_chat(), current_caller()
    request = ChatRequest(
        messages=(
            Message("system", (Text("Summarise the user's text in one sentence."),)),
            Message("user", (Text(data.text),)),
        ),
        max_output_tokens=200,
    )
    completion = await chat.complete(request, caller)
    return Summary(summary=completion.text, provider=completion.provider)
