//! Histories that the checker must accept, and ones that it must not.

use super::checker::{Violation, check};
use super::history::{Action, History, Operation, Outcome};

use Action::{Delete, Read, Write};
use Outcome::{Deleted, Mismatch, Swapped, Written};

/// An operation asked at `invoked` and answered at `returned`.
fn op(invoked: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    Operation { client: 0, action, invoked, answer: Some((returned, outcome)) }
}

/// One without an answer.
fn lost(invoked: u64, action: Action) -> Operation {
    Operation { client: 0, action, invoked, answer: None }
}

fn write(invoked: u64, returned: u64, value: u64) -> Operation {
    op(invoked, returned, Write(value), Written)
}

fn read(invoked: u64, returned: u64, value: Option<u64>) -> Operation {
    op(invoked, returned, Read, Outcome::Read(value))
}

fn cas(expected: Option<u64>, new: u64) -> Action {
    Action::Cas { expected, new }
}

fn accepted(operations: &[Operation]) {
    assert_eq!(check(operations), Ok(()));
}

fn rejected_at(operations: &[Operation], index: usize) {
    match check(operations) {
        Err(Violation::NotLinearizable { operation, .. }) => assert_eq!(operation, index),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_happens_in_turn_must_fit_in_turn() {
    accepted(&[]);
    accepted(&[read(1, 2, None), write(3, 4, 1), read(5, 6, Some(1))]);
    accepted(&[write(1, 2, 1), op(3, 4, Delete, Deleted(true)), read(5, 6, None)]);
    accepted(&[op(1, 2, Delete, Deleted(false)), op(3, 4, cas(None, 1), Swapped)]);
    rejected_at(&[read(1, 2, Some(1))], 0);
    rejected_at(&[write(1, 2, 1), op(3, 4, Delete, Deleted(false))], 1);
}

#[test]
fn overlapping_operations_take_effect_in_any_order() {
    let writes = [write(1, 10, 1), write(2, 9, 2)];
    for last in [1, 2] {
        accepted(&[writes[0].clone(), writes[1].clone(), read(11, 12, Some(last))]);
    }
    // The first read sees the write, so does every later one, even before the write returns.
    accepted(&[write(1, 10, 1), read(2, 3, None), read(4, 5, Some(1)), read(6, 7, Some(1))]);
    rejected_at(&[write(1, 10, 1), read(2, 3, Some(1)), read(4, 5, None)], 2);
    // Two readers agree on the order of two writes.
    let [a, b] = writes;
    rejected_at(&[a, b, read(11, 12, Some(1)), read(13, 14, Some(2))], 3);
}

#[test]
fn a_stale_read_is_rejected() {
    rejected_at(&[write(1, 2, 1), write(3, 4, 2), read(5, 6, Some(1))], 2);
    accepted(&[write(1, 2, 1), write(3, 6, 2), read(4, 5, Some(1))]);
}

#[test]
fn a_lost_write_is_rejected() {
    rejected_at(&[write(1, 2, 1), read(3, 4, None)], 1);
    rejected_at(&[write(1, 2, 1), write(3, 4, 2), op(5, 6, cas(Some(1), 3), Swapped)], 2);
}

#[test]
fn a_swap_that_applies_twice_is_rejected() {
    let both = [op(3, 8, cas(Some(1), 2), Swapped), op(4, 9, cas(Some(1), 3), Swapped)];
    rejected_at(&[write(1, 2, 1), both[0].clone(), both[1].clone()], 2);
    // The second effect of one swap undoes what came between.
    let swap = op(3, 4, cas(Some(1), 2), Swapped);
    rejected_at(&[write(1, 2, 1), swap.clone(), write(5, 6, 1), read(7, 8, Some(2))], 3);
    accepted(&[write(1, 2, 1), swap, write(5, 6, 1), read(7, 8, Some(1))]);
}

#[test]
fn a_mismatch_tells_what_the_key_held() {
    accepted(&[write(1, 2, 1), op(3, 4, cas(Some(9), 2), Mismatch(Some(1)))]);
    rejected_at(&[write(1, 2, 1), op(3, 4, cas(Some(9), 2), Mismatch(None))], 1);
    rejected_at(&[write(1, 2, 1), op(3, 4, cas(Some(1), 2), Mismatch(Some(1)))], 1);
}

#[test]
fn an_unanswered_write_may_appear_late_or_never() {
    let history = [write(1, 2, 1), lost(3, Write(2)), read(4, 5, Some(1)), read(6, 7, Some(1))];
    accepted(&history);
    let mut late = history.to_vec();
    late.extend([read(8, 9, Some(2)), write(10, 11, 3), read(12, 13, Some(3))]);
    accepted(&late);
    rejected_at(&[read(1, 2, Some(2)), lost(3, Write(2))], 0);
}

#[test]
fn an_unanswered_write_that_appears_and_disappears_is_rejected() {
    let history = [write(1, 2, 1), lost(3, Write(2)), read(4, 5, Some(2)), read(6, 7, Some(1))];
    rejected_at(&history, 3);
    // It takes effect once: not again after it was overwritten.
    let again = [lost(1, Write(2)), read(2, 3, Some(2)), write(4, 5, 3), read(6, 7, Some(2))];
    rejected_at(&again, 3);
}

#[test]
fn unanswered_swaps_and_deletions_explain_only_what_they_can_do() {
    accepted(&[write(1, 2, 1), lost(3, cas(Some(1), 2)), read(4, 5, Some(2))]);
    rejected_at(&[write(1, 2, 1), lost(3, cas(Some(9), 2)), read(4, 5, Some(2))], 2);
    accepted(&[write(1, 2, 1), lost(3, Delete), read(4, 5, None)]);
    let chain =
        [lost(1, cas(Some(2), 3)), lost(2, cas(Some(1), 2)), write(3, 4, 1), read(5, 6, Some(3))];
    accepted(&chain);
}

#[test]
fn many_unanswered_writes_cost_little() {
    let mut history: Vec<_> = (0..200).map(|n| lost(n, Write(n))).collect();
    for n in 0..200 {
        let at = 1_000 + 4 * n;
        history.push(write(at, at + 1, 1_000 + n));
        history.push(read(at + 2, at + 3, Some(if n % 3 == 0 { n } else { 1_000 + n })));
    }
    accepted(&history);
    // Number 0 was used up by the read after the first write.
    history.push(read(5_000, 5_001, Some(0)));
    rejected_at(&history, 600);
}

#[test]
fn a_search_that_would_not_end_says_so() {
    // Every order of these is possible, and nothing tells them apart but their number.
    let mut history: Vec<_> = (0..40).map(|n| op(n, 1_000 + n, Write(n), Written)).collect();
    history.push(read(500, 999, Some(7_777)));
    assert!(matches!(check(&history), Err(Violation::GaveUp { pending: 41, .. })));
}

#[test]
fn a_history_keeps_keys_apart_and_numbers_events_as_they_happen() {
    let mut history = History::default();
    let first = history.invoke(0, "a", Write(1));
    let other = history.invoke(1, "b", Read);
    history.answer(&other, Outcome::Read(None));
    history.invoke(2, "a", Write(2));
    history.answer(&first, Written);
    let last = history.invoke(1, "a", Read);
    history.answer(&last, Outcome::Read(Some(2)));
    assert_eq!(history.counts(), (3, 1));
    let keys: Vec<_> = history.keys().collect();
    assert_eq!(
        keys.iter().map(|(key, ops)| (*key, ops.len())).collect::<Vec<_>>(),
        [("a", 3), ("b", 1)]
    );
    for (_, operations) in keys {
        accepted(operations);
    }
}
