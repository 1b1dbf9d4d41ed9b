//! Outputs fit what they are held to, whatever the model wants; no form makes anything panic.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::sampling::{LogprobsWanted, Sampler, SamplerState, SamplingParameters};

const TOKENS_MAX: usize = 2000;

/// Every byte, some longer pieces, a control token, and two ends.
fn vocabulary() -> Vocabulary {
    let bytes = (0..=254_u8).map(|byte| Some(vec![byte]));
    let words = ["{\"", "\": ", "\", \"", ", ", "true", "null", "ab", "b\"", "[", "[]", "{}", "12"];
    let words = words.iter().map(|word| Some(word.as_bytes().to_vec()));
    let mut pieces: Vec<_> = bytes.chain(words).collect();
    let end = pieces.len() as u32;
    pieces.extend([None, None, None]);
    Vocabulary { pieces, ends: vec![end, end + 1], calls: CallWriting::default() }
}

static CONSTRAINTS: LazyLock<Arc<Constraints>> =
    LazyLock::new(|| Arc::new(Constraints::new(vocabulary)));

/// What a model that knows nothing says, held to `form`.
fn babble(form: &Form, seed: u64) -> String {
    let constraint = CONSTRAINTS.compile_here(form).unwrap();
    let vocabulary = vocabulary();
    let parameters = SamplingParameters { temperature: 1.0, seed, ..SamplingParameters::greedy() };
    let state = SamplerState::new(parameters, LogprobsWanted::No, &[]);
    let mut state = state.constrained(Some(constraint));
    let (mut sampler, mut said) = (Sampler::default(), Vec::new());
    let logits = vec![0.5; vocabulary.pieces.len()];
    for _ in 0..TOKENS_MAX {
        let token = sampler.sample(&mut state, &logits).unwrap().token;
        if vocabulary.ends.contains(&token) {
            return String::from_utf8(said).unwrap();
        }
        said.extend(vocabulary.pieces[token as usize].as_ref().expect("no control token"));
        if state.constraint().is_some_and(Constraint::is_complete) {
            return String::from_utf8(said).unwrap();
        }
    }
    panic!("no end: {}", String::from_utf8_lossy(&said));
}

/// Whether `value` fits, for the keywords that these tests use.
fn fits(schema: &Value, value: &Value) -> bool {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| fits(schema, value));
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.contains(value);
    }
    let number = |name: &str| schema[name].as_f64();
    match schema["type"].as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.as_str().is_some_and(|text| text.chars().count() <= 6),
        // `-0` is a whole number too, which is read as a float.
        Some("integer") => value.as_f64().is_some_and(|whole| {
            whole.fract() == 0.0
                && number("minimum").is_none_or(|least| whole >= least)
                && number("maximum").is_none_or(|most| whole <= most)
        }),
        Some("array") => value.as_array().is_some_and(|items| {
            let most = schema["maxItems"].as_u64().unwrap() as usize;
            let least = schema["minItems"].as_u64().unwrap() as usize;
            (least..=most).contains(&items.len())
                && items.iter().all(|item| fits(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|object| {
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| object.contains_key(name.as_str().unwrap()))
                && object.iter().all(|(name, value)| {
                    schema["properties"].get(name).is_some_and(|schema| fits(schema, value))
                })
        }),
        kind => panic!("{kind:?}"),
    }
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "string", "maxLength": 6})),
        (-50..50_i64, 0..2000_i64).prop_map(
            |(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})
        ),
        Just(json!({"enum": ["a", "b c", "\u{e9}\"\\", 3, null, [1]]})),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let field = ("[a-d]{1,3}|naïve \"key\"", inner.clone(), any::<bool>());
        let object = proptest::collection::vec(field, 0..4).prop_map(|fields| {
            let mut properties = serde_json::Map::new();
            let mut required = Vec::new();
            for (name, schema, needed) in fields {
                if properties.insert(name.clone(), schema).is_none() && needed {
                    required.push(name);
                }
            }
            json!({"type": "object", "properties": properties, "required": required,
                "additionalProperties": false})
        });
        let array = (inner.clone(), 0..3_usize, 0..3_usize).prop_map(|(items, least, more)| {
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
        });
        let either = (inner.clone(), inner).prop_map(|(a, b)| json!({"anyOf": [a, b]}));
        prop_oneof![3 => object, 1 => array, 1 => either]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_comes_out_under_a_schema_is_a_value_of_it(schema in schemas(), seed in any::<u64>()) {
        let said = babble(&Form::JsonSchema(schema.to_string()), seed);
        let value: Value = serde_json::from_str(&said).map_err(|error| {
            TestCaseError::fail(format!("{error} in {said} under {schema}"))
        })?;
        prop_assert!(fits(&schema, &value), "{} under {}", said, schema);
    }

    #[test]
    fn no_text_as_a_form_makes_it_panic(
        text in "(\\{|\\}|\\[|\\]|\"|:|,|start|type|object|\\$ref|#|anyOf|allOf|/|\\||\\(|\\)|\
                 %json|TEXT|\\\\|[a-z0-9.*+?^$&~ \n-]){0,40}",
    ) {
        for form in [Form::JsonSchema(text.clone()), Form::Regex(text.clone()), Form::Lark(text)] {
            let _either = CONSTRAINTS.compile_here(&form);
        }
    }
}

