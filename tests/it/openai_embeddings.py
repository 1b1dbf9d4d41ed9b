"""Calls /v1/embeddings through the official OpenAI client, one by one and as a batch, and checks the shapes."""

import base64
import io
import json
import math
import struct
import time

import openai

client = openai.OpenAI(max_retries=0)
MODEL = "all-minilm-l6-v2"
TEXTS = ["A man plays a guitar.", "Someone makes music.", "Stocks fell."]


def product(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


# Unless told otherwise the client asks for base64 and decodes it.
decoded = client.embeddings.create(model=MODEL, input=TEXTS)
assert decoded.object == "list" and decoded.model == MODEL, decoded
assert [one.index for one in decoded.data] == [0, 1, 2]
assert all(one.object == "embedding" and len(one.embedding) == 384 for one in decoded.data)
assert decoded.usage.prompt_tokens == decoded.usage.total_tokens > 0, decoded.usage
vectors = [one.embedding for one in decoded.data]
assert all(abs(product(vector, vector) - 1) < 1e-5 for vector in vectors)
assert product(vectors[0], vectors[1]) > product(vectors[0], vectors[2]) + 0.2

floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
assert all(
    math.isclose(a, b, abs_tol=1e-6)
    for one, vector in zip(floats.data, vectors, strict=True)
    for a, b in zip(one.embedding, vector, strict=True)
)
raw = client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS[0], encoding_format="base64")
packed = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
assert math.isclose(struct.unpack("<384f", packed)[0], vectors[0][0], abs_tol=1e-6)
assert raw.headers["x-request-id"]

few = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=64)
assert len(few.data[0].embedding) == 64
assert abs(product(few.data[0].embedding, few.data[0].embedding) - 1) < 1e-5
ids = client.embeddings.create(model=MODEL, input=[[7592], [2088, 999]])
assert len(ids.data) == 2

for kind, arguments in [
    (openai.NotFoundError, {"model": "text-embedding-9"}),
    (openai.BadRequestError, {"input": []}),
    (openai.BadRequestError, {"input": ["a", ""]}),
    (openai.BadRequestError, {"dimensions": 385}),
]:
    try:
        client.embeddings.create(**{"model": MODEL, "input": TEXTS, **arguments})
    except kind as error:
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
    else:
        raise AssertionError(f"not refused: {arguments}")

lines = [
    {
        "custom_id": f"text-{number}",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": MODEL, "input": text, "encoding_format": "float"},
    }
    for number, text in enumerate(TEXTS)
]
content = "".join(json.dumps(line) + "\n" for line in lines).encode()
stored = client.files.create(file=("texts.jsonl", io.BytesIO(content)), purpose="batch")
batch = client.batches.create(
    input_file_id=stored.id, endpoint="/v1/embeddings", completion_window="24h"
)
deadline = time.monotonic() + 120
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    assert time.monotonic() < deadline, batch
    time.sleep(0.1)
    batch = client.batches.retrieve(batch.id)
assert batch.status == "completed" and batch.request_counts.completed == 3, batch
answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
assert [answer["custom_id"] for answer in answers] == ["text-0", "text-1", "text-2"], answers
for answer, vector in zip(answers, vectors, strict=True):
    found = answer["response"]["body"]["data"][0]["embedding"]
    assert product(found, vector) > 0.9999, answer["custom_id"]
assert client.files.delete(stored.id).deleted

print("all calls as the specification says")
