//! Tests of validation, references and templates.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn request(steps: Value) -> WorkflowRequest {
    let inputs = json!({"table": {"rows": [{"text": "a"}]}});
    serde_json::from_value(json!({"name": "w", "inputs": inputs, "steps": steps})).unwrap()
}

fn check(steps: Value, step: Option<&str>, field: &str, sentence: &str) {
    let faults = request(steps).validate().unwrap_err();
    let found = faults.iter().find(|fault| fault.field == field);
    let found = found.unwrap_or_else(|| panic!("no fault on {field}: {faults:?}"));
    assert_eq!(found.step.as_deref(), step, "{found}");
    assert!(found.message.contains(sentence), "{found}");
}

fn map_over(table: Value) -> Value {
    json!({"table": table, "as": "label", "step": {"kind": "llm.completion",
        "input": {"prompt": "Say what this is: {{text}}", "max_tokens": 4}}})
}

#[test]
fn a_whole_workflow_is_ordered_by_needs_and_references() {
    let request = request(json!([
        {"id": "report", "kind": "report", "needs": ["label"]},
        {"id": "label", "kind": "map", "input": map_over(json!({"from": "clean.output"}))},
        {"id": "clean", "kind": "merge", "input": {"op": "concat",
            "tables": [{"from": "inputs.table"}, {"rows": [{"text": "b"}]}]}},
    ]));
    let plan = request.validate().unwrap();
    assert_eq!(plan.order, [2, 1, 0]);
    assert_eq!(plan.needs, [vec![1], vec![2], vec![]]);
    let picture = mermaid(&request, &plan, &[]);
    assert!(picture.contains("s2 --> s1") && picture.contains("label<br/>map"), "{picture}");
    assert!(dot(&request, &plan, &[]).contains("s1 -> s0;"));
}

#[test]
fn every_fault_names_its_step() {
    let rows = json!({"rows": [{"text": "a"}]});
    check(json!([]), None, "steps", "1 to 100");
    check(
        json!([{"id": "a", "kind": "report", "needs": ["b"]},
               {"id": "b", "kind": "report", "needs": ["a"]}]),
        None,
        "steps",
        "wait for each other: a, b",
    );
    let twice = json!([{"id": "a", "kind": "report"}, {"id": "a", "kind": "report"}]);
    check(twice, Some("a"), "id", "same id");
    check(json!([{"id": "a b", "kind": "report"}]), Some("a b"), "id", "letters");
    check(json!([{"id": "a", "kind": "report", "needs": ["x"]}]), Some("a"), "needs", "\"x\"");
    let to =
        |from: &str| json!([{"id": "a", "kind": "map", "input": map_over(json!({"from": from}))}]);
    check(to("x.output"), Some("a"), "input", "no step \"x\"");
    check(to("inputs.x"), Some("a"), "input", "no input \"x\"");
    check(to("nonsense"), Some("a"), "input", "is not STEP.output.PATH");
    check(
        json!([{"id": "r", "kind": "report"},
               {"id": "a", "kind": "map", "input": map_over(json!({"from": "r.output"}))}]),
        Some("a"),
        "input.table",
        "gives no table",
    );
    let missing = map_over(json!({"rows": [{"body": "a"}]}));
    let missing = json!([{"id": "a", "kind": "map", "input": missing}]);
    check(missing, Some("a"), "input.step.input", "no column \"text\"");
    let with = |key: &str, value: Value| {
        let mut input = map_over(rows.clone());
        input[key] = value;
        json!([{"id": "a", "kind": "map", "input": input}])
    };
    check(with("chunk_rows", json!(0)), Some("a"), "input.chunk_rows", "1 to 1000");
    check(with("chunk_rowz", json!(1)), Some("a"), "input", "unknown field `chunk_rowz`");
    check(with("as", json!("")), Some("a"), "input.as", "1 to 64");
    let bad = json!({"kind": "llm.completion", "input": {"prompt": "{{text}}", "temperature": 9}});
    check(with("step", bad), Some("a"), "input.step.input.temperature", "between 0 and 2");
    let whole = json!({"kind": "data.process", "input": {"sql": "{{text}}"}});
    check(with("step", whole), Some("a"), "input.step.kind", "row by row");
    check(
        json!([{"id": "a", "kind": "merge", "input": {"op": "join", "tables": [rows, rows]}}]),
        Some("a"),
        "input.on",
        "needed",
    );
    let late = json!([{"id": "a", "kind": "report", "timeout_ms": 0, "retries": 99}]);
    check(late.clone(), Some("a"), "timeout_ms", "1 to");
    check(late, Some("a"), "retries", "at most 10");
    let prompt = json!([{"id": "a", "kind": "llm.completion", "input": {"prompt": ""}}]);
    check(prompt, Some("a"), "input.prompt", "prompt is empty");
}

