//! Networks of a model hub, against transformers and timm on the same small random weights
//! (`scripts/reference/vision.py`), through the service as a process.
//!
//! Tolerances: prepared inputs 1e-6 (the pictures are PNG, so the bytes are the same); classes,
//! scores and embeddings 1e-4; captions to the letter.

use std::error::Error;

use aisemble_protocol::vision::Task;
use aisemble_protocol::{ErrorCode, v1};
use aisemble_service::LoadProgress;
use aisemble_vision::catalog;
use aisemble_vision::config::ModelSection;
use aisemble_vision::models::Network;
use aisemble_vision::picture::{ImageLimits, Picture, decode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::data::{Model, picture};
use crate::hub_folder::{family, folder, reference};
use crate::instance::{Instance, request};

const ARCHITECTURES: [&str; 7] =
    ["vit", "dinov2", "resnet", "mobilenetv4", "clip", "siglip", "blip"];
const INPUT_TOLERANCE: f32 = 1e-6;
const TOLERANCE: f32 = 1e-4;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert!(found.len() >= expected.len() && !expected.is_empty(), "{what}: {}", found.len());
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= tolerance, "{what}: off by {off}: {found:?} instead of {expected:?}");
}

/// Folders of these families, and where they are.
fn folders(architectures: &[&str]) -> (TempDir, Vec<Model>) {
    let (root, reference) = (tempfile::tempdir().unwrap(), reference());
    let made = architectures.iter().map(|name| folder(root.path(), &family(&reference, name)));
    let made = made.collect();
    (root, made)
}

fn task(kind: Task, model: &str) -> v1::VisionTask {
    v1::VisionTask {
        task: kind.as_str().to_owned(),
        model: model.to_owned(),
        top_k: if matches!(kind, Task::Classify | Task::ZeroShot) { 100 } else { 0 },
        ..v1::VisionTask::default()
    }
}

/// Scores in the order of `names`.
fn in_order(found: &v1::ImageLabels, names: &Value) -> Vec<f32> {
    let scores = names.as_array().unwrap().iter().map(|name| {
        let label = found.labels.iter().find(|label| label.label == name.as_str().unwrap());
        label.unwrap_or_else(|| panic!("no {name} in {found:?}")).score
    });
    scores.collect()
}

#[tokio::test]
async fn each_family_says_what_the_original_says() {
    let (_root, models) = folders(&ARCHITECTURES);
    let reference = reference();
    let most = format!("engine.caption_tokens_max={}", reference["caption_tokens"]);
    let instance = Instance::start(&models, &[&most]);
    instance.line("serving");
    for architecture in ARCHITECTURES {
        let family = family(&reference, architecture);
        let model = family["name"].as_str().unwrap();
        let pictures = family["pictures"].as_object().unwrap();
        for (name, said) in pictures {
            let mut asked = request(vec![picture(name)], &[]);
            for kind in Task::ALL {
                if said.get(kind.as_str()).is_some() {
                    let mut task = task(kind, model);
                    if kind == Task::ZeroShot {
                        task.labels = serde_json::from_value(reference["labels"].clone()).unwrap();
                    }
                    asked.tasks.push(task);
                }
            }
            let (results, finished) = instance.analyze(asked).await.unwrap();
            assert!(finished.models.iter().all(|used| used.model == model));
            let (found, what) = (&results[0], format!("{architecture} of {name}"));
            if let Some(expected) = said.get("classify") {
                let scores = in_order(found.classify.as_ref().unwrap(), &reference["classes"]);
                near(&scores, &floats(expected), TOLERANCE, &what);
            }
            if let Some(expected) = said.get("embed") {
                let values = &found.embed.as_ref().unwrap().values;
                near(values, &floats(expected), TOLERANCE, &what);
            }
            if let Some(expected) = said.get("zero_shot") {
                let scores = in_order(found.zero_shot.as_ref().unwrap(), &reference["labels"]);
                near(&scores, &floats(expected), TOLERANCE, &what);
            }
            assert_eq!(found.caption.as_deref(), said.get("caption").and_then(Value::as_str));
        }
    }
}

fn section(model: &Model) -> ModelSection {
    ModelSection {
        name: model.name.clone(),
        architecture: serde_json::from_value(json!(model.architecture)).unwrap(),
        path: model.folder.clone(),
        license: model.license.clone(),
        sha256: model.files.iter().cloned().collect(),
    }
}

#[test]
fn pictures_are_prepared_as_the_original_prepares_them() {
    let (_root, models) = folders(&ARCHITECTURES);
    let reference = reference();
    let step = reference["input_step"].as_u64().unwrap() as usize;
    let limits = ImageLimits {
        side_max: 4096,
        pixels_max: 1 << 24,
        decoded_bytes_max: 1 << 26,
        ratio_max: 1000,
    };
    for model in &models {
        let loaded = catalog::Model::load(&section(model), &LoadProgress::new()).unwrap();
        let Network::Hub(network) = &loaded.network else { panic!("{}", model.name) };
        let family = family(&reference, &model.architecture);
        for (name, said) in family["pictures"].as_object().unwrap() {
            let (_, picture, _) = decode(&picture(name), &limits).unwrap();
            let input = network.input(&picture);
            let found: Vec<f32> = input.data.iter().copied().step_by(step).collect();
            let expected = floats(&said["input"]);
            assert_eq!(found.len(), expected.len(), "{} of {name}", model.name);
            near(&found, &expected, INPUT_TOLERANCE, &format!("{} of {name}", model.name));
        }
    }
}

