//! Which models do a task that no loaded model does: what an error recommends.

use crate::capability::Capability;

/// Models that do `task`, for a person; none when it is not known.
pub(super) fn models_for(capability: Capability, task: &str) -> Option<&'static str> {
    let models = match (capability, task) {
        (Capability::Nlp, "embed") => "all-minilm-l6-v2",
        (Capability::Nlp, "embed_sparse" | "rerank") => "splade-tiny",
        (Capability::Nlp, "classify") => "sentiment-minilm",
        (Capability::Nlp, "entities") => "quire-grammar",
        (Capability::Vision, "classify" | "embed") => "efficientnet-lite0",
        (Capability::Vision, "faces") => "centerface",
        (Capability::Vision, "detect") => "ssdlite-person",
        (Capability::Vision, "ocr") => "craft-mlt-25k and crnn-english-g2",
        (Capability::Vision, "zero_shot") => "a CLIP or SigLIP model",
        (Capability::Vision, "caption") => "a BLIP model",
        (Capability::Llm | Capability::Nlp | Capability::Vision | Capability::Data, _) => {
            return None;
        }
    };
    Some(models)
}

#[cfg(test)]
mod tests {
    use aisemble_protocol::vision::Task;

    use super::*;

    #[test]
    fn what_is_recommended_is_in_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/models.toml");
        let text = std::fs::read_to_string(path).unwrap();
        for task in Task::ALL {
            let models = models_for(Capability::Vision, task.as_str()).unwrap();
            let named = models.split(" and ").filter(|name| !name.starts_with("a "));
            for name in named {
                assert!(text.contains(&format!("name = \"{name}\"")), "{task}: {name}");
            }
        }
    }
}