#[test]
fn an_unknown_kind_is_refused_by_name() {
    let steps = json!({"name": "w", "steps": [{"id": "a", "kind": "shell"}]});
    let error = serde_json::from_value::<WorkflowRequest>(steps).unwrap_err();
    assert!(error.to_string().contains("shell"), "{error}");
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for kind in StepKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

#[test]
fn references_are_replaced_by_what_they_stand_for() {
    let input = json!({"a": [{"from": "s.output.list.1"}], "b": {"from": "inputs.x"}, "c": 1});
    let resolved = resolve::<String>(&input, &mut |reference| {
        Ok(match &reference.source {
            Source::Input(name) => json!(format!("input {name}")),
            Source::Step(_) => reference.within(&json!({"list": [5, 6]})).clone(),
        })
    });
    assert_eq!(resolved.unwrap(), json!({"a": [6], "b": "input x", "c": 1}));
    let outside = Reference::parse("s.output.list.9.deep").unwrap();
    assert_eq!(outside.within(&json!({"list": []})), &Value::Null);
}

#[test]
fn templates_take_values_once() {
    let row: Map<String, Value> =
        json!({"a": "{{b}}", "b": 7, "n": null}).as_object().unwrap().clone();
    let check = |template: Value, expected: Value| {
        assert_eq!(fill(&template, &row).unwrap(), expected);
    };
    check(json!("x {{a}} y {{ b }}{{n}}"), json!("x {{b}} y 7"));
    check(
        json!({"max_tokens": "{{b}}", "stop": ["{{a}}"]}),
        json!({"max_tokens": 7, "stop": ["{{b}}"]}),
    );
    check(json!("{{ not closed"), json!("{{ not closed"));
    check(json!("{{}} {{{b}}}"), json!("{{}} {{{b}}}"));
    assert_eq!(fill(&json!("{{gone}}"), &row).unwrap_err(), "gone");
    assert_eq!(columns(&json!(["{{a}} {{b}}", {"k": "{{a}}"}])), ["a", "b"]);
}

#[test]
fn conditions_compare_numbers_and_values() {
    let check = |condition: Value, value: Value, holds: bool| {
        let mut condition = condition;
        condition["from"] = json!("inputs.x");
        let condition: Condition = serde_json::from_value(condition).unwrap();
        assert_eq!(condition.holds(&value), holds, "{condition:?} {value}");
    };
    check(json!({"equals": "a"}), json!("a"), true);
    check(json!({"not_equals": "a"}), json!("a"), false);
    check(json!({"at_least": 2.0, "at_most": 3.0}), json!(3), true);
    check(json!({"at_least": 2.0}), json!("3"), false);
    check(json!({"exists": true}), Value::Null, false);
    check(json!({"exists": false}), Value::Null, true);
}

#[test]
fn a_step_s_output_is_a_table() {
    let read = |value: Value| serde_json::from_value::<TableSource>(value).unwrap();
    let id = crate::file::FileId::generate();
    let map = read(json!({"file": id, "format": "ndjson", "rows": 7, "failed": 0, "sample": []}));
    assert_eq!((map.file, map.rows, map.format), (Some(id), None, Some(RowsFormat::Ndjson)));
    let data = read(json!({"rows": 7, "preview": [], "output": {"file": id, "format": "csv"}}));
    assert_eq!((data.file, data.rows, data.format), (Some(id), None, Some(RowsFormat::Csv)));
    let reduced = read(json!({"rows": [{"group": "a", "value": 1}], "rows_read": 2}));
    assert_eq!((reduced.file, reduced.rows.unwrap().len()), (None, 1));
    let parquet = json!({"output": {"file": id, "format": "parquet"}});
    assert!(serde_json::from_value::<TableSource>(parquet).is_err(), "not row by row");
    assert!(serde_json::from_value::<TableSource>(json!({"rows": [1]})).is_err());
}

proptest! {
    #[test]
    fn no_text_breaks_the_notations(text in "\\PC{0,80}", template in "[a{} ]{0,24}") {
        let _ = Reference::parse(&text);
        let row: Map<String, Value> = json!({"a": "v"}).as_object().unwrap().clone();
        let names = columns(&json!(template));
        let filled = fill(&json!(template), &row);
        prop_assert_eq!(filled.is_ok(), names.iter().all(|name| name == "a"));
    }

    #[test]
    fn any_graph_is_ordered_or_refused(
        edges in proptest::collection::vec((0_usize..8, 0_usize..8), 0..16),
    ) {
        let steps: Vec<Value> = (0..8)
            .map(|number| {
                let needs = edges.iter().filter(|(to, _)| *to == number);
                let needs: Vec<_> = needs.map(|(_, from)| format!("s{from}")).collect();
                json!({"id": format!("s{number}"), "kind": "report", "needs": needs})
            })
            .collect();
        if let Ok(plan) = request(json!(steps)).validate() {
            let place = |number: usize| plan.order.iter().position(|n| *n == number).unwrap();
            for (number, needs) in plan.needs.iter().enumerate() {
                prop_assert!(needs.iter().all(|need| place(*need) < place(number)));
            }
        }
    }
}
