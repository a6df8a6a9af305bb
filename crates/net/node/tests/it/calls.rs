//! Unary calls over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use net_node::{
    CallOptions, ConnectError, DialError, HandlerFuture, RpcContext, RpcError, RpcFailure,
    ServiceName, Status,
};
use net_types::limits::MAX_WAITING_OWN_CALLS;
use tokio::sync::{mpsc, oneshot};

use crate::pair::{addr_of, metrics, node, pair};

fn echo() -> (ServiceName, Arc<dyn net_node::RpcHandler>) {
    let handler = |_: RpcContext, body: Bytes| HandlerFuture::ready(Ok(body));
    (ServiceName::new("echo").unwrap(), Arc::new(handler))
}

#[tokio::test]
async fn bodies_of_every_size_come_back_in_both_directions() {
    let (a, b) = pair().await;
    let (name, handler) = echo();
    let _served = b.serve(name.clone(), handler.clone()).unwrap();
    let _also = a.serve(name.clone(), handler).unwrap();
    for len in [0, 1, 32, 1_000, 1_200, 8_000, 100_000, 3_000_000] {
        let body = Bytes::from(vec![len as u8; len]);
        let options = CallOptions::default;
        let reply = a.call(b.node_id(), &name, body.clone(), options()).await.unwrap();
        assert_eq!(reply.body, body, "{len} bytes out");
        let reply = b.call(a.node_id(), &name, body.clone(), options()).await.unwrap();
        assert_eq!(reply.body, body, "{len} bytes back");
    }
}

