//! `Generate`: from a request to a queued job, and from its pieces to messages.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aisemble_batcher::{Lost, Reply};
use aisemble_protocol::{ApiError, ErrorCode, limits, v1};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::input::{Input, form, stop_strings};
use crate::constraint::Form;
use crate::engine::{Class, OwnerKey};
use crate::host::Host;
use crate::sampling::{LogprobsWanted, SamplingParameters, TokenLogprob};
use crate::serving::{Ending, FinishReason, Job, Piece, TokenPiece};
use crate::text::CallStyle;

/// The instant that the caller's `grpc-timeout` names, if it names one (`100m` = 100 ms; gRPC over
/// HTTP/2, "Timeout": at most 8 digits and a unit).
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

/// What was checked of a request.
struct Checked {
    input: Input,
    max_tokens: usize,
    sampling: SamplingParameters,
    logprobs: LogprobsWanted,
    form: Option<Form>,
    stop: crate::text::StopStrings,
    priority: v1::Priority,
    ignore_eos: bool,
}

/// Checks and queues a request; the stream is its answer. Dropping the stream cancels it.
pub(super) async fn generate(
    host: Arc<Host>,
    request: v1::GenerateRequest,
    deadline: Option<Instant>,
) -> Result<BoxStream<'static, Result<v1::GenerateEvent, Status>>, ApiError> {
    let since = Instant::now();
    host.check_model(&request.model)?;
    let (request_id, job_id) = (request.request_id.clone(), request.job_id.clone());
    let owned_by = request.owner.clone();
    let checked = check(&host, request)?;
    // Before the costly part: a full queue is said at once.
    let permit = host.permit()?;
    let input = checked.input;
    let markers = if input.has_tools() {
        host.encoder.call_markers().iter().map(|token| token.id).collect()
    } else {
        Vec::new()
    };
    let prompt = host.encode(move |encoder| input.tokens(encoder, true)).await?;
    let prompt_tokens = prompt.len();
    let output_tokens_max = host.output_tokens(prompt_tokens, checked.max_tokens)?;
    let constraint = host.constraint(checked.form).await?;
    tracing::debug!(
        request.id = request_id,
        job.id = job_id,
        tokens.prompt = prompt_tokens,
        tokens.output_max = output_tokens_max,
        "queued"
    );
    let seed = checked.sampling.seed;
    let job = Job {
        prompt,
        output_tokens_max,
        sampling: checked.sampling,
        logprobs: checked.logprobs,
        constraint,
        stop: checked.stop,
        ignore_eos: checked.ignore_eos,
        markers,
        class: class(checked.priority),
        owner: owner(&owned_by),
        since,
    };
    let reply = host.submit(permit, job, checked.priority, deadline);
    let answer = Answer { host, reply, prompt_tokens: prompt_tokens as u32, seed };
    Ok(stream::unfold(Some(answer), next).boxed())
}

fn class(priority: v1::Priority) -> Class {
    match priority {
        v1::Priority::Interactive => Class::Interactive,
        v1::Priority::Normal | v1::Priority::Unspecified => Class::Normal,
        v1::Priority::Batch => Class::Batch,
    }
}

/// The engine compares owners and keeps no names. The hash is keyed anew in each process.
fn owner(name: &str) -> OwnerKey {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    OwnerKey(KEYS.get_or_init(RandomState::new).hash_one(name))
}

fn check(host: &Host, request: v1::GenerateRequest) -> Result<Checked, ApiError> {
    let input = match request.input {
        Some(v1::generate_request::Input::Prompt(prompt)) => Input::prompt(prompt)?,
        Some(v1::generate_request::Input::Chat(chat)) => Input::chat(chat)?,
        None => return Err(ApiError::invalid("prompt", "prompt or chat is required")),
    };
    if request.max_tokens == 0 {
        let limit = host.limits.output_tokens_max;
        let message = format!("max_tokens is 0; it must be at least 1, at most {limit} are made");
        return Err(ApiError::invalid("max_tokens", message));
    }
    if request.top_logprobs > limits::TOP_LOGPROBS_MAX {
        let (given, limit) = (request.top_logprobs, limits::TOP_LOGPROBS_MAX);
        let message = format!("top_logprobs is {given}; it must be at most {limit}");
        return Err(ApiError::invalid("top_logprobs", message));
    }
    if request.top_logprobs > 0 && !request.logprobs {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs"));
    }
    let priority = v1::Priority::try_from(request.priority)
        .map_err(|_| ApiError::invalid("priority", "the priority is none that exists"))?;
    let vocabulary = host.tokenizer.vocabulary_len();
    let logprobs = if request.logprobs {
        LogprobsWanted::Top(request.top_logprobs as usize)
    } else {
        LogprobsWanted::No
    };
    Ok(Checked {
        input,
        max_tokens: request.max_tokens as usize,
        sampling: SamplingParameters::checked(
            request.sampling.as_ref(),
            vocabulary,
            rand::random(),
        )?,
        logprobs,
        form: form(request.constraint, request.ignore_eos)?,
        stop: stop_strings(request.stop)?,
        priority,
        ignore_eos: request.ignore_eos,
    })
}

