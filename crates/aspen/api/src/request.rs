//! What a request is: its number, its reply, who answers it and what it needs, declared at its type.
//!
//! Dispatch, authorization, the client's routing and typing and the metrics follow from the
//! declaration. A request that lacks a part of it does not compile.

use core::fmt::Debug;

use crate::codec::Wire;
use crate::{Level, Needs, Number, numbers};

numbers! {
    /// How fresh a read must be.
    #[derive(Default)]
    pub enum Consistency {
        /// The leader confirms its leadership with a quorum, then reads.
        #[default]
        Linearizable = 0,
        /// The leader reads inside its lease, without asking.
        Lease = 1,
        /// Any node reads what it has applied.
        Stale = 2,
    }
}

/// A message that asks a node for something. Declare one with [`request!`](crate::request).
pub trait Request: Wire + Clone + Debug + Send + Sync + 'static {
    /// Its number; never reused.
    const NUMBER: Number;
    /// Its name in logs and metrics.
    const NAME: &'static str;
    /// The feature level that the cluster must have reached.
    const SINCE: Level;
    /// What a successful answer holds. An error is an [`ApiError`](crate::ApiError).
    type Reply: Wire + Debug + Send + 'static;

    /// Who answers it, and what it does.
    fn kind(&self) -> Kind;

    /// What a caller must be allowed.
    fn needs(&self) -> Needs<'_>;
}

/// Who answers a request, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks what a node knows of itself or of the cluster. Any node answers.
    Local,
    /// Changes the node that is asked, and no other.
    Node,
    /// Reads replicated state, as fresh as this says: any member answers a stale read, the leader
    /// others.
    Read(Consistency),
    /// Changes replicated state. The leader carries it out, once however often it is repeated under
    /// its [`RequestId`](crate::RequestId).
    Write,
    /// Changes the members, or the leader. The leader carries it out.
    Membership,
}

impl Kind {
    /// Whether only the leader answers.
    pub fn is_for_leader(self) -> bool {
        match self {
            Self::Local | Self::Node | Self::Read(Consistency::Stale) => false,
            Self::Read(Consistency::Linearizable | Consistency::Lease)
            | Self::Write
            | Self::Membership => true,
        }
    }

    /// Whether it changes anything.
    pub fn is_change(self) -> bool {
        match self {
            Self::Local | Self::Read(_) => false,
            Self::Node | Self::Write | Self::Membership => true,
        }
    }
}

/// What is done with every type of request of a module; see its `each_request`.
pub trait RequestVisitor {
    /// Visits one.
    fn visit<R: Request>(&mut self);
}

/// Declares requests: the fields as in [`record!`](crate::record), then number, reply, kind and
/// needs. `since` is the feature level that members need; absent is [`Level::FIRST`].
#[macro_export]
macro_rules! request {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident { $($fields:tt)* }
        number: $family:expr, $n:literal;
        $(since: $since:literal;)?
        reply: $reply:ty;
        kind: |$kind_of:pat_param| $kind:expr;
        needs: |$needs_of:pat_param| $needs:expr;
    )*) => { $(
        $crate::record! {
            $(#[$meta])*
            pub struct $name { $($fields)* }
        }

        impl $crate::Request for $name {
            const NUMBER: $crate::Number = $crate::Number::new($family, $n);
            const NAME: &'static str = stringify!($name);
            const SINCE: $crate::Level = $crate::request!(@since $($since)?);
            type Reply = $reply;

            fn kind(&self) -> $crate::Kind {
                let $kind_of = self;
                $kind
            }

            fn needs(&self) -> $crate::Needs<'_> {
                let $needs_of = self;
                $needs
            }
        }
    )*
        /// Visits every request that is declared here, so that tests and fuzzing forget none.
        #[allow(dead_code, reason = "a test declares requests of its own")]
        pub fn each_request(visitor: &mut impl $crate::RequestVisitor) {
            $(visitor.visit::<$name>();)*
        }
    };
    (@since) => { $crate::Level::FIRST };
    (@since $since:literal) => { $crate::Level($since) };
}
