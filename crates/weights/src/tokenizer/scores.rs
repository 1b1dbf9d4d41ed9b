//! Vocabularies of the SentencePiece kind (`tokenizer.ggml.model` = `llama`): of all neighbouring
//! symbols whose union is a token, the union with the best score is made first; what is no token in
//! the end is written as bytes.
//!
//! Source of the algorithm: `llm_tokenizer_spm` of llama.cpp, which is SentencePiece's BPE.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::vocabulary::Vocabulary;

/// U+2581, which stands for a space in these vocabularies.
pub(super) const SPACE: &str = "\u{2581}";

#[derive(Debug)]
pub(super) struct ScoreMerges {
    /// A score for each token.
    pub(super) scores: Vec<f32>,
    /// The token of each byte.
    pub(super) bytes: Box<[Option<u32>; 256]>,
    pub(super) unknown: Option<u32>,
    /// Whether a text begins with a space that nobody wrote.
    pub(super) add_space_prefix: bool,
}

/// A stretch of the text, in a list linked both ways.
struct Symbol {
    begin: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that could become one token.
struct Union {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when the union was found: another length means that it is outdated.
    len: usize,
}

impl Ord for Union {
    /// The best score first; of equals the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Union {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Union {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Union {}

impl ScoreMerges {
    pub(super) fn encode(
        &self,
        text: &str,
        at_start: bool,
        vocabulary: &Vocabulary,
        ids: &mut Vec<u32>,
    ) {
        let mut escaped = String::with_capacity(text.len() + SPACE.len());
        if self.add_space_prefix && at_start {
            escaped.push_str(SPACE);
        }
        escaped.push_str(&text.replace(' ', SPACE));
        for symbol in self.merge(&escaped, vocabulary) {
            match vocabulary.id(symbol) {
                Some(id) => ids.push(id),
                None => self.encode_bytes(symbol, ids),
            }
        }
    }

    fn encode_bytes(&self, symbol: &str, ids: &mut Vec<u32>) {
        let tokens = symbol.bytes().map(|byte| self.bytes[usize::from(byte)]);
        match tokens.collect::<Option<Vec<_>>>() {
            Some(tokens) => ids.extend(tokens),
            None => ids.extend(self.unknown),
        }
    }

    fn merge<'a>(&self, text: &'a str, vocabulary: &Vocabulary) -> Vec<&'a str> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (begin, c))| Symbol {
                begin,
                len: c.len_utf8(),
                previous: index.checked_sub(1),
                next: Some(index + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut unions = BinaryHeap::new();
        for left in 0..symbols.len() {
            unions.extend(self.union(text, &symbols, left, vocabulary));
        }
        while let Some(Union { left, right, len, .. }) = unions.pop() {
            let outdated = symbols[left].len == 0
                || symbols[right].len == 0
                || symbols[left].len + symbols[right].len != len
                || symbols[left].next != Some(right);
            if outdated {
                continue;
            }
            let behind = symbols[right].next;
            symbols[left].len = len;
            symbols[left].next = behind;
            symbols[right].len = 0;
            if let Some(behind) = behind {
                symbols[behind].previous = Some(left);
            }
            if let Some(before) = symbols[left].previous {
                unions.extend(self.union(text, &symbols, before, vocabulary));
            }
            unions.extend(self.union(text, &symbols, left, vocabulary));
        }
        let kept = symbols.iter().filter(|symbol| symbol.len > 0);
        kept.map(|symbol| &text[symbol.begin..symbol.begin + symbol.len]).collect()
    }

    /// The union of a symbol and the next one, when it is a token.
    fn union(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        vocabulary: &Vocabulary,
    ) -> Option<Union> {
        let right = symbols[left].next?;
        let len = symbols[left].len + symbols[right].len;
        let begin = symbols[left].begin;
        let id = vocabulary.id(&text[begin..begin + len])?;
        let score = self.scores.get(id as usize).copied()?;
        Some(Union { score, left, right, len })
    }
}
