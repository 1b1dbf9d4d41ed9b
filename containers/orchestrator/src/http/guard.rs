//! Who may use a route. Deny by default: what the table does not name needs a key and then is not
//! there.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;

use super::correlate::Ids;
use super::error::Failure;
use super::router::Access;
use crate::app::{App, Origin, check_idempotency_key};

/// The table of routes, and the keys.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    app: Arc<App>,
    table: Arc<HashMap<(Method, &'static str), Access>>,
}

impl Guard {
    pub(super) fn new(app: Arc<App>, table: Vec<(Method, &'static str, Access)>) -> Self {
        let table = table.into_iter().map(|(method, path, access)| ((method, path), access));
        Self { app, table: Arc::new(table.collect()) }
    }

    fn access(&self, request: &Request) -> Access {
        // HEAD is answered by the route of GET.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let known = path.and_then(|path| self.table.get(&(method.clone(), path)));
        known.copied().unwrap_or(Access::AnyKey)
    }
}

/// Lets a request through, with its [`Origin`] for the handler, or refuses it.
pub(super) async fn check(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let access = guard.access(&request);
    if access != Access::Open {
        let origin = origin(&guard.app, &request, access)?;
        request.extensions_mut().insert(origin);
    }
    Ok(next.run(request).await)
}

fn origin(app: &App, request: &Request, access: Access) -> Result<Origin, Failure> {
    let caller = app.authenticate(bearer(request))?;
    if let Access::Key(scope) = access {
        caller.require(scope)?;
    }
    let Ids { request_id, trace } = Ids::of(request);
    let idempotency_key = match request.headers().get("idempotency-key") {
        None => None,
        Some(value) => {
            let key = value.to_str().unwrap_or_default();
            check_idempotency_key(key)?;
            Some(key.to_owned())
        }
    };
    Ok(Origin { caller, request_id, trace, idempotency_key })
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
}
