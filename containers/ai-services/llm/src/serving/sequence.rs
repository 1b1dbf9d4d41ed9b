//! One sequence that runs: its tokens, the state of its sampling and its text, and its reader.

use std::time::{Duration, Instant};

use aisemble_batcher::Outlet;
use aisemble_weights::Tokenizer;

use crate::constraint::Constraint;
use crate::engine::{Class, OwnerKey, Request};
use crate::sampling::{LogprobsWanted, Sampled, SamplerState, SamplingParameters, TokenLogprob};
use crate::text::{Detokenizer, StopScan, StopStrings};

/// Places in a reader's channel that are kept for the end of the answer.
const PIECES_KEPT: usize = 1;

/// A request, checked and turned into tokens.
#[derive(Debug, Clone)]
pub struct Job {
    /// At least one token, each in the vocabulary.
    pub prompt: Vec<u32>,
    /// Tokens to sample at most; at least 1, and within the context together with the prompt.
    pub output_tokens_max: usize,
    /// How to choose.
    pub sampling: SamplingParameters,
    /// What to report beside each token.
    pub logprobs: LogprobsWanted,
    /// What the output must fit; not together with `ignore_eos`.
    pub constraint: Option<Constraint>,
    /// What ends the output.
    pub stop: StopStrings,
    /// Control tokens that are text in this output.
    pub markers: Vec<u32>,
    /// Go on after an end token.
    pub ignore_eos: bool,
    /// How urgent it is.
    pub class: Class,
    /// Whose share it takes and whose prefixes it may reuse.
    pub owner: OwnerKey,
    /// When the request came.
    pub since: Instant,
}

/// What a reader gets, in this order: `Started`, tokens, `Finished`; or a failure at
/// any place.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// The sequence runs.
    Started {
        /// How long it waited.
        queued: Duration,
        /// Prompt tokens that were not computed again, as far as known now.
        cached_tokens: usize,
    },
    /// A token was sampled.
    Token(TokenPiece),
    /// The output is complete.
    Finished(Ending),
    /// The model failed on it.
    Failed,
    /// What the output must fit is too complex to be followed further.
    Unfollowable,
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenPiece {
    /// The token.
    pub id: u32,
    /// Text that is safe to show now; may be empty.
    pub text: String,
    /// Its log-probability and the likeliest alternatives, if wanted.
    pub logprobs: Option<(TokenLogprob, Vec<TokenLogprob>)>,
}

/// How an output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: FinishReason,
    /// Tokens sampled, an end token included.
    pub output_tokens: usize,
    /// Text that was held back for a stop string that did not come.
    pub text_tail: String,
    /// From the start to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// In the queue.
    pub queued: Duration,
    /// Prompt tokens that were not computed again.
    pub cached_tokens: usize,
}

/// Why an output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The tokens that were asked for, or all that fit.
    Length,
}

/// A sequence that waits or runs: everything but its tokens, which the scheduler has.
pub(super) struct Sequence {
    pub(super) sampler: SamplerState,
    prompt_tokens: usize,
    output_tokens: usize,
    output_tokens_max: usize,
    ignore_eos: bool,
    markers: Vec<u32>,
    text: Detokenizer,
    stop: StopScan,
    outlet: Outlet<Piece>,
    since: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    paused_since: Option<Instant>,
    cached_tokens: usize,
}

/// Whether a sequence goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Runs,
    Ends(FinishReason),
}

impl Sequence {
    /// What the scheduler gets of a job, and what stays here.
    pub(super) fn new(job: Job, outlet: Outlet<Piece>) -> (Request, Self) {
        let sequence = Self {
            prompt_tokens: job.prompt.len(),
            sampler: SamplerState::new(job.sampling, job.logprobs, &job.prompt)
                .constrained(job.constraint),
            output_tokens: 0,
            output_tokens_max: job.output_tokens_max,
            ignore_eos: job.ignore_eos,
            markers: job.markers,
            text: Detokenizer::default(),
            stop: job.stop.scan(),
            outlet,
            since: job.since,
            started: None,
            first_token: None,
            paused_since: None,
            cached_tokens: 0,
        };
        let request = Request {
            prompt: job.prompt,
            output_tokens_max: job.output_tokens_max,
            class: job.class,
            owner: job.owner,
        };
        (request, sequence)
    }

