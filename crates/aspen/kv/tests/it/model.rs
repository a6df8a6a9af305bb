//! The store against a naive model: after every entry a whole copy of the world.

use std::collections::BTreeMap;

use aspen_api::kv::{
    BatchRead, Compact, Compare, CompareTarget, Consistency, CountKeys, Item, KeyValue, Lifetime,
    NumberRange, Relation, ScanKeys, Transact, TransactResult, TransactionOperation,
    TransactionOutcome, WriteOperation,
};
use aspen_api::lease::{
    LeaseGrant, LeaseGrantResult, LeaseInfo, LeaseKeepalive, LeaseKeepaliveResult, LeaseList,
    LeaseRevoke, LeaseRevokeResult,
};
use aspen_api::{ErrorCode, Key, LeaseId, Level, Prefix, Revision};
use aspen_kv::{Command, ReadError, Reply, StepResult, TickResult, View};
use bytes::Bytes;
use proptest::prelude::*;

use crate::store::{Store, key, write};

type World = BTreeMap<Key, Item>;

/// (ttl, deadline) of each lease.
type Leases = BTreeMap<LeaseId, (u64, u64)>;

#[derive(Default)]
struct Model {
    worlds: BTreeMap<u64, World>,
    world: World,
    leases: Leases,
    now_ms: u64,
    oldest: u64,
    revision: u64,
    level: Level,
}

fn alive_at(world: &World, leases: &Leases, now_ms: u64) -> World {
    let mut world = world.clone();
    world.retain(|_, item| {
        let leased = item.lease_id.is_none_or(|id| leases.get(&id).is_some_and(|l| l.1 > now_ms));
        leased && item.expires_at_ms.is_none_or(|at| at > now_ms)
    });
    world
}

fn refuse(code: ErrorCode) -> Reply {
    Reply::Refused { error: aspen_api::ApiError::new(code, "") }
}

impl Model {
    fn apply(&mut self, revision: u64, now_ms: u64, command: &Command) -> Reply {
        self.revision = revision;
        self.now_ms = self.now_ms.max(now_ms);
        self.world = alive_at(&self.world, &self.leases, self.now_ms);
        self.leases.retain(|_, lease| lease.1 > self.now_ms);
        let reply = self.execute(command);
        self.worlds.insert(revision, self.world.clone());
        reply
    }

    fn execute(&mut self, command: &Command) -> Reply {
        match command {
            Command::Transact { request } => self.transact(request),
            Command::Compact { request: Compact { revision } } => {
                if revision.0 > self.revision {
                    return refuse(ErrorCode::InvalidRequest);
                }
                self.oldest = self.oldest.max(revision.0);
                let oldest_revision = Revision(self.oldest);
                Reply::Compact { result: aspen_api::kv::CompactResult { oldest_revision } }
            }
            Command::LeaseGrant { request: LeaseGrant { lease_id, ttl_seconds } } => {
                let lease_id = lease_id.filter(|id| id.0 > 0);
                let id = lease_id.unwrap_or(LeaseId(self.revision | 1 << 52));
                if self.leases.contains_key(&id) {
                    return refuse(ErrorCode::Conflict);
                }
                self.leases.insert(id, (*ttl_seconds, self.now_ms + ttl_seconds * 1_000));
                let result = LeaseGrantResult { lease_id: id, ttl_seconds: *ttl_seconds };
                Reply::LeaseGrant { result }
            }
            Command::LeaseRevoke { request: LeaseRevoke { lease_id } } => {
                if self.leases.remove(lease_id).is_none() {
                    return refuse(ErrorCode::NotFound);
                }
                let before = self.world.len();
                self.world.retain(|_, item| item.lease_id != Some(*lease_id));
                let keys_deleted = (before - self.world.len()) as u64;
                Reply::LeaseRevoke { result: LeaseRevokeResult { keys_deleted } }
            }
            Command::LeaseKeepalive { request } => match self.leases.get_mut(&request.lease_id) {
                None => refuse(ErrorCode::NotFound),
                Some((ttl_seconds, deadline)) => {
                    *deadline = self.now_ms + *ttl_seconds * 1_000;
                    let (lease_id, ttl_seconds) = (request.lease_id, *ttl_seconds);
                    let result = LeaseKeepaliveResult { lease_id, ttl_seconds };
                    Reply::LeaseKeepalive { result }
                }
            },
            Command::Step { level } => {
                self.level = self.level.max(*level);
                Reply::Step { result: StepResult { level: self.level } }
            }
            Command::Tick {} => Reply::Tick { result: TickResult { removed: 0, is_more: false } },
        }
    }

