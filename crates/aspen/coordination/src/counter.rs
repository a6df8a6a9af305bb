//! Counters: numbers of 64 bits that any node adds to.
//!
//! An unsigned counter holds 0 to 2^64 - 1, a signed one -2^63 to 2^63 - 1; the two kinds have names
//! of their own. A counter that was never written is 0. Sums stop at the ends of the range. The state
//! is the number in decimal digits.
//!
//! Invariant: an operation is one request to the store, which is applied whole or not at all.

use std::sync::Arc;

use aspen_api::kv::{
    Compare, CompareTarget, Consistency, Item, NumberRange, Relation, Transact,
    TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::service::Caller;
use aspen_api::{
    Action, ApiError, ErrorCode, Key, KeyValueStore, Kind, Needs, Over, RequestId, Right, family,
    record, request,
};

record! {
    /// The value of a counter.
    pub struct Counted {
        /// The value.
        pub value: u64,
    }

    /// The value of a signed counter.
    pub struct SignedCounted {
        /// Its distance from 0.
        pub magnitude: u64,
        /// Whether it is below 0.
        pub is_negative: bool,
    }

    /// The answer to [`CounterCompareAndSet`].
    pub struct CounterCompared {
        /// Whether the value was the expected one, and so was set.
        pub is_success: bool,
        /// The value after the request.
        pub value: u64,
    }

    /// The answer to [`CounterDelete`].
    pub struct CounterDeleted {
        /// Whether the counter had been written.
        pub was_deleted: bool,
    }
}

request! {
    /// Reads a counter.
    pub struct CounterGet {
        /// The counter's name.
        pub name: Key,
    }
    number: family::COORDINATION, 0;
    reply: Counted;
    kind: |_| Kind::Read(Consistency::Linearizable);
    needs: |get| Needs::right(Action::Read, Over::Name(&get.name));

    /// Adds to a counter. Incrementing is adding 1.
    pub struct CounterAdd {
        /// The counter's name.
        pub name: Key,
        /// How much.
        pub amount: u64,
    }
    number: family::COORDINATION, 1;
    reply: Counted;
    kind: |_| Kind::Write;
    needs: |add| read_and_write(&add.name);

    /// Subtracts from a counter. Decrementing is subtracting 1.
    pub struct CounterSubtract {
        /// The counter's name.
        pub name: Key,
        /// How much.
        pub amount: u64,
    }
    number: family::COORDINATION, 2;
    reply: Counted;
    kind: |_| Kind::Write;
    needs: |subtract| read_and_write(&subtract.name);

    /// Sets a counter.
    pub struct CounterSet {
        /// The counter's name.
        pub name: Key,
        /// The value.
        pub value: u64,
    }
    number: family::COORDINATION, 3;
    reply: Counted;
    kind: |_| Kind::Write;
    needs: |set| Needs::right(Action::Write, Over::Name(&set.name));

    /// Sets a counter if it has an expected value.
    pub struct CounterCompareAndSet {
        /// The counter's name.
        pub name: Key,
        /// The value that it must have.
        pub expected: u64,
        /// The value to set.
        pub new_value: u64,
    }
    number: family::COORDINATION, 4;
    reply: CounterCompared;
    kind: |_| Kind::Write;
    needs: |compare| read_and_write(&compare.name);

    /// Reads a signed counter.
    pub struct SignedCounterGet {
        /// The counter's name.
        pub name: Key,
    }
    number: family::COORDINATION, 5;
    reply: SignedCounted;
    kind: |_| Kind::Read(Consistency::Linearizable);
    needs: |get| Needs::right(Action::Read, Over::Name(&get.name));

    /// Adds to a signed counter, or subtracts from it.
    pub struct SignedCounterAdd {
        /// The counter's name.
        pub name: Key,
        /// How much.
        pub amount: u64,
        /// Whether it is subtracted.
        pub is_subtraction: bool,
    }
    number: family::COORDINATION, 6;
    reply: SignedCounted;
    kind: |_| Kind::Write;
    needs: |add| read_and_write(&add.name);

    /// Deletes a counter, which is 0 again.
    pub struct CounterDelete {
        /// The counter's name.
        pub name: Key,
        /// Whether it is the signed counter of this name.
        pub is_signed: bool,
    }
    number: family::COORDINATION, 7;
    reply: CounterDeleted;
    kind: |_| Kind::Write;
    needs: |delete| Needs::right(Action::Delete, Over::Name(&delete.name));
}

/// The answer tells the value, so both rights are needed.
fn read_and_write(name: &Key) -> Needs<'_> {
    let right = |action| Right { action, over: Over::Name(name) };
    Needs::Rights(vec![right(Action::Read), right(Action::Write)])
}

impl SignedCounted {
    /// The value.
    pub fn value(&self) -> i64 {
        match self.is_negative {
            true => 0i64.saturating_sub_unsigned(self.magnitude),
            false => 0i64.saturating_add_unsigned(self.magnitude),
        }
    }
}

/// The numbers that a counter holds.
pub(crate) trait Width: Send + Sync + 'static {
    /// Where the state of counters of this width is.
    const KIND: &'static str;
    /// Their range.
    const RANGE: NumberRange;
    /// How a value is told.
    type Counted: Send;

    /// Tells a value; `None` if it is outside the range.
    fn counted(value: i128) -> Option<Self::Counted>;
}

/// Unsigned counters.
impl Width for u64 {
    const KIND: &'static str = "counter";
    const RANGE: NumberRange = NumberRange::Unsigned;
    type Counted = Counted;

