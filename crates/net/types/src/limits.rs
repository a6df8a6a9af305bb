//! Every limit of the mesh and of the cluster on it, each with what it bounds and what it costs. A
//! bound that concerns one structure alone stands in that structure's file.
//!
//! Invariants: no limit depends on a build feature; limits that depend on each other are tied by
//! `const` assertions, so that a change which breaks a relation does not compile.

use core::time::Duration;

// ---- addresses and tickets --------------------------------------------------------------------

/// Addresses of one peer; a dial tries them all at once, so this bounds packets per attempt.
pub const MAX_PEER_ADDRS: usize = 8;
/// Relays named for one peer.
pub const MAX_PEER_RELAYS: usize = 4;
/// Peers in a mesh ticket; at 8 IPv6 addresses each the text stays under 6 KiB.
pub const MAX_TICKET_PEERS: usize = 16;
/// Bytes of a ticket's human label.
pub const MAX_TICKET_LABEL_BYTES: usize = 64;

// ---- packets ----------------------------------------------------------------------------------

/// Net header on every packet.
pub const HEADER_BYTES: usize = 64;
/// Routing header before the Net header of relayed packets.
pub const ROUTING_HEADER_BYTES: usize = 18;
/// Authentication tag of both AEAD suites.
pub const TAG_BYTES: usize = 16;
/// Largest Net packet, header and tag included; with a routing header a datagram is 8,210 bytes.
pub const MAX_PACKET_BYTES: usize = 8_192;
/// Datagram size every path starts with: fits IPv6's 1,280-byte minimum MTU.
pub const BASE_DATAGRAM_BYTES: usize = 1_232;
/// Datagram sizes probed in order, each only after the one before was confirmed.
pub const MTU_PROBE_STEPS: [usize; 4] =
    [1_392, 1_452, 4_096, MAX_PACKET_BYTES + ROUTING_HEADER_BYTES];
/// Largest plaintext of one packet.
pub const MAX_PAYLOAD_BYTES: usize = MAX_PACKET_BYTES - HEADER_BYTES - TAG_BYTES;
/// Largest single event in one packet: the payload without its u32 length.
pub const MAX_EVENT_BYTES: usize = MAX_PAYLOAD_BYTES - 4;
/// Largest message; longer ones are an error, never truncated.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Acknowledgement records in one packet.
pub const MAX_ACK_RECORDS: usize = 40;
/// Gaps in one negative acknowledgement.
pub const MAX_NACK_GAPS: usize = 32;
/// Hops of a relayed packet.
pub const MAX_HOPS: u8 = 16;
/// Datagrams per socket call; larger batches are chunked.
pub const MAX_BATCH_SIZE: usize = 64;

const _: () = assert!(MAX_PAYLOAD_BYTES == 8_112 && MAX_EVENT_BYTES == 8_108);
// Fragment indices are u16; the smallest fragment of a path at base size must cover the largest
// message.
const _: () = assert!(
    MAX_MESSAGE_BYTES
        / (BASE_DATAGRAM_BYTES - ROUTING_HEADER_BYTES - HEADER_BYTES - TAG_BYTES - 64)
        < u16::MAX as usize
);

// ---- handshakes -------------------------------------------------------------------------------

/// Time for a handshake from its first Init to confirmation.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait before an Init is repeated; attempt `n` waits `n` times this.
pub const HANDSHAKE_RETRY_STEP: Duration = Duration::from_millis(100);
/// Longest wait between two Inits.
pub const HANDSHAKE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Inits from one source address that are processed per second without a cookie.
pub const HANDSHAKES_PER_SOURCE_PER_SEC: u32 = 10;
/// Inits from one source address that a cookie proved, per second: many nodes may share one.
pub const HANDSHAKES_PER_PROVED_SOURCE_PER_SEC: u32 = 100;
/// Inits processed per second by a node without a cookie, and as many with one.
pub const HANDSHAKES_PER_NODE_PER_SEC: u32 = 1_000;
/// Source addresses the pacer tracks; 24 bytes each.
pub const MAX_PACER_SOURCES: usize = 4_096;
/// Sessions that answered an Init and wait for confirmation; about 4 KiB each.
pub const MAX_PROVISIONAL_SESSIONS: usize = 4_096;
/// How long a node waits for its own dial before it answers an Init of the same peer.
pub const HANDSHAKE_YIELD: Duration = Duration::from_millis(300);
/// Handshake packets that wait to be sent; about 300 bytes each.
pub const MAX_HANDSHAKE_OUTBOX: usize = 4_096;
/// Draining sessions of one peer.
pub const MAX_DRAINING_PER_PEER: usize = 2;
/// Provisional sessions of one identity.
pub const MAX_PROVISIONAL_PER_PEER: usize = 2;
/// Dials under way.
pub const MAX_INITIATIONS: usize = 1_024;
/// Established sessions.
pub const MAX_SESSIONS: usize = 65_536;
/// Life of the secret under cookies.
pub const COOKIE_SECRET_LIFETIME: Duration = Duration::from_secs(120);
/// Mesh secrets that are accepted at the same time, for rotation.
pub const MAX_MESH_SECRETS: usize = 2;

