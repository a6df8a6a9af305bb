//! Counters: numbers of 64 bits that any node adds to.
//!
//! An unsigned counter holds 0 to 2^64 - 1, a signed one -2^63 to 2^63 - 1; the two kinds have names
//! of their own. A counter that was never written is 0. Sums stop at the ends of the range. The state
//! is the number in decimal digits.

use aspen_api::kv::{
    Compare, CompareTarget, Consistency, Item, NumberRange, Relation, Transact,
    TransactionOperation, TransactionOutcome, WriteOperation,
};
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

/// Where a counter's state is.
fn state_key(kind: &str, name: &Key) -> Result<Key, ApiError> {
    Key::new(format!("__coord:{kind}:{name}"))
        .map_err(|error| ApiError::new(ErrorCode::TooLarge, format!("the counter's name: {error}")))
}

fn unsigned_key(name: &Key) -> Result<Key, ApiError> {
    state_key("counter", name)
}

fn signed_key(name: &Key) -> Result<Key, ApiError> {
    state_key("signed_counter", name)
}

/// `CONFLICT` for state that no counter has written.
fn not_a_number() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "the counter's state is no number of its range")
}

fn number_in(item: Option<&Item>) -> Result<i128, ApiError> {
    let Some(item) = item else { return Ok(0) };
    let text = core::str::from_utf8(&item.value).map_err(|_| not_a_number())?;
    text.parse().map_err(|_| not_a_number())
}

fn unsigned_in(item: Option<&Item>) -> Result<u64, ApiError> {
    u64::try_from(number_in(item)?).map_err(|_| not_a_number())
}

/// Adds in one transaction and tells the sum.
async fn add<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    add: TransactionOperation,
) -> Result<SignedCounted, ApiError> {
    let result = store.transact_once(id, Transact::always([add])).await?;
    match result.outcomes.first() {
        Some(TransactionOutcome::Added { magnitude, is_negative }) => {
            Ok(SignedCounted { magnitude: *magnitude, is_negative: *is_negative })
        }
        _ => Err(ApiError::new(ErrorCode::InternalError, "the sum is missing")),
    }
}

pub(crate) async fn get<S: KeyValueStore>(
    store: &S,
    request: &CounterGet,
) -> Result<Counted, ApiError> {
    let result = store.get(unsigned_key(&request.name)?).await?;
    Ok(Counted { value: unsigned_in(result.item.as_ref())? })
}

pub(crate) async fn add_unsigned<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    name: &Key,
    amount: u64,
    is_subtraction: bool,
) -> Result<Counted, ApiError> {
    let (key, range) = (unsigned_key(name)?, NumberRange::Unsigned);
    let step = TransactionOperation::Add { key, amount, is_subtraction, range };
    Ok(Counted { value: add(store, id, step).await?.magnitude })
}

pub(crate) async fn set<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    request: &CounterSet,
) -> Result<Counted, ApiError> {
    let set = WriteOperation::set(unsigned_key(&request.name)?, request.value.to_string());
    store.transact_once(id, Transact::always([set])).await?;
    Ok(Counted { value: request.value })
}

pub(crate) async fn compare_and_set<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    request: &CounterCompareAndSet,
) -> Result<CounterCompared, ApiError> {
    let key = unsigned_key(&request.name)?;
    let target = CompareTarget::Number { magnitude: request.expected, is_negative: false };
    let transaction = Transact {
        compares: vec![Compare { key: key.clone(), relation: Relation::Equal, target }],
        then: vec![WriteOperation::set(key.clone(), request.new_value.to_string()).into()],
        otherwise: vec![TransactionOperation::Read { key }],
    };
    let result = store.transact_once(id, transaction).await?;
    match result.outcomes.first() {
        Some(TransactionOutcome::Set {}) => {
            Ok(CounterCompared { is_success: true, value: request.new_value })
        }
        Some(TransactionOutcome::Read { item }) => {
            Ok(CounterCompared { is_success: false, value: unsigned_in(item.as_ref())? })
        }
        _ => Err(ApiError::new(ErrorCode::InternalError, "the outcome is missing")),
    }
}

pub(crate) async fn get_signed<S: KeyValueStore>(
    store: &S,
    request: &SignedCounterGet,
) -> Result<SignedCounted, ApiError> {
    let result = store.get(signed_key(&request.name)?).await?;
    let number = number_in(result.item.as_ref())?;
    let value = i64::try_from(number).map_err(|_| not_a_number())?;
    Ok(SignedCounted { magnitude: value.unsigned_abs(), is_negative: value < 0 })
}

pub(crate) async fn add_signed<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    request: &SignedCounterAdd,
) -> Result<SignedCounted, ApiError> {
    let SignedCounterAdd { name, amount, is_subtraction } = request;
    let (key, amount, is_subtraction) = (signed_key(name)?, *amount, *is_subtraction);
    let range = NumberRange::Signed;
    add(store, id, TransactionOperation::Add { key, amount, is_subtraction, range }).await
}

pub(crate) async fn delete<S: KeyValueStore>(
    store: &S,
    id: Option<RequestId>,
    request: &CounterDelete,
) -> Result<CounterDeleted, ApiError> {
    let CounterDelete { name, is_signed } = request;
    let key = if *is_signed { signed_key(name)? } else { unsigned_key(name)? };
    let result =
        store.transact_once(id, Transact::always([WriteOperation::Delete { key }])).await?;
    match result.outcomes.first() {
        Some(TransactionOutcome::Deleted { was_deleted }) => {
            Ok(CounterDeleted { was_deleted: *was_deleted })
        }
        _ => Err(ApiError::new(ErrorCode::InternalError, "the outcome is missing")),
    }
}
