//! Trains the sentiment head: logistic regression on the embeddings of all-MiniLM-L6-v2 from texts
//! that people have rated. The same input gives the same bytes.
//!
//! `cargo run --release -p aisemble-nlp --example train_sentiment -- MODEL RATINGS OUT`, as
//! `scripts/train-sentiment` runs it. MODEL: the folder of the embedder. RATINGS: the folder of
//! `*_GroundTruth.txt` (Hutto and Gilbert 2014, in the sdist of vaderSentiment): lines of a number,
//! the mean rating from -4 to 4, and the text, in Latin-1. OUT: the head.
//!
//! Texts rated within half a point of neither are left out. One text in five, chosen by a hash of
//! it, is held out and never trained on; the figures on standard output are of those.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use aisemble_nlp::config::NlpConfig;
use aisemble_nlp::encoder::Sequences;
use aisemble_nlp::heads::Output;
use aisemble_nlp::model::LoadedModel;
use aisemble_nlp::service::NlpService;
use aisemble_nlp::tasks::merge::finish_vector;
use aisemble_service::LoadProgress;

/// Ratings closer to 0 say neither.
const RATING_MIN: f64 = 0.5;
/// One text in so many is held out.
const HELD_OUT: u64 = 5;
/// Texts in a batch.
const BATCH: usize = 64;
/// Tokens of a text; the rated ones are shorter.
const TOKENS_MAX: usize = 256;
/// Added to the diagonal: what keeps the weights small.
const PENALTY: f64 = 1.0;
const NEWTON_STEPS: usize = 12;

type Failure = Box<dyn std::error::Error>;

struct Rated {
    source: String,
    text: String,
    positive: bool,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let [model, ratings, out] = arguments.as_slice() else {
        return Err("usage: train_sentiment MODEL RATINGS OUT".into());
    };
    let rated = read(ratings)?;
    let model = load(model)?;
    let vectors = embed(&model, &rated)?;
    let is_held_out = |rated: &Rated| fnv(rated.text.as_bytes()).is_multiple_of(HELD_OUT);
    let training: Vec<(&[f64], bool)> = rated
        .iter()
        .zip(&vectors)
        .filter(|(rated, _)| !is_held_out(rated))
        .map(|(rated, vector)| (vector.as_slice(), rated.positive))
        .collect();
    let weights = fit(&training);
    let mut scores: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (rated, vector) in rated.iter().zip(&vectors).filter(|(rated, _)| is_held_out(rated)) {
        let right = (product(&weights, vector) > 0.0) == rated.positive;
        for source in [rated.source.as_str(), "all"] {
            let [count, hits, positives] = scores.entry(source).or_default();
            *count += 1;
            *hits += usize::from(right);
            *positives += usize::from(rated.positive);
        }
    }
    for (source, [count, hits, positives]) in scores {
        let share = |n: usize| (n as f64 / count as f64 * 1000.0).round() / 1000.0;
        let line = serde_json::json!({
            "source": source, "held_out": count, "accuracy": share(hits),
            "majority_class": share(positives.max(count - positives)),
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    std::fs::write(out, head(&weights, &model.sha256))?;
    Ok(())
}

/// The rated texts, in the order of file names and lines.
fn read(folder: &Path) -> Result<Vec<Rated>, Failure> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.to_string_lossy().ends_with("_GroundTruth.txt"));
    files.sort();
    let mut rated = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = name.trim_end_matches("_GroundTruth.txt").to_owned();
        // Latin-1: every byte is the character of that number.
        let text: String = std::fs::read(&path)?.into_iter().map(char::from).collect();
        for line in text.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(_), Some(rating), Some(text)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let rating: f64 = rating.trim().parse()?;
            if rating.abs() >= RATING_MIN && !text.trim().is_empty() {
                let (source, text) = (source.clone(), text.trim().to_owned());
                rated.push(Rated { source, text, positive: rating > 0.0 });
            }
        }
    }
    if rated.is_empty() {
        return Err(format!("{} has no ratings", folder.display()).into());
    }
    Ok(rated)
}

