"""Your endpoints. This file is yours: an update of the template never touches it.

A model is reached through `request.chat` alone, so every endpoint here has all five guardrails. An
endpoint without a model call is counted against the caller's rate limit by
`request.chat.admit(request.caller)`.
"""

from ninja import Field, Router, Schema

from .api.django import Request
from .messages import ChatRequest, Message, Text

router = Router(tags=["my endpoints"])


class Article(Schema):
    text: str = Field(min_length=1, description="What to summarise.")


class Summary(Schema):
    summary: str
    provider: str


@router.post("/v1/summaries", response=Summary)
async def summarize(request: Request, article: Article) -> Summary:
    """Summarises a text in one sentence."""
    question = ChatRequest(
        messages=(
            Message("system", (Text("Summarise the user's text in one sentence."),)),
            Message("user", (Text(article.text),)),
        ),
        max_output_tokens=200,
    )
    completion = await request.chat.complete(question, request.caller)
    return Summary(summary=completion.text, provider=completion.provider)
