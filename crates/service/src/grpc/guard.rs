//! Around every call: the span with its ids, the count of running calls, and the net under panics.
//!
//! A panic in a handler, or while its answer streams, ends that call with `internal`; the
//! connection and the process live on.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use aisemble_protocol::{ApiError, ErrorCode};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use crate::drain::{Running, RunningGuard};
use crate::telemetry;

/// Calls that are answered while the process drains, and that a drain does not wait for.
const ALWAYS_ANSWERED: [&str; 3] =
    ["/grpc.health.v1.", "/grpc.reflection.v1.", "/aisemble.v1.Model/"];
/// When a caller that came too late is told to come again, milliseconds.
const RETRY_AFTER_MS: u64 = 1000;

#[derive(Clone)]
pub(super) struct GuardLayer {
    running: Running,
}

impl GuardLayer {
    pub(super) fn new(running: Running) -> Self {
        Self { running }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, running: self.running.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    running: Running,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<GuardedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let guard = if ALWAYS_ANSWERED.iter().any(|prefix| path.starts_with(prefix)) {
            None
        } else {
            match self.running.enter() {
                Some(guard) => Some(guard),
                None => return Box::pin(std::future::ready(Ok(answered(stopping())))),
            }
        };
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let span = telemetry::request_span(header("x-request-id"), header("x-job-id"));
        // The one that `poll_ready` was asked of is the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let of_body = span.clone();
        let call = async move {
            // Within the net, because a service may panic before it gives a future.
            let call = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
            match call.await {
                Ok(Ok(response)) => Ok(response.map(|body| GuardedBody {
                    inner: Some(body),
                    span: of_body,
                    _guard: guard,
                })),
                Ok(Err(error)) => Err(error),
                Err(panic) => {
                    forget(panic);
                    Ok(answered(failed()))
                }
            }
        };
        Box::pin(call.instrument(span))
    }
}

fn answered(error: ApiError) -> Response<GuardedBody> {
    let body = |body| GuardedBody { inner: Some(body), span: Span::none(), _guard: None };
    Status::from(error).into_http().map(body)
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the service is stopping")
        .with_retry_after_ms(RETRY_AFTER_MS)
}

fn failed() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the service failed")
}

/// Drops what a panic carried; that may panic in its turn.
fn forget(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// The body of an answer, in its call's span, counted as running until it is dropped.
pub(super) struct GuardedBody {
    /// None after a panic.
    inner: Option<Body>,
    span: Span,
    _guard: Option<RunningGuard>,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let span = this.span.clone();
        let _entered = span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(context)));
        polled.unwrap_or_else(|panic| {
            forget(panic);
            if let Some(broken) = this.inner.take() {
                forget(Box::new(SendOnly(broken)));
            }
            Poll::Ready(Some(Ok(Frame::trailers(trailers(failed())))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

/// Carries a body through [`forget`].
struct SendOnly(#[expect(dead_code, reason = "held only to be dropped")] Body);

fn trailers(error: ApiError) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Fails only for a text that no header can hold; the fixed one above can.
    let _ = Status::from(error).add_header(&mut headers);
    headers
}
