//! OpenAI's shapes, field by field.

use serde_json::{Value, json};

use crate::peer::{MODEL, WORDS, text, word};
use crate::stack::{Answer, Event, Stack};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "say three words"}],
        "seed": 7,
    });
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

/// Takes out what differs from call to call, having checked its form.
fn take(answer: &mut Value, prefix: &str) -> String {
    let id = answer["id"].take().as_str().unwrap().to_owned();
    assert!(id.starts_with(prefix) && id.len() == prefix.len() + 32, "{id}");
    assert!(answer["created"].take().as_u64().unwrap() > 1_700_000_000);
    id
}

fn usage(prompt: u32, completion: u32) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

#[tokio::test]
async fn a_chat_completion_has_every_field() {
    let stack = Stack::start().await;
    let mut answer = stack.admin.post(CHAT, &[], &chat(json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.header("x-request-id").is_some());
    take(&mut answer.json, "chatcmpl-");
    let expected = json!({
        "id": null,
        "object": "chat.completion",
        "created": null,
        "model": MODEL,
        "system_fingerprint": "fp_001122334455",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text(7, WORDS), "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(3, 5),
    });
    assert_eq!(answer.json, expected);
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "nothing is kept");
}

#[tokio::test]
async fn n_choices_have_seeds_of_their_own_and_one_prompt() {
    let stack = Stack::start().await;
    let body = chat(json!({"n": 3, "max_completion_tokens": 2}));
    let answer = stack.admin.post(CHAT, &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for (index, seed) in [7_u64, 8, 9].into_iter().enumerate() {
        let choice = &answer.json["choices"][index];
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], text(seed, 2));
        assert_eq!(choice["finish_reason"], "length");
    }
    assert_eq!(answer.json["usage"], usage(3, 6));
}

#[tokio::test]
async fn logprobs_have_their_two_forms() {
    let stack = Stack::start().await;
    let body = chat(json!({"logprobs": true, "top_logprobs": 1, "max_tokens": 1}));
    let answer = stack.admin.post(CHAT, &[], &body).await;
    let token = |text: &str| json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes()});
    let mut first = token(" one0");
    first["top_logprobs"] = json!([token(" one0-0")]);
    let expected = json!({"content": [first], "refusal": null});
    assert_eq!(answer.json["choices"][0]["logprobs"], expected);

    let body = json!({"prompt": "say", "seed": 7, "logprobs": 1, "max_tokens": 2});
    let answer = stack.admin.post(TEXT, &[], &body).await;
    let expected = json!({
        "tokens": [" one0", " one1"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{" one0-0": -0.5}, {" one1-0": -0.5}],
        "text_offset": [0, 5],
    });
    assert_eq!(answer.json["choices"][0]["logprobs"], expected);
}

async fn stream(stack: &Stack, path: &str, body: &Value, prefix: &str) -> Vec<Value> {
    let events = stack.admin.post_events(path, &[], body).await.rest().await;
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(*last, Event { data: "[DONE]".to_owned(), ..Event::default() });
    let mut chunks: Vec<Value> = chunks.iter().map(Event::json).collect();
    let ids: Vec<String> = chunks.iter_mut().map(|chunk| take(chunk, prefix)).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one id");
    chunks
}

#[tokio::test]
async fn a_chat_stream_has_every_field_in_every_chunk() {
    let stack = Stack::start().await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true},
        "max_tokens": 2});
    let chunks = stream(&stack, CHAT, &chat(options), "chatcmpl-").await;
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": null,
            "object": "chat.completion.chunk",
            "created": null,
            "model": MODEL,
            "system_fingerprint": "fp_001122334455",
            "choices": choices,
            "usage": usage,
        })
    };
    let delta = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk(json!([choice]), Value::Null)
    };
    let expected = [
        delta(json!({"role": "assistant", "content": ""}), Value::Null),
        delta(json!({"content": word(7, 0)}), Value::Null),
        delta(json!({"content": word(7, 1)}), Value::Null),
        delta(json!({}), json!("length")),
        chunk(json!([]), usage(3, 2)),
    ];
    assert_eq!(chunks, expected);
}

