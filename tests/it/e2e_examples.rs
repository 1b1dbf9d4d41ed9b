//! The examples of `configs/examples` on the real services: a table of texts without duplicates,
//! and pictures made a table of tags. That of the tickets is in `e2e_workflow`.

use std::collections::BTreeMap;

use aisemble_tests::http::Client;
use aisemble_tests::stack::Stack;
use aisemble_tests::{cache, repository_root};
use serde_json::{Value, json};

use crate::e2e_workflow::{await_success, example, rows, submit};

fn upload(client: &Client, name: &str, purpose: &str, content: &[u8]) -> Value {
    let path = format!("/files?filename={name}&purpose={purpose}");
    let answer = client.send("POST", &path, &[("content-type", "text/csv")], content);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["id"].clone()
}

/// The content of a CSV file, a row a line, without its head.
fn lines(stack: &Stack, file: &Value) -> Vec<String> {
    let path = format!("/files/{}/content", file.as_str().unwrap());
    stack.client().get(&path).text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn texts_are_cleaned_embedded_and_grouped() {
    let stack = Stack::with(&["data-processor", "nlp"], &[]);
    let client = stack.client();
    let table = std::fs::read_to_string(repository_root().join("configs/examples/reviews.csv"));
    let mut table = table.unwrap();
    // The same as rows of it, written otherwise.
    table.push_str(
        "901,0,  GUESS where this unit is headed? \n902,0,Guess Where This Unit Is Headed?\n",
    );
    table.push_str("903,0, Made the camera totally inoperable.\n");
    let mut workflow = example("dedup.json");
    let id = upload(&client, "reviews.csv", "data", table.as_bytes());
    workflow["inputs"]["table"]["file"] = id;
    let checked = client.post("/workflows/validate", &[], &workflow);
    assert_eq!(checked.json["valid"], true, "{}", checked.text);
    let view = await_success(&stack, &submit(&client, &workflow));
    let steps = view["steps"].as_array().unwrap();
    let embedded = rows(&stack, &steps[1]["output"]["file"]);
    assert_eq!((embedded.len(), &steps[1]["output"]["failed"]), (63, &json!(0)), "{view:#}");
    let norm = |row: &Value| -> f64 {
        let vector = row["embedding"].as_array().unwrap();
        assert_eq!(vector.len(), 384);
        vector.iter().map(|value| value.as_f64().unwrap().powi(2)).sum()
    };
    assert!(embedded.iter().all(|row| (norm(row) - 1.0).abs() < 1e-3));
    let groups = lines(&stack, &steps[2]["output"]["output"]["file"]);
    assert_eq!(groups.len(), 60, "{groups:?}");
    assert!(groups[0].starts_with("guess where this unit is headed?,3,"), "{}", groups[0]);
    assert!(groups[1].starts_with("made the camera totally inoperable.,2,"), "{}", groups[1]);
    assert!(groups[2..].iter().all(|line| line.contains(",1,")), "{groups:?}");
    let report = steps[3]["output"]["markdown"].as_str().unwrap();
    assert!(report.contains("| embed | map | succeeded |"), "{report}");
}

#[test]
fn pictures_become_a_table_of_tags() {
    let stack = Stack::with(&["vision"], &[]);
    let client = stack.client();
    let expected = BTreeMap::from([("chelsea.png", "cat"), ("coffee.png", "espresso")]);
    let pictures: Vec<_> = expected
        .keys()
        .map(|name| {
            let path = cache().join("pictures").join(name);
            let bytes = std::fs::read(&path);
            let bytes =
                bytes.unwrap_or_else(|e| panic!("{}: {e}: scripts/test.sh", path.display()));
            json!({"name": name, "file": upload(&client, name, "vision", &bytes)})
        })
        .collect();
    let mut workflow = example("pictures.json");
    workflow["inputs"]["pictures"]["rows"] = json!(pictures);
    let view = await_success(&stack, &submit(&client, &workflow));
    let output = &view["steps"][0]["output"];
    assert_eq!((&output["rows"], &output["failed"]), (&json!(2), &json!(0)), "{view:#}");
    for row in rows(&stack, &output["file"]) {
        let best = row["answer"]["results"][0]["classify"][0]["label"].as_str().unwrap();
        let wanted = expected[row["name"].as_str().unwrap()];
        assert!(best.contains(wanted), "{row}");
    }
    let report = view["steps"][1]["output"]["markdown"].as_str().unwrap();
    assert!(report.contains("| tags | map | succeeded |"), "{report}");
}
