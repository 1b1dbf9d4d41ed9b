//! What running jobs make as it comes, for those who look on: text, or results of single items.
//! Kept in memory as long as a worker writes it or somebody reads it; the durable record is the
//! job's events and its result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aisemble_protocol::JobId;
use tokio::sync::watch;

/// The feeds of all running jobs.
#[derive(Debug, Clone, Default)]
pub struct Live {
    feeds: Arc<Mutex<HashMap<JobId, Weak<Feed>>>>,
}

/// What one job's running attempt has made.
#[derive(Debug)]
pub struct Feed {
    text: Mutex<Text>,
    items: Mutex<Items>,
    changed: watch::Sender<()>,
    id: JobId,
    feeds: Live,
}

#[derive(Debug, Default)]
struct Text {
    attempt: u32,
    text: String,
    /// Where each token that has text ends in it.
    ends: Vec<usize>,
}

#[derive(Debug, Default)]
struct Items {
    attempt: u32,
    /// JSON.
    items: Vec<Arc<str>>,
}

impl Live {
    /// The feed of a job: the one there is, or a new one.
    #[must_use]
    pub fn feed(&self, id: JobId) -> Arc<Feed> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(&id).and_then(Weak::upgrade) {
            return feed;
        }
        let feed = Arc::new(Feed {
            text: Mutex::default(),
            items: Mutex::default(),
            changed: watch::Sender::new(()),
            id,
            feeds: self.clone(),
        });
        feeds.insert(id, Arc::downgrade(&feed));
        feed
    }
}

impl Feed {
    /// An attempt begins: what an earlier one wrote is gone.
    pub fn begin(&self, attempt: u32) {
        *lock(&self.text) = Text { attempt, ..Text::default() };
        *lock(&self.items) = Items { attempt, ..Items::default() };
        self.changed.send_replace(());
    }

    /// A token came. One without text (a part of a character) shows with the next that has some.
    pub fn push(&self, token: &str) {
        if token.is_empty() {
            return;
        }
        let mut text = lock(&self.text);
        text.text.push_str(token);
        let end = text.text.len();
        text.ends.push(end);
        drop(text);
        self.changed.send_replace(());
    }
}

impl Feed {
    /// The result of one item came, as JSON on one line.
    pub fn push_item(&self, json: String) {
        lock(&self.items).items.push(json.into());
        self.changed.send_replace(());
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut feeds = lock(&self.feeds.feeds);
        // Another may have taken the place already.
        if feeds.get(&self.id).is_some_and(|feed| feed.strong_count() == 0) {
            feeds.remove(&self.id);
        }
    }
}

/// Reads a feed token by token. When a later attempt repeats what was read (the same seed gives the
/// same text), reading goes on where it was; when it does not, the reader is told to start again.
#[derive(Debug)]
pub struct Reader {
    feed: Arc<Feed>,
    changed: watch::Receiver<()>,
    attempt: u32,
    read: String,
    index: u64,
    items_attempt: u32,
    items_read: usize,
}

/// What a reader sees next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text, and its number from 0.
    Token {
        /// The text.
        text: String,
        /// Its number.
        index: u64,
    },
    /// The result of one item, JSON; items come in the order in which they are done.
    Item {
        /// The JSON.
        json: Arc<str>,
    },
    /// The attempt that runs now says something else than what was read: forget that.
    Restart {
        /// The attempt.
        attempt: u32,
    },
}

impl Reader {
    /// A reader at the beginning.
    #[must_use]
    pub fn new(feed: Arc<Feed>) -> Self {
        let changed = feed.changed.subscribe();
        let (read, items_read) = (String::new(), 0);
        Self { feed, changed, attempt: 0, read, index: 0, items_attempt: 0, items_read }
    }

    /// What there is and has not been read.
    pub fn take(&mut self) -> Option<Piece> {
        self.take_item().or_else(|| self.take_text())
    }

    fn take_item(&mut self) -> Option<Piece> {
        let items = lock(&self.feed.items);
        if items.attempt != self.items_attempt {
            self.items_attempt = items.attempt;
            if std::mem::take(&mut self.items_read) > 0 {
                return Some(Piece::Restart { attempt: items.attempt });
            }
        }
        let json = Arc::clone(items.items.get(self.items_read)?);
        self.items_read += 1;
        Some(Piece::Item { json })
    }

