//! Requests and responses by number, and the frame around them.
//!
//! A number is `family * 64 + n`, little-endian u16: 64 numbers for each hundred-block of the
//! handler registry's families (core 100, key-value 110, cluster 120, leases 200, up to plugins
//! 999). Numbers never depend on build features and are never reused. Bodies are described in
//! [`crate::codec`].
//!
//! ```text
//! request   version u8 = 1 · proxy_hops u8 · client id [16] · counter LEB128 · since LEB128
//!           · token (0, or 1 and a byte string) · number u16 · body to the end
//! response  version u8 = 1 · number u16 · body to the end
//! ```

use core::fmt;

use bytes::Bytes;
use net_types::limits::{MAX_PROXY_HOPS, MAX_TOKEN_BYTES};
use thiserror::Error;

use crate::codec::{Bounded, DecodeError, Input, Wire, put_varint};
use crate::{ApiError, ErrorCode, Revision, cluster, kv, lease};

/// The version of both frames.
pub const ENVELOPE_VERSION: u8 = 1;

/// The families of requests in this build.
pub mod family {
    /// The node itself and its consensus metrics.
    pub const CORE: u16 = 100;
    /// Key-value.
    pub const KV: u16 = 110;
    /// Membership.
    pub const CLUSTER: u16 = 120;
    /// Leases.
    pub const LEASE: u16 = 200;
}

/// The number of the `n`th request or response of a family.
pub const fn tag(family: u16, n: u16) -> u16 {
    assert!(family < 1_000 && n < 64);
    family * 64 + n
}

/// Why bytes are not a request or response.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The number is not in this build; the sender is newer or has other families.
    #[error("message {}.{} is not supported by this version", .0 / 64, .0 % 64)]
    Unsupported(u16),
    /// The bytes are not a frame.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl EnvelopeError {
    /// The error of a request whose answer is not one: `INTERNAL_ERROR`, whatever is wrong with the
    /// answer, since the request may have been carried out.
    pub fn of_answer(&self) -> ApiError {
        ApiError::new(ErrorCode::InternalError, format!("the answer cannot be read: {self}"))
    }
}

/// The error of a request that cannot be read, and was not carried out.
impl From<EnvelopeError> for ApiError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Unsupported(_) => Self::new(ErrorCode::Unsupported, error.to_string()),
            EnvelopeError::Malformed(inner) => inner.into(),
        }
    }
}

macro_rules! numbered {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident($body:ty) = $family:ident, $n:literal; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::large_enum_variant)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($body), )*
        }

        impl $name {
            /// Every number of this build, with its name.
            pub const NUMBERS: &'static [(u16, &'static str)] =
                &[ $( (tag(family::$family, $n), stringify!($variant)), )* ];

            /// The number.
            pub fn number(&self) -> u16 {
                match self {
                    $( Self::$variant(_) => const { tag(family::$family, $n) }, )*
                }
            }

            /// The name, for logs and metrics.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => stringify!($variant), )*
                }
            }

            fn put_body(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant(body) => body.put(out), )*
                }
            }

            fn body_hint(&self) -> usize {
                match self {
                    $( Self::$variant(body) => body.size_hint(), )*
                }
            }

            /// The limits a decoder enforces, for a message that was built in memory.
            pub fn check(&self) -> Result<(), DecodeError> {
                match self {
                    $( Self::$variant(body) => body.check(), )*
                }
            }

            fn take_body(number: u16, body: Bytes) -> Result<Self, EnvelopeError> {
                $(
                    if number == const { tag(family::$family, $n) } {
                        return Ok(Self::$variant(Wire::from_bytes(body)?));
                    }
                )*
                Err(EnvelopeError::Unsupported(number))
            }
        }

        $(
            impl From<$body> for $name {
                fn from(body: $body) -> Self {
                    Self::$variant(body)
                }
            }
        )*
    };
}

