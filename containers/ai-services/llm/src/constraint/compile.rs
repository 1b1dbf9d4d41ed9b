//! From the text of a schema, an expression or a grammar to what the model thread follows. One
//! thread of its own for each compilation, few at a time: a hostile form can waste no more.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, panic_utils};
use tokio::sync::{Semaphore, oneshot};

use super::calls::{CallWriting, Calls};
use super::schema::{self, SchemaError};
use super::track::Constraint;

/// Compilations at the same time: more would take the cores from the model.
const COMPILATIONS_MAX: usize = 2;
/// How long one may take, its wait for a place included.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(5);
/// llguidance descends up to 128 levels of a schema.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// Characters of llguidance's own complaint that a caller gets to see.
const COMPLAINT_CHARS_MAX: usize = 300;
/// Work on the expressions of a form; about 20 ms.
const EXPRESSION_FUEL_MAX: u64 = 1_000_000;
/// Symbols of a form's grammar.
const GRAMMAR_SYMBOLS_MAX: usize = 100_000;
/// Work of one mask on the model thread: about 7 ms of expressions...
const MASK_FUEL_MAX: u64 = 100_000;
/// ... and 1 ms of grammar.
const MASK_ITEMS_MAX: usize = 20_000;
/// States of the expressions, 1 to 2 KiB each, that one sequence can come to.
const STATES_MAX: usize = 20_000;

/// What an output must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A JSON value of this schema, written on one line.
    JsonSchema(String),
    /// A regular expression for the whole output.
    Regex(String),
    /// A grammar in llguidance's dialect of Lark.
    Lark(String),
    /// Calls of functions.
    Calls(Calls),
}

/// Why a form is not followed.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The schema itself.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The arguments of one function.
    #[error("the parameters of {name}: {source}")]
    Parameters {
        /// The function.
        name: String,
        /// What is wrong with them.
        source: SchemaError,
    },
    /// A call of nothing, or of something with no usable name.
    #[error("a function's name must have letters, digits, `_`, `-` and `.` only")]
    NoFunction,
    /// llguidance does not take it.
    #[error("it cannot be followed: {complaint}")]
    Refused {
        /// In llguidance's words, cut to a line.
        complaint: String,
    },
    /// It took longer than [`COMPILE_TIME_MAX`].
    #[error("it takes longer than {} s to prepare; make it simpler", COMPILE_TIME_MAX.as_secs())]
    TooSlow,
    /// No thread could be started, or the vocabulary cannot be used.
    #[error("forms cannot be prepared on this machine")]
    Unable,
}

/// The tokens of a model as llguidance wants them.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// The bytes of each token; `None` for a control token, which no text matches.
    pub pieces: Vec<Option<Vec<u8>>>,
    /// The tokens that end an output; at least one, each below the number of pieces.
    pub ends: Vec<u32>,
    /// How calls of functions are written.
    pub calls: CallWriting,
}

/// Compiles forms for one model.
pub struct Constraints {
    vocabulary: Box<dyn Fn() -> Vocabulary + Send + Sync>,
    /// Made with the first form: many instances never see one.
    factory: OnceLock<Option<(ParserFactory, CallWriting)>>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Constraints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraints").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Constraints {
    /// For a model whose `vocabulary` is read when it is needed first.
    #[must_use]
    pub fn new(vocabulary: impl Fn() -> Vocabulary + Send + Sync + 'static) -> Self {
        Self {
            vocabulary: Box::new(vocabulary),
            factory: OnceLock::new(),
            places: Arc::new(Semaphore::new(COMPILATIONS_MAX)),
        }
    }

    /// Compiles `form` on a thread of its own.
    ///
    /// # Errors
    /// [`FormError`], in words for the caller.
    pub async fn compile(self: &Arc<Self>, form: Form) -> Result<Constraint, FormError> {
        let compiled = tokio::time::timeout(COMPILE_TIME_MAX, self.on_a_thread(form)).await;
        compiled.map_err(|_elapsed| FormError::TooSlow)?
    }

    async fn on_a_thread(self: &Arc<Self>, form: Form) -> Result<Constraint, FormError> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_closed| FormError::Unable)?;
        let (done, compiled) = oneshot::channel();
        let constraints = Arc::clone(self);
        let work = move || {
            // A compilation that nobody waits for any more keeps its place until it is over.
            let _place = place;
            let _unwanted = done.send(constraints.compile_here(&form));
        };
        let thread = std::thread::Builder::new().name("form".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|_no_thread| FormError::Unable)?;
        compiled.await.map_err(|_panicked| FormError::Unable)?
    }

    /// Compiles `form` on this thread, which needs a large stack.
    ///
    /// # Errors
    /// As [`Self::compile`], without the limit of time.
    pub fn compile_here(&self, form: &Form) -> Result<Constraint, FormError> {
        let factory = self.factory.get_or_init(|| factory((self.vocabulary)()));
        let (factory, writing) = factory.as_ref().ok_or(FormError::Unable)?;
        let grammar = match form {
            Form::JsonSchema(text) => TopLevelGrammar::from_json_schema(schema::checked(text)?),
            Form::Regex(text) => TopLevelGrammar::from_regex(text),
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            Form::Calls(calls) => TopLevelGrammar::from_lark(calls.grammar(writing)?),
        };
        let compiled = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let mut matcher = Matcher::new(factory.create_parser(grammar));
            // A form that cannot even begin is found here, and the first step has less to do.
            matcher.compute_mask().map(|_mask| matcher)
        }));
        compiled.map(Constraint::new).map_err(|error| refused(&format!("{error:#}")))
    }
}

fn refused(complaint: &str) -> FormError {
    if complaint.starts_with("panic: ") {
        tracing::warn!("a form made the compiler panic; it is refused");
        return FormError::Refused { complaint: "it is beyond the compiler".to_owned() };
    }
    let words = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
    FormError::Refused { complaint: words.chars().take(COMPLAINT_CHARS_MAX).collect() }
}

fn factory(vocabulary: Vocabulary) -> Option<(ParserFactory, CallWriting)> {
    let made = panic_utils::catch_unwind(AssertUnwindSafe(|| {
        let mut factory = ParserFactory::new_simple(&token_env(&vocabulary))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = EXPRESSION_FUEL_MAX;
        limits.max_grammar_size = GRAMMAR_SYMBOLS_MAX;
        limits.step_lexer_fuel = MASK_FUEL_MAX;
        limits.step_max_items = MASK_ITEMS_MAX;
        limits.max_lexer_states = STATES_MAX;
        limits.verbose_errors = false;
        Ok(factory)
    }));
    if made.is_err() {
        tracing::error!("the vocabulary cannot be used for constrained output");
    }
    made.ok().map(|factory| (factory, vocabulary.calls))
}

fn token_env(vocabulary: &Vocabulary) -> TokEnv {
    let words: Vec<Vec<u8>> = vocabulary
        .pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| match piece {
            Some(piece) => piece.clone(),
            // A name that no text can contain.
            None => {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<control-{id}>").as_bytes()].concat()
            }
        })
        .collect();
    let info = TokRxInfo::new(words.len() as u32, vocabulary.ends[0]);
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&vocabulary.ends);
    Arc::new(ApproximateTokEnv::new(trie))
}