#[tokio::test]
async fn a_stream_without_usage_does_not_name_it() {
    let stack = Stack::start().await;
    let chunks = stream(&stack, CHAT, &chat(json!({"stream": true})), "chatcmpl-").await;
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_stream_of_two_texts_keeps_them_apart() {
    let stack = Stack::start().await;
    let body = json!({"prompt": ["a", "b c"], "seed": 1, "n": 2, "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": 0});
    let chunks = stream(&stack, TEXT, &body, "cmpl-").await;
    let mut texts = vec![String::new(); 4];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        if let Some(offset) = choice["logprobs"]["text_offset"][0].as_u64() {
            assert_eq!(offset, texts[index].chars().count() as u64);
        }
        texts[index].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(texts, [1, 2, 1, 2].map(|seed| text(seed, WORDS)));
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage(3, 20)));
}

#[tokio::test]
async fn a_text_completion_has_every_field_and_sixteen_tokens_at_most() {
    let stack = Stack::start().await;
    let body = json!({"model": MODEL, "prompt": "say", "seed": 7, "ignore_eos": true});
    let mut answer = stack.admin.post(TEXT, &[], &body).await;
    take(&mut answer.json, "cmpl-");
    let expected = json!({
        "id": null,
        "object": "text_completion",
        "created": null,
        "model": MODEL,
        "system_fingerprint": "fp_001122334455",
        "choices": [{
            "text": text(7, 16),
            "index": 0,
            "logprobs": null,
            "finish_reason": "length",
        }],
        "usage": usage(1, 16),
    });
    assert_eq!(answer.json, expected);
}

#[tokio::test]
async fn models_have_openai_s_fields_and_ours() {
    let stack = Stack::start().await;
    let list = stack.admin.get("/v1/models").await.json;
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 1));
    let model = stack.admin.get(&format!("/v1/models/{MODEL}")).await.json;
    assert_eq!(model, list["data"][0]);
    assert_eq!((&model["id"], &model["object"]), (&json!(MODEL), &json!("model")));
    assert_eq!((&model["owned_by"], &model["ready"]), (&json!("ai-semble"), &json!(true)));
    assert!(model["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(model["context_length"], 200);
    let none = stack.admin.get("/v1/models/gpt-9").await;
    check_error(&none, 404, "model_not_found", Some("model"));
}

/// All four keys, as the clients require.
fn check_error(answer: &Answer, status: u16, code: &str, param: Option<&str>) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json["error"].as_object().unwrap();
    let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    assert_eq!(error["param"].as_str(), param, "{}", answer.text);
    assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{}", answer.text);
    assert!(!error["message"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn errors_have_openai_s_shape() {
    let stack = Stack::start().await;
    let cases = [
        (chat(json!({"model": "gpt-9"})), 404, "model_not_found", Some("model")),
        (chat(json!({"temperature": 9})), 400, "", Some("temperature")),
        (chat(json!({"max_tokens": 0})), 400, "", Some("max_tokens")),
        (chat(json!({"max_completion_tokens": 0})), 400, "", Some("max_completion_tokens")),
        (chat(json!({"max_tokens": 1, "max_completion_tokens": 2})), 400, "", Some("max_tokens")),
        (chat(json!({"n": 17})), 400, "", Some("n")),
        (chat(json!({"n": 0})), 400, "", Some("n")),
        (chat(json!({"tools": [{"type": "function"}]})), 400, "", Some("tools[0].function.name")),
        (chat(json!({"tool_choice": "required"})), 400, "", Some("tool_choice")),
        (chat(json!({"response_format": {"type": "xml"}})), 400, "", Some("response_format.type")),
        (chat(json!({"top_logprobs": 2})), 400, "", Some("top_logprobs")),
        (chat(json!({"what": 2})), 400, "", Some("what")),
        (chat(json!({"messages": []})), 400, "", Some("messages")),
        (chat(json!({"messages": "hi"})), 400, "", Some("messages")),
        (json!({"model": MODEL}), 400, "", None),
        (
            chat(json!({"messages": [{"role": "user", "content": "word ".repeat(300)}]})),
            400,
            "context_length_exceeded",
            None,
        ),
    ];
    for (body, status, code, param) in cases {
        check_error(&stack.admin.post(CHAT, &[], &body).await, status, code, param);
        let mut body = body;
        body["stream"] = json!(true);
        check_error(&stack.admin.post(CHAT, &[], &body).await, status, code, param);
    }
    let none = stack.stranger().post(CHAT, &[], &chat(json!({}))).await;
    check_error(&none, 401, "invalid_api_key", None);
    check_error(&stack.admin.get("/v1/nope").await, 404, "not_found", None);
    check_error(&stack.admin.get(CHAT).await, 405, "method_not_supported", None);
}
