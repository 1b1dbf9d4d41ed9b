//! The stream of one job's events. It always reads from the store; the hub only says when to look
//! again, so a slow reader costs no memory and none can miss or see an event twice.

use std::collections::VecDeque;
use std::sync::Arc;

use aisemble_protocol::JobId;
use aisemble_protocol::job::JobEvent;
use futures_util::{Stream, stream};

use crate::error::JobsError;
use crate::hub::{Ear, Hub};
use crate::store::Store;

struct Reader {
    store: Arc<dyn Store>,
    ear: Ear,
    id: JobId,
    after_seq: u64,
    page: VecDeque<JobEvent>,
    /// Nothing comes after the page.
    ended: bool,
}

/// Events of `id` numbered above `after_seq`: those there are, then each new one, until the job has
/// ended. An error ends the stream.
pub(crate) fn stream(
    store: Arc<dyn Store>,
    hub: &Arc<Hub>,
    id: JobId,
    after_seq: u64,
) -> impl Stream<Item = Result<JobEvent, JobsError>> + Send + 'static {
    // Listening begins before the first read, so that nothing falls between the two.
    let ear = hub.listen(id);
    let reader = Reader { store, ear, id, after_seq, page: VecDeque::new(), ended: false };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl Reader {
    async fn next(&mut self) -> Result<Option<JobEvent>, JobsError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after_seq = event.seq;
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let page = self.store.events(self.id, self.after_seq).await?;
            self.ended = page.ended;
            self.page = page.events.into();
            if self.page.is_empty() && !self.ended {
                self.ear.news().await;
            }
        }
    }
}
