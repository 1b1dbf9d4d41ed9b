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

/// Longer than any test runs: the reader comes back in time however busy the machine is.
const PATIENT: Duration = Duration::from_secs(600);

fn limits(reader_wait_max: Duration) -> EngineLimits {
    EngineLimits {
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
        reader_wait_max,
    }
}

fn start(meters: &Arc<Meters>) -> Batcher<Job, Piece> {
    start_with(meters, limits(READER_WAIT_MAX))
}

fn start_with(meters: &Arc<Meters>, limits: EngineLimits) -> Batcher<Job, Piece> {
    let meters = Arc::clone(meters);
    let build = move || {
        let (decoder, tokenizer) = (&loaded().decoder, &loaded().tokenizer);
        let (decoder, tokenizer) = (Arc::clone(decoder), Arc::clone(tokenizer));
        Ok(ServingModel::new(decoder, tokenizer, limits, Arc::clone(&meters))?)
    };
    Batcher::start(BatcherConfig { running_max: 64, ..BatcherConfig::default() }, build).unwrap()
}

fn job(prompt: &str, output_tokens_max: usize) -> Job {
    Job {
        prompt: loaded().tokenizer.encode(prompt, true).unwrap(),
        output_tokens_max,
        sampling: SamplingParameters::greedy(),
        logprobs: LogprobsWanted::No,
        constraint: None,
        stop: StopStrings::default(),
        ignore_eos: true,
        markers: Vec::new(),
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
            Ok(Some(Piece::Failed | Piece::Unfollowable) | None) => {
                panic!("no end after {tokens} tokens")
            }
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
    let batcher = start_with(&meters, limits(PATIENT));
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

/// Tokens of an answer, and how many of its prompt's were reused.
fn tokens(mut reply: Reply<Piece>) -> (Vec<u32>, usize) {
    let mut ids = Vec::new();
    loop {
        match reply.blocking_recv().unwrap().unwrap() {
            Piece::Started { .. } => {}
            Piece::Token(token) => ids.push(token.id),
            Piece::Finished(ending) => return (ids, ending.cached_tokens),
            Piece::Failed | Piece::Unfollowable => panic!("the model failed"),
        }
    }
}

/// Prompts that begin alike, repeat themselves, or neither; greedy and drawn.
fn various() -> Vec<Job> {
    let system = "You are a helpful assistant. Answer in one sentence and be polite. ".repeat(4);
    let drawn = |seed| SamplingParameters {
        temperature: 0.8,
        top_p: 0.95,
        seed,
        ..SamplingParameters::greedy()
    };
    vec![
        job(&format!("{system}What is the capital of France?"), 40),
        job(&format!("{system}What is the sea?"), 40),
        job("1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3,", 60),
        Job { sampling: drawn(1), ..job("a b c d a b c d a b c d a b", 60) },
        Job { sampling: drawn(2), ..job(&format!("{system}Tell me a story."), 50) },
        job("Once upon a time", 50),
    ]
}

/// The answers of [`various`], all asked at once.
fn answers(batcher: &Batcher<Job, Piece>) -> Vec<Vec<u32>> {
    let replies: Vec<_> = various().into_iter().map(|job| submit(batcher, job, 128)).collect();
    replies.into_iter().map(|reply| tokens(reply).0).collect()
}

#[test]
fn what_is_answered_depends_on_nothing_but_the_question() {
    let meters = Arc::new(Meters::default());
    let mut plain = limits(PATIENT);
    plain.scheduler.sharing = PrefixSharing::Off;
    let alone = start_with(&meters, plain);
    let expected: Vec<_> =
        various().into_iter().map(|job| tokens(submit(&alone, job, 128)).0).collect();
    assert_eq!(meters.now().scheduler.kv_tokens_kept, 0);

    // Everything at once: shared beginnings, proposed tokens, and too few blocks for all.
    let meters = Arc::new(Meters::default());
    let mut tight = limits(PATIENT);
    tight.scheduler.draft_tokens_max = 5;
    tight.scheduler.blocks = 9;
    let together = start_with(&meters, tight);
    for _ in 0..2 {
        assert_eq!(answers(&together), expected);
    }
    let now = meters.now();
    assert!(now.prompt_tokens_cached > 0 && now.scheduler.evictions > 0, "{now:?}");
    assert!(now.scheduler.preemptions > 0, "{now:?}");
    assert!(now.scheduler.accepted > 20, "{now:?}");
    assert_eq!(now.scheduler.kv_tokens_used, 0);
}

#[test]
fn a_repeated_beginning_is_computed_once() {
    let meters = Arc::new(Meters::default());
    // Drafts, right or wrong, would have rows of their own.
    let mut plain = limits(PATIENT);
    plain.scheduler.draft_tokens_max = 0;
    let batcher = start_with(&meters, plain);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    let (first, cached) = tokens(submit(&batcher, job(&text, 4), 64));
    assert_eq!(cached, 0);
    let rows = meters.now().rows;
    let (again, cached) = tokens(submit(&batcher, job(&text, 4), 64));
    let prompt_tokens = loaded().tokenizer.encode(&text, true).unwrap().len();
    assert_eq!((again, cached), (first, (prompt_tokens - 1) / BLOCK_TOKENS * BLOCK_TOKENS));
    assert_eq!(meters.now().rows - rows, (prompt_tokens - cached + 3) as u64);
    let other = Job { owner: OwnerKey(1), ..job(&text, 4) };
    assert_eq!(tokens(submit(&batcher, other, 64)).1, 0, "another owner's prompt is reused");
}

/// The short form of `cargo bench -p aisemble-llm --bench soak`.
#[test]
fn many_requests_with_cancels_leave_no_block_behind() {
    let meters = Arc::new(Meters::default());
    let mut limits = limits(PATIENT);
    limits.scheduler.draft_tokens_max = 3;
    limits.scheduler.blocks = 12;
    let batcher = start_with(&meters, limits);
    let mut inside = std::collections::VecDeque::new();
    for round in 0..120_u64 {
        let output = 1 + (round * 7 % 23) as usize;
        let text = "one two three four five six ".repeat(1 + (round % 11) as usize);
        let asked = Job { owner: OwnerKey(round % 3), ..job(&text, output) };
        inside.push_back((round, output, submit(&batcher, asked, 64)));
        if inside.len() < 8 {
            continue;
        }
        let (number, output, mut reply) = inside.pop_front().unwrap();
        if number % 3 == 0 {
            // Leaves before, in or after its first token.
            for _ in 0..number % 4 {
                let _piece = reply.blocking_recv();
            }
        } else {
            assert_eq!(tokens(reply).0.len(), output);
        }
    }
    drop(inside);
    let patience = Instant::now() + Duration::from_secs(60);
    while batcher.stats().running > 0 {
        assert!(Instant::now() < patience, "somebody never leaves");
        std::thread::yield_now();
    }
    let now = meters.now().scheduler;
    assert_eq!((now.running, now.waiting, now.kv_tokens_used), (0, 0, 0));
    assert!(now.kv_tokens_kept <= 12 * BLOCK_TOKENS);
}
