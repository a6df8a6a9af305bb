//! What a caller sees when members fail, move or lose answers.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use aspen_api::cluster::{ExpungeNode, InitCluster};
use aspen_api::kv::{Compare, Consistency, ReadKey, Transact, WriteOperation};
use aspen_api::{ErrorCode, Key, KeyValueStore, MemberId};
use aspen_client::{Client, ClientOptions};
use net_node::{EntityKeypair, PeerAddr};
use net_types::limits::MAX_REQUESTS_PER_CLIENT;

use crate::members::{Members, Mood, loopback, mesh_node, ticket};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(600);

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A transaction that creates a key.
fn create(k: &str) -> Transact {
    let compares = vec![Compare::value(key(k), None)];
    Transact { compares, ..Transact::always([WriteOperation::set(key(k), "v")]) }
}

#[tokio::test]
async fn a_write_with_a_followers_ticket_reaches_the_leader() {
    let members = Members::start(&[Mood::Follows, Mood::Follows, Mood::Leads]);
    let client = members.client(&[0, 1, 2], LONG);
    client.set(key("k"), "v").await.unwrap();
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().value, "v");
    assert_eq!(members.asked(0), ["Transact"], "later requests go to the leader at once");
    assert!(members.asked(1).is_empty(), "the hint comes before the order of the ticket");
}

#[tokio::test]
async fn a_leader_outside_the_ticket_is_followed_unless_told_otherwise() {
    let members = Members::start(&[Mood::Follows, Mood::Leads]);
    let client = members.client(&[0], LONG);
    client.set(key("k"), "v").await.unwrap();

    let options =
        ClientOptions { deadline: SHORT, should_follow_leader: false, ..ClientOptions::default() };
    let single = Client::connect(&members.ticket(&[0]), options).unwrap();
    let error = single.set(key("k"), "w").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotLeader);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_applied_once() {
    let members = Members::start(&[Mood::LosesAnswers, Mood::Follows, Mood::Follows]);
    let client = members.client(&[0, 1, 2], LONG);
    let write = client.send(create("k"));
    let election = async {
        // The first member has carried out the write and says nothing; another one is elected.
        while members.asked(0).is_empty() {
            tokio::task::yield_now().await;
        }
        members.set_mood(0, Mood::Silent);
        members.set_mood(2, Mood::Leads);
    };
    let (result, ()) = tokio::join!(write, election);
    assert!(result.unwrap().is_success(), "the first answer, not that of a second application");
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().version, 1);
    let ids: BTreeSet<_> = members.request_ids().into_iter().collect();
    assert_eq!(ids.len(), 1, "all attempts had one id");
}

#[tokio::test]
async fn a_leader_that_stops_is_replaced() {
    let members = Members::start(&[Mood::Leads, Mood::Follows]);
    let client = members.client(&[0, 1], LONG);
    client.set(key("k"), "1").await.unwrap();
    members.stop(0).await;
    members.set_mood(0, Mood::Silent);
    members.set_mood(1, Mood::Leads);
    client.set(key("k"), "2").await.unwrap();
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().version, 2);
}

/// Members that take what they are sent and never answer.
fn gone(count: u8) -> (Vec<UdpSocket>, Vec<PeerAddr>) {
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind(loopback()).unwrap()).collect();
    let addr = |(n, socket): (usize, &UdpSocket)| {
        let entity = EntityKeypair::from_seed([100 + n as u8; 32]).entity_id();
        PeerAddr::direct(entity, socket.local_addr().unwrap())
    };
    let addrs = sockets.iter().enumerate().map(addr).collect();
    (sockets, addrs)
}

#[tokio::test]
async fn members_that_are_gone_are_passed_by_together_and_the_write_is_sent_once() {
    let members = Members::start(&[Mood::Leads]);
    let (_sockets, mut peers) = gone(6);
    peers.extend(members.ticket(&[0]).peers().to_vec());
    // Waiting for each of them in turn would take longer.
    let deadline = Duration::from_millis(2_500);
    let options = ClientOptions { deadline, ..ClientOptions::default() };
    let client = Client::connect(&ticket(peers), options).unwrap();
    assert!(client.send(create("k")).await.unwrap().is_success());
    assert_eq!(members.asked(0), ["Transact"]);
    client.set(key("k"), "w").await.unwrap();
    assert_eq!(members.asked(0).len(), 2, "who leads is known from then on");
}