    fn take_text(&mut self) -> Option<Piece> {
        let text = lock(&self.feed.text);
        if text.attempt != self.attempt {
            let ahead = text.text.starts_with(&self.read);
            if !ahead && !self.read.starts_with(&text.text) {
                self.attempt = text.attempt;
                self.read.clear();
                self.index = 0;
                return Some(Piece::Restart { attempt: text.attempt });
            }
            if !ahead {
                return None;
            }
            self.attempt = text.attempt;
        }
        let next = text.ends.partition_point(|end| *end <= self.read.len());
        let token = text.text.get(self.read.len()..*text.ends.get(next)?)?.to_owned();
        drop(text);
        Some(self.token(token))
    }

    /// What is left of the whole text once the job has ended with it.
    pub fn rest(&mut self, whole: &str) -> Option<Piece> {
        let Some(rest) = whole.strip_prefix(self.read.as_str()) else {
            self.read.clear();
            self.index = 0;
            return Some(Piece::Restart { attempt: self.attempt });
        };
        if rest.is_empty() {
            return None;
        }
        Some(self.token(rest.to_owned()))
    }

    /// Resolves when there may be something new. Cancel-safe.
    pub async fn changed(&mut self) {
        // The sender lives in the feed that we hold.
        let _ = self.changed.changed().await;
    }

    fn token(&mut self, text: String) -> Piece {
        self.read.push_str(&text);
        let index = self.index;
        self.index += 1;
        Piece::Token { text, index }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data: no holder can leave it half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, index: u64) -> Option<Piece> {
        Some(Piece::Token { text: text.to_owned(), index })
    }

    #[test]
    fn a_retry_that_says_the_same_goes_on_where_it_was() {
        let live = Live::default();
        let feed = live.feed(JobId::generate());
        let mut reader = Reader::new(Arc::clone(&feed));
        feed.begin(1);
        feed.push("One");
        feed.push("");
        feed.push(", two");
        assert_eq!(reader.take(), token("One", 0));
        assert_eq!(reader.take(), token(", two", 1));
        assert_eq!(reader.take(), None);
        feed.begin(2);
        feed.push("One, t");
        assert_eq!(reader.take(), None, "behind what was read");
        feed.push("wo, three");
        assert_eq!(reader.take(), token(", three", 2));
        assert_eq!(reader.rest("One, two, three."), token(".", 3));
        assert_eq!(reader.rest("One, two, three."), None);
    }

    #[test]
    fn a_retry_that_says_something_else_starts_again() {
        let live = Live::default();
        let feed = live.feed(JobId::generate());
        let mut reader = Reader::new(Arc::clone(&feed));
        feed.begin(1);
        feed.push("One");
        assert_eq!(reader.take(), token("One", 0));
        feed.begin(2);
        feed.push("Two");
        assert_eq!(reader.take(), Some(Piece::Restart { attempt: 2 }));
        assert_eq!(reader.take(), token("Two", 0));
        assert_eq!(reader.rest("Three"), Some(Piece::Restart { attempt: 2 }));
        assert_eq!(reader.rest("Three"), token("Three", 0));
    }

    #[test]
    fn items_come_in_order_and_a_retry_starts_again() {
        let live = Live::default();
        let feed = live.feed(JobId::generate());
        let mut reader = Reader::new(Arc::clone(&feed));
        let item = |json: &str| Some(Piece::Item { json: json.into() });
        feed.begin(1);
        feed.push_item("1".to_owned());
        feed.push_item("2".to_owned());
        assert_eq!((reader.take(), reader.take(), reader.take()), (item("1"), item("2"), None));
        feed.begin(2);
        assert_eq!(reader.take(), Some(Piece::Restart { attempt: 2 }));
        feed.push_item("1".to_owned());
        assert_eq!((reader.take(), reader.take()), (item("1"), None));
    }

    #[test]
    fn a_feed_that_nobody_holds_is_forgotten() {
        let live = Live::default();
        let id = JobId::generate();
        let feed = live.feed(id);
        assert!(Arc::ptr_eq(&feed, &live.feed(id)));
        drop(feed);
        assert!(lock(&live.feeds).is_empty());
    }
}
