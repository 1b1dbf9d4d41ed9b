//! The whole product from one build, started as a user starts it: every service, one real call for
//! each door, through plain HTTP, the official OpenAI client and the command line.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aisemble_tests::stack::{MODEL, Stack};
use aisemble_tests::{cache, repository_root};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(240);
const WAIT: [(&str, &str); 1] = [("prefer", "wait=120")];
const SERVICES: [&str; 4] = ["llm", "nlp", "vision", "data-processor"];

static WHOLE: Mutex<Weak<Stack>> = Mutex::new(Weak::new());

/// All services, shared by the tests of this file as long as one of them runs.
fn whole() -> Arc<Stack> {
    let mut slot = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stack) = slot.upgrade() {
        return stack;
    }
    let stack = Arc::new(Stack::with(&SERVICES, &[]));
    *slot = Arc::downgrade(&stack);
    stack
}

fn ask(stack: &Stack, path: &str, body: &Value) -> Value {
    let answer = stack.client().post(path, &WAIT, body);
    assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text, stack.log());
    answer.json
}

/// Runs the command with `--json`, which must succeed, and reads what it prints.
fn command(stack: &Stack, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
    let (code, out, err) = stack.command(&all);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}\n{}", stack.log());
    serde_json::from_str(out.lines().next().unwrap()).unwrap()
}

fn picture(name: &str) -> String {
    cache().join("pictures").join(name).to_string_lossy().into_owned()
}

fn upload(stack: &Stack, path: &str, kind: &str, purpose: &str) -> String {
    let content = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let name = path.rsplit('/').next().unwrap();
    let target = format!("/files?filename={name}&purpose={purpose}");
    let answer = stack.client().send("POST", &target, &[("content-type", kind)], &content);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["id"].as_str().unwrap().to_owned()
}

