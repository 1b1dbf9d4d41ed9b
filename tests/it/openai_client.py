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

# Tool calls: required ones fit their schema, whole and streamed.
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 24},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"type": "string", "maxLength": 24}},
                "required": ["zone"],
                "additionalProperties": False,
            },
        },
    },
]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
asked = {"model": MODEL, "messages": WEATHER, "tools": TOOLS, "temperature": 0, "max_tokens": 128}


def arguments_of(call):
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert set(arguments) == {"city", "unit"}, arguments
        assert arguments["unit"] in ("celsius", "fahrenheit"), arguments
    else:
        assert call.function.name == "get_time" and set(arguments) == {"zone"}, call
    return arguments


called = client.chat.completions.create(**asked, tool_choice="required", parallel_tool_calls=False)
choice = called.choices[0]
assert choice.finish_reason == "tool_calls" and choice.message.content is None, called
[call] = choice.message.tool_calls
assert call.type == "function" and call.id.startswith("call_"), call
arguments_of(call)

pieces = list(
    client.chat.completions.create(
        **asked, tool_choice="required", parallel_tool_calls=False, stream=True
    )
)
streamed = [
    call
    for piece in pieces
    for call in piece.choices[0].delta.tool_calls or []
]
assert streamed[0].id.startswith("call_") and streamed[0].type == "function", streamed
assert streamed[0].function.name == call.function.name, streamed
assert all(one.index == 0 and one.id is None for one in streamed[1:]), streamed
text = "".join(one.function.arguments for one in streamed)
assert text == call.function.arguments, (text, call)
assert len(streamed) > 2, "in pieces"
assert pieces[-1].choices[0].finish_reason == "tool_calls", pieces[-1]

named = client.chat.completions.create(
    **asked, tool_choice={"type": "function", "function": {"name": "get_time"}}
)
[call] = named.choices[0].message.tool_calls
assert call.function.name == "get_time" and "zone" in arguments_of(call), named

for mode in ("auto", "none"):
    answer = client.chat.completions.create(**asked, tool_choice=mode)
    message = answer.choices[0].message
    assert message.content or message.tool_calls, answer
    if mode == "none":
        assert not message.tool_calls and answer.choices[0].finish_reason in ("stop", "length"), answer