#[test]
fn expressions_and_grammars_hold() {
    for seed in 0..20 {
        let date = babble(&Form::Regex("[0-9]{4}-[01][0-9]/(a|b)c?".to_owned()), seed);
        let (year, rest) = date.split_at(4);
        assert!(year.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with('-'), "{date}");
        assert!(date.ends_with(['a', 'b', 'c']), "{date}");
        let lark = "start: \"<\" inner \">\"\ninner: /[xy]/ | \"(\" inner \")\"";
        let nested = babble(&Form::Lark(lark.to_owned()), seed);
        assert!(nested.starts_with('<') && nested.ends_with('>'), "{nested}");
        assert_eq!(nested.matches('(').count(), nested.matches(')').count(), "{nested}");
    }
}

fn function(name: &str, schema: &Value) -> Function {
    Function { name: name.to_owned(), schema: schema.to_string() }
}

fn offered() -> Vec<Function> {
    let weather = json!({"type": "object", "required": ["city"], "additionalProperties": false,
        "properties": {"city": {"$ref": "#/$defs/city"}}, "$defs": {"city": {"enum": ["Oslo"]}}});
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    vec![function("weather", &weather), function("wait", &nothing)]
}

/// Whether it is a call of what is offered: its name.
fn called(said: &str) -> String {
    let call: Value = serde_json::from_str(said).unwrap();
    let name = call["name"].as_str().unwrap();
    let expect = if name == "weather" { json!({"city": "Oslo"}) } else { json!({}) };
    assert_eq!(call["arguments"], expect);
    name.to_owned()
}

#[test]
fn a_call_is_one_of_what_is_offered() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let calls = Calls { functions: offered(), one: true, or_json_schema: None };
        let said = babble(&Form::Calls(calls), seed);
        let inner = said.strip_prefix("<tool_call>\n").unwrap();
        seen.insert(called(inner.strip_suffix("\n</tool_call>").unwrap()));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["wait", "weather"]);
}

#[test]
fn several_calls_or_a_value_can_be_let() {
    let mut seen = [0; 3];
    for seed in 0..40 {
        let or_json_schema = Some(r#"{"type":"boolean"}"#.to_owned());
        let calls = Calls { functions: offered(), one: false, or_json_schema };
        let said = babble(&Form::Calls(calls), seed);
        let count = said.matches("<tool_call>").count();
        if count == 0 {
            assert!(said == "true" || said == "false", "{said}");
        }
        for call in said.split("</tool_call>").filter_map(|one| one.split_once("<tool_call>\n")) {
            called(call.1.trim_end());
        }
        seen[count.min(2)] += 1;
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn a_call_of_nothing_is_refused() {
    let wrong = [Vec::new(), vec![function("a\"b", &json!({}))], vec![function("a", &json!(7))]];
    for functions in wrong {
        let calls = Calls { functions, one: true, or_json_schema: None };
        assert!(CONSTRAINTS.compile_here(&Form::Calls(calls)).is_err());
    }
}

#[test]
fn properties_come_in_the_order_of_the_schema() {
    let schema = r#"{"type":"object","required":["z","a"],"additionalProperties":false,
        "properties":{"z":{"type":"boolean"},"a":{"enum":[1]}}}"#;
    let said = babble(&Form::JsonSchema(schema.to_owned()), 5);
    assert!(said == "{\"z\": true, \"a\": 1}" || said == "{\"z\": false, \"a\": 1}", "{said}");
}

#[tokio::test]
async fn hostile_forms_are_refused_in_time_and_with_a_reason() {
    let check = async |form: Form, sentence: &str| {
        let shown = format!("{form:?}");
        let Err(error) = CONSTRAINTS.compile(form).await else { panic!("{shown} is taken") };
        let error = error.to_string();
        assert!(error.contains(sentence) && error.len() < 500, "{error}");
    };
    check(Form::JsonSchema("{\"type\":\"objekt\"}".to_owned()), "objekt").await;
    check(Form::JsonSchema("{\"$ref\":\"#/a/b\"}".to_owned()), "cannot be followed").await;
    check(Form::JsonSchema("{\"allOf\":[false]}".to_owned()), "cannot be followed").await;
    check(Form::Regex("(a".to_owned()), "cannot be followed").await;
    check(Form::Lark("start: nothing".to_owned()), "nothing").await;
    check(Form::Lark(String::new()), "cannot be followed").await;
    // Followed or refused, but soon.
    let _either = CONSTRAINTS.compile(Form::Regex("(a{1000}){1000}".to_owned())).await;
    // Each definition twice the one after it: two to the power of forty.
    let definitions: serde_json::Map<String, Value> = (0..40)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            (format!("d{n}"), json!({"allOf": [next, next]}))
        })
        .chain([("d40".to_owned(), json!({"type": "string"}))])
        .collect();
    let bomb = json!({"$defs": definitions, "$ref": "#/$defs/d0"});
    let _either = CONSTRAINTS.compile(Form::JsonSchema(bomb.to_string())).await;
}