// ---- sessions ---------------------------------------------------------------------------------

/// Silence after which a session sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// Silence after which a peer is suspected: three heartbeats.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1_500);
/// Silence after which a session is closed.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// Packets remembered by the replay window.
pub const REPLAY_WINDOW: u64 = 1_024;
/// Largest accepted jump of a packet counter.
pub const MAX_COUNTER_JUMP: u64 = 65_536;
/// Time of nothing but larger jumps after which the session makes a new handshake.
pub const COUNTER_JUMP_GIVE_UP: Duration = Duration::from_secs(3);
/// Packets under one key before it is ratcheted.
pub const KEY_EPOCH_PACKETS: u64 = 1 << 30;
/// Age of a key before it is ratcheted.
pub const KEY_EPOCH_AGE: Duration = Duration::from_secs(3_600);
/// Longest wait of an owed acknowledgement for a packet to ride on (RFC 9000, 18.2): most answers,
/// a durable write's among them, come within it.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// Packets received on a session before the acknowledgement leaves at once.
pub const ACK_EVERY_PACKETS: u32 = 8;
/// The same when they are fragments or when packets were lost lately: the sender then waits for its
/// window (RFC 5681, 4.2), which is never narrower than this.
pub const ACK_EVERY_BULK_PACKETS: u32 = 2;
/// Packets after a loss to which that applies.
pub const ACK_ALERT_PACKETS: u32 = 32;
/// Time between two searches for a larger path MTU.
pub const MTU_REPROBE: Duration = Duration::from_secs(600);
/// Lost probes that end the search at one size.
pub const MTU_PROBE_ATTEMPTS: u32 = 3;
/// Consecutive timeouts of large packets after which a path falls back to the base size.
pub const MTU_BLACK_HOLE_RTOS: u32 = 3;
/// Unvalidated addresses receive less than this many times what they sent.
pub const AMPLIFICATION_FACTOR: usize = 3;

const _: () = assert!(SESSION_TIMEOUT.as_millis() > 3 * HEARTBEAT_INTERVAL.as_millis());
const _: () = assert!(SUSPECT_AFTER.as_millis() == 3 * HEARTBEAT_INTERVAL.as_millis());

// ---- streams ----------------------------------------------------------------------------------

