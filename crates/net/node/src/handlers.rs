//! Running the handlers of calls: what arrived is taken under the lock, run without it, and
//! answered under it.
//!
//! Invariants: no handler's code runs, and no handler's future is dropped, while the lock is held;
//! a handler that panics fails its call alone.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use net_rpc::{Arrived, HandlerFuture, ReplyTo, RpcContext, RpcFailure, Status};
use net_types::Instant;

use crate::shared::Shared;
use crate::state::{Core, Handler};

type Answer = Result<Bytes, RpcFailure>;
type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A handler that has to be finished as a task.
struct Unfinished {
    to: ReplyTo,
    budget: Duration,
    future: AnswerFuture,
}

/// The handlers of one turn.
#[derive(Default)]
pub(crate) struct Handlers {
    arrived: Vec<Arrived<Handler>>,
    answers: Vec<(ReplyTo, Answer)>,
    unfinished: Vec<Unfinished>,
    /// Refused futures, to be dropped once the lock is free.
    refused: Vec<AnswerFuture>,
    panics: u64,
}

impl Handlers {
    /// Takes the calls that arrived.
    pub(crate) fn take(&mut self, core: &mut Core, now: Instant) {
        core.rpc(now, |rpc, _| rpc.take_arrived(&mut self.arrived));
    }

    /// Whether nothing waits to be run.
    pub(crate) fn is_idle(&self) -> bool {
        self.arrived.is_empty()
    }

    /// Polls the handlers of arrived calls once.
    pub(crate) fn run(&mut self) {
        for Arrived { to, peer, entity, handler, request } in self.arrived.drain(..) {
            let budget = Duration::from_millis(request.budget_ms.into());
            let context =
                RpcContext { peer, entity, budget, codec: request.codec, headers: request.headers };
            let started = catch_unwind(AssertUnwindSafe(|| {
                let mut answer = handler.handle(context, request.body);
                if let HandlerFuture::Later(future) = &mut answer {
                    let mut cx = Context::from_waker(Waker::noop());
                    if let Poll::Ready(ready) = future.as_mut().poll(&mut cx) {
                        answer = HandlerFuture::Ready(ready);
                    }
                }
                answer
            }));
            match started {
                Ok(HandlerFuture::Ready(answer)) => self.answers.push((to, answer)),
                Ok(HandlerFuture::Later(future)) => {
                    self.unfinished.push(Unfinished { to, budget, future });
                }
                Err(_) => {
                    self.panics += 1;
                    self.answers.push((to, Err(panicked())));
                }
            }
        }
    }

    /// Queues the answers, and spawns tasks for the handlers that are not done.
    pub(crate) fn settle(&mut self, shared: &Arc<Shared>, core: &mut Core, now: Instant) {
        if self.answers.is_empty() && self.unfinished.is_empty() {
            return;
        }
        core.rpc(now, |rpc, cx| {
            (0..core::mem::take(&mut self.panics)).for_each(|_| rpc.count_panic());
            for (to, answer) in self.answers.drain(..) {
                rpc.finish(cx, to, answer);
            }
            for Unfinished { to, budget, future } in self.unfinished.drain(..) {
                if rpc.begin(cx, to) {
                    let task = tokio::spawn(finish_later(shared.clone(), to, budget, future));
                    rpc.set_stop(to, move || task.abort());
                } else {
                    self.refused.push(future);
                }
            }
        });
    }

    /// Drops refused futures, which runs their destructors.
    pub(crate) fn drop_refused(&mut self) {
        for future in self.refused.drain(..) {
            // The call was refused already: a destructor's panic changes nothing for its caller.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        }
    }
}

fn panicked() -> RpcFailure {
    RpcFailure::new(Status::INTERNAL, "HandlerPanic", "the handler panicked")
}

async fn finish_later(shared: Arc<Shared>, to: ReplyTo, budget: Duration, future: AnswerFuture) {
    let answer = match tokio::time::timeout(budget, CatchPanic(future)).await {
        Ok(answer) => answer,
        Err(_) => Some(Err(RpcFailure::new(Status::TIMEOUT, "timeout", "the budget ran out"))),
    };
    let now = shared.now();
    let mut core = shared.lock();
    core.rpc(now, |rpc, cx| {
        if answer.is_none() {
            rpc.count_panic();
        }
        rpc.finish(cx, to, answer.unwrap_or_else(|| Err(panicked())));
    });
    core.wake();
}

/// A future whose panic, `None`, fails its call alone.
struct CatchPanic(AnswerFuture);

impl Future for CatchPanic {
    type Output = Option<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx).map(Some)))
            .unwrap_or(Poll::Ready(None))
    }
}