    /// It runs from now on: tells the reader.
    pub(super) fn start(&mut self, cached_tokens: usize) {
        let started = Instant::now();
        self.started = Some(started);
        let queued = started.saturating_duration_since(self.since);
        self.send(Piece::Started { queued, cached_tokens });
    }

    /// Prompt tokens that were not computed again, now that the prompt is done.
    pub(super) fn cached(&mut self, tokens: usize) {
        self.cached_tokens = tokens;
    }

    /// Whether nobody wants the answer any more: the caller left, or the deadline passed.
    pub(super) fn is_gone(&self) -> bool {
        self.outlet.gone().is_some()
    }

    /// Tokens that the reader can be sent now, the end of the answer besides; 0 while it is behind.
    pub(super) fn readable_tokens(&self) -> usize {
        self.outlet.room().saturating_sub(PIECES_KEPT)
    }

    /// Notes how long the sequence has been paused already.
    pub(super) fn paused_for(&mut self, now: Instant) -> Duration {
        if self.readable_tokens() > 0 {
            self.paused_since = None;
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.paused_since.get_or_insert(now))
    }

    /// Prompt tokens, known from the first token on: whether the prompt is computed just now.
    pub(super) fn prompt_just_computed(&self) -> Option<usize> {
        self.first_token.is_none().then_some(self.prompt_tokens)
    }

    /// Takes in a sampled token and tells the reader.
    pub(super) fn take(&mut self, sampled: Sampled, tokenizer: &Tokenizer) -> Fate {
        self.first_token.get_or_insert_with(Instant::now);
        let id = sampled.token;
        self.output_tokens += 1;
        let ends = tokenizer.ends_generation(id) && !self.ignore_eos;
        // Control tokens are no text; an unknown id cannot be, and gives none.
        let text = if tokenizer.is_control(id) && !self.markers.contains(&id) {
            String::new()
        } else {
            let text = self.text.push(tokenizer.piece(id).unwrap_or_default());
            self.stop.push(&text)
        };
        let logprobs = if ends { None } else { sampled.logprobs };
        self.send(Piece::Token(TokenPiece { id, text, logprobs }));
        // Nothing can follow: no step is spent on the end token.
        let whole = self.sampler.constraint().is_some_and(Constraint::is_complete);
        if ends || whole || self.stop.stopped() {
            Fate::Ends(FinishReason::Stop)
        } else if self.output_tokens >= self.output_tokens_max {
            Fate::Ends(FinishReason::Length)
        } else {
            Fate::Runs
        }
    }

    /// The output is complete: tells the reader and lets it go.
    pub(super) fn finish(mut self, reason: FinishReason) {
        let rest = self.text.finish();
        let mut text_tail = self.stop.push(rest);
        text_tail.push_str(&self.stop.finish());
        // A stop string can still come true with the replacement of a broken character.
        let reason = if self.stop.stopped() { FinishReason::Stop } else { reason };
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        self.send(Piece::Finished(Ending {
            reason,
            output_tokens: self.output_tokens,
            text_tail,
            prefill: first_token.saturating_duration_since(started),
            decode: now.saturating_duration_since(first_token),
            queued: started.saturating_duration_since(self.since),
            cached_tokens: self.cached_tokens,
        }));
        self.outlet.finish();
    }

    /// No token can be chosen: tells the reader why and lets it go.
    pub(super) fn fail(self) {
        let lost = self.sampler.constraint().is_some_and(Constraint::is_lost);
        self.send(if lost { Piece::Unfollowable } else { Piece::Failed });
        self.outlet.finish();
    }

    fn send(&self, piece: Piece) {
        // There is room (paused sequences get no rows) unless the caller has left, which the next
        // step sees.
        let _unread = self.outlet.send(piece);
    }
}