#[tokio::test]
async fn a_new_client_writes_though_answers_were_forgotten_and_members_are_gone() {
    let members = Members::start(&[Mood::Leads]);
    let early = members.client(&[0], LONG);
    early.set(key("early"), "v").await.unwrap();
    members.pass(FORGOTTEN);
    // Has the early client's answers forgotten.
    members.client(&[0], LONG).set(key("next"), "v").await.unwrap();
    let (_sockets, mut peers) = gone(2);
    peers.extend(members.ticket(&[0]).peers().to_vec());
    let options = ClientOptions { deadline: LONG, ..ClientOptions::default() };
    let late = Client::connect(&ticket(peers), options).unwrap();
    assert!(late.send(create("k")).await.unwrap().is_success());
    assert_eq!(members.asked(0).len(), 3, "each of the three writes was sent once");
}

#[tokio::test]
async fn a_read_that_any_member_can_answer_passes_by_those_that_are_gone() {
    let members = Members::start(&[Mood::Follows]);
    let (_sockets, mut peers) = gone(6);
    peers.extend(members.ticket(&[0]).peers().to_vec());
    let deadline = Duration::from_millis(2_500);
    let options = ClientOptions { deadline, ..ClientOptions::default() };
    let client = Client::connect(&ticket(peers), options).unwrap();
    assert_eq!(client.get_local(key("k")).await.unwrap().item, None);
}

#[tokio::test]
async fn unavailable_and_starting_members_are_asked_as_their_answers_say() {
    let starting = Mood::Refuses(ErrorCode::NotInitialized);
    let unavailable = Mood::Refuses(ErrorCode::ServiceUnavailable);
    let members = Members::start(&[unavailable, starting]);
    let client = members.client(&[0, 1], LONG);
    let write = client.set(key("k"), "v");
    let start = async {
        while members.asked(1).len() < 2 {
            tokio::task::yield_now().await;
        }
        members.set_mood(1, Mood::Leads);
    };
    let (result, ()) = tokio::join!(write, start);
    result.unwrap();
    assert_eq!(members.asked(0).len(), 1, "a member that is starting is waited for");
}

#[tokio::test]
async fn final_answers_are_returned_at_once() {
    let members = Members::start(&[Mood::Refuses(ErrorCode::Forbidden), Mood::Leads]);
    let client = members.client(&[0, 1], LONG);
    let error = client.set(key("k"), "v").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert!(members.asked(1).is_empty());
    let large = client.set(key("k"), vec![0; (1 << 20) + 1]);
    assert_eq!(large.await.unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(members.asked(0).len(), 1, "what cannot be right is not sent");
}

#[tokio::test]
async fn silence_leaves_open_what_happened_and_absence_does_not() {
    let members = Members::start(&[Mood::Silent]);
    let client = members.client(&[0], SHORT);
    let error = client.set(key("k"), "v").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout);

    let gone = mesh_node(77);
    let addr = PeerAddr::direct(gone.entity_id(), gone.local_addr());
    gone.shutdown().await;
    drop(gone);
    let options = ClientOptions { deadline: SHORT, ..ClientOptions::default() };
    let client = Client::connect(&ticket(vec![addr]), options).unwrap();
    let error = client.set(key("k"), "v").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceUnavailable, "{error}");
}

#[tokio::test]
async fn a_refusal_after_a_lost_attempt_does_not_claim_that_nothing_happened() {
    let members = Members::start(&[Mood::LosesAnswers, Mood::Follows]);
    let client = members.client(&[0, 1], LONG);
    let write = client.set(key("k"), "v");
    let change = async {
        while members.asked(0).is_empty() {
            tokio::task::yield_now().await;
        }
        members.stop(0).await;
        members.set_mood(1, Mood::Refuses(ErrorCode::Forbidden));
    };
    let (result, ()) = tokio::join!(write, change);
    assert_eq!(result.unwrap_err().code, ErrorCode::Timeout);
}