numbered! {
    /// A request by number.
    pub enum Request {
        /// See [`cluster::Ping`].
        Ping(cluster::Ping) = CORE, 0;
        /// See [`cluster::GetHealth`].
        GetHealth(cluster::GetHealth) = CORE, 1;
        /// See [`cluster::GetMetrics`].
        GetMetrics(cluster::GetMetrics) = CORE, 2;
        /// See [`cluster::GetRaftMetrics`].
        GetRaftMetrics(cluster::GetRaftMetrics) = CORE, 3;
        /// See [`cluster::GetNodeInfo`].
        GetNodeInfo(cluster::GetNodeInfo) = CORE, 4;
        /// See [`cluster::GetLeader`].
        GetLeader(cluster::GetLeader) = CORE, 5;

        /// See [`kv::ReadKey`].
        ReadKey(kv::ReadKey) = KV, 0;
        /// See [`kv::WriteKey`].
        WriteKey(kv::WriteKey) = KV, 1;
        /// See [`kv::DeleteKey`].
        DeleteKey(kv::DeleteKey) = KV, 2;
        /// See [`kv::ScanKeys`].
        ScanKeys(kv::ScanKeys) = KV, 3;
        /// See [`kv::CompareAndSwapKey`].
        CompareAndSwapKey(kv::CompareAndSwapKey) = KV, 4;
        /// See [`kv::CompareAndDeleteKey`].
        CompareAndDeleteKey(kv::CompareAndDeleteKey) = KV, 5;
        /// See [`kv::BatchRead`].
        BatchRead(kv::BatchRead) = KV, 6;
        /// See [`kv::BatchWrite`].
        BatchWrite(kv::BatchWrite) = KV, 7;
        /// See [`kv::ConditionalBatchWrite`].
        ConditionalBatchWrite(kv::ConditionalBatchWrite) = KV, 8;
        /// See [`kv::WriteKeyWithLease`].
        WriteKeyWithLease(kv::WriteKeyWithLease) = KV, 9;
        /// See [`kv::WriteKeyWithTtl`].
        WriteKeyWithTtl(kv::WriteKeyWithTtl) = KV, 10;
        /// See [`kv::Transact`].
        Transact(kv::Transact) = KV, 11;
        /// See [`kv::Compact`].
        Compact(kv::Compact) = KV, 12;

        /// See [`cluster::InitCluster`].
        InitCluster(cluster::InitCluster) = CLUSTER, 0;
        /// See [`cluster::GetClusterState`].
        GetClusterState(cluster::GetClusterState) = CLUSTER, 1;
        /// See [`cluster::GetClusterTicket`].
        GetClusterTicket(cluster::GetClusterTicket) = CLUSTER, 2;
        /// See [`cluster::AddLearner`].
        AddLearner(cluster::AddLearner) = CLUSTER, 3;
        /// See [`cluster::PromoteLearner`].
        PromoteLearner(cluster::PromoteLearner) = CLUSTER, 4;
        /// See [`cluster::ChangeMembership`].
        ChangeMembership(cluster::ChangeMembership) = CLUSTER, 5;
        /// See [`cluster::AddPeer`].
        AddPeer(cluster::AddPeer) = CLUSTER, 6;
        /// See [`cluster::TransferLeader`].
        TransferLeader(cluster::TransferLeader) = CLUSTER, 7;
        /// See [`cluster::TriggerSnapshot`].
        TriggerSnapshot(cluster::TriggerSnapshot) = CLUSTER, 8;
        /// See [`cluster::ExpungeNode`].
        ExpungeNode(cluster::ExpungeNode) = CLUSTER, 9;

        /// See [`lease::LeaseGrant`].
        LeaseGrant(lease::LeaseGrant) = LEASE, 0;
        /// See [`lease::LeaseRevoke`].
        LeaseRevoke(lease::LeaseRevoke) = LEASE, 1;
        /// See [`lease::LeaseKeepalive`].
        LeaseKeepalive(lease::LeaseKeepalive) = LEASE, 2;
        /// See [`lease::LeaseTimeToLive`].
        LeaseTimeToLive(lease::LeaseTimeToLive) = LEASE, 3;
        /// See [`lease::LeaseList`].
        LeaseList(lease::LeaseList) = LEASE, 4;
    }
}