after = client.chat.completions.create(
    model=MODEL,
    messages=[
        *WEATHER,
        called.choices[0].message,
        {
            "role": "tool",
            "tool_call_id": called.choices[0].message.tool_calls[0].id,
            "content": json.dumps({"temperature": 21, "sky": "sunny"}),
        },
    ],
    tools=TOOLS,
    temperature=0,
    max_tokens=48,
)
assert after.choices[0].message.content or after.choices[0].message.tool_calls, after
assert refused(openai.BadRequestError, tools=TOOLS, tool_choice="always").param == "tool_choice"
wrong = [{"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}]
assert refused(openai.BadRequestError, tools=wrong).param == "tools[0].function.parameters"

# Output that must fit: nested objects, enums, expressions, grammars; what cannot be followed.
import enum
import re

import pydantic


class Kind(str, enum.Enum):
    capital = "capital"
    village = "village"


class Place(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=24)
    kind: Kind


class Journey(pydantic.BaseModel):
    start: Place
    stops: list[Place] = pydantic.Field(max_length=2)
    by_train: bool


parsed = client.chat.completions.parse(
    model=MODEL,
    messages=[{"role": "user", "content": "Plan a journey from Paris to Berlin."}],
    response_format=Journey,
    temperature=0,
    max_tokens=400,
)
journey = parsed.choices[0].message.parsed
assert isinstance(journey, Journey) and len(journey.stops) <= 2, parsed


def held(response_format, **more):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=64,
        extra_body={"response_format": response_format, **more},
    )
    return answer.choices[0].message.content


date = held({"type": "regex", "regex": "[12][0-9]{3}-[01][0-9]"})
assert re.fullmatch("[12][0-9]{3}-[01][0-9]", date), date
sum_of = held({"type": "grammar", "grammar": 'start: NUMBER ("+" NUMBER)+ "=?"\nNUMBER: /[1-9]/'})
assert re.fullmatch(r"[1-9](\+[1-9])+=\?", sum_of) or len(sum_of) >= 60, sum_of
one_of = held({"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["x", 7]}}})
assert json.loads(one_of) in ("x", 7), one_of


def unfit(response_format, *words):
    try:
        held(response_format)
    except openai.UnprocessableEntityError as error:
        message = error.body["message"]
    except openai.BadRequestError as error:
        message = error.body["message"]
    else:
        raise AssertionError(f"not refused: {response_format}")
    assert all(word in message for word in words), message


def schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


unfit(schema({"type": "objekt"}), "response_format", "objekt")
unfit(schema({"items": {"$ref": "https://example.com/x"}}), "another document")
unfit({"type": "regex", "regex": "(a"}, "cannot be followed")
unfit({"type": "grammar", "grammar": "start: nothing"}, "nothing")

# Typical sampling and the best of several.
typical = client.completions.create(
    model=MODEL, prompt="Once", max_tokens=8, seed=3, extra_body={"typical_p": 0.5}
)
assert typical.choices[0].text, typical
best = client.completions.create(
    model=MODEL, prompt="Once", max_tokens=4, seed=3, n=1, best_of=3, logprobs=0
)
each = client.completions.create(
    model=MODEL, prompt="Once", max_tokens=4, seed=3, n=3, logprobs=0
)


def likelihood(choice):
    return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)


assert len(best.choices) == 1, best
assert best.choices[0].text == max(each.choices, key=likelihood).text, (best, each)
assert best.usage.completion_tokens == each.usage.completion_tokens, (best.usage, each.usage)

# Tokens.
import urllib.request

plain_url = str(client.base_url).removesuffix("/v1/")


def plain_call(path, body):
    headers = {"authorization": f"Bearer {client.api_key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{plain_url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


tokens = plain_call("/tokenize", {"prompt": "Hello, world!", "return_token_strs": True})
assert tokens["count"] == len(tokens["tokens"]) > 1, tokens
assert "".join(tokens["token_strs"]) == "Hello, world!", tokens
assert plain_call("/detokenize", {"tokens": tokens["tokens"]})["prompt"] == "Hello, world!"
chat = plain_call("/tokenize", {"messages": QUESTION})
assert chat["count"] == usage.prompt_tokens, (chat, usage)

# Responses.
made = client.responses.create(
    model=MODEL,
    instructions="You are a helpful assistant.",
    input="What is the capital of France?",
    temperature=0,
    max_output_tokens=32,
)
assert made.object == "response" and made.status == "completed", made
assert "Paris" in made.output_text and made.id.startswith("resp_"), made
assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens, made.usage
assert made.store is False, made
try:
    client.responses.retrieve(made.id)
    raise AssertionError("kept without being asked to")
except openai.NotFoundError:
    pass

events = list(
    client.responses.create(
        model=MODEL,
        instructions="You are a helpful assistant.",
        input="What is the capital of France?",
        temperature=0,
        max_output_tokens=32,
        stream=True,
    )
)
assert [event.sequence_number for event in events] == list(range(len(events))), events
assert events[0].type == "response.created" and events[-1].type == "response.completed", events
text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
assert text == made.output_text == events[-1].response.output_text, text

flat = [{"type": "function", "strict": True, **tool["function"]} for tool in TOOLS]
with client.responses.stream(
    model=MODEL,
    input="What is the weather in Paris?",
    tools=flat,
    tool_choice="required",
    parallel_tool_calls=False,
    temperature=0,
) as stream:
    done = [event for event in stream if event.type == "response.function_call_arguments.done"]
    final = stream.get_final_response()
[item] = final.output
assert item.type == "function_call" and item.name in ("get_weather", "get_time"), final
assert json.loads(item.arguments) == json.loads(done[0].arguments), (item, done)

spelled = client.responses.parse(
    model=MODEL, input="Name a place.", text_format=Place, temperature=0, max_output_tokens=200
)
assert isinstance(spelled.output_parsed, Place), spelled

kept = client.responses.create(
    model=MODEL,
    instructions="You are a helpful assistant.",
    input="What is the capital of France?",
    temperature=0,
    max_output_tokens=32,
    background=True,
    metadata={"of": "this test"},
)
assert kept.status in ("queued", "in_progress"), kept
deadline = time.monotonic() + 120
while kept.status in ("queued", "in_progress"):
    assert time.monotonic() < deadline, kept
    time.sleep(0.1)
    kept = client.responses.retrieve(kept.id)
assert kept.status == "completed" and kept.output_text, kept
assert kept.background is True and kept.metadata == {"of": "this test"}, kept
further = client.responses.create(
    model=MODEL,
    input="And of Italy?",
    previous_response_id=kept.id,
    temperature=0,
    max_output_tokens=32,
    store=True,
)
assert further.previous_response_id == kept.id and further.output_text, further
assert further.usage.input_tokens > kept.usage.input_tokens, (kept.usage, further.usage)

long = client.responses.create(
    model=MODEL,
    input="Count from one to a thousand.",
    background=True,
    max_output_tokens=1500,
    extra_body={"ignore_eos": True},
)
stopped = client.responses.cancel(long.id)
assert stopped.status == "cancelled", stopped
for one in (kept, further, long):
    client.responses.delete(one.id)
    try:
        client.responses.retrieve(one.id)
        raise AssertionError("there after it was deleted")
    except openai.NotFoundError:
        pass

print("all calls as the specification says")