    fn refused(&self, lifetime: &Lifetime) -> Option<Reply> {
        match lifetime {
            Lifetime::Ttl { ttl_ms: 0 } => Some(refuse(ErrorCode::InvalidRequest)),
            Lifetime::Lease { lease_id } if !self.leases.contains_key(lease_id) => {
                Some(refuse(ErrorCode::NotFound))
            }
            _ => None,
        }
    }

    fn set(&mut self, key: &Key, value: &Bytes, lifetime: &Lifetime) {
        let old = self.world.get(key);
        let item = Item {
            value: value.clone(),
            version: old.map_or(1, |item| item.version + 1),
            create_revision: old.map_or(Revision(self.revision), |item| item.create_revision),
            mod_revision: Revision(self.revision),
            expires_at_ms: match lifetime {
                Lifetime::Ttl { ttl_ms } => Some(self.now_ms + ttl_ms),
                _ => None,
            },
            lease_id: match lifetime {
                Lifetime::Lease { lease_id } => Some(*lease_id),
                _ => None,
            },
        };
        self.world.insert(key.clone(), item);
    }

    fn write(&mut self, operation: &WriteOperation) -> bool {
        match operation {
            WriteOperation::Set { key, value, lifetime } => {
                self.set(key, value, lifetime);
                true
            }
            WriteOperation::Delete { key } => self.world.remove(key).is_some(),
        }
    }

    fn first_refusal<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a WriteOperation>,
    ) -> Option<Reply> {
        operations.into_iter().find_map(|operation| match operation {
            WriteOperation::Set { lifetime, .. } => self.refused(lifetime),
            WriteOperation::Delete { .. } => None,
        })
    }

    fn transact(&mut self, transaction: &Transact) -> Reply {
        let failed = transaction.compares.iter().position(|compare| !self.holds(compare));
        let branch = match failed {
            None => &transaction.then,
            Some(_) => &transaction.otherwise,
        };
        let writes = branch.iter().filter_map(|step| match step {
            TransactionOperation::Write { operation } => Some(operation),
            TransactionOperation::Read { .. } | TransactionOperation::Add { .. } => None,
        });
        if let Some(reply) = self.first_refusal(writes) {
            return reply;
        }
        let before = self.world.clone();
        let mut outcomes = Vec::new();
        for step in branch {
            match self.step(step) {
                Some(outcome) => outcomes.push(outcome),
                None => {
                    self.world = before;
                    return refuse(ErrorCode::Conflict);
                }
            }
        }
        let failed_compare = failed.map(|at| at as u32);
        let revision = Revision(self.revision);
        Reply::Transact { result: TransactResult { failed_compare, outcomes, revision } }
    }

    /// `None` if there is no number to add to.
    fn step(&mut self, step: &TransactionOperation) -> Option<TransactionOutcome> {
        Some(match step {
            TransactionOperation::Read { key } => {
                TransactionOutcome::Read { item: self.world.get(key).cloned() }
            }
            TransactionOperation::Write { operation } => match operation {
                WriteOperation::Set { .. } => {
                    self.write(operation);
                    TransactionOutcome::Set {}
                }
                WriteOperation::Delete { .. } => {
                    TransactionOutcome::Deleted { was_deleted: self.write(operation) }
                }
            },
            TransactionOperation::Add { key, amount, is_subtraction, range } => {
                let (low, high) = match range {
                    NumberRange::Unsigned => (0, i128::from(u64::MAX)),
                    NumberRange::Signed => (i64::MIN.into(), i64::MAX.into()),
                };
                let number = self.number(key).filter(|n| (low..=high).contains(n))?;
                let by = i128::from(*amount) * if *is_subtraction { -1 } else { 1 };
                let number = (number + by).min(high).max(low);
                let old = self.world.get(key).cloned();
                self.set(key, &number.to_string().into(), &Lifetime::Forever {});
                if let (Some(item), Some(old)) = (self.world.get_mut(key), old) {
                    (item.expires_at_ms, item.lease_id) = (old.expires_at_ms, old.lease_id);
                }
                TransactionOutcome::Added {
                    magnitude: number.unsigned_abs() as u64,
                    is_negative: number < 0,
                }
            }
        })
    }

    fn number(&self, key: &Key) -> Option<i128> {
        match self.world.get(key) {
            None => Some(0),
            Some(item) => std::str::from_utf8(&item.value).ok()?.parse().ok(),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let item = self.world.get(&compare.key);
        let related = |left: u64, right: u64| match compare.relation {
            Relation::Equal => left == right,
            Relation::NotEqual => left != right,
            Relation::Greater => left > right,
            Relation::Less => left < right,
        };
        match &compare.target {
            CompareTarget::Value { value } => item.is_some_and(|item| match compare.relation {
                Relation::Equal => item.value == value,
                Relation::NotEqual => item.value != value,
                Relation::Greater => item.value > value,
                Relation::Less => item.value < value,
            }),
            CompareTarget::Version { version } => related(item.map_or(0, |i| i.version), *version),
            CompareTarget::CreateRevision { revision } => {
                related(item.map_or(0, |i| i.create_revision.0), revision.0)
            }
            CompareTarget::ModRevision { revision } => {
                related(item.map_or(0, |i| i.mod_revision.0), revision.0)
            }
            CompareTarget::Exists { exists } => related(item.is_some().into(), (*exists).into()),
            CompareTarget::Number { magnitude, is_negative } => {
                let right = i128::from(*magnitude) * if *is_negative { -1 } else { 1 };
                self.number(&compare.key).is_some_and(|left| match compare.relation {
                    Relation::Equal => left == right,
                    Relation::NotEqual => left != right,
                    Relation::Greater => left > right,
                    Relation::Less => left < right,
                })
            }
        }
    }
}

