//! What clients did and saw: the record that a run is judged by.
//!
//! Events are numbered as they happen, so two operations overlap exactly if their numbers do, and
//! no clock is trusted.

use std::collections::BTreeMap;

/// A value. Every write of a run has one of its own, so a read tells which write it saw.
pub(crate) type Value = u64;

/// What an operation asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write(Value),
    Cas { expected: Option<Value>, new: Value },
    Delete,
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Option<Value>),
    Written,
    Swapped,
    /// What the key held instead.
    Mismatch(Option<Value>),
    /// Whether the key was there.
    Deleted(bool),
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) action: Action,
    /// Number of the event of asking.
    pub(crate) invoked: u64,
    /// Number of the event of the answer, and the answer. An operation without one took effect at
    /// any time after it was asked, or never will.
    pub(crate) answer: Option<(u64, Outcome)>,
}

/// Names an operation of a [`History`].
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    key: String,
    index: usize,
}

/// All operations of a run, by key.
#[derive(Default)]
pub(crate) struct History {
    events: u64,
    keys: BTreeMap<String, Vec<Operation>>,
}

impl History {
    fn next_event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    pub(crate) fn invoke(&mut self, client: usize, key: &str, action: Action) -> Invocation {
        let invoked = self.next_event();
        let operations = self.keys.entry(key.to_owned()).or_default();
        operations.push(Operation { client, action, invoked, answer: None });
        Invocation { key: key.to_owned(), index: operations.len() - 1 }
    }

    pub(crate) fn answer(&mut self, invocation: &Invocation, outcome: Outcome) {
        let event = self.next_event();
        let operations = self.keys.get_mut(&invocation.key).unwrap();
        operations[invocation.index].answer = Some((event, outcome));
    }

    /// The keys with what was done to each. A history is linearizable if each key's is (Herlihy and
    /// Wing, locality).
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (key.as_str(), operations.as_slice()))
    }

    /// Operations with and without an answer.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let answered = self.keys.values().flatten().filter(|op| op.answer.is_some()).count();
        (answered, self.keys.values().map(Vec::len).sum::<usize>() - answered)
    }
}