/// Streams of one session, both sides together; about 400 bytes each when idle.
pub const MAX_STREAMS: usize = 4_096;
/// Streams the peer may have opened.
pub const MAX_PEER_STREAMS: usize = 1_024;
/// Windows, in bytes, of all streams that the peer may have opened: what it can make a session hold of
/// messages that are not read.
pub const MAX_PEER_WINDOW_BYTES: usize = 256 << 20;
/// Idle time after which a stream of the peer's is ended when the peer opens another one and has no
/// room left.
pub const STREAM_IDLE: Duration = Duration::from_secs(30);
/// Window of a stream before its OPEN block is read.
pub const DEFAULT_STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Largest window; a receiver's reorder buffer holds at most this much per stream.
pub const MAX_STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Packets queued on one stream before a send is refused.
pub const MAX_STREAM_QUEUE_PACKETS: usize = 1_024;
/// Bytes queued for sending on one session before a send is refused.
pub const MAX_SESSION_QUEUE_BYTES: usize = 64 << 20;
/// Bytes of partly received messages per session. Each counts with its whole length from its first
/// fragment on, so that what began can end.
pub const MAX_REASSEMBLY_BYTES: usize = 64 << 20;
/// Bytes per session of packets that arrived before their turn, or in pieces.
pub const MAX_HELD_BYTES: usize = 32 << 20;
/// Age at which a partly received unreliable message is dropped.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Sequences that may be missing below the newest one of a reliable stream; 128 bytes per 1,024.
pub const MAX_REORDER_PACKETS: u64 = 65_536;
/// A fire-and-forget sequence this far behind the newest is given up as lost.
pub const UNRELIABLE_LOSS_DISTANCE: u64 = 64;
/// Lower bound of the retransmission timeout: an acknowledgement may be held back for
/// [`ACK_DELAY`], and timers and schedulers of both ends are late by a few milliseconds.
pub const RTO_MIN: Duration = Duration::from_millis(30);
/// Upper bound of the retransmission timeout.
pub const RTO_MAX: Duration = Duration::from_secs(2);
/// Timeouts in a row, without a window of the stream from the peer, before it is reset.
pub const MAX_RETRIES: u32 = 10;
/// Congestion window at the start, in packets.
pub const INITIAL_CWND_PACKETS: u32 = 16;
/// Longest life of a session after another one took over: three of the longest timeouts. It ends
/// earlier when both sides have nothing under way.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// The same while its owner still waits for something on it, such as the reply to a call.
pub const DRAIN_HELD_TIMEOUT: Duration = Duration::from_secs(36);
/// Timeouts, and at least a heartbeat's interval, after which a peer that did not answer on a
/// draining session no longer knows it.
pub const DRAIN_SILENT_RTOS: u32 = 8;
/// Smallest congestion window, in packets.
pub const MIN_CWND_PACKETS: u32 = 2;
/// Largest congestion window, in packets: at 8 KiB packets this is 128 MiB in flight.
pub const MAX_CWND_PACKETS: u32 = 16_384;
/// Bytes of messages of one fire-and-forget stream that its reader has not taken; those that come
/// above it are dropped.
pub const MAX_UNREAD_UNRELIABLE_BYTES: usize = 4 << 20;
/// Messages delivered to the application and not yet taken, per session.
pub const MAX_SESSION_EVENTS: usize = 16_384;

const _: () = assert!(MAX_MESSAGE_BYTES <= MAX_REASSEMBLY_BYTES);
const _: () =
    assert!(MAX_PEER_STREAMS * DEFAULT_STREAM_WINDOW_BYTES as usize <= MAX_PEER_WINDOW_BYTES);
const _: () = assert!(MIN_CWND_PACKETS < INITIAL_CWND_PACKETS);
// A sender that fills its window hears of it before a timer has to run out.
const _: () = assert!(2 * ACK_EVERY_PACKETS <= INITIAL_CWND_PACKETS);
const _: () = assert!(ACK_EVERY_BULK_PACKETS <= MIN_CWND_PACKETS);
const _: () = assert!(RTO_MIN.as_millis() > ACK_DELAY.as_millis());
const _: () = assert!(DRAIN_TIMEOUT.as_millis() == 3 * RTO_MAX.as_millis());
// A call with the default deadline can end on the session that it was made on.
const _: () = assert!(
    DRAIN_HELD_TIMEOUT.as_millis() >= DEFAULT_CALL_DEADLINE.as_millis() + DRAIN_TIMEOUT.as_millis()
);

// ---- calls ------------------------------------------------------------------------------------