#[tokio::test]
async fn a_write_that_a_leader_left_open_is_settled_by_the_next_one() {
    let members = Members::start(&[Mood::LeavesOpen, Mood::Leads]);
    let client = members.client(&[0, 1], LONG);
    assert!(client.send(create("k")).await.unwrap().is_success(), "the first application's answer");
    assert_eq!((members.asked(0).len(), members.asked(1).len()), (1, 1));
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().version, 1);
    let ids: BTreeSet<_> = members.request_ids().into_iter().collect();
    assert_eq!(ids.len(), 1, "all attempts had one id");
}

#[tokio::test]
async fn a_write_that_a_leader_left_open_stays_open_whatever_is_refused_later() {
    let codes = [ErrorCode::ServiceUnavailable, ErrorCode::NotLeader, ErrorCode::Forbidden];
    for later in codes {
        let members = Members::start(&[Mood::LeavesOpen, Mood::Refuses(later)]);
        let client = members.client(&[0, 1], SHORT);
        let write = client.set(key("k"), "v");
        let end = async {
            while members.asked(0).is_empty() {
                tokio::task::yield_now().await;
            }
            members.set_mood(0, Mood::Refuses(later));
        };
        let (result, ()) = tokio::join!(write, end);
        let error = result.unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout, "{later}");
        assert!(error.message.contains("may or may not have been carried out"), "{error}");
        assert!(!members.asked(1).is_empty(), "it was asked again");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_leaves_open_what_happened() {
    let members = Members::start(&[Mood::AnswersUnreadably]);
    let client = members.client(&[0], LONG);
    let error = client.send(create("k")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InternalError, "not UNSUPPORTED: it was carried out");
    members.set_mood(0, Mood::Leads);
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().version, 1);
}

/// Long enough that the store forgets its clients.
const FORGOTTEN: Duration = Duration::from_secs(1_000);

#[tokio::test]
async fn who_has_seen_nothing_since_answers_were_forgotten_asks_under_a_new_id() {
    let members = Members::start(&[Mood::Leads]);
    let early = members.client(&[0], LONG);
    early.set(key("early"), "v").await.unwrap();
    members.client(&[0], LONG).set(key("next"), "v").await.unwrap();
    members.pass(FORGOTTEN);
    // The first of these writes has both clients forgotten, and the early one has not seen the answer
    // to the other.
    let late = members.client(&[0], LONG);
    assert!(late.send(create("k")).await.unwrap().is_success());
    assert!(late.send(create("l")).await.unwrap().is_success());
    assert!(early.send(create("m")).await.unwrap().is_success());
    let asked = members.asked(0);
    assert_eq!(asked.len(), 6, "four creations and one repetition of an old id: {asked:?}");
    assert_eq!(late.get(key("k")).await.unwrap().item.unwrap().version, 1);
}

