//! Streams of the `/v1` paths as they come: what an OpenAI client reads. It knows events, not what
//! their JSON means.

use std::pin::Pin;

use futures_util::Stream;

use crate::completion::Frames;
use crate::error::ClientError;
use crate::http::{Call, Client};

/// What ends a stream of OpenAI's.
const DONE: &str = "[DONE]";

/// The `data:` of each event. Ends after the last one or the first error.
pub type DataEvents = Pin<Box<dyn Stream<Item = Result<serde_json::Value, ClientError>> + Send>>;

impl Client {
    /// `POST` to `/v1/completions` or another path whose answer streams; `body` asks for it with
    /// `stream`. Keeps no job: dropping the stream ends the generation.
    ///
    /// # Errors
    /// As any call, before the stream begins; later ones come in the stream.
    pub async fn stream_json(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<DataEvents, ClientError> {
        let call = Call::new(reqwest::Method::POST, path)
            .json(body)?
            .header("accept", "text/event-stream");
        let response = self.open(&call).await?;
        let frames = Frames::new(self.clone(), response, call.what());
        Ok(Box::pin(futures_util::stream::unfold(Some(frames), |state| async move {
            let mut frames = state?;
            match frames.next().await {
                Ok(Some(frame)) if frame.data == DONE => None,
                Ok(Some(frame)) => match frames.decode(&frame) {
                    Ok(value) => Some((Ok(value), Some(frames))),
                    Err(error) => Some((Err(error), None)),
                },
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}
