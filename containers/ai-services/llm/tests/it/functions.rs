//! Functions that a chat offers, on a model whose template knows none: what it is told, and calls
//! that it must make.

use aisemble_protocol::v1::constraint::Form;
use aisemble_protocol::{ErrorCode, v1};
use serde_json::{Value, json};

use crate::instance::{Instance, answer, chat, said};

const PARAMETERS: &str = r#"{"type":"object","required":["city","unit"],
    "additionalProperties":false,"properties":{"city":{"type":"string","maxLength":24},
    "unit":{"enum":["celsius","fahrenheit"]}}}"#;

fn tools() -> String {
    let parameters: Value = serde_json::from_str(PARAMETERS).unwrap();
    let function = json!({"name": "get_weather", "parameters": parameters});
    json!([{"type": "function", "function": function}]).to_string()
}

fn asked(tools: &str, one: bool) -> v1::GenerateRequest {
    let mut request = chat("What is the weather in Paris?", 160);
    if let Some(v1::generate_request::Input::Chat(chat)) = &mut request.input {
        tools.clone_into(&mut chat.tools);
    }
    let function =
        v1::CallFunction { name: "get_weather".to_owned(), schema: PARAMETERS.to_owned() };
    let calls = v1::Calls { functions: vec![function], one, or_json_schema: String::new() };
    request.constraint = Some(v1::Constraint { form: Some(Form::Calls(calls)) });
    request
}

#[tokio::test]
async fn a_required_call_fits_its_schema_and_functions_reach_the_prompt() {
    let instance = Instance::serving(&[]);
    let made = answer(instance.llm(), asked(&tools(), true)).await.unwrap();
    assert_eq!(made.started.call_format(), v1::CallFormat::Tags);
    let call = made.text.strip_prefix("<tool_call>\n").unwrap();
    let call = call.strip_suffix("\n</tool_call>").unwrap();
    let call: Value = serde_json::from_str(call).unwrap();
    assert_eq!(call["name"], "get_weather");
    assert!(call["arguments"]["city"].is_string(), "{call}");
    let unit = call["arguments"]["unit"].as_str().unwrap();
    assert!(unit == "celsius" || unit == "fahrenheit", "{call}");

    // Without them the prompt is shorter; what a function gave makes it longer.
    let mut without = asked("", true);
    without.constraint = None;
    without.max_tokens = 1;
    let without = answer(instance.llm(), without).await.unwrap();
    assert!(made.started.prompt_tokens > without.started.prompt_tokens + 100);
    let mut further = asked(&tools(), true);
    further.constraint = None;
    further.max_tokens = 1;
    if let Some(v1::generate_request::Input::Chat(chat)) = &mut further.input {
        let function = json!({"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"});
        let calls = json!([{"id": "a", "type": "function", "function": function}]).to_string();
        chat.messages.push(v1::ChatMessage { tool_calls: calls, ..said("assistant", "") });
        let tool_call_id = "a".to_owned();
        chat.messages.push(v1::ChatMessage { tool_call_id, ..said("tool", "21 degrees") });
    }
    let further = answer(instance.llm(), further).await.unwrap();
    assert!(further.started.prompt_tokens > made.started.prompt_tokens + 20);
}

#[tokio::test]
async fn what_is_no_list_of_functions_is_refused() {
    let instance = Instance::serving(&[]);
    let check = async |request: v1::GenerateRequest, code: ErrorCode, param: &str| {
        let error = answer(instance.llm(), request).await.unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error}");
    };
    check(asked("{}", true), ErrorCode::InvalidRequest, "tools").await;
    let many = json!(vec![json!({}); 129]).to_string();
    check(asked(&many, true), ErrorCode::InvalidRequest, "tools").await;
    let long = json!(["a".repeat(300_000)]).to_string();
    check(asked(&long, true), ErrorCode::PayloadTooLarge, "tools").await;
    let mut wrong = asked(&tools(), true);
    if let Some(v1::generate_request::Input::Chat(chat)) = &mut wrong.input {
        chat.messages[0].tool_calls = "[7]".to_owned();
    }
    check(wrong, ErrorCode::InvalidRequest, "messages[0].tool_calls").await;
    let mut unknown = asked(&tools(), true);
    if let Some(Form::Calls(calls)) =
        unknown.constraint.as_mut().and_then(|constraint| constraint.form.as_mut())
    {
        calls.functions[0].schema = r#"{"type":"objekt"}"#.to_owned();
    }
    check(unknown, ErrorCode::Unprocessable, "tools").await;
}
