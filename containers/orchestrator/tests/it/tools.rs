//! Tool calls in OpenAI's shapes, whole and streamed; tokens of texts.

use serde_json::{Value, json};

use crate::peer::MODEL;
use crate::stack::{Event, Stack};

const CHAT: &str = "/v1/chat/completions";
const CALLS: &str = "say:Let me see. <tool_call>\n{\"name\": \"weather\", \"arguments\": \
    {\"city\": \"Oslo\", \"days\": [1, 2]}}\n</tool_call>\n<tool_call>{\"name\": \"wait\", \
    \"arguments\": {}}</tool_call>";
const CITY: &str = "{\"city\": \"Oslo\", \"days\": [1, 2]}";

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    json!([tool("weather"), tool("wait")])
}

fn body(said: &str, more: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": said}],
        "tools": tools(),
        "max_tokens": 500,
    });
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().unwrap().extend(more);
    body
}

#[tokio::test]
async fn calls_come_whole_with_ids_of_their_own() {
    let stack = Stack::start().await;
    let answer = stack.admin.post(CHAT, &[], &body(CALLS, json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let choice = &answer.json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Let me see.");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"], json!({"name": "weather", "arguments": CITY}));
    assert_eq!(calls[1]["function"], json!({"name": "wait", "arguments": "{}"}));
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let one = body(CALLS, json!({"parallel_tool_calls": false}));
    let answer = stack.admin.post(CHAT, &[], &one).await;
    assert_eq!(answer.json["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    // Without tools it is text.
    let plain = body(CALLS, json!({"tool_choice": "none"}));
    let answer = stack.admin.post(CHAT, &[], &plain).await;
    let message = &answer.json["choices"][0]["message"];
    assert_eq!(message["content"], CALLS.strip_prefix("say:").unwrap());
    assert_eq!(answer.json["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_call_that_is_cut_off_ends_with_length() {
    let stack = Stack::start().await;
    let answer = stack.admin.post(CHAT, &[], &body(CALLS, json!({"max_tokens": 12}))).await;
    let choice = &answer.json["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    let arguments = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(!arguments.is_empty() && CITY.starts_with(arguments), "{arguments}");
}

#[tokio::test]
async fn streamed_calls_name_themselves_first_and_then_give_their_arguments() {
    let stack = Stack::start().await;
    let asked = body(CALLS, json!({"stream": true}));
    let events = stack.admin.post_events(CHAT, &[], &asked).await.rest().await;
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(last.data, "[DONE]");
    let choices: Vec<Value> =
        chunks.iter().map(Event::json).map(|chunk| chunk["choices"][0].clone()).collect();
    let content: String =
        choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    assert_eq!(content, "Let me see.");
    let mut calls = [(String::new(), String::new()), (String::new(), String::new())];
    for call in choices.iter().filter_map(|choice| choice["delta"]["tool_calls"].as_array()) {
        for call in call {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            let (name, arguments) = &mut calls[index];
            if name.is_empty() {
                assert!(call["id"].as_str().unwrap().starts_with("call_"), "{call}");
                assert_eq!(
                    (&call["type"], &call["function"]["arguments"]),
                    (&json!("function"), &json!(""))
                );
                name.push_str(call["function"]["name"].as_str().unwrap());
            } else {
                let keys: Vec<_> = call.as_object().unwrap().keys().collect();
                assert_eq!(keys, ["index", "function"], "{call}");
                assert_eq!(call["function"].as_object().unwrap().len(), 1);
            }
            arguments.push_str(call["function"]["arguments"].as_str().unwrap());
        }
    }
    let expect = [("weather", CITY), ("wait", "{}")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(calls, expect);
    assert_eq!(choices.last().unwrap()["finish_reason"], "tool_calls");
    assert!(chunks.len() > 8, "in pieces");
}

#[tokio::test]
async fn a_chat_goes_on_with_what_a_tool_gave() {
    let stack = Stack::start().await;
    let called = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call_1",
        "type": "function", "function": {"name": "wait", "arguments": "{}"}}]});
    let messages = json!([{"role": "user", "content": "hi"}, called,
        {"role": "tool", "tool_call_id": "call_1", "content": "say:Done"}]);
    let answer = stack.admin.post(CHAT, &[], &body("", json!({"messages": messages}))).await;
    assert_eq!(answer.json["choices"][0]["message"]["content"], "Done", "{}", answer.text);
    assert!(answer.json["choices"][0]["message"].get("tool_calls").is_none());
    let wrong = json!([{"role": "user", "content": "hi", "tool_calls": called["tool_calls"]}]);
    let answer = stack.admin.post(CHAT, &[], &body("", json!({"messages": wrong}))).await;
    assert_eq!(answer.json["error"]["param"], "messages[0].tool_calls");
}

#[tokio::test]
async fn a_durable_completion_gives_its_calls_too() {
    let stack = Stack::start().await;
    let asked = body(CALLS, json!({}));
    let answer = stack.admin.post("/ai/llm/completion", &[("prefer", "wait=30")], &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["text"], "Let me see.");
    assert_eq!(answer.json["finish_reason"], "tool_calls");
    assert_eq!(answer.json["tool_calls"][0]["function"]["arguments"], CITY);
}

#[tokio::test]
async fn texts_become_tokens_and_texts_again() {
    let stack = Stack::start().await;
    let post = async |path: &str, body: Value| stack.admin.post(path, &[], &body).await;
    let answer = post("/tokenize", json!({"prompt": "a b", "return_token_strs": true})).await;
    let expect =
        json!({"count": 2, "max_model_len": 200, "tokens": [0, 1], "token_strs": ["a ", "b"]});
    assert_eq!(answer.json, expect);
    let answer = post("/tokenize", json!({"content": "a b", "with_pieces": true})).await;
    assert_eq!(answer.json["tokens"][1], json!({"id": 1, "piece": "b"}));
    let answer = post("/tokenize", json!({"content": ""})).await;
    assert_eq!((answer.status, &answer.json["tokens"]), (200, &json!([])));
    let answer = post("/detokenize", json!({"tokens": [0, 1]})).await;
    assert_eq!(answer.json, json!({"prompt": " zero0 zero1", "content": " zero0 zero1"}));
    let wrong = [
        ("/tokenize", json!({})),
        ("/tokenize", json!({"prompt": "a", "content": "b"})),
        ("/tokenize", json!({"prompt": "a", "model": "gpt-9"})),
        ("/tokenize", json!({"prompt": "a", "what": 1})),
        ("/detokenize", json!({"tokens": [99]})),
        ("/detokenize", json!({"tokens": "a"})),
    ];
    for (path, body) in wrong {
        let answer = post(path, body.clone()).await;
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let none = stack.stranger().post("/tokenize", &[], &json!({"prompt": "a"})).await;
    assert_eq!(none.status, 401);
}
