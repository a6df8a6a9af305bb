//! The multi-version key-value state machine as a pure function.