/// Body of a unary call or reply.
///
/// The client protocol of the cluster carries messages up to 16 MiB in one call, so the limit is
/// the transport's message minus room for the frame around the body.
pub const MAX_UNARY_BODY_BYTES: usize = MAX_MESSAGE_BYTES - RPC_FRAME_ALLOWANCE_BYTES;
/// Room for the frame, headers included, around a unary body.
pub const RPC_FRAME_ALLOWANCE_BYTES: usize = 32 << 10;
/// Headers of a call.
pub const MAX_RPC_HEADERS: usize = 32;
/// Bytes of a header's name.
pub const MAX_RPC_HEADER_NAME_BYTES: usize = 128;
/// Bytes of a header's value.
pub const MAX_RPC_HEADER_VALUE_BYTES: usize = 4 << 10;
/// Bytes of all headers of a call.
pub const MAX_RPC_HEADERS_BYTES: usize = 16 << 10;
/// Bytes of a service name.
pub const MAX_SERVICE_NAME_BYTES: usize = 96;
/// Bytes of an error's text.
pub const MAX_RPC_DETAIL_BYTES: usize = 1 << 10;
/// Calls a node has open as caller; about 200 bytes each.
pub const MAX_PENDING_CALLS: usize = 65_536;
/// Calls one service works on.
pub const MAX_IN_FLIGHT_PER_SERVICE: usize = 4_096;
/// Calls one caller has open at this node.
pub const MAX_IN_FLIGHT_PER_CALLER: usize = 1_024;
/// Services of one node.
pub const MAX_SERVICES: usize = 1_024;
/// Deadline of a call that names none.
pub const DEFAULT_CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Window of the streams that carry unary calls: two bodies of 1 MiB and their acknowledgements.
pub const RPC_STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Calls of a node to itself that wait for its next turn; those beyond are refused.
pub const MAX_WAITING_OWN_CALLS: usize = 64;
/// Replies that wait for the callers of all sessions to take others first. Beyond it the session with
/// the most is closed.
pub const MAX_WAITING_REPLY_BYTES: usize = 512 << 20;
/// Waiting replies of one session from which on its calls are refused. Those that are worked on may
/// add to them.
pub const REFUSE_CALLS_ABOVE_REPLY_BYTES: usize = 16 << 20;

const _: () =
    assert!(RPC_FRAME_ALLOWANCE_BYTES > MAX_RPC_HEADERS_BYTES + MAX_RPC_DETAIL_BYTES + 64);

// ---- key-value --------------------------------------------------------------------------------

/// Bytes of a key; a key has at least one.
pub const MAX_KEY_BYTES: usize = 1_024;
/// Bytes of a value.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Keys of a batch read, and operations or conditions of a batch or of one transaction branch.
pub const MAX_BATCH_OPERATIONS: usize = 100;
/// Bytes of keys and values in one command; it must fit one append to a follower with room to
/// spare.
pub const MAX_COMMAND_BYTES: usize = 8 << 20;
/// Bytes of values that the reads of one transaction return: one value of any size, and small ones.
pub const MAX_TRANSACTION_READ_BYTES: usize = MAX_VALUE_BYTES + (64 << 10);
/// Bytes of values that one batch read returns; it must fit one reply.
pub const MAX_BATCH_READ_BYTES: usize = 8 << 20;
/// Entries of a scan's page when the request names no limit.
pub const DEFAULT_SCAN_LIMIT: u32 = 1_000;
/// Entries of a scan's page.
pub const MAX_SCAN_LIMIT: u32 = 10_000;
/// Bytes of keys and values after which a scan's page ends early; the last entry may exceed it.
pub const MAX_SCAN_PAGE_BYTES: usize = 4 << 20;
/// Bytes of a continuation token: a key and its frame.
pub const MAX_CONTINUATION_TOKEN_BYTES: usize = MAX_KEY_BYTES + 32;
/// Longest life of a key or a lease, and of an extension: ten years.
pub const MAX_TIME_TO_LIVE: Duration = Duration::from_secs(3_650 * 86_400);
/// Leases at the same time; about 100 bytes of disk each.
pub const MAX_LEASES: u64 = 1_000_000;
/// Leases or keys in one answer about leases; longer lists are cut and say so.
pub const MAX_LEASE_LIST: usize = 1_000;
/// Lease ids from here on are generated, smaller ones chosen by clients.
pub const GENERATED_LEASE_ID_BASE: u64 = 1 << 52;
/// Largest lease id: JSON readers that hold numbers as doubles keep it exact.
pub const MAX_LEASE_ID: u64 = (1 << 53) - 1;

