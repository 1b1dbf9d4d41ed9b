//! Prefill and decode tokens per second of the decoder itself: no sampling but the argmax, no
//! service. One JSON object a line on stdout.
//!
//! `cargo bench -p aisemble-llm [-- MODEL.gguf] [--threads N] [--sequences N] [--context N]`; the
//! model is that of the tests by default, the numbers are all that are in the tables below. Rates
//! are given by the clock and by CPU time: the second can be compared on a machine that others use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_llm::model::{BLOCK_TOKENS, CacheKind, Caches, Decoder, StepBatch};
use aisemble_weights::GgufFile;
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;

const THREADS: [usize; 2] = [1, 2];
/// Sequences at once, and tokens of the prompt of each.
const CASES: [(usize, usize); 6] = [(1, 256), (2, 256), (4, 256), (8, 256), (16, 256), (1, 4096)];
const OUTPUT_TOKENS: usize = 64;
const CHUNK_TOKENS: usize = 512;
const REPEATS: usize = 3;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let given = arguments.iter().find(|argument| argument.ends_with(".gguf"));
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let file = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = given.map_or_else(|| home().join(".cache/ai-semble").join(file), PathBuf::from);
    let gguf = GgufFile::open(&path)?;
    for threads in THREADS.into_iter().filter(|n| number("--threads").is_none_or(|m| m == *n)) {
        let pool = Arc::new(Pool::new(Some(threads))?);
        let positions = CASES.iter().map(|(_, context)| context + OUTPUT_TOKENS).max();
        let positions = positions.unwrap_or(0);
        let decoder = Decoder::load(&gguf, positions, pool, &Device::Cpu, |_, _| {})?;
        for (sequences, context) in CASES {
            let wanted = number("--sequences").is_none_or(|n| n == sequences)
                && number("--context").is_none_or(|n| n == context);
            if !wanted {
                continue;
            }
            let mut runs = Vec::with_capacity(REPEATS);
            for _ in 0..REPEATS {
                runs.push(run(&decoder, sequences, context)?);
            }
            report(&path, (threads, sequences, context), &runs);
        }
    }
    Ok(())
}

/// What one run took.
struct Run {
    prefill: Cost,
    decode: Cost,
}

#[derive(Clone, Copy)]
struct Cost {
    tokens: usize,
    wall: Duration,
    cpu: Duration,
}

impl Cost {
    fn measure(tokens: usize, work: impl FnOnce() -> Result<(), Failure>) -> Result<Self, Failure> {
        let (begun, cpu_begun) = (Instant::now(), cpu_time()?);
        work()?;
        let (wall, cpu) = (begun.elapsed(), cpu_time()?.saturating_sub(cpu_begun));
        Ok(Self { tokens, wall, cpu })
    }

    fn rates(self) -> (f64, f64) {
        let rate = |time: Duration| self.tokens as f64 / time.as_secs_f64().max(1e-9);
        (rate(self.wall), rate(self.cpu))
    }
}

fn run(decoder: &Decoder, sequences: usize, context: usize) -> Result<Run, Failure> {
    let blocks_each = (context + OUTPUT_TOKENS).div_ceil(BLOCK_TOKENS);
    let mut caches = decoder.caches(sequences * blocks_each, CacheKind::F16)?;
    let tables: Vec<Vec<u32>> = (0..sequences)
        .map(|index| ((index * blocks_each) as u32..((index + 1) * blocks_each) as u32).collect())
        .collect();
    let vocabulary = decoder.config().vocabulary as u32;
    let prompt: Vec<u32> = (0..context as u32).map(|i| (i * 7919 + 11) % vocabulary).collect();
    let mut last: Vec<u32> = Vec::new();
    let prefill = Cost::measure(sequences * context, || {
        last = prompt_pass(decoder, &mut caches, &tables, &prompt)?;
        Ok(())
    })?;
    let decode = Cost::measure(sequences * OUTPUT_TOKENS, || {
        for at in 0..OUTPUT_TOKENS {
            let mut batch = StepBatch::default();
            for (table, token) in tables.iter().zip(&last) {
                batch.push(&[*token], context + at, table, true);
            }
            last = likeliest(decoder, &batch, &mut caches)?;
        }
        Ok(())
    })?;
    Ok(Run { prefill, decode })
}

/// All prompts, in steps of [`CHUNK_TOKENS`] as the scheduler cuts them.
fn prompt_pass(
    decoder: &Decoder,
    caches: &mut Caches,
    tables: &[Vec<u32>],
    prompt: &[u32],
) -> Result<Vec<u32>, Failure> {
    let mut first = Vec::new();
    for tables in tables.chunks((CHUNK_TOKENS / prompt.len()).max(1)) {
        let chunks = prompt.len().div_ceil(CHUNK_TOKENS);
        for (index, chunk) in prompt.chunks(CHUNK_TOKENS).enumerate() {
            let mut batch = StepBatch::default();
            for table in tables {
                batch.push(chunk, index * CHUNK_TOKENS, table, index + 1 == chunks);
            }
            first.extend(likeliest(decoder, &batch, caches)?);
        }
    }
    Ok(first)
}

fn likeliest(
    decoder: &Decoder,
    batch: &StepBatch<'_>,
    caches: &mut Caches,
) -> Result<Vec<u32>, Failure> {
    let logits = decoder.forward(batch, caches)?;
    let best = |row: &[f32]| {
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        best.unwrap_or(0) as u32
    };
    Ok(logits.rows().map(best).collect())
}

#[expect(clippy::print_stdout, reason = "figures are what the program is for")]
fn report(path: &Path, (threads, sequences, context): (usize, usize, usize), runs: &[Run]) {
    let best = |cost: fn(&Run) -> Cost| {
        let rates = runs.iter().map(|run| cost(run).rates());
        rates.fold((0.0_f64, 0.0_f64), |best, rate| (best.0.max(rate.0), best.1.max(rate.1)))
    };
    let (prefill, decode) = (best(|run| run.prefill), best(|run| run.decode));
    println!(
        "{}",
        serde_json::json!({
            "bench": "llm.throughput",
            "model": path.file_name().map(|name| name.to_string_lossy()),
            "threads": threads,
            "sequences": sequences,
            "prompt_tokens": context,
            "output_tokens": OUTPUT_TOKENS,
            "prefill_tokens_per_s": prefill.0.round(),
            "prefill_tokens_per_cpu_s": prefill.1.round(),
            "decode_tokens_per_s": decode.0.round(),
            "decode_tokens_per_cpu_s": decode.1.round(),
            "best_of": runs.len(),
        })
    );
}

/// CPU time of all threads of this process so far.
fn cpu_time() -> Result<Duration, Failure> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        // The first field is the time on a CPU, nanoseconds.
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}