// ---- what is tried ----------------------------------------------------------------------------

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![Just("a"), Just("a\0"), Just("a\0b"), Just("ab"), Just("b"), Just("β")]
        .prop_map(key)
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(""), Just("x"), Just("y"), Just("7"), Just("-2")].prop_map(Bytes::from)
}

fn any_lifetime() -> impl Strategy<Value = Lifetime> {
    prop_oneof![
        4 => Just(Lifetime::Forever {}),
        2 => (0u64..400).prop_map(|ttl_ms| Lifetime::Ttl { ttl_ms }),
        2 => (1u64..4).prop_map(|id| Lifetime::Lease { lease_id: LeaseId(id) }),
    ]
}

fn any_operation() -> impl Strategy<Value = WriteOperation> {
    prop_oneof![
        3 => (any_key(), any_value(), any_lifetime())
            .prop_map(|(key, value, lifetime)| WriteOperation::Set { key, value, lifetime }),
        1 => any_key().prop_map(|key| WriteOperation::Delete { key }),
    ]
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        any_value().prop_map(|value| CompareTarget::Value { value }),
        (0u64..4).prop_map(|version| CompareTarget::Version { version }),
        (0u64..40).prop_map(|r| CompareTarget::CreateRevision { revision: Revision(r) }),
        (0u64..40).prop_map(|r| CompareTarget::ModRevision { revision: Revision(r) }),
        any::<bool>().prop_map(|exists| CompareTarget::Exists { exists }),
        (0u64..3, any::<bool>())
            .prop_map(|(magnitude, is_negative)| CompareTarget::Number { magnitude, is_negative }),
    ];
    let relation = proptest::sample::select(Relation::ALL);
    (any_key(), relation, target).prop_map(|(key, relation, target)| Compare {
        key,
        relation,
        target,
    })
}

fn any_sum() -> impl Strategy<Value = TransactionOperation> {
    let amount = prop_oneof![0u64..4, Just(u64::MAX)];
    let range = proptest::sample::select(NumberRange::ALL);
    (any_key(), amount, any::<bool>(), range).prop_map(|(key, amount, is_subtraction, range)| {
        TransactionOperation::Add { key, amount, is_subtraction, range }
    })
}

fn any_steps() -> impl Strategy<Value = Vec<TransactionOperation>> {
    proptest::collection::vec(
        prop_oneof![
            any_operation().prop_map(|operation| TransactionOperation::Write { operation }),
            any_key().prop_map(|key| TransactionOperation::Read { key }),
            any_sum(),
        ],
        0..5,
    )
}

/// A hundred keys that expire together: more than one entry removes.
fn crowd(ttl_ms: u64, value: Bytes) -> Command {
    let lifetime = Lifetime::Ttl { ttl_ms };
    let operations = (0..100)
        .map(|n| WriteOperation::Set {
            key: key(&format!("crowd{n:02}")),
            value: value.clone(),
            lifetime: lifetime.clone(),
        })
        .collect();
    write(operations)
}

