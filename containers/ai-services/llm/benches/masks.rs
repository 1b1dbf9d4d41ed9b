//! How long the mask of one token takes under several forms, on a real vocabulary, and how long a
//! form takes to compile. Tokens are drawn at random from those that fit. One JSON object a form on
//! stdout.
//!
//! `cargo bench -p aisemble-llm --bench masks [-- MODEL.gguf]`

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_llm::constraint::{Calls, Constraints, Form, Function};
use aisemble_llm::host::Host;
use aisemble_llm::text::PromptEncoder;
use aisemble_weights::{GgufFile, Tokenizer};

const OUTPUTS: u64 = 40;
const TOKENS_MAX: usize = 400;
const PLACE: &str = r##"{"type":"object","required":["name","kind","at"],
    "additionalProperties":false,"properties":{"name":{"type":"string","maxLength":40},
    "kind":{"enum":["capital","town","village"]},"at":{"type":"array","items":{"type":"number"},
    "minItems":2,"maxItems":2},"near":{"type":"array","items":{"$ref":"#"},"maxItems":2}}}"##;
const TEXT: &str = r#"{"type":"object","required":["text"],"additionalProperties":false,
    "properties":{"text":{"type":"string"}}}"#;
const SUM: &str = "start: sum\nsum: product (/[+-]/ product)*\nproduct: atom (/[*\\/]/ atom)*\n\
    atom: /[0-9]{1,6}/ | \"(\" sum \")\"";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let given = std::env::args().skip(1).find(|argument| argument.ends_with(".gguf"));
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let file = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = given.map_or_else(|| home().join(".cache/ai-semble").join(file), PathBuf::from);
    let tokenizer = Arc::new(Tokenizer::from_gguf(&GgufFile::open(&path)?)?);
    let encoder = Arc::new(PromptEncoder::new(Arc::clone(&tokenizer))?);
    let constraints = Host::constraints(&tokenizer, &encoder);
    let function = |name: &str, schema: &str| Function { name: name.into(), schema: schema.into() };
    let functions = vec![function("find", PLACE), function("tell", TEXT)];
    let forms = [
        ("schema, nested", Form::JsonSchema(PLACE.to_owned())),
        ("schema, long text", Form::JsonSchema(TEXT.to_owned())),
        ("any object", Form::JsonSchema(r#"{"type":"object"}"#.to_owned())),
        ("regex", Form::Regex("[12][0-9]{3}-[01][0-9]-[0-3][0-9]( [a-z]+){3,8}".to_owned())),
        ("grammar", Form::Lark(SUM.to_owned())),
        ("calls", Form::Calls(Calls { functions, one: false, or_json_schema: None })),
    ];
    // The first form also makes the trie of the vocabulary.
    let begun = Instant::now();
    constraints.compile_here(&Form::Regex("a".to_owned()))?;
    let line = serde_json::json!({"vocabulary_ms": begun.elapsed().as_millis()});
    writeln!(std::io::stdout(), "{line}")?;
    for (name, form) in forms {
        measure(name, &form, &constraints, tokenizer.vocabulary_len())?;
    }
    Ok(())
}

fn measure(
    name: &str,
    form: &Form,
    constraints: &Constraints,
    vocabulary: usize,
) -> Result<(), Failure> {
    let (mut masks, mut compiled, mut whole) = (Vec::new(), Duration::ZERO, 0);
    let mut logits = vec![0.0; vocabulary];
    for seed in 1..=OUTPUTS {
        let begun = Instant::now();
        let mut constraint = constraints.compile_here(form)?;
        compiled += begun.elapsed();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..TOKENS_MAX {
            logits.fill(0.0);
            let begun = Instant::now();
            constraint.mask(&mut logits)?;
            masks.push(begun.elapsed());
            // Xorshift, Marsaglia 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let fits: Vec<u32> = (0..)
                .zip(&logits)
                .filter(|(_, logit)| logit.is_finite())
                .map(|(id, _)| id)
                .collect();
            constraint.accept(fits[(random % fits.len() as u64) as usize])?;
            if constraint.is_complete() {
                whole += 1;
                break;
            }
        }
    }
    masks.sort_unstable();
    let at = |share: f64| masks[((masks.len() - 1) as f64 * share) as usize].as_micros();
    let line = serde_json::json!({
        "form": name,
        "masks": masks.len(),
        "whole": whole,
        "mask_us_p50": at(0.5),
        "mask_us_p99": at(0.99),
        "mask_us_max": at(1.0),
        "compile_ms": compiled.as_secs_f64() * 1e3 / OUTPUTS as f64,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
