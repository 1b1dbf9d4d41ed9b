//! Many mixed requests with cancels against the model thread: memory must stay flat and no block of
//! the KV cache may be lost. One JSON object a line on stdout; fails when a block is missing.
//!
//! `cargo bench -p aisemble-llm --bench soak [-- REQUESTS]`, 20,000 by default.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Batcher, BatcherConfig, Reply, SubmitOptions};
use aisemble_llm::engine::{Class, OwnerKey, PrefixSharing, SchedulerLimits};
use aisemble_llm::model::{BLOCK_TOKENS, CacheKind, Decoder};
use aisemble_llm::sampling::{LogprobsWanted, SamplingParameters};
use aisemble_llm::serving::{EngineLimits, Job, Meters, Piece, ServingModel};
use aisemble_llm::text::StopStrings;
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;
use aisemble_weights::{GgufFile, Tokenizer};

const REQUESTS: u64 = 20_000;
const INSIDE: usize = 24;
const ROWS: usize = 8;
/// Few enough for preemptions.
const BLOCKS: usize = 24;
const REPORTS: u64 = 10;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let requests = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let file = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let gguf = GgufFile::open(&home.join(".cache/ai-semble").join(file))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let pool = Arc::new(Pool::new(None)?);
    let decoder = Arc::new(Decoder::load(&gguf, 2048, pool, &Device::Cpu, |_, _| {})?);
    let meters = Arc::new(Meters::default());
    let meters_of_model = Arc::clone(&meters);
    let build = move || {
        let (decoder, tokenizer) = (Arc::clone(&decoder), Arc::clone(&tokenizer));
        Ok(ServingModel::new(decoder, tokenizer, limits(), Arc::clone(&meters_of_model))?)
    };
    let config = BatcherConfig { running_max: INSIDE * 2, ..BatcherConfig::default() };
    let batcher = Batcher::start(config, build)?;
    let begun = Instant::now();
    let mut inside: VecDeque<(u64, Reply<Piece>)> = VecDeque::new();
    let mut cancelled = 0;
    for number in 0..requests {
        inside.push_back((number, batcher.try_submit(job(number), SubmitOptions::default())?));
        if inside.len() >= INSIDE {
            cancelled += u64::from(leave(&mut inside));
        }
        if (number + 1) % (requests / REPORTS).max(1) == 0 {
            report(number + 1, cancelled, &meters, begun)?;
        }
    }
    while !inside.is_empty() {
        cancelled += u64::from(leave(&mut inside));
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while batcher.stats().running > 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    report(requests, cancelled, &meters, begun)?;
    let now = meters.now().scheduler;
    if (now.running, now.waiting, now.kv_tokens_used) != (0, 0, 0) {
        return Err(format!("something is left behind: {now:?}").into());
    }
    Ok(())
}

fn limits() -> EngineLimits {
    EngineLimits {
        scheduler: SchedulerLimits {
            rows_max: ROWS,
            blocks: BLOCKS,
            block_tokens: BLOCK_TOKENS,
            prefill_tokens_alone: 256,
            prefill_tokens_beside_decode: 64,
            slowdown_percent_max: 200,
            sharing: PrefixSharing::PerOwner,
            draft_tokens_max: 5,
        },
        cache: CacheKind::F16,
        reader_wait_max: Duration::from_secs(60),
    }
}

/// Short and long, greedy and drawn, of several owners and classes, some alike at the beginning.
fn job(number: u64) -> Job {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    let (owner, length, alike) = (below(4), 1 + below(60) as u32, below(3) == 0);
    let first = if alike { 100 } else { 100 + below(20_000) as u32 };
    let sampling = SamplingParameters {
        temperature: if below(2) == 0 { 0.0 } else { 0.9 },
        seed: number,
        ..SamplingParameters::greedy()
    };
    Job {
        prompt: (0..length).map(|at| first + at * 3 % 50).collect(),
        output_tokens_max: 1 + below(24) as usize,
        sampling,
        logprobs: LogprobsWanted::No,
        constraint: None,
        stop: StopStrings::default(),
        ignore_eos: true,
        markers: Vec::new(),
        class: [Class::Interactive, Class::Normal, Class::Batch][below(3) as usize],
        owner: OwnerKey(owner),
        since: Instant::now(),
    }
}

/// Takes the oldest out: reads it to its end, or leaves somewhere before.
fn leave(inside: &mut VecDeque<(u64, Reply<Piece>)>) -> bool {
    let Some((number, mut reply)) = inside.pop_front() else { return false };
    let cancels = number % 4 == 0;
    let mut left = if cancels { number / 4 % 5 } else { u64::MAX };
    while left > 0 {
        match reply.blocking_recv() {
            Ok(Some(_)) => left -= 1,
            Ok(None) | Err(_) => break,
        }
    }
    cancels
}

#[expect(clippy::print_stdout, reason = "figures are what the program is for")]
fn report(requests: u64, cancelled: u64, meters: &Meters, begun: Instant) -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident: Option<u64> = resident.and_then(|kb| kb.split_whitespace().next()?.parse().ok());
    let now = meters.now();
    println!(
        "{}",
        serde_json::json!({
            "bench": "llm.soak",
            "requests": requests,
            "cancelled": cancelled,
            "resident_kb": resident,
            "output_tokens": now.output_tokens,
            "prompt_tokens_cached": now.prompt_tokens_cached,
            "kv_tokens_used": now.scheduler.kv_tokens_used,
            "evictions": now.scheduler.evictions,
            "preemptions": now.scheduler.preemptions,
            "drafted": now.scheduler.drafted,
            "accepted": now.scheduler.accepted,
            "seconds": begun.elapsed().as_secs(),
        })
    );
    Ok(())
}
