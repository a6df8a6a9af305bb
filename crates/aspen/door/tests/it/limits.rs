//! How much a door takes on, and how it ends.

use std::time::Duration;

use aspen_door::DoorLimits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::echo::{is_echoed, is_ended, open};

const NO_IDLE: DoorLimits = DoorLimits { connections: 2, handshakes: 1, idle: None };

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_until_a_slot_is_free() {
    let door = open(NO_IDLE, None).await;
    let mut first = TcpStream::connect(door.addr).await.unwrap();
    let mut second = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_echoed(&mut first).await && is_echoed(&mut second).await);
    let mut third = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_ended(&mut third).await);
    assert_eq!((door.metric("connections"), door.metric("refused_total")), (2, 1));
    assert!(is_echoed(&mut first).await, "an open connection keeps its slot");
    drop(first);
    door.reaches("connections", 1).await;
    let mut fourth = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_echoed(&mut fourth).await);
    assert_eq!((door.metric("accepted_total"), door.metric("refused_total")), (3, 1));
    assert_eq!((door.metric("received_bytes_total"), door.metric("sent_bytes_total")), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_byte_is_cut_after_the_limit() {
    let limits = DoorLimits { idle: Some(Duration::from_secs(60)), ..NO_IDLE };
    let door = open(limits, None).await;
    let mut client = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_ended(&mut client).await);
    door.reaches("connections", 0).await;
}

#[tokio::test]
async fn a_closing_door_accepts_nothing_and_lets_connections_finish() {
    let door = open(NO_IDLE, None).await;
    let (doors, addr) = (door.doors, door.addr);
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert!(is_echoed(&mut client).await);
    let closing = tokio::spawn(doors.close(Duration::from_secs(3600)));
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(is_echoed(&mut client).await, "an open connection may finish");
    client.shutdown().await.unwrap();
    assert!(is_ended(&mut client).await);
    assert!(closing.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_finish_is_cut_at_the_deadline() {
    let door = open(NO_IDLE, None).await;
    let mut client = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_echoed(&mut client).await);
    assert!(!door.doors.close(Duration::from_secs(30)).await);
    assert!(is_ended(&mut client).await);
}

#[tokio::test]
async fn doors_that_are_dropped_close() {
    let door = open(NO_IDLE, None).await;
    let mut client = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_echoed(&mut client).await);
    drop(door.doors);
    assert!(is_ended(&mut client).await);
}