#[tokio::test]
async fn wrong_labels_and_tasks_are_told_what_is_wrong() {
    let (_root, models) = folders(&["vit", "clip", "siglip", "blip"]);
    let instance = Instance::start(&models, &[]);
    instance.line("serving");
    let described = instance.model().describe(v1::DescribeRequest {}).await.unwrap().into_inner();
    let tasks: Vec<String> = described.models.iter().map(|of| of.tasks.join(" ")).collect();
    assert_eq!(tasks, ["classify embed", "embed zero_shot", "embed zero_shot", "caption"]);
    let vit = &described.models[0];
    assert_eq!((vit.labels.len(), vit.embedding_dimensions, &*vit.family), (6, 32, "vit"));

    let good = picture("coffee.png");
    let check = async |task: v1::VisionTask, code, sentence: &str| {
        let mut asked = request(vec![good.clone()], &[]);
        asked.tasks = vec![task];
        let error = instance.refused(asked).await;
        assert_eq!((error.code, error.param.as_deref()), (code, Some("tasks[0]")), "{error:?}");
        assert!(error.message.contains(sentence), "{error:?}");
    };
    let (invalid, unprocessable) = (ErrorCode::InvalidRequest, ErrorCode::Unprocessable);
    let labelled =
        |labels: Vec<String>, model: &str| v1::VisionTask { labels, ..task(Task::ZeroShot, model) };
    check(labelled(vec![], ""), invalid, "needs labels").await;
    check(labelled(vec!["a".to_owned(); 10_000], ""), invalid, "at most 1000").await;
    check(labelled(vec!["a".to_owned(), String::new()], ""), invalid, "1 and 256 bytes").await;
    check(labelled(vec!["b".repeat(257)], ""), invalid, "1 and 256 bytes").await;
    let long = vec!["a cat".to_owned(), "b".repeat(80)];
    check(labelled(long.clone(), ""), invalid, "has 82 tokens; the model reads at most 24").await;
    check(labelled(long, "tiny-siglip"), invalid, "has 81 tokens; the model reads at most 20")
        .await;
    check(labelled(vec!["a".to_owned()], "tiny-vit"), unprocessable, "tiny-clip, tiny-siglip is")
        .await;
    check(task(Task::Caption, "tiny-clip"), unprocessable, "tiny-blip is").await;
    check(task(Task::Classify, "tiny-clip"), unprocessable, "tiny-vit is").await;
    check(task(Task::Faces, ""), unprocessable, "centerface would give it").await;

    // What is written in a label stays text, 200 of them are read in batches, and the best come.
    let mut labels: Vec<String> = (0..200).map(|number| format!("cat {number}")).collect();
    labels.push("<|endoftext|>".to_owned());
    let mut asked = request(vec![good.clone(), picture("page.png")], &[]);
    asked.tasks = vec![v1::VisionTask { top_k: 3, ..labelled(labels, "") }];
    let (results, _) = instance.analyze(asked).await.unwrap();
    for result in &results {
        let found = &result.zero_shot.as_ref().unwrap().labels;
        assert_eq!(found.len(), 3);
        assert!(found[0].score >= found[1].score && found[0].class.is_none());
    }
}

#[tokio::test]
async fn a_caption_that_nobody_waits_for_is_not_written_on() {
    let (_root, models) = folders(&["blip"]);
    let instance = Instance::start(&models, &["engine.requests_max=1"]);
    instance.line("serving");
    let rows = async || {
        let stats = instance.model().stats(v1::StatsRequest {}).await.unwrap();
        stats.into_inner().step_rows_total
    };
    let one = || request(vec![picture("coins.png")], &[Task::Caption]);
    instance.analyze(one()).await.unwrap();
    let of_one = rows().await;
    assert!(of_one > 2, "a row for the picture and one for each token: {of_one}");
    let many = request(vec![picture("coins.png"); 16], &[Task::Caption]);
    let mut stream = instance.vision().analyze(many).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some(), "results come one by one");
    drop(stream);
    loop {
        match instance.analyze(one()).await {
            Ok((results, _)) => break assert!(results[0].caption.is_some()),
            Err(error) => assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}"),
        }
    }
    let all = rows().await;
    assert!(all < 18 * of_one, "what nobody waits for is not written: {all} of 18 times {of_one}");
}

