//! Who may use a route. Deny by default: what the table does not name needs a key and then is not
//! there.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;

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
) -> Response {
    let access = guard.access(&request);
    if access != Access::Open {
        match origin(&guard.app, &request, access) {
            Ok(origin) => request.extensions_mut().insert(origin),
            Err(failure) => return refused(failure, access),
        };
    }
    next.run(request).await
}

fn refused(failure: Failure, access: Access) -> Response {
    let mut response = failure.into_response();
    if access == Access::Browser && response.status() == StatusCode::UNAUTHORIZED {
        let dialog = HeaderValue::from_static("Basic realm=\"API key as password\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, dialog);
    }
    response
}

fn origin(app: &App, request: &Request, access: Access) -> Result<Origin, Failure> {
    let password = if access == Access::Browser { password(request) } else { None };
    let caller = app.authenticate(password.as_deref().or_else(|| bearer(request)))?;
    if let Access::Key(scope) = access {
        caller.require(scope)?;
    }
    if request.method() == Method::POST {
        app.count_request(&caller)?;
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

/// The password of HTTP basic authentication.
fn password(request: &Request) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (_user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
}
