//! `/v1/responses`: made at once, streamed, kept, gone on from, cancelled and deleted.

use serde_json::{Value, json};

use crate::peer::{MODEL, WORDS, text};
use crate::stack::{Answer, Event, Stack};

const PATH: &str = "/v1/responses";
const CALL: &str = "say:Well. <tool_call>{\"name\": \"wait\", \"arguments\": {\"s\": 1}}\
    </tool_call>";

fn asked(input: Value, more: Value) -> Value {
    let mut body = json!({"model": MODEL, "input": input, "seed": 7});
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

async fn post(stack: &Stack, body: &Value) -> Answer {
    stack.admin.post(PATH, &[], body).await
}

fn id_of(response: &Value) -> String {
    let id = response["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("resp_") && id.len() == 37, "{id}");
    id
}

#[tokio::test]
async fn a_response_has_every_field_and_is_not_kept() {
    let stack = Stack::start().await;
    let more = json!({"instructions": "Be kind.", "metadata": {"a": "b"}});
    let mut answer = post(&stack, &asked(json!("hi there"), more)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let id = id_of(&answer.json);
    assert!(answer.json["created_at"].take().as_u64().unwrap() > 1_700_000_000);
    let item = answer.json["output"][0]["id"].take();
    assert!(item.as_str().unwrap().starts_with("msg_"));
    let part = json!({"type": "output_text", "text": text(7, WORDS), "annotations": [],
        "logprobs": []});
    let expect = json!({
        "id": id,
        "object": "response",
        "created_at": null,
        "status": "completed",
        "error": null,
        "incomplete_details": null,
        "model": MODEL,
        "output": [{"id": null, "type": "message", "status": "completed", "role": "assistant",
            "content": [part]}],
        "usage": {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 9,
        },
        "background": false,
        "instructions": "Be kind.",
        "max_output_tokens": null,
        "max_tool_calls": null,
        "metadata": {"a": "b"},
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": null,
    });
    assert_eq!(answer.json, expect);
    let gone = stack.admin.get(&format!("{PATH}/{id}")).await;
    assert_eq!((gone.status, &gone.json["error"]["code"]), (404, &json!("not_found")));
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "nothing is kept");
}

#[tokio::test]
async fn functions_are_called_in_items_of_their_own() {
    let stack = Stack::start().await;
    let tools = json!([{"type": "function", "name": "wait", "parameters": {"type": "object"}}]);
    let answer = post(&stack, &asked(json!(CALL), json!({"tools": tools}))).await;
    let output = answer.json["output"].as_array().unwrap();
    assert_eq!(output.len(), 2, "{}", answer.text);
    assert_eq!(output[0]["content"][0]["text"], "Well.");
    assert_eq!((&output[1]["type"], &output[1]["name"]), (&json!("function_call"), &json!("wait")));
    assert_eq!(output[1]["arguments"], "{\"s\": 1}");
    assert!(output[1]["call_id"].as_str().unwrap().starts_with("call_"));
    // The whole goes back as it came, with what the function gave.
    let mut input = vec![json!({"role": "user", "content": "hi"})];
    input.extend(output.clone());
    let call_id = &output[1]["call_id"];
    input.push(json!({"type": "function_call_output", "call_id": call_id, "output": "say:So"}));
    let answer = post(&stack, &asked(json!(input), json!({"tools": tools}))).await;
    assert_eq!(answer.json["output"][0]["content"][0]["text"], "So", "{}", answer.text);
}

async fn events(stack: &Stack, body: &Value) -> Vec<(String, Value)> {
    let events = stack.admin.post_events(PATH, &[], body).await.rest().await;
    let read = |(number, event): (usize, &Event)| {
        let json = event.json();
        assert_eq!(json["sequence_number"], number, "{json}");
        (json["type"].as_str().unwrap().to_owned(), json)
    };
    events.iter().enumerate().map(read).collect()
}

#[tokio::test]
async fn a_stream_has_numbered_events_whose_pieces_are_the_whole() {
    let stack = Stack::start().await;
    let tools = json!([{"type": "function", "name": "wait"}]);
    for store in [false, true] {
        let more = json!({"tools": tools, "stream": true, "store": store});
        let events = events(&stack, &asked(json!(CALL), more)).await;
        let mut kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
        kinds.dedup();
        let expect = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(kinds, expect);
        let deltas = |kind: &str| -> String {
            let of_kind = events.iter().filter(|(one, _)| one == kind);
            of_kind.map(|(_, event)| event["delta"].as_str().unwrap()).collect()
        };
        assert_eq!(deltas("response.output_text.delta"), "Well.");
        assert_eq!(deltas("response.function_call_arguments.delta"), "{\"s\": 1}");
        let response = &events.last().unwrap().1["response"];
        assert_eq!(
            (&response["status"], &response["output"][1]["name"]),
            (&json!("completed"), &json!("wait"))
        );
        let id = id_of(response);
        let kept = stack.admin.get(&format!("{PATH}/{id}")).await;
        assert_eq!(kept.status, if store { 200 } else { 404 });
        if store {
            assert_eq!(kept.json["output"], response["output"]);
        }
    }
}

#[tokio::test]
async fn what_is_cut_off_is_incomplete() {
    let stack = Stack::start().await;
    let body = asked(json!("hi"), json!({"max_output_tokens": 2}));
    let answer = post(&stack, &body).await;
    assert_eq!(answer.json["status"], "incomplete");
    assert_eq!(answer.json["incomplete_details"], json!({"reason": "max_output_tokens"}));
    let events =
        events(&stack, &asked(json!("hi"), json!({"max_output_tokens": 2, "stream": true}))).await;
    assert_eq!(events.last().unwrap().0, "response.incomplete");
}

#[tokio::test]
async fn a_response_in_the_background_is_looked_at_gone_on_from_and_deleted() {
    let stack = Stack::start().await;
    let more = json!({"background": true, "instructions": "say:never again"});
    let first = post(&stack, &asked(json!("hold this"), more)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert!(matches!(first.json["status"].as_str(), Some("queued" | "in_progress")));
    let id = id_of(&first.json);
    let path = format!("{PATH}/{id}");
    // The instructions have it say something at once; nothing holds.
    let done = stack
        .admin
        .post(PATH, &[], &asked(json!("say:b"), json!({"previous_response_id": id})))
        .await;
    if done.status == 400 {
        assert_eq!(done.json["error"]["param"], "previous_response_id");
    }
    let job = id.strip_prefix("resp_").unwrap();
    let waited = stack.admin.get(&format!("/jobs/{job}/events")).await;
    assert!(waited.text.contains("succeeded"), "{}", waited.text);
    let kept = stack.admin.get(&path).await;
    assert_eq!(kept.json["status"], "completed", "{}", kept.text);
    assert_eq!(kept.json["output"][0]["content"][0]["text"], "never again\nhold this");
    let over = stack.admin.post(&format!("{path}/cancel"), &[], &json!({})).await;
    assert_eq!((over.status, &over.json), (200, &kept.json));

    let next = asked(json!("say:b"), json!({"previous_response_id": id, "store": true}));
    let next = post(&stack, &next).await;
    assert_eq!(next.json["previous_response_id"], json!(id), "{}", next.text);
    // Two messages and this one: the instructions are not taken over.
    assert_eq!(next.json["output"][0]["content"][0]["text"], "b");
    assert_eq!(next.json["store"], true);

    let other = stack.stranger().get(&path).await;
    assert_eq!(other.status, 401);
    let deleted = stack.admin.delete(&path).await;
    assert_eq!(deleted.json, json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(stack.admin.get(&path).await.status, 404);
    assert_eq!(stack.admin.get(&format!("/jobs/{job}")).await.status, 404);
    assert_eq!(stack.admin.delete(&path).await.status, 404);
}

#[tokio::test]
async fn a_running_response_is_cancelled() {
    let stack = Stack::start().await;
    let first = post(&stack, &asked(json!("hold"), json!({"background": true}))).await;
    let path = format!("{PATH}/{}", id_of(&first.json));
    let cancelled = stack.admin.post(&format!("{path}/cancel"), &[], &json!({})).await;
    assert_eq!(cancelled.json["status"], "cancelled", "{}", cancelled.text);
    assert_eq!(stack.admin.get(&path).await.json["status"], "cancelled");
}

#[tokio::test]
async fn what_is_wrong_is_named_as_the_caller_names_it() {
    let stack = Stack::start().await;
    let cases = [
        (json!({"input": 7}), "input"),
        (json!({"input": []}), "input"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"n": 2}), "n"),
        (json!({"what": 2}), "what"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"include": ["reasoning.encrypted_content"]}), "include"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), "tools[0].name"),
        (json!({"text": {"format": {"type": "json_schema", "name": "a b"}}}), "text.format.name"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
    ];
    for (more, param) in cases {
        let answer = post(&stack, &asked(json!("hi"), more)).await;
        assert!(matches!(answer.status, 400 | 404), "{param}: {}", answer.text);
        assert_eq!(answer.json["error"]["param"], param, "{}", answer.text);
    }
}