#[tokio::test]
async fn many_calls_in_flight_all_get_their_own_reply() {
    let (a, b) = pair().await;
    let (name, handler) = echo();
    let _served = b.serve(name.clone(), handler).unwrap();
    let calls = (0..500u32).map(|i| {
        let (a, name, peer) = (a.clone(), name.clone(), b.node_id());
        tokio::spawn(async move {
            let body = Bytes::copy_from_slice(&i.to_le_bytes());
            let reply = a.call(peer, &name, body.clone(), CallOptions::default()).await.unwrap();
            assert_eq!(reply.body, body);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_service_a_failing_and_a_panicking_handler_are_told_apart() {
    let (a, b) = pair().await;
    let status = |error: RpcError| match error {
        RpcError::ServerError { status, kind, .. } => (status, kind),
        other => panic!("{other}"),
    };
    let ask = async |name: &str| {
        let name = ServiceName::new(name).unwrap();
        let reply = a.call(b.node_id(), &name, Bytes::new(), CallOptions::default()).await;
        status(reply.unwrap_err())
    };
    assert_eq!(ask("absent").await, (Status::NOT_FOUND, "not_found".to_owned()));
    let fails = |_: RpcContext, _: Bytes| {
        HandlerFuture::ready(Err(RpcFailure::new(Status::TYPED_HANDLER_ERROR, "mine", "no")))
    };
    let _fails = b.serve(ServiceName::new("fails").unwrap(), Arc::new(fails)).unwrap();
    assert_eq!(ask("fails").await, (Status::TYPED_HANDLER_ERROR, "mine".to_owned()));
    let panics = |_: RpcContext, _: Bytes| -> HandlerFuture {
        HandlerFuture::later(async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        })
    };
    let _panics = b.serve(ServiceName::new("panics").unwrap(), Arc::new(panics)).unwrap();
    assert_eq!(ask("panics").await, (Status::INTERNAL, "HandlerPanic".to_owned()));
    assert_eq!(ask("absent").await.0, Status::NOT_FOUND);
}

#[tokio::test]
async fn a_dropped_call_cancels_its_handler() {
    let (a, b) = pair().await;
    let (started_tx, mut started) = mpsc::unbounded_channel();
    let (dropped_tx, dropped) = oneshot::channel::<()>();
    let dropped_tx = std::sync::Mutex::new(Some(dropped_tx));
    let handler = move |_: RpcContext, _: Bytes| {
        let guard = dropped_tx.lock().unwrap().take();
        let started = started_tx.clone();
        HandlerFuture::later(async move {
            started.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(guard);
            Ok(Bytes::new())
        })
    };
    let name = ServiceName::new("waits").unwrap();
    let _served = b.serve(name.clone(), Arc::new(handler)).unwrap();
    let call = a.call(b.node_id(), &name, Bytes::new(), CallOptions::default());
    tokio::select! {
        _ = call => panic!("the handler never answers"),
        _ = started.recv() => {}
    }
    // The guard is dropped with the handler's future, which closes its channel.
    assert!(dropped.await.is_err());
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let (a, b) = pair().await;
    let handler = |_: RpcContext, _: Bytes| HandlerFuture::later(std::future::pending());
    let name = ServiceName::new("waits").unwrap();
    let _served = b.serve(name.clone(), Arc::new(handler)).unwrap();
    let options = CallOptions::with_deadline(Duration::from_millis(50));
    let error = a.call(b.node_id(), &name, Bytes::new(), options).await.unwrap_err();
    assert!(
        matches!(error, RpcError::Timeout | RpcError::ServerError { status: Status::TIMEOUT, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_identity_get_no_session() {
    let (a, stranger, b) = (node(1, "mesh"), node(3, "other"), node(2, "mesh"));
    let mut wrong = addr_of(&b);
    wrong.entity_id = stranger.entity_id();
    let to = addr_of(&b);
    let dials = tokio::join!(stranger.connect(&to), a.connect(&wrong));
    let timeout = || Err(ConnectError::Dial(DialError::Timeout));
    assert_eq!(dials, (timeout(), timeout()));
    assert!(a.connect(&addr_of(&b)).await.is_ok());
}

#[tokio::test]
async fn a_peer_that_shuts_down_fails_open_calls_and_can_come_back() {
    let (a, b) = pair().await;
    let handler = |_: RpcContext, _: Bytes| HandlerFuture::later(std::future::pending());
    let name = ServiceName::new("waits").unwrap();
    let served = b.serve(name.clone(), Arc::new(handler)).unwrap();
    let call = {
        let (a, name, peer) = (a.clone(), name.clone(), b.node_id());
        tokio::spawn(async move { a.call(peer, &name, Bytes::new(), CallOptions::default()).await })
    };
    while !metrics(&b).contains("nrpc_handler_in_flight 1") {
        tokio::task::yield_now().await;
    }
    drop(served);
    b.shutdown().await;
    assert_eq!(call.await.unwrap().unwrap_err(), RpcError::Transport);
    let again = node(2, "mesh");
    let (name, handler) = echo();
    let _served = again.serve(name.clone(), handler).unwrap();
    a.connect(&addr_of(&again)).await.unwrap();
    let body = Bytes::from_static(b"hello");
    let reply = a.call(again.node_id(), &name, body.clone(), CallOptions::default()).await;
    assert_eq!(reply.unwrap().body, body);
}

#[tokio::test]
async fn metrics_tell_what_became_of_calls_and_sessions() {
    let (a, b) = pair().await;
    let (name, handler) = echo();
    let _served = b.serve(name.clone(), handler).unwrap();
    let panics = |_: RpcContext, _: Bytes| -> HandlerFuture { panic!("on purpose") };
    let broken = ServiceName::new("broken").unwrap();
    let _broken = b.serve(broken.clone(), Arc::new(panics)).unwrap();
    for _ in 0..3 {
        a.call(b.node_id(), &name, Bytes::new(), CallOptions::default()).await.unwrap();
    }
    assert!(a.call(b.node_id(), &broken, Bytes::new(), CallOptions::default()).await.is_err());
    let (asking, serving) = (metrics(&a), metrics(&b));
    let peer = format!("{{peer=\"{}\"}} ", b.node_id());
    for row in [
        "nrpc_calls_total 4\n",
        "nrpc_errors_total{kind=\"server_error\"} 1\n",
        "nrpc_errors_total{kind=\"timeout\"} 0\n",
        "nrpc_in_flight_calls 0\n",
        "nrpc_call_latency_seconds_count 4\n",
        "net_sessions{state=\"live\"} 1\n",
        "net_sessions{state=\"draining\"} 0\n",
        "net_stream_resets_total{reason=\"gave_up\"} 0\n",
        "net_handshakes_total{result=\"ok\"} 1\n",
        "subprotocol_peer_auth_rejections 0\n",
        &format!("net_path_mtu_bytes{peer}"),
        &format!("net_cwnd_packets{peer}"),
    ] {
        assert!(asking.contains(row), "{row} in {asking}");
    }
    for row in ["nrpc_handler_invocations_total 4\n", "nrpc_handler_panics_total 1\n"] {
        assert!(serving.contains(row), "{row} in {serving}");
    }
    // Every row belongs to a family that was described.
    for row in asking.lines().filter(|l| !l.starts_with('#')) {
        let name = row.split(['{', ' ']).next().unwrap();
        let family = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(asking.contains(&format!("# TYPE {family} ")), "{row}");
    }
}

#[tokio::test]
async fn a_node_can_call_itself_and_so_many_times_at_once() {
    let a = node(1, "mesh");
    let me = (a.node_id(), a.entity_id());
    let handler = move |context: RpcContext, body: Bytes| {
        assert_eq!((context.peer, context.entity), me);
        assert_eq!(context.headers, [("key".to_owned(), Bytes::from_static(b"value"))]);
        HandlerFuture::later(async move {
            tokio::task::yield_now().await;
            Ok(body)
        })
    };
    let name = ServiceName::new("later").unwrap();
    let _served = a.serve(name.clone(), Arc::new(handler)).unwrap();
    let headers = vec![("key".to_owned(), b"value".to_vec())];
    let options = CallOptions { headers, ..CallOptions::default() };
    let calls: Vec<_> = (0..MAX_WAITING_OWN_CALLS + 10)
        .map(|i| {
            let (a, name, options) = (a.clone(), name.clone(), options.clone());
            let body = Bytes::from(vec![i as u8; i]);
            tokio::spawn(async move {
                let reply = a.call(a.node_id(), &name, body.clone(), options).await?;
                assert_eq!(reply.body, body);
                Ok(())
            })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => {}
            Err(RpcError::Backpressure) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 10);
    let absent = ServiceName::new("absent").unwrap();
    let error = a.call(a.node_id(), &absent, Bytes::new(), CallOptions::default()).await;
    let status = Status::NOT_FOUND;
    assert!(matches!(error, Err(RpcError::ServerError { status: s, .. }) if s == status));
    let waits = |_: RpcContext, _: Bytes| HandlerFuture::later(std::future::pending());
    let never = ServiceName::new("never").unwrap();
    let _waits = a.serve(never.clone(), Arc::new(waits)).unwrap();
    let open = {
        let (a, never) = (a.clone(), never.clone());
        let me = a.node_id();
        tokio::spawn(async move { a.call(me, &never, Bytes::new(), CallOptions::default()).await })
    };
    let options = CallOptions::with_deadline(Duration::from_millis(20));
    assert!(a.call(a.node_id(), &never, Bytes::new(), options).await.is_err());
    while !metrics(&a).contains("nrpc_handler_in_flight 1") {
        tokio::task::yield_now().await;
    }
    a.shutdown().await;
    assert_eq!(open.await.unwrap(), Err(RpcError::Transport));
    let late = a.call(a.node_id(), &absent, Bytes::new(), CallOptions::default()).await;
    assert_eq!(late, Err(RpcError::Cancelled));
}