/// Answers remembered per client, so that a repeated write is answered instead of applied again.
pub const DEDUP_WINDOW_REQUESTS: u64 = 128;
/// Log time a client's answers are remembered after its last write.
pub const DEDUP_WINDOW_AGE: Duration = Duration::from_secs(600);
/// Clients whose answers are remembered; about 100 bytes of disk each and up to 128 answers of
/// about 40 bytes. Beyond it the one that was silent longest is forgotten; what it then repeats is
/// refused, not applied again.
pub const MAX_DEDUP_CLIENTS: u64 = 65_536;
/// Latest log time, Unix milliseconds: beyond any clock, and so far from the end of the integers that
/// every deadline after it has a place.
pub const MAX_LOG_TIME_MS: u64 = u64::MAX / 2;
/// Bytes of a recorded answer; a larger one is recorded without the values that it read.
pub const MAX_RECORDED_REPLY_BYTES: usize = 80 << 10;
/// What an expired row of this many bytes costs of an entry's budget; larger ones cost as much more.
/// Rows go to the history, so this bounds the bytes that an entry moves, to 8 MiB for a tick.
pub const REMOVED_ROW_BYTES: usize = 8 << 10;
/// Expired keys that one ordinary log entry removes beside its own work, about 0.2 ms.
pub const EXPIRED_PER_ENTRY: usize = 64;
/// Expired keys and compacted versions that one maintenance entry removes, about 5 ms.
pub const REMOVED_PER_TICK: usize = 1_000;
/// Interval at which an idle leader stamps log time while anything has a deadline. A leader
/// that restarted since the last stamp takes no time as passed between that stamp and its term, so this
/// bounds how much a restart lengthens lives.
pub const STAMP_INTERVAL: Duration = Duration::from_secs(10);
/// Superseded revisions that stay readable; twice as many may pile up before a compaction.
pub const KEPT_REVISIONS: u64 = 100_000;
/// Bytes of superseded versions above which compaction starts earlier.
pub const MAX_HISTORY_BYTES: u64 = 1 << 30;
/// Bytes of one snapshot chunk; a row larger than this has a chunk of its own.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

const _: () = assert!(MAX_COMMAND_BYTES + MAX_RPC_HEADERS_BYTES < MAX_UNARY_BODY_BYTES);
const _: () = assert!(MAX_BATCH_READ_BYTES + MAX_VALUE_BYTES < MAX_UNARY_BODY_BYTES);
// The page limit, the entry that may exceed it and 64 bytes of metadata for each entry.
const _: () = assert!(
    MAX_SCAN_PAGE_BYTES + MAX_VALUE_BYTES + MAX_KEY_BYTES + 64 * (MAX_SCAN_LIMIT as usize)
        < MAX_UNARY_BODY_BYTES
);

// ---- cluster protocol -------------------------------------------------------------------------

/// Bytes of a capability token in a request.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Capabilities of a token.
pub const MAX_TOKEN_CAPABILITIES: usize = 32;
/// Facts of a token.
pub const MAX_TOKEN_FACTS: usize = 16;
/// Bytes of a fact's name.
pub const MAX_FACT_NAME_BYTES: usize = 64;
/// Bytes of a fact's value.
pub const MAX_FACT_VALUE_BYTES: usize = 1 << 10;
/// Hands that a token may go through.
pub const MAX_DELEGATION_DEPTH: u8 = 8;
/// Difference between the clocks of issuer and verifier that a token's times allow for.
pub const TOKEN_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Verified tokens that a node remembers, so that it checks their signatures once.
pub const MAX_REMEMBERED_TOKENS: usize = 1_024;
/// Bytes of an error's message.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 1 << 10;
/// Bytes of a text answer, such as a page of metrics.
pub const MAX_TEXT_ANSWER_BYTES: usize = 1 << 20;
/// Voters of a cluster.
pub const MAX_VOTERS: usize = 100;
/// Members and learners of a cluster.
pub const MAX_CLUSTER_PEERS: usize = 1_000;
/// Reasons that a node gives for its health.
pub const MAX_HEALTH_REASONS: usize = 64;
/// Bytes of one of them.
pub const MAX_HEALTH_REASON_BYTES: usize = 256;
/// Senders in consensus that a node does not know and asks other members about.
pub const MAX_SENDERS_IN_QUESTION: usize = 64;
/// Deadline of a client's request that names none.
pub const DEFAULT_REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Sessions a client keeps.
pub const MAX_CLIENT_SESSIONS: usize = 8;
/// Clients that a node serves unless its settings say otherwise; about 100 bytes each beside their
/// sessions.
pub const DEFAULT_MAX_CLIENTS: usize = 200;
/// Requests of one client that a node works on at the same time, and that a client sends. Programs
/// share one client among their tasks, so it bounds their pace; the answers of all of them must be
/// remembered until the last is known.
pub const MAX_REQUESTS_PER_CLIENT: usize = 100;
/// Bytes of all requests that a node works on at the same time; they are in memory until they are
/// answered.
pub const MAX_REQUEST_BYTES: usize = 256 << 20;
/// Bytes of the requests of one client among them, so that one cannot keep all others out.
pub const MAX_REQUEST_BYTES_PER_CLIENT: usize = MAX_REQUEST_BYTES / 2;