/// An answer that is being read. Dropping it drops the reply, which cancels the sequence.
struct Answer {
    host: Arc<Host>,
    reply: Reply<Piece>,
    prompt_tokens: u32,
    seed: u64,
}

type Item = Result<v1::GenerateEvent, Status>;

async fn next(answer: Option<Answer>) -> Option<(Item, Option<Answer>)> {
    let mut answer = answer?;
    match answer.reply.recv().await {
        Ok(Some(Piece::Failed)) => {
            let error = ApiError::new(ErrorCode::Internal, "the model failed on this request");
            Some((Err(error.into()), None))
        }
        Ok(Some(Piece::Unfollowable)) => {
            let message = "response_format: it is too complex to be followed further than the \
                           text came; make it simpler";
            let error = ApiError::new(ErrorCode::Unprocessable, message);
            Some((Err(error.with_param("response_format").into()), None))
        }
        Ok(Some(piece)) => {
            let event = v1::GenerateEvent { event: Some(answer.event(piece)?) };
            Some((Ok(event), Some(answer)))
        }
        Ok(None) => None,
        Err(lost) => Some((Err(answer.lost(lost).into()), None)),
    }
}

impl Answer {
    fn event(&self, piece: Piece) -> Option<v1::generate_event::Event> {
        use v1::generate_event::Event;
        Some(match piece {
            Piece::Started { queued, cached_tokens } => Event::Started(v1::Started {
                model: self.host.info.name.clone(),
                prompt_tokens: self.prompt_tokens,
                cached_tokens: cached_tokens as u32,
                queue_us: micros(queued),
                seed: self.seed,
                sha256: self.host.info.sha256.clone(),
                call_format: call_format(self.host.encoder.call_style()).into(),
            }),
            Piece::Token(token) => Event::Token(self.token(token)),
            Piece::Finished(ending) => Event::Finished(self.finished(ending)),
            Piece::Failed | Piece::Unfollowable => return None,
        })
    }

    fn token(&self, token: TokenPiece) -> v1::Token {
        let (logprob, top_logprobs) = match token.logprobs {
            None => (None, Vec::new()),
            Some((chosen, top)) => (
                Some(self.logprob(chosen)),
                top.into_iter().map(|logprob| self.logprob(logprob)).collect(),
            ),
        };
        v1::Token { id: token.id, text: token.text, logprob, top_logprobs }
    }

    fn logprob(&self, of: TokenLogprob) -> v1::Logprob {
        let bytes = self.host.tokenizer.piece(of.token).unwrap_or_default().to_vec();
        let token = String::from_utf8_lossy(&bytes).into_owned();
        v1::Logprob { token, logprob: of.logprob, bytes }
    }

    fn finished(&self, ending: Ending) -> v1::Finished {
        let reason = match ending.reason {
            FinishReason::Stop => v1::FinishReason::Stop,
            FinishReason::Length => v1::FinishReason::Length,
        };
        v1::Finished {
            reason: reason.into(),
            prompt_tokens: self.prompt_tokens,
            output_tokens: ending.output_tokens as u32,
            prompt_us: micros(ending.prefill),
            decode_us: micros(ending.decode),
            queue_us: micros(ending.queued),
            text_tail: ending.text_tail,
            cached_tokens: ending.cached_tokens as u32,
        }
    }

    fn lost(&self, lost: Lost) -> ApiError {
        match lost {
            Lost::Panicked => {
                ApiError::new(ErrorCode::Internal, "the model failed on this request")
            }
            Lost::DeadlinePassed => ApiError::new(ErrorCode::Timeout, "the deadline passed"),
            Lost::Dropped => {
                let ms = self.host.limits.reader_wait_max.as_millis();
                let message =
                    format!("cancelled: the answer was not read for {ms} ms while it was made");
                ApiError::new(ErrorCode::Cancelled, message)
            }
            Lost::TooLarge => {
                let message = "the request is larger than the model's cache";
                ApiError::new(ErrorCode::Unprocessable, message)
            }
            Lost::Stopped => {
                ApiError::new(ErrorCode::Unavailable, "the model's service was stopped")
                    .with_retry_after_ms(1000)
            }
        }
    }
}

fn call_format(style: CallStyle) -> v1::CallFormat {
    match style {
        CallStyle::Tags | CallStyle::ToldTags => v1::CallFormat::Tags,
        CallStyle::Json => v1::CallFormat::Json,
        CallStyle::MistralList | CallStyle::MistralNamed => v1::CallFormat::Mistral,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_s_timeout_is_read_in_every_unit() {
        let check = |text: &str, expect: Option<Duration>| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            let left = deadline(&metadata).map(|at| at.saturating_duration_since(Instant::now()));
            match (left, expect) {
                (None, None) => {}
                (Some(left), Some(expect)) => {
                    assert!(left <= expect && expect - left < Duration::from_secs(1), "{text}");
                }
                (left, expect) => panic!("{text}: {left:?} instead of {expect:?}"),
            }
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("5S", Some(Duration::from_secs(5)));
        check("100m", Some(Duration::from_millis(100)));
        check("7u", Some(Duration::from_micros(7)));
        check("99999999n", Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "5 S"] {
            check(wrong, None);
        }
    }
}