fn load(folder: &Path) -> Result<LoadedModel, Failure> {
    let mut config = NlpConfig::default();
    for model in &mut config.model {
        folder.clone_into(&mut model.path);
    }
    let models = NlpService::models(&config, &LoadProgress::new())?;
    models.into_iter().next().ok_or_else(|| "no model".into())
}

/// Each text's embedding of length 1, and a 1 for the bias.
fn embed(model: &LoadedModel, rated: &[Rated]) -> Result<Vec<Vec<f64>>, Failure> {
    let mut vectors = Vec::with_capacity(rated.len());
    for batch in rated.chunks(BATCH) {
        let mut sequences = Sequences::default();
        for rated in batch {
            let encoded = model.text.encode(&rated.text)?;
            let tokens = encoded.tokens.len().min(TOKENS_MAX);
            sequences.push(&model.text.sequence(&encoded.ids(0..tokens)).0, None);
        }
        let hidden = model.encoder.forward(&sequences);
        for output in model.head.outputs(&model.encoder, &hidden, &sequences) {
            let Output::Vector(vector) = output else { return Err("not an embedder".into()) };
            let unit = finish_vector(vector, 0, true);
            vectors.push(unit.into_iter().map(f64::from).chain([1.0]).collect());
        }
    }
    Ok(vectors)
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Logistic regression with a squared penalty on the weights (not on the bias), by Newton's method.
fn fit(rows: &[(&[f64], bool)]) -> Vec<f64> {
    let width = rows.first().map_or(0, |(row, _)| row.len());
    let mut weights = vec![0.0; width];
    for _ in 0..NEWTON_STEPS {
        let mut gradient = vec![0.0; width];
        let mut curvature = vec![vec![0.0; width]; width];
        for (row, positive) in rows {
            let chance = 1.0 / (1.0 + (-product(&weights, row)).exp());
            let error = chance - f64::from(u8::from(*positive));
            let weight = chance * (1.0 - chance);
            for i in 0..width {
                gradient[i] += error * row[i];
                let scaled = weight * row[i];
                for (sum, value) in curvature[i][..=i].iter_mut().zip(*row) {
                    *sum += scaled * value;
                }
            }
        }
        for i in 0..width - 1 {
            gradient[i] += PENALTY * weights[i];
            curvature[i][i] += PENALTY;
        }
        for (weight, step) in weights.iter_mut().zip(solve(curvature, gradient)) {
            *weight -= step;
        }
    }
    weights
}

/// `a x = b` for a positive definite `a` of which the lower half is given (Cholesky).
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let sum = a[i][j] - (0..j).map(|k| a[i][k] * a[j][k]).sum::<f64>();
            a[i][j] = if i == j { sum.max(1e-12).sqrt() } else { sum / a[j][j] };
        }
    }
    for i in 0..n {
        b[i] = (b[i] - (0..i).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[k][i] * b[k]).sum::<f64>()) / a[i][i];
    }
    b
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The head as safetensors: two labels whose scores are apart by the regression's.
fn head(weights: &[f64], base_sha256: &str) -> Vec<u8> {
    let (bias, weights) = weights.split_last().unwrap_or((&0.0, &[]));
    let labels = serde_json::json!(["negative", "positive"]).to_string();
    let bytes = 2 * weights.len() * 4;
    let header = serde_json::json!({
        "__metadata__": { "base": "all-minilm-l6-v2", "base_sha256": base_sha256, "labels": labels },
        "bias": { "dtype": "F32", "shape": [2], "data_offsets": [bytes, bytes + 8] },
        "weight": { "dtype": "F32", "shape": [2, weights.len()], "data_offsets": [0, bytes] },
    });
    let mut header = header.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    for sign in [-0.5, 0.5] {
        file.extend(weights.iter().flat_map(|weight| ((weight * sign) as f32).to_le_bytes()));
    }
    file.extend([-0.5, 0.5].iter().flat_map(|sign| ((bias * sign) as f32).to_le_bytes()));
    file
}