const _: () = assert!(DEFAULT_MAX_CLIENTS < MAX_SESSIONS);
const _: () = assert!(MAX_UNARY_BODY_BYTES < MAX_REQUEST_BYTES_PER_CLIENT);
const _: () = assert!((MAX_REQUESTS_PER_CLIENT as u64) < DEDUP_WINDOW_REQUESTS);
const _: () = assert!(MAX_REQUESTS_PER_CLIENT < MAX_IN_FLIGHT_PER_CALLER);

// ---- doors ------------------------------------------------------------------------------------

/// Connections of one door; each costs a descriptor and, with TLS, about 40 KiB. Those beyond are
/// closed at once.
pub const MAX_DOOR_CONNECTIONS: usize = 256;
/// TLS handshakes of one door that are not finished; they hold connections.
pub const MAX_DOOR_HANDSHAKES: usize = 64;
/// Time for a TLS handshake of a door.
pub const DOOR_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a byte after which a connection of a door that answers at once is closed.
pub const DOOR_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a door waits when the system gives it no descriptor.
pub const DOOR_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(MAX_DOOR_HANDSHAKES < MAX_DOOR_CONNECTIONS);

// ---- consensus --------------------------------------------------------------------------------

/// Bytes of a snapshot, history included: what a node that is new or far behind receives, and writes to its disk
/// twice, as a file and as its state.
pub const MAX_SNAPSHOT_BYTES: u64 = 64 << 30;
/// Memory for rows that the state's file does not hold yet; applying waits for a checkpoint
/// beyond it. A checkpoint that is being written counts. One entry may go beyond it by the values
/// that it replaces, at most a batch of 100 of 1 MiB.
pub const MAX_STATE_MEMORY_BYTES: usize = 128 << 20;
/// Bytes of one part of a snapshot's transfer.
pub const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// Bytes of a message between members; entries are sent in groups that stay below it.
pub const MAX_RAFT_MESSAGE_BYTES: usize = 10 << 20;
/// Bytes of a log entry's payload: a command with the frame around it, or the largest membership.
pub const MAX_ENTRY_BYTES: usize = MAX_COMMAND_BYTES + (64 << 10);
/// Entries of one append.
pub const MAX_APPEND_ENTRIES: usize = 4_096;
/// Appends under way to one follower before the first of them is answered.
pub const MAX_PIPELINED_APPENDS: usize = 16;
/// Entries that a learner may lag when it is promoted.
pub const PROMOTE_MAX_LAG: u64 = 100;
/// Time between two changes of the voters, unless forced.
pub const MEMBERSHIP_COOLDOWN: Duration = Duration::from_secs(300);
/// Time for a change of the members.
pub const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(30);
/// Difference between two members' clocks that is worth a warning.
pub const CLOCK_DRIFT_WARN: Duration = Duration::from_millis(100);
/// Difference between two members' clocks from which on no lease is trusted.
pub const CLOCK_DRIFT_ALERT: Duration = Duration::from_millis(500);
/// Use of the data disk, in percent, above which writes are refused.
pub const DISK_FULL_PERCENT: u64 = 95;
/// Free bytes of the data disk below which writes are refused, however large it is: room for the
/// checkpoint of what is in memory, whose pages are copied, and for the log until the next look.
pub const DISK_RESERVE_BYTES: u64 = 96 << 20;

// The largest entry fits a message, and so does a part.
const _: () = assert!(MAX_ENTRY_BYTES < MAX_RAFT_MESSAGE_BYTES);
const _: () = assert!(SNAPSHOT_PART_BYTES + (64 << 10) < MAX_RAFT_MESSAGE_BYTES);
const _: () = assert!(MAX_RAFT_MESSAGE_BYTES < MAX_UNARY_BODY_BYTES);