numbered! {
    /// A response by number. Numbers are those of the request that it first answered.
    pub enum Response {
        /// The request failed.
        Error(ApiError) = CORE, 63;
        /// See [`cluster::Pong`].
        Pong(cluster::Pong) = CORE, 0;
        /// See [`cluster::HealthResult`].
        Health(cluster::HealthResult) = CORE, 1;
        /// See [`cluster::MetricsResult`].
        Metrics(cluster::MetricsResult) = CORE, 2;
        /// See [`cluster::RaftMetricsResult`].
        RaftMetrics(cluster::RaftMetricsResult) = CORE, 3;
        /// See [`cluster::NodeInfoResult`].
        NodeInfo(cluster::NodeInfoResult) = CORE, 4;
        /// See [`cluster::LeaderResult`].
        Leader(cluster::LeaderResult) = CORE, 5;

        /// See [`kv::ReadResult`].
        Read(kv::ReadResult) = KV, 0;
        /// See [`kv::WriteResult`].
        Write(kv::WriteResult) = KV, 1;
        /// See [`kv::DeleteResult`].
        Delete(kv::DeleteResult) = KV, 2;
        /// See [`kv::ScanResult`].
        Scan(kv::ScanResult) = KV, 3;
        /// See [`kv::CompareAndSwapResult`].
        CompareAndSwap(kv::CompareAndSwapResult) = KV, 4;
        /// See [`kv::BatchReadResult`].
        BatchRead(kv::BatchReadResult) = KV, 6;
        /// See [`kv::BatchWriteResult`].
        BatchWrite(kv::BatchWriteResult) = KV, 7;
        /// See [`kv::ConditionalBatchWriteResult`].
        ConditionalBatchWrite(kv::ConditionalBatchWriteResult) = KV, 8;
        /// See [`kv::TransactResult`].
        Transact(kv::TransactResult) = KV, 11;
        /// See [`kv::CompactResult`].
        Compact(kv::CompactResult) = KV, 12;

        /// Done; see [`cluster::Done`].
        Done(cluster::Done) = CLUSTER, 0;
        /// See [`cluster::ClusterStateResult`].
        ClusterState(cluster::ClusterStateResult) = CLUSTER, 1;
        /// See [`cluster::TicketResult`].
        Ticket(cluster::TicketResult) = CLUSTER, 2;
        /// See [`cluster::SnapshotResult`].
        Snapshot(cluster::SnapshotResult) = CLUSTER, 8;

        /// See [`lease::LeaseGrantResult`].
        LeaseGrant(lease::LeaseGrantResult) = LEASE, 0;
        /// See [`lease::LeaseRevokeResult`].
        LeaseRevoke(lease::LeaseRevokeResult) = LEASE, 1;
        /// See [`lease::LeaseKeepaliveResult`].
        LeaseKeepalive(lease::LeaseKeepaliveResult) = LEASE, 2;
        /// See [`lease::LeaseTimeToLiveResult`].
        LeaseTimeToLive(lease::LeaseTimeToLiveResult) = LEASE, 3;
        /// See [`lease::LeaseListResult`].
        LeaseList(lease::LeaseListResult) = LEASE, 4;
    }
}

/// A client's random name for itself, drawn when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 16]);

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Names one logical write, so that repeating it is answered instead of applied again.
///
/// A client counts from 1 and keeps the span between its oldest unanswered and its newest counter
/// below 128; what falls out of that window is refused as `SESSION_EXPIRED`. So is a name that is
/// older than answers which the store has forgotten, since it cannot tell whether this one was among
/// them. Counter 0 asks for no de-duplication, as reads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The client.
    pub client: ClientId,
    /// The write's number within it.
    pub counter: u64,
    /// The newest revision that the client had seen when it gave the name, 0 if none: whatever
    /// carries the name out has a later one.
    pub since: Revision,
}