#[tokio::test]
async fn a_write_whose_answer_was_forgotten_is_not_applied_again_and_stays_open() {
    let members = Members::start(&[Mood::LosesAnswers, Mood::Follows]);
    let client = members.client(&[0, 1], LONG);
    let write = client.send(create("k"));
    let forget = async {
        while members.asked(0).is_empty() {
            tokio::task::yield_now().await;
        }
        members.pass(FORGOTTEN);
        members.set_mood(0, Mood::Silent);
        members.set_mood(1, Mood::Leads);
    };
    let (result, ()) = tokio::join!(write, forget);
    assert_eq!(result.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!(client.get(key("k")).await.unwrap().item.unwrap().version, 1);
}

#[tokio::test]
async fn what_has_no_id_is_not_asked_again_once_it_is_left_open() {
    let members = Members::start(&[Mood::LeavesOpen, Mood::Leads]);
    let client = members.client(&[0, 1], LONG);
    let error = client.send(ExpungeNode { node_id: MemberId(3) }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout);
    assert_eq!((members.asked(0).len(), members.asked(1).len()), (1, 0));
}

#[tokio::test]
async fn a_stale_read_is_answered_by_whoever_answers() {
    let members = Members::start(&[Mood::Silent, Mood::Follows]);
    let client = members.client(&[0, 1], LONG);
    assert_eq!(client.get_local(key("k")).await.unwrap().item, None);
    let linearizable = client.send_within(ReadKey::newest(key("k")), SHORT).await;
    assert!(linearizable.is_err());
}

#[tokio::test]
async fn what_concerns_one_node_is_asked_of_no_other() {
    let unavailable = Mood::Refuses(ErrorCode::ServiceUnavailable);
    let members = Members::start(&[unavailable, Mood::Leads]);
    let client = members.client(&[0, 1], SHORT);
    let error = client.send(InitCluster {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceUnavailable);
    assert!(members.asked(0).len() > 1);
    assert!(members.asked(1).is_empty());
}

#[tokio::test]
async fn many_writes_at_once_have_ids_within_the_window() {
    let members = Members::start(&[Mood::Leads]);
    let client = members.client(&[0], LONG);
    let writes: Vec<_> = (0..500)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.send(create(&format!("k{n}"))).await })
        })
        .collect();
    for write in writes {
        assert!(write.await.unwrap().unwrap().is_success());
    }
    let ids = members.request_ids();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!((ids.len(), unique.len()), (500, 500));
}

#[tokio::test]
async fn a_client_has_no_more_requests_under_way_than_a_node_takes() {
    let members = Members::start(&[Mood::Silent]);
    let client = members.client(&[0], LONG);
    let writes: Vec<_> = (0..MAX_REQUESTS_PER_CLIENT)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.send(create(&format!("k{n}"))).await })
        })
        .collect();
    while members.asked(0).len() < MAX_REQUESTS_PER_CLIENT {
        tokio::task::yield_now().await;
    }
    let late = client.send_within(create("late"), SHORT).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::ServiceUnavailable, "it certainly did not happen");
    assert!(late.message.starts_with("not sent"), "{late}");
    assert_eq!(members.asked(0).len(), MAX_REQUESTS_PER_CLIENT);
    members.set_mood(0, Mood::Leads);
    writes.into_iter().for_each(|write| write.abort());
    client.send(create("later")).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_was_passed_by_is_come_back_to() {
    let members = Members::start(&[Mood::Refuses(ErrorCode::ServiceUnavailable), Mood::Silent]);
    let client = members.client(&[0, 1], LONG);
    let write = client.send(create("k"));
    let recovery = async {
        while members.asked(1).is_empty() {
            tokio::task::yield_now().await;
        }
        members.set_mood(0, Mood::Leads);
    };
    let (result, ()) = tokio::join!(write, recovery);
    assert!(result.unwrap().is_success());
}

#[tokio::test]
async fn reads_that_any_member_can_answer_learn_from_each_other_who_is_silent() {
    let members = Members::start(&[Mood::Silent, Mood::Follows]);
    let client = members.client(&[0, 1], LONG);
    let read = || {
        let read = ReadKey::newest(key("k"));
        client.send(ReadKey { consistency: Consistency::Stale, ..read })
    };
    read().await.unwrap();
    for _ in 0..20 {
        read().await.unwrap();
    }
    assert_eq!(members.asked(0).len(), 1, "the silent one is not tried first each time");
    assert_eq!(members.asked(1).len(), 21);
}

#[tokio::test]
async fn a_change_of_the_members_that_was_left_open_is_not_said_to_be_refused() {
    let members = Members::start(&[Mood::Silent, Mood::Refuses(ErrorCode::NotFound)]);
    let client = members.client(&[0, 1], LONG);
    let expunge = client.send(ExpungeNode { node_id: MemberId(3) });
    let loss = async {
        while members.asked(0).is_empty() {
            tokio::task::yield_now().await;
        }
        members.stop(0).await;
    };
    let (result, ()) = tokio::join!(expunge, loss);
    assert_eq!(members.asked(1), ["ExpungeNode"]);
    let error = result.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "the first may have carried it out: {error}");
    assert!(error.message.contains("scripted"), "{error}");
}
