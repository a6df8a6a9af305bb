//! From the number of a request to its meaning, with the frame around it.

use core::future::{Future, ready};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bytes::Bytes;

use super::{BoxFuture, Caller, Guard, Origin};
use crate::{ApiError, ErrorCode, Number, Request, RequestFrame, Response};

/// Carries out one request and encodes the response.
type Run = dyn Fn(&Arc<dyn Guard>, Origin, RequestFrame) -> BoxFuture<'static, Bytes> + Send + Sync;

/// The requests of a service and what they mean.
#[derive(Default)]
pub struct Routes {
    pub(super) all: Vec<Route>,
}

/// One request of a service.
pub(super) struct Route {
    pub(super) number: Number,
    pub(super) counts: Arc<RouteCounts>,
    pub(super) run: Box<Run>,
}

/// How often a request was asked, and how often it failed.
#[derive(Debug)]
pub struct RouteCounts {
    /// The request.
    pub name: &'static str,
    requests: AtomicU64,
    errors: AtomicU64,
}

impl RouteCounts {
    /// Requests that arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that were answered with an error.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

impl Routes {
    /// Adds a request: `meaning` is an `async fn(Arc<S>, Caller, R)`, such as a method of the
    /// service that takes `self: Arc<Self>`, and `R` says which request it is.
    #[must_use]
    pub fn on<S, R, F, A>(mut self, state: &Arc<S>, meaning: F) -> Self
    where
        S: Send + Sync + 'static,
        R: Request,
        F: Fn(Arc<S>, Caller, R) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R::Reply, ApiError>> + Send + 'static,
    {
        let counts = Arc::new(RouteCounts {
            name: R::NAME,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        let (state, counted) = (state.clone(), counts.clone());
        let run = move |guard: &Arc<dyn Guard>, origin: Origin, frame: RequestFrame| {
            counted.requests.fetch_add(1, Ordering::Relaxed);
            let caller = Caller { origin, request_id: frame.request_id.some() };
            let (last_look, counted) = (guard.clone(), counted.clone());
            let respond = move |result: Result<R::Reply, ApiError>| {
                let result = result.map_err(|error| {
                    counted.errors.fetch_add(1, Ordering::Relaxed);
                    last_look.explain(error)
                });
                Response { applied: last_look.applied(), result }.encode()
            };
            match admitted::<R>(guard, origin, frame) {
                Err(error) => Box::pin(ready(respond(Err(error)))) as BoxFuture<'static, Bytes>,
                Ok(request) => {
                    let answer = meaning(state.clone(), caller, request);
                    Box::pin(async move { respond(answer.await) })
                }
            }
        };
        self.all.push(Route { number: R::NUMBER, counts, run: Box::new(run) });
        self
    }
}

/// The request in a frame, if the guard lets it pass.
fn admitted<R: Request>(
    guard: &Arc<dyn Guard>,
    origin: Origin,
    frame: RequestFrame,
) -> Result<R, ApiError> {
    let request = R::from_bytes(frame.body)?;
    guard.authorize(origin, frame.token.as_ref(), &|| request.needs())?;
    guard.admit(request.kind())?;
    let level = guard.level();
    if R::SINCE > level {
        let (name, since) = (R::NAME, R::SINCE);
        return Err(ApiError::new(
            ErrorCode::Unsupported,
            format!(
                "{name} needs feature level {since}, and the cluster is at level {level} until all \
                 members understand more; see the cluster's status"
            ),
        ));
    }
    Ok(request)
}
