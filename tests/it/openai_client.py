"""Calls the API through the official OpenAI client and checks the shapes it gives back."""

import openai

client = openai.OpenAI(max_retries=0)
MODEL = "smollm2-135m-instruct"
QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]

models = client.models.list()
assert MODEL in [model.id for model in models.data], models
assert client.models.retrieve(MODEL).object == "model"

answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=32)
assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-"), answer
assert "Paris" in answer.choices[0].message.content, answer
assert answer.choices[0].message.role == "assistant"
assert answer.choices[0].finish_reason == "stop", answer
usage = answer.usage
assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage
assert usage.prompt_tokens_details.cached_tokens >= 0

parts = list(
    client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
)
assert parts[0].choices[0].delta.role == "assistant", parts[0]
text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
assert text == answer.choices[0].message.content, text
assert parts[-1].choices == [] and parts[-1].usage.total_tokens == usage.total_tokens, parts[-1]
assert parts[-2].choices[0].finish_reason == "stop", parts[-2]
assert all(part.object == "chat.completion.chunk" and part.id == parts[0].id for part in parts)

scored = client.chat.completions.create(
    model=MODEL, messages=QUESTION, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
)
tokens = scored.choices[0].logprobs.content
assert len(tokens) == scored.usage.completion_tokens == 3, scored
assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), tokens
assert scored.choices[0].finish_reason == "length"

plain = client.completions.create(
    model=MODEL, prompt="One, two, three,", max_tokens=8, temperature=0, stop=["\n"]
)
assert plain.object == "text_completion" and "four" in plain.choices[0].text, plain
pieces = list(
    client.completions.create(
        model=MODEL, prompt="One, two, three,", max_tokens=8, temperature=0, stop=["\n"], stream=True
    )
)
assert "".join(piece.choices[0].text for piece in pieces) == plain.choices[0].text, pieces

seeded = [
    client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=1.2, seed=5, max_tokens=16
    )
    .choices[0]
    .message.content
    for _ in range(2)
]
assert seeded[0] == seeded[1], seeded


def refused(kind, **arguments):
    try:
        client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **arguments})
    except kind as error:
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
        assert error.request_id, "every answer has a request id"
        return error
    raise AssertionError(f"not refused: {arguments}")


assert refused(openai.NotFoundError, model="gpt-9").code == "model_not_found"
assert refused(openai.BadRequestError, temperature=9).param == "temperature"
assert refused(openai.BadRequestError, max_tokens=0).param == "max_tokens"
try:
    openai.OpenAI(api_key="wrong", max_retries=0).models.list()
    raise AssertionError("a wrong key was let in")
except openai.AuthenticationError as error:
    assert error.status_code == 401

import io
import json
import time

lines = [
    {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 8},
    }
    for number in range(3)
]
lines[1]["body"]["temperature"] = 9
content = "".join(json.dumps(line) + "\n" for line in lines).encode()
stored = client.files.create(file=("lines.jsonl", io.BytesIO(content)), purpose="batch")
assert stored.object == "file" and stored.bytes == len(content), stored
assert stored.filename == "lines.jsonl" and stored.purpose == "batch", stored
assert client.files.retrieve(stored.id).sha256 == stored.sha256
assert client.files.content(stored.id).read() == content
assert stored.id in [file.id for file in client.files.list(purpose="batch")]
batch = client.batches.create(
    input_file_id=stored.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    metadata={"of": "this test"},
)
assert batch.object == "batch" and batch.status in ("validating", "in_progress", "finalizing"), batch
deadline = time.monotonic() + 120
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    assert time.monotonic() < deadline, batch
    time.sleep(0.1)
    batch = client.batches.retrieve(batch.id)
assert batch.status == "completed", batch
counts = batch.request_counts
assert (counts.total, counts.completed, counts.failed) == (3, 2, 1), batch
assert batch.metadata == {"of": "this test"} and batch.completed_at >= batch.created_at, batch
answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
assert [answer["custom_id"] for answer in answers] == ["line-0", "line-2"], answers
assert "Paris" in answers[0]["response"]["body"]["choices"][0]["message"]["content"], answers
wrong = json.loads(client.files.content(batch.error_file_id).text)
assert wrong["custom_id"] == "line-1" and wrong["response"]["status_code"] == 400, wrong
assert batch.id in [one.id for one in client.batches.list(limit=5)]
try:
    client.batches.cancel(batch.id)
    raise AssertionError("an ended batch was cancelled")
except openai.ConflictError:
    pass
assert client.files.delete(stored.id).deleted

print("all calls as the specification says")
