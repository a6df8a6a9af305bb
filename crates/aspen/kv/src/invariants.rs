//! The invariants of the stored rows, for tests and simulations: a walk over all tables.

use std::collections::BTreeMap;

use aspen_api::{LeaseId, Revision};

use crate::layout::{
    Due, ItemMeta, Lease, client_age, decode_record, expiry_key, expiry_lease, lease_attachment,
    split_be, split_client_age, split_expiry, split_history_key, unescape,
};
use crate::{Fault, Header, ReadTables, Rows, StateError, TableId, load_header};

/// Rows of one table by key.
type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// Asserts that the tables agree with each other and with the header.
pub fn check_invariants<T: ReadTables>(tables: &T) -> Result<(), StateError<T::Error>> {
    let header = load_header(tables)?;
    check_live(tables, &header)?;
    check_history(tables, &header)?;
    check_deadlines(tables, &header)?;
    check_clients(tables, &header)
}

fn all<T: ReadTables>(tables: &T, table: TableId) -> Result<Table, Fault<T>> {
    let rows = tables.rows(table, &[], None)?;
    rows.map(|row| row.map(|(key, value)| (key.as_ref().to_vec(), value.as_ref().to_vec())))
        .collect()
}

/// What the rows of keys name exists: their deadlines, leases and attachments.
fn check_live<T: ReadTables>(tables: &T, header: &Header) -> Result<(), Fault<T>> {
    let live = all(tables, TableId::Live)?;
    assert_eq!(live.len() as u64, header.key_count, "keys");
    let (mut queued, mut attached) = (Vec::new(), BTreeMap::<LeaseId, u64>::new());
    for (key, row) in &live {
        let (meta, _) = ItemMeta::split(row, TableId::Live)?;
        assert!(meta.version > 0 && meta.create_revision <= meta.mod_revision, "{meta:?}");
        assert!(meta.mod_revision <= header.applied_revision, "{meta:?}");
        assert!(meta.expires_at_ms.is_none() || meta.lease_id.is_none(), "two ends: {meta:?}");
        if let Some(deadline_ms) = meta.expires_at_ms {
            expiry_key(deadline_ms, key, &mut queued);
            assert!(tables.row(TableId::Expiry, &queued)?.is_some(), "{meta:?} does not expire");
        }
        if let Some(lease) = meta.lease_id {
            lease_attachment(lease, key, &mut queued);
            assert!(tables.row(TableId::LeaseKeys, &queued)?.is_some(), "{meta:?} is not attached");
            *attached.entry(lease).or_default() += 1;
        }
    }
    let attachments = all(tables, TableId::LeaseKeys)?.len() as u64;
    assert_eq!(attachments, attached.values().sum::<u64>(), "attached keys");
    let leases = all(tables, TableId::Leases)?;
    assert_eq!(leases.len() as u64, header.lease_count, "leases");
    for (id, row) in &leases {
        let (id, _) = split_be(id).ok_or(StateError::Corrupt(TableId::Leases))?;
        let lease: Lease = decode_record(TableId::Leases, row)?;
        let keys = attached.remove(&LeaseId(id)).unwrap_or(0);
        assert_eq!(keys, lease.key_count, "keys of lease {id}");
        let queued = expiry_lease(lease.deadline_ms, LeaseId(id));
        assert!(tables.row(TableId::Expiry, &queued)?.is_some(), "lease {id} does not end");
    }
    assert!(attached.is_empty(), "keys of leases that are gone: {attached:?}");
    Ok(())
}

/// Intervals of a key hold a revision each and do not overlap, the newest version's included.
fn check_history<T: ReadTables>(tables: &T, header: &Header) -> Result<(), Fault<T>> {
    let history = all(tables, TableId::History)?;
    assert_eq!(history.len() as u64, header.history_count, "superseded versions");
    let bytes = history.iter().map(|(key, row)| (key.len() + row.len()) as u64).sum::<u64>();
    assert_eq!(bytes, header.history_bytes, "bytes of superseded versions");
    let mut ends = BTreeMap::<Vec<u8>, Revision>::new();
    let mut key = Vec::new();
    for (row_key, row) in &history {
        let (escaped, ended) = split_history_key(row_key)?;
        let (meta, _) = ItemMeta::split(row, TableId::History)?;
        unescape(escaped, &mut key)?;
        assert!(meta.mod_revision < ended && ended <= header.applied_revision, "{meta:?}");
        let before = ends.insert(key.clone(), ended);
        assert!(before.is_none_or(|before| before <= meta.mod_revision), "{key:?} {meta:?}");
    }
    for (key, ended) in ends {
        if let Some(row) = tables.row(TableId::Live, &key)? {
            let (meta, _) = ItemMeta::split(row.as_ref(), TableId::Live)?;
            assert!(ended <= meta.mod_revision, "{key:?} {meta:?}");
        }
    }
    Ok(())
}

/// Every deadline belongs to a key or a lease, and none is earlier than the header says.
fn check_deadlines<T: ReadTables>(tables: &T, header: &Header) -> Result<(), Fault<T>> {
    for row_key in all(tables, TableId::Expiry)?.keys() {
        let (deadline_ms, due) = split_expiry(row_key)?;
        assert!(header.next_deadline_ms <= deadline_ms, "{due:?} comes too late");
        let found = match &due {
            Due::Key(key) => match tables.row(TableId::Live, key)? {
                Some(row) => ItemMeta::split(row.as_ref(), TableId::Live)?.0.expires_at_ms,
                None => None,
            },
            Due::Lease(id) => crate::lifetime::load_lease(tables, *id)?.map(|l| l.deadline_ms),
        };
        assert_eq!(found, Some(deadline_ms), "{due:?}");
    }
    Ok(())
}

/// Clients and their ages belong together, and answers to clients that are known.
fn check_clients<T: ReadTables>(tables: &T, header: &Header) -> Result<(), Fault<T>> {
    let (clients, ages) = (all(tables, TableId::Clients)?, all(tables, TableId::ClientAges)?);
    assert_eq!(clients.len() as u64, header.client_count, "clients");
    assert_eq!(clients.len(), ages.len(), "ages of clients");
    for age in ages.keys() {
        let (last_ms, client) = split_client_age(age)?;
        assert!(header.oldest_client_ms <= last_ms, "{client:?} is forgotten too late");
        assert_eq!(clients.get(&client.0[..]), Some(&last_ms.to_be_bytes().to_vec()));
        assert_eq!(client_age(last_ms, client)[..], age[..]);
    }
    for answer in all(tables, TableId::Replies)?.keys() {
        assert!(clients.contains_key(&answer[..16]), "an answer of no client: {answer:?}");
    }
    Ok(())
}