/// Every error of a chain, one sentence.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[test]
fn folders_that_do_not_fit_are_refused_with_the_key_or_the_tensor() {
    let reference = reference();
    let check = |architecture: &str, change: fn(&mut Map<String, Value>), sentence: &str| {
        let root = tempfile::tempdir().unwrap();
        let mut family = family(&reference, architecture);
        change(&mut family);
        let model = folder(root.path(), &family);
        let error = catalog::Model::load(&section(&model), &LoadProgress::new()).unwrap_err();
        let found = chain(&error);
        assert!(found.contains(sentence), "{architecture}: {found}");
    };
    let embeddings = "vit.embeddings.position_embeddings";
    assert!(family(&reference, "vit")["tensors"].get(embeddings).is_some());
    check(
        "vit",
        |of| of["tensors"]["vit.embeddings.position_embeddings"] = json!([1, 9, 32]),
        "shape mismatch for embeddings.position_embeddings",
    );
    check(
        "vit",
        |of| {
            of["tensors"].as_object_mut().unwrap().remove("vit.layernorm.bias");
        },
        "layernorm.bias",
    );
    check("vit", |of| of["config"]["model_type"] = json!("bert"), "says model_type \"bert\"");
    check("vit", |of| of["config"]["hidden_size"] = json!("wide"), "hidden_size");
    check("vit", |of| of["config"]["hidden_size"] = json!(1_u64 << 40), "between 1 and 65536");
    check("vit", |of| of["config"]["num_attention_heads"] = json!(0), "between 1 and 256");
    check("vit", |of| of["config"]["num_attention_heads"] = json!(5), "must divide hidden_size");
    check("vit", |of| of["config"]["patch_size"] = json!(0), "patch_size is 0");
    check("vit", |of| of["config"]["id2label"] = json!({"0": "a"}), "id2label has 1 names");
    check(
        "vit",
        |of| {
            of["config"].as_object_mut().unwrap().remove("layer_norm_eps");
        },
        "missing field `layer_norm_eps`",
    );
    check("vit", |of| of["config"] = json!([]), "config.json is not what");
    check("vit", |of| drop(of.remove("preprocessor")), "needs preprocessor_config.json");
    check(
        "vit",
        |of| {
            of["preprocessor"].as_object_mut().unwrap().remove("image_mean");
        },
        "has no image_mean",
    );
    check(
        "vit",
        |of| of["preprocessor"]["size"] = json!({"height": 64, "width": 64}),
        "prepared as 64 x 64 pixels; the network takes 32",
    );
    check("dinov2", |of| of["config"]["use_swiglu_ffn"] = json!(true), "use_swiglu_ffn is true");
    check("resnet", |of| of["config"]["depths"] = json!([1, 1, 1, 1]), "known are ResNet-18");
    check("mobilenetv4", |of| of["config"]["architecture"] = json!("mobilenetv4_x"), "known are");
    check("clip", |of| drop(of.remove("tokenizer")), "needs tokenizer.json");
    check("clip", |of| of["tokenizer"] = json!({"a": 1}), "is not a tokenizer");
    check(
        "clip",
        |of| of["config"]["vision_config"]["hidden_act"] = json!("gelu"),
        "served with quick_gelu",
    );
    check("clip", |of| of["config"]["text_config"]["vocab_size"] = json!(10), "shape mismatch");
    check("siglip", |of| of["tensors"]["logit_bias"] = json!([2]), "logit_bias");
    check("blip", |of| of["config"]["text_config"]["bos_token_id"] = json!(999), "token 999");
}

/// What somebody may have written in place of a value.
fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([1])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..70).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
    ]
}

/// Puts `value` where the key number `at` is, counting through the whole tree.
fn put(tree: &mut Value, at: &mut usize, value: &Value) {
    let children: Vec<&mut Value> = match tree {
        Value::Object(map) => map.values_mut().collect(),
        Value::Array(list) => list.iter_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
    };
    for child in children {
        if *at == 0 {
            child.clone_from(value);
        } else {
            put(child, at, value);
        }
        *at = at.wrapping_sub(1);
        if *at > usize::MAX / 2 {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A folder with something strange in it is served or refused, and never ends the process.
    #[test]
    fn strange_configurations_are_answered(
        which in 0_usize..5,
        file in 0_usize..3,
        at in 0_usize..60,
        value in strange(),
    ) {
        let architecture = ["vit", "dinov2", "clip", "siglip", "blip"][which];
        let mut family = family(&reference(), architecture);
        let key = ["config", "preprocessor", "tokenizer"][file];
        if let Some(tree) = family.get_mut(key) {
            put(tree, &mut { at }, &value);
        }
        let root = tempfile::tempdir().unwrap();
        let model = folder(root.path(), &family);
        if let Ok(loaded) = catalog::Model::load(&section(&model), &LoadProgress::new()) {
            let Network::Hub(network) = &loaded.network else { panic!("{architecture}") };
            let grey = Picture::new(40, 30, vec![90; 40 * 30 * 3]);
            let _computed = network.forward(&network.input(&grey));
        }
    }
}
