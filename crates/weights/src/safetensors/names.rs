//! From the names of tensors in Hugging Face's checkpoints to those of GGUF, which the decoder
//! uses. It knows names only.

use crate::family::Family;

/// Parts of a layer that all families have.
const PARTS: [(&str, &str); 10] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
/// The norms of a layer's second half, with norms behind attention and feed-forward.
const SANDWICH: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
/// The norm before the feed-forward layers, where there are none behind.
const PLAIN: [(&str, &str); 1] = [("post_attention_layernorm", "ffn_norm")];
/// Digits of a layer's number at most.
const LAYER_DIGITS_MAX: usize = 4;

/// What a tensor is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The tensor of this GGUF name.
    Tensor(String),
    /// Nothing that is needed: it follows from the configuration.
    Derived,
    /// Unknown.
    Unknown,
}

/// The meaning of a name in a checkpoint of `family`.
pub(super) fn meaning(name: &str, family: Family) -> Meaning {
    match name {
        "model.embed_tokens.weight" => return Meaning::Tensor("token_embd.weight".to_owned()),
        "model.norm.weight" => return Meaning::Tensor("output_norm.weight".to_owned()),
        "lm_head.weight" => return Meaning::Tensor("output.weight".to_owned()),
        _ => {}
    }
    if name.ends_with(".rotary_emb.inv_freq") {
        return Meaning::Derived;
    }
    in_layer(name, family).map_or(Meaning::Unknown, Meaning::Tensor)
}

fn in_layer(name: &str, family: Family) -> Option<String> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let is_number = !layer.is_empty()
        && layer.len() <= LAYER_DIGITS_MAX
        && layer.bytes().all(|byte| byte.is_ascii_digit());
    let (part, kind) = rest.rsplit_once('.').filter(|_| is_number)?;
    let second_half: &[_] = if family.is_gemma() { &SANDWICH } else { &PLAIN };
    let mut parts = PARTS.iter().chain(second_half);
    let (_, part) = parts.find(|(theirs, _)| *theirs == part)?;
    matches!(kind, "weight" | "bias").then(|| format!("blk.{layer}.{part}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_family_has() {
        let is = |name, family, expected: &str| {
            assert_eq!(meaning(name, family), Meaning::Tensor(expected.to_owned()), "{name}");
        };
        is("lm_head.weight", Family::Llama, "output.weight");
        is("model.layers.12.self_attn.q_proj.bias", Family::Qwen2, "blk.12.attn_q.bias");
        let post = "model.layers.0.post_attention_layernorm.weight";
        is(post, Family::Qwen3, "blk.0.ffn_norm.weight");
        is(post, Family::Gemma3, "blk.0.post_attention_norm.weight");
        let inv = "model.layers.0.self_attn.rotary_emb.inv_freq";
        assert_eq!(meaning(inv, Family::Llama), Meaning::Derived);
        for unknown in [
            "model.layers.0.mlp.experts.0.up_proj.weight",
            "model.layers.x.mlp.up_proj.weight",
            "model.layers.12345.mlp.up_proj.weight",
            "model.layers.0.mlp.up_proj.weight_scale",
            "",
        ] {
            assert_eq!(meaning(unknown, Family::Llama), Meaning::Unknown, "{unknown}");
        }
    }
}