/// A write of one key, if it has the expected value.
fn swap(key: Key, expected: Option<Bytes>, operation: WriteOperation) -> Command {
    let request = Transact {
        compares: vec![Compare::value(key.clone(), expected)],
        then: vec![operation.into()],
        otherwise: vec![TransactionOperation::Read { key }],
    };
    Command::Transact { request }
}

fn any_command() -> impl Strategy<Value = Command> {
    let transact = (proptest::collection::vec(any_compare(), 0..3), any_steps(), any_steps())
        .prop_map(|(compares, then, otherwise)| Transact { compares, then, otherwise });
    let lease = || (1u64..4).prop_map(LeaseId);
    prop_oneof![
        8 => (any_key(), any_value(), any_lifetime()).prop_map(|(key, value, lifetime)| {
            write(vec![WriteOperation::Set { key, value, lifetime }])
        }),
        3 => any_key().prop_map(|key| write(vec![WriteOperation::Delete { key }])),
        3 => (any_key(), proptest::option::of(any_value()), any_value())
            .prop_map(|(key, expected, new_value)| {
                let set = WriteOperation::set(key.clone(), new_value);
                swap(key, expected, set)
            }),
        2 => (any_key(), any_value()).prop_map(|(key, expected)| {
            let delete = WriteOperation::Delete { key: key.clone() };
            swap(key, Some(expected), delete)
        }),
        2 => proptest::collection::vec(any_operation(), 0..6).prop_map(write),
        7 => transact.prop_map(|request| Command::Transact { request }),
        1 => (0u64..40).prop_map(|revision| {
            Command::Compact { request: Compact { revision: Revision(revision) } }
        }),
        3 => (proptest::option::of(0u64..4), 1u64..3).prop_map(|(id, ttl_seconds)| {
            let request = LeaseGrant { lease_id: id.map(LeaseId), ttl_seconds };
            Command::LeaseGrant { request }
        }),
        1 => lease().prop_map(|lease_id| {
            Command::LeaseRevoke { request: LeaseRevoke { lease_id } }
        }),
        2 => lease().prop_map(|lease_id| {
            Command::LeaseKeepalive { request: LeaseKeepalive { lease_id } }
        }),
        1 => Just(Command::Tick {}),
        1 => (1u64..300, any_value()).prop_map(|(ttl_ms, value)| crowd(ttl_ms, value)),
    ]
}

// ---- the comparison ---------------------------------------------------------------------------

fn entries_of(world: &World) -> Vec<KeyValue> {
    world.iter().map(|(key, item)| KeyValue { key: key.clone(), item: item.clone() }).collect()
}

fn within(world: &World, prefix: &Prefix) -> World {
    world
        .iter()
        .filter(|(key, _)| prefix.contains(key))
        .map(|(k, i)| (k.clone(), i.clone()))
        .collect()
}

/// A scan that reads page by page while entries are applied.
struct OpenScan {
    request: ScanKeys,
    revision: u64,
    seen: Vec<KeyValue>,
}

struct Run {
    store: Store,
    model: Model,
    open_scan: Option<OpenScan>,
}

impl Run {
    fn step(&mut self, command: &Command, probe: u64) -> Result<(), TestCaseError> {
        let is_backlogged = self.store.header().next_deadline_ms <= self.store.now_ms;
        let found = self.store.apply(command.clone());
        let revision = self.store.revision;
        let is_draining_id = is_backlogged
            && matches!(command, Command::LeaseGrant { .. })
            && matches!(&found, Reply::Refused { error } if error.code == ErrorCode::Conflict);
        if is_draining_id {
            // The id of a lease whose keys are still being removed is not free yet.
            self.model.apply(revision, self.store.now_ms, &Command::Tick {});
        } else {
            let expected = self.model.apply(revision, self.store.now_ms, command);
            match (&found, &expected) {
                (Reply::Refused { error }, Reply::Refused { error: wanted }) => {
                    prop_assert_eq!(error.code, wanted.code);
                }
                (Reply::Tick { .. }, Reply::Tick { .. }) => {}
                _ => prop_assert_eq!(&found, &expected),
            }
        }
        self.check_newest(probe % 200)?;
        self.check_history(probe)?;
        self.check_leases(probe % 200)?;
        self.continue_scan(probe)
    }

