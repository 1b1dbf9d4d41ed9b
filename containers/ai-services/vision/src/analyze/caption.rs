//! A sentence about a picture: one row at the model for each token, so that others are served in
//! between, and a caller who leaves costs no token more.

use std::sync::Arc;
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode, v1};

use super::image::Timings;
use crate::compute::Map;
use crate::host::Host;
use crate::models::Network;
use crate::serving::{Input, Row};

/// Writes the caption of a picture that the model saw as `states`.
pub(super) async fn write(
    host: &Arc<Host>,
    (model, states): (usize, &Map),
    (priority, deadline): (v1::Priority, Option<Instant>),
    timings: &mut Timings,
) -> Result<String, ApiError> {
    let failed = || ApiError::new(ErrorCode::Internal, "the caption could not be written");
    let Network::Hub(network) = &host.catalog.models()[model].network else {
        return Err(failed());
    };
    let captioner = network.captioner().ok_or_else(failed)?;
    let mut caption = captioner.begin(states).map_err(|error| {
        tracing::error!(%error, "a caption could not be begun");
        failed()
    })?;
    while !caption.is_done() {
        let row = Row { model, input: Input::Caption(caption) };
        let computed = host.compute(vec![row], priority, deadline).await?;
        timings.queued = timings.queued.max(computed.queued);
        timings.model += computed.model;
        caption = computed.caption.ok_or_else(failed)?;
    }
    captioner.words.text(caption.tokens()).map_err(|_| failed())
}
