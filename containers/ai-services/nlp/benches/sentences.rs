//! Sentences a second of the embedder, tokenizer included, on one thread, by processor time, beside
//! ONNX Runtime in the same run. One JSON object a line on stdout.
//!
//! `cargo bench -p aisemble-nlp [-- PYTHON FILE.onnx]`: the peer is
//! `scripts/reference/nlp.py bench` run by that Python, with the file that `nlp.py onnx` made.
//! Without it only ours is measured. The
//! model is that of the tests. Rounds of both alternate, and the ratio is that of their medians.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use aisemble_nlp::config::{NlpConfig, Precision};
use aisemble_nlp::encoder::Sequences;
use aisemble_nlp::heads::Output;
use aisemble_nlp::model::LoadedModel;
use aisemble_nlp::service::NlpService;
use aisemble_nlp::tasks::merge::finish_vector;
use aisemble_service::LoadProgress;

const ROUNDS: usize = 7;
/// Texts in a batch, for both.
const BATCH: usize = 32;
const WORDS: [&str; 16] = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "small", "birds",
    "sing", "near", "old", "trees",
];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let folder = home.join(".cache/ai-semble/models/all-minilm-l6-v2");
    let sets = sets();
    let mut peer = match arguments.as_slice() {
        [python, file] => Some(Peer::start(python, &folder, file, &sets)?),
        _ => None,
    };
    for precision in [Precision::F32, Precision::Q8] {
        let model = model(&folder, precision)?;
        for (name, texts) in &sets {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(embed(&model, texts)?);
                if let Some(peer) = &mut peer {
                    theirs.push(peer.embed(name)?);
                }
            }
            let rate = |times: &mut Vec<f64>| {
                times.sort_by(f64::total_cmp);
                times.get(times.len() / 2).map(|time| texts.len() as f64 / time)
            };
            let (ours, theirs) = (rate(&mut ours), rate(&mut theirs));
            let line = serde_json::json!({
                "set": name, "texts": texts.len(), "precision": precision,
                "isa": model.encoder.pool().cpu().isa().name(),
                "sentences_per_cpu_s": ours, "onnxruntime_sentences_per_cpu_s": theirs,
                "ratio": ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
            });
            writeln!(std::io::stdout(), "{line}")?;
        }
    }
    Ok(())
}

/// Texts of 28 tokens; of 5 to 60; of 250.
fn sets() -> Vec<(&'static str, Vec<String>)> {
    let text = |seed: usize, words: usize| {
        let word = |at: usize| WORDS[(seed * 7 + at * 5 + at / 3) % WORDS.len()];
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    };
    vec![
        ("28 tokens", (0..128).map(|n| text(n, 26)).collect()),
        ("5 to 60 tokens", (0..128).map(|n| text(n, 3 + n * 37 % 56)).collect()),
        ("250 tokens", (0..32).map(|n| text(n, 248)).collect()),
    ]
}

fn model(folder: &Path, precision: Precision) -> Result<LoadedModel, Failure> {
    let mut config = NlpConfig::default();
    config.engine.threads = 1;
    for model in &mut config.model {
        folder.clone_into(&mut model.path);
        model.precision = precision;
    }
    let models = NlpService::models(&config, &LoadProgress::new())?;
    models.into_iter().next().ok_or_else(|| "no model".into())
}

/// Embeds the texts once; processor seconds.
fn embed(model: &LoadedModel, texts: &[String]) -> Result<f64, Failure> {
    let begun = processor_ns()?;
    for texts in texts.chunks(BATCH) {
        let mut sequences = Sequences::default();
        for text in texts {
            let encoded = model.text.encode(text)?;
            let (ids, _) = model.text.sequence(&encoded.ids(0..encoded.tokens.len()));
            sequences.push(&ids, None);
        }
        let hidden = model.encoder.forward(&sequences);
        for output in model.head.outputs(&model.encoder, &hidden, &sequences) {
            if let Output::Vector(vector) = output {
                std::hint::black_box(finish_vector(vector, 0, true));
            }
        }
    }
    Ok((processor_ns()? - begun) as f64 / 1e9)
}

/// Processor time of this thread, nanoseconds: with one thread it does everything.
fn processor_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// The reference script, which embeds a set when it is told its name.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(
        python: &str,
        folder: &Path,
        file: &str,
        sets: &[(&str, Vec<String>)],
    ) -> Result<Self, Failure> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/reference/nlp.py");
        let mut command = Command::new(python);
        command.args([script, "bench"]).arg(folder).arg(file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().ok_or("no input")?;
        let from = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut peer = Self { child, to, from };
        let sets: serde_json::Map<_, _> = sets
            .iter()
            .map(|(name, texts)| ((*name).to_owned(), texts.as_slice().into()))
            .collect();
        writeln!(peer.to, "{}", serde_json::Value::from(sets))?;
        let answer = peer.answer()?;
        writeln!(std::io::stdout(), "{}", serde_json::json!({ "peer": answer }))?;
        Ok(peer)
    }

    fn answer(&mut self) -> Result<serde_json::Value, Failure> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn embed(&mut self, name: &str) -> Result<f64, Failure> {
        writeln!(self.to, "{name}")?;
        self.answer()?["cpu_s"].as_f64().ok_or_else(|| "no time".into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It is ours, and it has nothing left to say.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