#[test]
fn every_capability_is_ready_and_names_its_models() {
    let stack = whole();
    let ready = stack.client().get("/ready").json;
    for capability in ["llm", "nlp", "vision", "data"] {
        assert_eq!(ready["capabilities"][capability]["ready"], true, "{ready:#}");
    }
    let models = stack.client().get("/v1/models").json;
    let names: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    for name in [MODEL, "all-minilm-l6-v2", "sentiment-minilm", "efficientnet-lite0", "centerface"]
    {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let page = stack.client().get("/metrics").text;
    for service in ["llm", "nlp", "vision", "data"] {
        assert!(page.contains(&format!("service=\"{service}\"")), "{service}\n{page}");
    }
}

#[test]
fn texts_are_embedded_ranked_classified_tagged_and_redacted() {
    let stack = whole();
    let body = json!({"texts": ["A man plays a guitar.", "Someone makes music.", "Stocks fell."]});
    let embedded = ask(&stack, "/ai/nlp/embed", &body);
    let vector = |index: usize| -> Vec<f64> {
        let values = embedded["results"][index]["embedding"].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let near =
        |a: usize, b: usize| -> f64 { vector(a).iter().zip(vector(b)).map(|(a, b)| a * b).sum() };
    assert!(near(0, 1) > near(0, 2) + 0.2, "{} {}", near(0, 1), near(0, 2));
    let sparse = ask(&stack, "/embed_sparse", &json!({"inputs": "the capital of France"}));
    assert!(sparse[0].as_array().unwrap().len() > 3, "{sparse}");

    let documents = json!(["Bananas are yellow.", "Paris is the capital of France.", "It rains."]);
    let body = json!({"query": "What is the capital of France?", "documents": documents});
    for path in ["/ai/nlp/rerank", "/v1/rerank"] {
        assert_eq!(ask(&stack, path, &body)["results"][0]["index"], 1, "{path}");
    }
    let body = json!({"texts": ["I love it, wonderful!", "Terrible. A waste of money."]});
    let moods = ask(&stack, "/ai/nlp/classify", &body);
    assert_eq!(moods["model"], "sentiment-minilm");
    assert_eq!(moods["results"][0]["labels"][0]["label"], "positive", "{moods}");
    assert_eq!(moods["results"][1]["labels"][0]["label"], "negative", "{moods}");
    let tagged = ask(&stack, "/ai/nlp/entities", &json!({"texts": "He have two cats."}));
    let entity = &tagged["results"][0]["entities"][0];
    assert_eq!((&entity["text"], &entity["label"]), (&json!("have"), &json!("$REPLACE_has")));
    let body = json!({"texts": "Write to eva@example.org, card 4111 1111 1111 1111."});
    let hidden = ask(&stack, "/ai/nlp/redact", &body);
    assert_eq!(hidden["results"][0]["text"], "Write to [EMAIL], card [CREDIT_CARD].");
}

#[test]
fn pictures_are_looked_at() {
    let stack = whole();
    let cat = upload(&stack, &picture("chelsea.png"), "image/png", "vision");
    let person = upload(&stack, &picture("grace_hopper.jpg"), "image/jpeg", "vision");
    let body = json!({"images": [{"file": cat}, {"file": person}],
        "tasks": ["classify", "embed", "detect", "faces"]});
    let seen = ask(&stack, "/ai/vision/analyze", &body);
    let (cat, person) = (&seen["results"][0], &seen["results"][1]);
    let label = cat["classify"][0]["label"].as_str().unwrap();
    assert!(label.contains("cat"), "{label}");
    assert_eq!(cat["embed"].as_array().unwrap().len(), 1280);
    assert_eq!((&cat["faces"], &cat["detect"]), (&json!([]), &json!([])), "a cat is no person");
    assert_eq!(person["faces"].as_array().unwrap().len(), 1, "{person}");
    assert_eq!(person["detect"][0]["label"], "person", "{person}");
    let page = upload(&stack, &picture("page.png"), "image/png", "vision");
    let body = json!({"images": [{"file": page}], "tasks": ["ocr"]});
    let read = ask(&stack, "/ai/vision/analyze", &body);
    let text = read["results"][0]["ocr"]["text"].as_str().unwrap();
    assert!(text.contains("Region-based segmentation"), "{text}");
    let body = json!({"images": [{"file": page}], "tasks": ["caption"]});
    let refused = stack.client().post("/ai/vision/analyze", &WAIT, &body);
    assert_eq!(refused.status, 422, "{}", refused.text);
}

#[test]
fn tables_are_asked() {
    let stack = whole();
    let table = cache().join("tables/penguins.csv").to_string_lossy().into_owned();
    let file = upload(&stack, &table, "text/csv", "data");
    let sql = "SELECT species, COUNT(*) AS n FROM penguins GROUP BY species ORDER BY n DESC";
    let body = json!({"tables": [{"name": "penguins", "file": file}], "sql": sql,
        "output": {"format": "ndjson"}});
    let answer = ask(&stack, "/data/process", &body);
    assert_eq!(answer["preview"][0], json!({"species": "Adelie", "n": 152}), "{answer}");
    let output = answer["output"]["file"].as_str().unwrap();
    let text = stack.client().get(&format!("/files/{output}/content")).text;
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn the_command_line_has_every_door() {
    let stack = whole();
    let near = command(&stack, &["embed", "A cat", "A kitten"]);
    assert_eq!(near["results"].as_array().unwrap().len(), 2);
    let ranked = command(&stack, &["rerank", "capital of France", "It rains.", "Paris, France"]);
    assert_eq!(ranked["results"][0]["index"], 1, "{ranked}");
    let mood = command(&stack, &["classify", "What a beautiful day, I am so happy"]);
    assert_eq!(mood["results"][0]["labels"][0]["label"], "positive", "{mood}");
    let tags = command(&stack, &["entities", "They was here."]);
    assert_eq!(tags["results"][0]["entities"][0]["text"], "was", "{tags}");
    let hidden = command(&stack, &["redact", "Call +49 30 901820"]);
    assert_eq!(hidden["results"][0]["text"], "Call [PHONE]");
    let seen = command(&stack, &["see", &picture("coffee.png")]);
    assert_eq!(seen["results"][0]["classify"][0]["label"], "espresso", "{seen}");
    let table = cache().join("tables/penguins.csv").to_string_lossy().into_owned();
    let counted = command(&stack, &["data", "query", "SELECT COUNT(*) AS n FROM penguins", &table]);
    assert_eq!(counted["preview"][0]["n"], 344, "{counted}");
    let begun = ["complete", "--raw", "The capital of France is", "--max-tokens", "4"];
    let said = stack.command(&[&begun[..], &["--temperature", "0"]].concat());
    assert_eq!((said.0, said.1.contains("Paris")), (0, true), "{said:?}");
}

#[test]
fn the_official_openai_client_embeds_and_ranks_files_of_texts() {
    let stack = whole();
    let python = cache().join("openai-client/bin/python");
    assert!(python.exists(), "no OpenAI client: run scripts/test.sh");
    let output = Command::new(python)
        .arg(repository_root().join("tests/it/openai_embeddings.py"))
        .env("OPENAI_BASE_URL", format!("http://{}/v1", stack.address()))
        .env("OPENAI_API_KEY", stack.key())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}\n{}", stack.log());
    assert!(out.ends_with("all calls as the specification says\n"), "{out}");
}

/// Labels each row with one service, counts with another, describes pictures with a third.
fn workflow(table: &str, pictures: Value) -> Value {
    let mood = json!({"kind": "nlp.classify", "input": {"texts": ["{{text}}"]}});
    let seen = json!({"kind": "vision.analyze",
        "input": {"images": [{"file": "{{file}}"}], "tasks": ["classify"]}});
    let summary = json!({"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0});
    json!({
        "name": "every service",
        "inputs": {"table": {"file": table, "format": "csv"}, "pictures": {"rows": pictures}},
        "steps": [
            {"id": "mood", "kind": "map", "input": {"table": {"from": "inputs.table"},
                "as": "mood", "take": "results.0.labels.0.label", "step": mood}},
            {"id": "counts", "kind": "data.process", "input": {
                "tables": [{"name": "t", "file": {"from": "mood.output.file"}, "format": "ndjson"}],
                "sql": "SELECT mood, COUNT(*) AS n FROM t GROUP BY mood ORDER BY mood"}},
            {"id": "seen", "kind": "map", "input": {"table": {"from": "inputs.pictures"},
                "as": "label", "take": "results.0.classify.0.label", "step": seen}},
            {"id": "said", "kind": "llm.completion", "input": summary},
            {"id": "report", "kind": "report", "needs": ["counts", "seen", "said"],
                "input": {"title": "Every service"}},
        ]
    })
}

#[test]
fn a_workflow_goes_through_every_service() {
    let stack = whole();
    let table = repository_root().join("configs/examples/reviews.csv");
    let table = upload(&stack, &table.to_string_lossy(), "text/csv", "data");
    let picture = |name: &str| upload(&stack, &picture(name), "image/png", "vision");
    let pictures = json!([{"name": "cat", "file": picture("chelsea.png")},
        {"name": "cup", "file": picture("coffee.png")}]);
    let answer = stack.client().post("/workflows", &[], &workflow(&table, pictures));
    assert_eq!(answer.status, 202, "{}", answer.text);
    let path = format!("/workflows/{}", answer.json["id"].as_str().unwrap());
    let view = stack.eventually("the workflow succeeds", PATIENCE, || {
        let view = stack.client().get(&path).json;
        let state = view["state"].as_str()?.to_owned();
        assert!(!matches!(state.as_str(), "failed" | "cancelled" | "expired"), "{view:#}");
        (state == "succeeded").then_some(view)
    });
    let steps = view["steps"].as_array().unwrap();
    let output = |id: &str| &steps.iter().find(|step| step["id"] == id).unwrap()["output"];
    assert_eq!((&output("mood")["rows"], &output("mood")["failed"]), (&json!(60), &json!(0)));
    let counts = output("counts")["preview"].as_array().unwrap();
    let counted: u64 = counts.iter().map(|row| row["n"].as_u64().unwrap()).sum();
    assert_eq!((counts.len(), counted), (2, 60), "{counts:?}");
    let file = output("seen")["file"].as_str().unwrap();
    let rows = stack.client().get(&format!("/files/{file}/content")).text;
    assert!(rows.contains("cat") && rows.contains("espresso"), "{rows}");
    let report = output("report")["markdown"].as_str().unwrap();
    assert!(report.contains("| mood | map | succeeded |"), "{report}");
}