impl RequestId {
    /// No name: the request may be applied as often as it arrives.
    pub const UNNAMED: Self = Self { client: ClientId([0; 16]), counter: 0, since: Revision(0) };

    /// This id unless it is [`RequestId::UNNAMED`] or the like.
    pub fn named(self) -> Option<Self> {
        (self.counter > 0).then_some(self)
    }
}

impl Wire for RequestId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.0);
        put_varint(self.counter, out);
        put_varint(self.since.0, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        let client = ClientId(input.array()?);
        Ok(Self { client, counter: input.varint()?, since: Revision(input.varint()?) })
    }

    fn size_hint(&self) -> usize {
        24
    }
}

/// A request and who asks, as it travels. Its debug text leaves the token out: whoever has the text
/// of a bearer's token may use it.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthenticatedRequest {
    /// The request.
    pub request: Request,
    /// A capability token, at most 8 KiB.
    pub token: Option<Bytes>,
    /// Cluster boundaries crossed, at most 3.
    pub proxy_hops: u8,
    /// The write's name.
    pub request_id: RequestId,
}

impl fmt::Debug for AuthenticatedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatedRequest")
            .field("request", &self.request)
            .field("token", &self.token.as_ref().map(|_| "redacted"))
            .field("proxy_hops", &self.proxy_hops)
            .field("request_id", &self.request_id)
            .finish()
    }
}

impl AuthenticatedRequest {
    /// A request without a token, directly from a client.
    pub fn new(request: impl Into<Request>, request_id: RequestId) -> Self {
        Self { request: request.into(), token: None, proxy_hops: 0, request_id }
    }

    /// The frame.
    pub fn encode(&self) -> Bytes {
        let token = self.token.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(44 + token + self.request.body_hint());
        out.extend_from_slice(&[ENVELOPE_VERSION, self.proxy_hops]);
        self.request_id.put(&mut out);
        self.token.put_bounded(&mut out);
        out.extend_from_slice(&self.request.number().to_le_bytes());
        self.request.put_body(&mut out);
        out.into()
    }

    /// Reads a frame; the values of the request share `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, EnvelopeError> {
        let mut input = Input::new(bytes);
        take_version(&mut input)?;
        let proxy_hops = input.byte()?;
        if proxy_hops > MAX_PROXY_HOPS {
            return Err(DecodeError::BadValue("proxy hops").into());
        }
        let request_id = RequestId::take(&mut input)?;
        let token = Option::<Bytes>::take_bounded(&mut input, "token", MAX_TOKEN_BYTES)?;
        let number = u16::from_le_bytes(input.array()?);
        let request = Request::take_body(number, input.rest())?;
        Ok(Self { request, token, proxy_hops, request_id })
    }
}

impl Response {
    /// A revision that the node which answers has applied, if the answer tells one.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Read(r) => Some(r.revision),
            Self::Write(r) => Some(r.revision),
            Self::Delete(r) => Some(r.revision),
            Self::Scan(r) => Some(r.revision),
            Self::CompareAndSwap(r) => Some(r.revision),
            Self::BatchRead(r) => Some(r.revision),
            Self::BatchWrite(r) => Some(r.revision),
            Self::ConditionalBatchWrite(r) => Some(r.revision),
            Self::Transact(r) => Some(r.revision),
            Self::RaftMetrics(r) => r.last_applied_index.map(Revision),
            _ => None,
        }
    }

    /// The frame.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(3 + self.body_hint());
        out.push(ENVELOPE_VERSION);
        out.extend_from_slice(&self.number().to_le_bytes());
        self.put_body(&mut out);
        out.into()
    }

    /// Reads a frame; the values of the response share `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, EnvelopeError> {
        let mut input = Input::new(bytes);
        take_version(&mut input)?;
        let number = u16::from_le_bytes(input.array()?);
        Self::take_body(number, input.rest())
    }
}

fn take_version(input: &mut Input) -> Result<(), DecodeError> {
    match input.byte()? {
        ENVELOPE_VERSION => Ok(()),
        other => Err(DecodeError::UnknownVersion(other)),
    }
}