    fn check_newest(&self, ahead_ms: u64) -> Result<(), TestCaseError> {
        let now_ms = self.store.now_ms + ahead_ms;
        let view = View::open(&self.store.tables, now_ms).unwrap();
        let world = alive_at(&self.model.world, &self.model.leases, now_ms);
        let page = view.scan(&ScanKeys::newest(Prefix::ALL)).unwrap();
        prop_assert_eq!(page.entries, entries_of(&world));
        prop_assert_eq!(page.revision.0, self.store.revision);
        prop_assert_eq!(page.continuation_token, None);
        Ok(())
    }

    fn check_history(&self, probe: u64) -> Result<(), TestCaseError> {
        let revision = probe % (self.store.revision + 2);
        let read = BatchRead {
            keys: ["a", "a\0", "a\0b", "ab", "b", "β", "crowd07"].map(key).to_vec(),
            consistency: Consistency::Stale,
            revision: Some(Revision(revision)),
        };
        let view = self.store.view();
        let result = view.batch_read(&read);
        let prefix: Prefix = ["", "a", "a\0", "c", "z"][(probe % 5) as usize].parse().unwrap();
        let scan = ScanKeys { revision: read.revision, ..ScanKeys::newest(prefix.clone()) };
        if revision > self.store.revision {
            let is_refused = matches!(result, Err(ReadError::NotReached { .. }));
            prop_assert!(is_refused);
            return Ok(());
        }
        if revision < self.model.oldest {
            let is_refused = matches!(result, Err(ReadError::Compacted { .. }));
            prop_assert!(is_refused);
            prop_assert!(view.scan(&scan).is_err());
            return Ok(());
        }
        let empty = World::new();
        let world = self.model.worlds.get(&revision).unwrap_or(&empty);
        let expected: Vec<_> = read.keys.iter().map(|key| world.get(key).cloned()).collect();
        prop_assert_eq!(result.unwrap().items, expected, "revision {}", revision);
        let world = within(world, &prefix);
        let ScanKeys { consistency, revision, .. } = scan;
        let page = view.scan(&scan).unwrap();
        prop_assert_eq!(page.entries, entries_of(&world), "revision {:?}", revision);
        let count = CountKeys { prefix, continuation_token: None, consistency, revision };
        prop_assert_eq!(view.count(&count).unwrap().count, world.len() as u64);
        Ok(())
    }

    fn check_leases(&self, ahead_ms: u64) -> Result<(), TestCaseError> {
        let now_ms = self.store.now_ms + ahead_ms;
        let view = View::open(&self.store.tables, now_ms).unwrap();
        let found = view.lease_list(&LeaseList { after: None, limit: None }).unwrap();
        let world = &self.model.world;
        let expected: Vec<_> = self
            .model
            .leases
            .iter()
            .filter(|(_, lease)| lease.1 > now_ms)
            .map(|(id, (ttl, deadline))| LeaseInfo {
                lease_id: *id,
                granted_ttl_seconds: *ttl,
                remaining_ms: deadline - now_ms,
                key_count: world.values().filter(|item| item.lease_id == Some(*id)).count() as u64,
            })
            .collect();
        prop_assert_eq!(found.leases, expected);
        Ok(())
    }

    fn continue_scan(&mut self, probe: u64) -> Result<(), TestCaseError> {
        let mut scan = self.open_scan.take().unwrap_or_else(|| OpenScan {
            request: ScanKeys {
                limit: Some(1 + (probe % 3) as u32),
                ..ScanKeys::newest(["", "a"][(probe % 2) as usize].parse().unwrap())
            },
            revision: self.store.revision,
            seen: Vec::new(),
        });
        if scan.revision < self.model.oldest {
            let result = self.store.view().scan(&scan.request);
            let is_refused = matches!(result, Err(ReadError::Compacted { .. }));
            prop_assert!(is_refused);
            return Ok(());
        }
        let page = self.store.view().scan(&scan.request).unwrap();
        prop_assert_eq!(page.revision.0, scan.revision);
        scan.seen.extend(page.entries);
        scan.request.continuation_token = page.continuation_token;
        if scan.request.continuation_token.is_some() {
            self.open_scan = Some(scan);
            return Ok(());
        }
        let world = &self.model.worlds[&scan.revision];
        prop_assert_eq!(scan.seen, entries_of(&within(world, &scan.request.prefix)));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_a_map_of_histories(
        steps in proptest::collection::vec((any_command(), 0u64..150, any::<u64>()), 1..50)
    ) {
        let mut run = Run { store: Store::default(), model: Model::default(), open_scan: None };
        for (command, passed_ms, probe) in steps {
            run.store.now_ms += passed_ms;
            run.step(&command, probe >> 1)?;
        }
    }
}