    fn counted(value: i128) -> Option<Counted> {
        Some(Counted { value: value.try_into().ok()? })
    }
}

/// Signed counters.
impl Width for i64 {
    const KIND: &'static str = "signed_counter";
    const RANGE: NumberRange = NumberRange::Signed;
    type Counted = SignedCounted;

    fn counted(value: i128) -> Option<SignedCounted> {
        let value = i64::try_from(value).ok()?;
        Some(SignedCounted { magnitude: value.unsigned_abs(), is_negative: value < 0 })
    }
}

/// Where a counter's state is.
fn state_key<W: Width>(name: &Key) -> Result<Key, ApiError> {
    Key::new(format!("__coord:{}:{name}", W::KIND))
        .map_err(|error| ApiError::new(ErrorCode::TooLarge, format!("the counter's name: {error}")))
}

/// The value in a counter's state; `CONFLICT` for state that no counter of the width has written.
fn value_in<W: Width>(item: Option<&Item>) -> Result<W::Counted, ApiError> {
    let value = match item {
        None => Some(0),
        Some(item) => str::from_utf8(&item.value).ok().and_then(|text| text.parse().ok()),
    };
    let no_number = "the counter's state is no number of its range";
    value.and_then(W::counted).ok_or_else(|| ApiError::new(ErrorCode::Conflict, no_number))
}

fn missing_outcome() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "the outcome is missing")
}

async fn read<W: Width>(store: &impl KeyValueStore, name: &Key) -> Result<W::Counted, ApiError> {
    value_in::<W>(store.get(state_key::<W>(name)?).await?.item.as_ref())
}

/// Adds in one transaction and tells the sum.
async fn sum<W: Width>(
    store: &impl KeyValueStore,
    id: Option<RequestId>,
    name: &Key,
    (amount, is_subtraction): (u64, bool),
) -> Result<W::Counted, ApiError> {
    let (key, range) = (state_key::<W>(name)?, W::RANGE);
    let step = TransactionOperation::Add { key, amount, is_subtraction, range };
    let result = store.transact_once(id, Transact::always([step])).await?;
    let sum = match result.outcomes.first() {
        Some(TransactionOutcome::Added { magnitude, is_negative: false }) => i128::from(*magnitude),
        Some(TransactionOutcome::Added { magnitude, is_negative: true }) => -i128::from(*magnitude),
        _ => return Err(missing_outcome()),
    };
    W::counted(sum).ok_or_else(missing_outcome)
}

pub(crate) async fn get<S: KeyValueStore>(
    store: Arc<S>,
    _: Caller,
    request: CounterGet,
) -> Result<Counted, ApiError> {
    read::<u64>(&*store, &request.name).await
}

pub(crate) async fn add<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: CounterAdd,
) -> Result<Counted, ApiError> {
    sum::<u64>(&*store, caller.request_id, &request.name, (request.amount, false)).await
}

pub(crate) async fn subtract<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: CounterSubtract,
) -> Result<Counted, ApiError> {
    sum::<u64>(&*store, caller.request_id, &request.name, (request.amount, true)).await
}

pub(crate) async fn set<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: CounterSet,
) -> Result<Counted, ApiError> {
    let set = WriteOperation::set(state_key::<u64>(&request.name)?, request.value.to_string());
    store.transact_once(caller.request_id, Transact::always([set])).await?;
    Ok(Counted { value: request.value })
}

pub(crate) async fn compare_and_set<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: CounterCompareAndSet,
) -> Result<CounterCompared, ApiError> {
    let key = state_key::<u64>(&request.name)?;
    let target = CompareTarget::Number { magnitude: request.expected, is_negative: false };
    let transaction = Transact {
        compares: vec![Compare { key: key.clone(), relation: Relation::Equal, target }],
        then: vec![WriteOperation::set(key.clone(), request.new_value.to_string()).into()],
        otherwise: vec![TransactionOperation::Read { key }],
    };
    let result = store.transact_once(caller.request_id, transaction).await?;
    match result.outcomes.first() {
        Some(TransactionOutcome::Set {}) => {
            Ok(CounterCompared { is_success: true, value: request.new_value })
        }
        Some(TransactionOutcome::Read { item }) => {
            let value = value_in::<u64>(item.as_ref())?.value;
            Ok(CounterCompared { is_success: false, value })
        }
        _ => Err(missing_outcome()),
    }
}

pub(crate) async fn get_signed<S: KeyValueStore>(
    store: Arc<S>,
    _: Caller,
    request: SignedCounterGet,
) -> Result<SignedCounted, ApiError> {
    read::<i64>(&*store, &request.name).await
}

pub(crate) async fn add_signed<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: SignedCounterAdd,
) -> Result<SignedCounted, ApiError> {
    let SignedCounterAdd { name, amount, is_subtraction } = request;
    sum::<i64>(&*store, caller.request_id, &name, (amount, is_subtraction)).await
}

pub(crate) async fn delete<S: KeyValueStore>(
    store: Arc<S>,
    caller: Caller,
    request: CounterDelete,
) -> Result<CounterDeleted, ApiError> {
    let key = match request.is_signed {
        true => state_key::<i64>(&request.name)?,
        false => state_key::<u64>(&request.name)?,
    };
    let delete = Transact::always([WriteOperation::Delete { key }]);
    let result = store.transact_once(caller.request_id, delete).await?;
    match result.outcomes.first() {
        Some(TransactionOutcome::Deleted { was_deleted }) => {
            Ok(CounterDeleted { was_deleted: *was_deleted })
        }
        _ => Err(missing_outcome()),
    }
}
