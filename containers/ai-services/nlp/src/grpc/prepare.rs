//! From checked texts to windows for the model. It runs apart from the threads that carry calls.

use aisemble_protocol::{ApiError, ErrorCode};

use super::check::Subjects;
use crate::config::EngineSection;
use crate::heads::Head;
use crate::model::LoadedModel;
use crate::serving::Input;
use crate::tasks::assemble::{Goal, Place, Subject};
use crate::text::{EncodedText, TextError, windows};

/// Windows, and which texts they are of.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) inputs: Vec<Input>,
    pub(super) places: Vec<Place>,
    pub(super) subjects: Vec<Subject>,
    pub(super) tokens: usize,
}

/// Makes windows of what was asked for.
pub(super) struct Preparation<'a> {
    model: &'a LoadedModel,
    engine: &'a EngineSection,
    prepared: Prepared,
}

/// A goal and its windows. A goal on documents becomes what the model's head does with them.
pub(super) fn prepare(
    model: &LoadedModel,
    engine: &EngineSection,
    goal: Goal,
    subjects: Subjects,
) -> Result<(Goal, Prepared), ApiError> {
    if let Goal::Dense { dimensions, .. } = &goal {
        let own = model.encoder.shape().hidden;
        if *dimensions > own {
            let name = &model.name;
            let message = format!("dimensions is {dimensions}; {name} gives {own}");
            return Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("dimensions"));
        }
    }
    let mut preparation = Preparation { model, engine, prepared: Prepared::default() };
    let goal = match subjects {
        Subjects::Texts(texts) => {
            let keep = matches!(goal, Goal::Entities(_) | Goal::Redact(..));
            for text in texts {
                preparation.text("texts", text, keep)?;
            }
            goal
        }
        Subjects::Tokens(lists) => {
            for (index, ids) in lists.into_iter().enumerate() {
                preparation.ids(index, &ids)?;
            }
            goal
        }
        Subjects::Documents { query, documents } => {
            if matches!(model.head, Head::Relevance { .. }) {
                preparation.pairs(&query, documents)?;
                Goal::Relevance
            } else {
                preparation.text("query", query, false)?;
                for document in documents {
                    preparation.text("documents", document, false)?;
                }
                Goal::Rank
            }
        }
    };
    Ok((goal, preparation.prepared))
}

impl Preparation<'_> {
    fn text(&mut self, param: &str, text: String, keep: bool) -> Result<(), ApiError> {
        let encoded = self.encode(param, &text)?;
        let room = self.model.window_tokens.saturating_sub(self.model.text.special_tokens());
        self.windows_of(&encoded, room, |text, ids| {
            let (ids, before) = text.sequence(ids);
            (Input { ids, second_from: None }, before)
        })?;
        let subject = if keep {
            Subject::new(text, encoded)
        } else {
            Subject::new(String::new(), EncodedText::default())
        };
        self.prepared.subjects.push(subject);
        Ok(())
    }

    /// A caller's own ids: with special tokens, whether they came with them or not.
    fn ids(&mut self, index: usize, ids: &[u32]) -> Result<(), ApiError> {
        let vocabulary = self.model.text.vocabulary();
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            let message = format!(
                "tokens[{index}] has the id {id}; the vocabulary of {} has {vocabulary} tokens",
                self.model.name
            );
            return Err(ApiError::invalid("tokens", message));
        }
        let encoded = EncodedText::of_ids(self.model.text.inner_of(ids));
        let room = self.model.window_tokens.saturating_sub(self.model.text.special_tokens());
        self.windows_of(&encoded, room, |text, ids| {
            let (ids, before) = text.sequence(ids);
            (Input { ids, second_from: None }, before)
        })?;
        self.prepared.subjects.push(Subject::default());
        Ok(())
    }

    fn pairs(&mut self, query: &str, documents: Vec<String>) -> Result<(), ApiError> {
        let unprocessable = |message: String| {
            Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("query"))
        };
        let Some(special) = self.model.text.special_tokens_of_pair() else {
            return unprocessable(format!("{} takes no pairs of texts", self.model.name));
        };
        let query = self.encode("query", query)?;
        let query = query.ids(0..query.tokens.len());
        let most = self.model.window_tokens / 2;
        if query.len() > most {
            let message = format!("the query has {} tokens; at most {most} are taken", query.len());
            return unprocessable(message);
        }
        let room = self.model.window_tokens.saturating_sub(special + query.len());
        for document in documents {
            let encoded = self.encode("documents", &document)?;
            self.windows_of(&encoded, room, |text, ids| {
                let (ids, second_from) =
                    text.sequence_of_pair(&query, ids).unwrap_or_else(|| text.sequence(ids));
                (Input { ids, second_from: Some(second_from) }, second_from)
            })?;
            self.prepared.subjects.push(Subject::default());
        }
        Ok(())
    }

    fn encode(&self, param: &str, text: &str) -> Result<EncodedText, ApiError> {
        self.model.text.encode(text).map_err(|error| {
            // Its text can quote the caller's.
            let kind = match error {
                TextError::Vocabulary { .. } => "vocabulary",
                TextError::Encode { .. } | TextError::File { .. } | TextError::Template => "encode",
            };
            tracing::warn!(error.kind = kind, "a text cannot be tokenized");
            let message = format!("the model cannot tokenize {param}");
            ApiError::new(ErrorCode::Unprocessable, message).with_param(param)
        })
    }

    fn windows_of(
        &mut self,
        encoded: &EncodedText,
        room: usize,
        sequence: impl Fn(&crate::text::TextEncoder, &[u32]) -> (Input, usize),
    ) -> Result<(), ApiError> {
        let room = room.max(1);
        let overlap = self.engine.window_overlap_tokens.min((room - 1) / 2);
        let text = self.prepared.subjects.len();
        let starts_word = |at| encoded.starts_word(at);
        for window in windows(encoded.tokens.len(), room, overlap, starts_word) {
            let (input, before) = sequence(&self.model.text, &encoded.ids(window.tokens.clone()));
            let tokens = input.ids.len();
            let first = before + (window.owned.start - window.tokens.start);
            self.prepared.tokens += tokens;
            self.prepared.places.push(Place { text, owned: window.owned, first, tokens });
            self.prepared.inputs.push(input);
            let limit = self.engine.request_tokens_max;
            if self.prepared.tokens > limit {
                let message = format!("the request has more than {limit} tokens; send it in parts");
                return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("texts"));
            }
        }
        Ok(())
    }
}
