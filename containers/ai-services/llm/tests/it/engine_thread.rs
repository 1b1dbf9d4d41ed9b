//! The model thread without a socket: what a step costs whom, seen from inside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Batcher, BatcherConfig, Lost, Reply, SubmitOptions};
use aisemble_llm::engine::{Class, OwnerKey, PrefixSharing, SchedulerLimits};
use aisemble_llm::model::{BLOCK_TOKENS, CacheKind};
use aisemble_llm::sampling::{LogprobsWanted, SamplingParameters};
use aisemble_llm::serving::{EngineLimits, FinishReason, Job, Meters, Piece, ServingModel};
use aisemble_llm::text::StopStrings;

use crate::model_file::loaded;

const READER_WAIT_MAX: Duration = Duration::from_millis(200);

fn start(meters: &Arc<Meters>) -> Batcher<Job, Piece> {
    let limits = EngineLimits {
        scheduler: SchedulerLimits {
            rows_max: 4,
            blocks: 64,
            block_tokens: BLOCK_TOKENS,
            prefill_tokens_alone: 256,
            prefill_tokens_beside_decode: 16,
            slowdown_percent_max: 0,
            sharing: PrefixSharing::PerOwner,
            draft_tokens_max: 0,
        },
        cache: CacheKind::F16,
        reader_wait_max: READER_WAIT_MAX,
    };
    let meters = Arc::clone(meters);
    let build = move || {
        let (decoder, tokenizer) = (&loaded().decoder, &loaded().tokenizer);
        let (decoder, tokenizer) = (Arc::clone(decoder), Arc::clone(tokenizer));
        Ok(ServingModel::new(decoder, tokenizer, limits, Arc::clone(&meters))?)
    };
    Batcher::start(BatcherConfig { running_max: 4, ..BatcherConfig::default() }, build).unwrap()
}

fn job(prompt: &str, output_tokens_max: usize) -> Job {
    Job {
        prompt: loaded().tokenizer.encode(prompt, true).unwrap(),
        output_tokens_max,
        sampling: SamplingParameters::greedy(),
        logprobs: LogprobsWanted::No,
        stop: StopStrings::default(),
        ignore_eos: true,
        class: Class::Normal,
        owner: OwnerKey(0),
        since: Instant::now(),
    }
}

fn submit(batcher: &Batcher<Job, Piece>, job: Job, outputs_max: usize) -> Reply<Piece> {
    let options = SubmitOptions { outputs_max, ..SubmitOptions::default() };
    batcher.try_submit(job, options).unwrap()
}

/// Reads to the end; how many tokens came, and how it ended.
fn read(mut reply: Reply<Piece>) -> (usize, Result<FinishReason, Lost>) {
    let mut tokens = 0;
    loop {
        match reply.blocking_recv() {
            Ok(Some(Piece::Token(_))) => tokens += 1,
            Ok(Some(Piece::Finished(ending))) => {
                assert_eq!(ending.output_tokens, tokens);
                assert!(reply.blocking_recv().unwrap().is_none());
                return (tokens, Ok(ending.reason));
            }
            Ok(Some(Piece::Started { .. })) => assert_eq!(tokens, 0),
            Ok(Some(Piece::Failed) | None) => panic!("no end after {tokens} tokens"),
            Err(lost) => return (tokens, Err(lost)),
        }
    }
}

#[test]
fn who_leaves_is_gone_within_one_step() {
    let meters = Arc::new(Meters::default());
    let batcher = start(&meters);
    for round in 0..8 {
        let mut reply = submit(&batcher, job("Once upon a time", 500), 64);
        for _ in 0..round + 2 {
            assert!(reply.blocking_recv().unwrap().is_some());
        }
        drop(reply);
        // Whatever is sampled from here on, is by the step that was running when he left.
        let tokens = meters.now().output_tokens;
        let patience = Instant::now() + Duration::from_secs(60);
        while batcher.stats().running > 0 {
            assert!(Instant::now() < patience, "the sequence runs on");
            std::thread::yield_now();
        }
        let now = meters.now();
        assert!(now.output_tokens <= tokens + 1, "{} steps more", now.output_tokens - tokens);
        assert_eq!(now.scheduler.kv_tokens_used, 0);
    }
}

#[test]
fn a_slow_reader_holds_up_nobody_and_is_given_up_in_the_end() {
    let meters = Arc::new(Meters::default());
    let batcher = start(&meters);
    let slow = submit(&batcher, job("Once upon a time", 500), 8);
    let quick = submit(&batcher, job("The sea is", 100), 64);
    assert_eq!(read(quick), (100, Ok(FinishReason::Length)));
    // The slow one filled its 8 places less one that is kept for the end, then it waited.
    let patience = Instant::now() + Duration::from_secs(60);
    while batcher.stats().running > 0 {
        assert!(Instant::now() < patience, "the slow reader was never given up");
        std::thread::yield_now();
    }
    assert_eq!(read(slow), (6, Err(Lost::Dropped)));
    let now = meters.now();
    assert_eq!((now.slow_readers, now.scheduler.kv_tokens_used, now.output_tokens), (1, 0, 106));
}

#[test]
fn a_reader_that_comes_back_in_time_gets_everything() {
    let meters = Arc::new(Meters::default());
    let batcher = start(&meters);
    let slow = submit(&batcher, job("Once upon a time", 40), 8);
    // When a later request is done, the slow one has been waiting for its reader.
    let quick = submit(&batcher, job("The sea is", 8), 64);
    assert_eq!(read(quick).0, 8);
    assert_eq!(read(slow), (40, Ok(FinishReason::Length)));
    assert_eq!(meters.now().slow_readers, 0);
}

#[test]
fn a_long_prompt_lets_the_others_decode_between_its_chunks() {
    let meters = Arc::new(Meters::default());
    let batcher = start(&meters);
    let running = submit(&batcher, job("Once upon a time", 60), 64);
    while meters.now().output_tokens == 0 {
        std::thread::yield_now();
    }
    let long = submit(&batcher, job(&"word ".repeat(300), 1), 64);
    assert_eq!(read(long), (1, Ok(FinishReason::Length)));
    let told = meters.now();
    // 301 prompt tokens in chunks of 16 beside the other: 19 steps, each with one of its tokens.
    assert!(told.output_tokens >= 19, "{told:?}");
    assert_eq!(read(running), (60, Ok(FinishReason::Length)));
}
