//! The service on a folder of safetensors, as a user brings one.

use aisemble_protocol::v1::FinishReason;

use crate::instance::{Instance, answer, chat, prompt};
use crate::tiny::{Case, reference};

fn qwen2() -> Case {
    reference().cases.into_iter().find(|case| case.name == "qwen2").unwrap()
}

/// Settings for a small model in a folder.
fn settings(folder: &std::path::Path) -> Vec<String> {
    [
        format!("model.path={}", folder.display()).as_str(),
        "model.name=tiny",
        "model.sha256=",
        "engine.context_tokens_max=128",
        "engine.kv_tokens_max=512",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn start(settings: &[String]) -> Instance {
    Instance::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_folder_of_safetensors_is_served_and_described() {
    let folder = tempfile::tempdir().unwrap();
    qwen2().write_checkpoint(folder.path(), 3);
    let mut settings = settings(folder.path());
    settings.push("model.quantize=q8_0".to_owned());
    let instance = start(&settings);
    instance.line("serving");
    let described = instance.describe().await;
    let model = &described.models[0];
    assert_eq!((model.name.as_str(), model.family.as_str()), ("tiny", "qwen2"));
    assert_eq!(model.format, "safetensors");
    assert_eq!(model.quantization, "Q8_0 (from F32)");
    assert_eq!(model.tasks, ["completion", "chat"]);
    assert_eq!(model.sha256.len(), 64);
    let said = answer(instance.llm(), chat("the cat", 12)).await.unwrap();
    // `<|im_start|>user\n` is 1 + 5 tokens (`user` has no merges), `the cat` 1 + 4, and so on.
    assert!(said.started.prompt_tokens > 12, "{}", said.started.prompt_tokens);
    let same = answer(instance.llm(), chat("the cat", 12)).await.unwrap();
    assert_eq!(said.ids(), same.ids());
    let counted = answer(instance.llm(), prompt("the the", 8)).await.unwrap();
    assert_eq!(counted.started.prompt_tokens, 2);
    assert!(matches!(counted.finished.reason(), FinishReason::Length | FinishReason::Stop));
}

/// The message and its causes of a start that must not succeed.
fn refusal(settings: &[String]) -> String {
    let (code, log) = start(settings).end();
    assert_ne!(code, Some(0));
    log.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_cannot_be_served_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = qwen2();
    case.write_checkpoint(folder.path(), 1);
    let with_digest: Vec<String> =
        settings(folder.path()).into_iter().filter(|setting| setting != "model.sha256=").collect();
    let said = refusal(&with_digest);
    assert!(said.contains("model.sha256 is the digest of one file"), "{said}");
    case.config["model_type"] = "rwkv".into();
    std::fs::write(folder.path().join("config.json"), case.config.to_string()).unwrap();
    let said = refusal(&settings(folder.path()));
    assert!(said.contains("rwkv") && said.contains("llama, mistral, qwen2"), "{said}");
}
