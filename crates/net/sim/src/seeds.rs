//! Running a test under many seeds, and saying how to run it under the one that failed.
//!
//! `NET_SIM_SEED=N` tries only `N`; `NET_SIM_COUNT=N` tries the first `N` in place of the test's
//! own number.
//!
//! Invariants: seeds follow from the package's and the test's name, so every machine tries the same
//! ones; a failure names its seed and the command that replays it.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The environment variable that names the only seed to try.
pub const SEED_VARIABLE: &str = "NET_SIM_SEED";
/// The environment variable that sets how many seeds to try.
pub const COUNT_VARIABLE: &str = "NET_SIM_COUNT";

/// Where a test stands; made by [`seeds!`](crate::seeds!).
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The package, `CARGO_PKG_NAME`.
    pub package: &'static str,
    /// The crate of the test binary, `CARGO_CRATE_NAME`.
    pub binary: &'static str,
    /// The type name of a closure in the test's body, which holds the test's path.
    pub closure: &'static str,
}

impl Origin {
    /// The test's name as the test runner knows it.
    pub fn test(&self) -> &'static str {
        let path = self.closure.split("::{{closure}}").next().unwrap_or(self.closure);
        path.strip_prefix(self.binary).and_then(|path| path.strip_prefix("::")).unwrap_or(path)
    }

    /// The command that runs this test under `seed` alone.
    pub fn replay_command(&self, seed: u64) -> String {
        let target = if self.binary == self.package.replace('-', "_") {
            "--lib".to_owned()
        } else {
            format!("--test {}", self.binary)
        };
        let (package, test) = (self.package, self.test());
        format!("{SEED_VARIABLE}={seed} cargo test -p {package} {target} {test} -- --exact")
    }

    /// The `index`-th seed of this test.
    pub fn seed(&self, index: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.package.as_bytes()).update(b" ").update(self.test().as_bytes());
        hasher.update(&index.to_le_bytes());
        let mut first = [0u8; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// Runs the enclosing test's body under `count` seeds: `net_sim::seeds!(20, |seed| { .. })`.
///
/// A failure names the seed and the command that replays it.
#[macro_export]
macro_rules! seeds {
    ($count:expr, $body:expr) => {{
        let here = || {};
        $crate::run_seeds(
            $crate::Origin {
                package: env!("CARGO_PKG_NAME"),
                binary: env!("CARGO_CRATE_NAME"),
                closure: ::core::any::type_name_of_val(&here),
            },
            $count,
            $body,
        )
    }};
}

/// What [`seeds!`](crate::seeds!) calls.
///
/// # Panics
///
/// When `body` panics, with the seed, the command that replays it and what `body` said; and when
/// an environment variable is not a number.
pub fn run_seeds(origin: Origin, count: u64, body: impl Fn(u64)) {
    if let Some(seed) = number(SEED_VARIABLE) {
        return run_one(origin, seed, &body);
    }
    for index in 0..number(COUNT_VARIABLE).unwrap_or(count) {
        run_one(origin, origin.seed(index), &body);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable}={text} is not a number"),
    }
}

fn run_one(origin: Origin, seed: u64, body: &impl Fn(u64)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(seed))) {
        let said = said(panic.as_ref());
        panic!("seed {seed} failed: {said}\nreplay it with:\n  {}", origin.replay_command(seed));
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const ORIGIN: Origin = Origin {
        package: "net-mesh-core",
        binary: "it",
        closure: "it::transfer::survives_loss::{{closure}}",
    };

    #[test]
    fn the_replay_command_names_package_binary_and_test() {
        assert_eq!(
            ORIGIN.replay_command(7),
            "NET_SIM_SEED=7 cargo test -p net-mesh-core --test it transfer::survives_loss -- --exact"
        );
        let unit = Origin { binary: "net_mesh_core", closure: "net_mesh_core::a::b", ..ORIGIN };
        assert_eq!(
            unit.replay_command(7),
            "NET_SIM_SEED=7 cargo test -p net-mesh-core --lib a::b -- --exact"
        );
    }

    #[test]
    fn a_failing_seed_is_reported_with_its_command() {
        let bad = ORIGIN.seed(2);
        let tried = RefCell::new(Vec::new());
        let failure = catch_unwind(AssertUnwindSafe(|| {
            for index in 0..5 {
                run_one(ORIGIN, ORIGIN.seed(index), &|seed| {
                    tried.borrow_mut().push(seed);
                    assert!(seed != bad, "lost a write");
                });
            }
        }));
        let text = failure.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("lost a write"), "{text}");
        assert!(text.contains(&ORIGIN.replay_command(bad)), "{text}");
        assert_eq!(tried.into_inner(), [ORIGIN.seed(0), ORIGIN.seed(1), bad]);
    }

    #[test]
    fn the_macro_finds_its_own_test() {
        if env::var_os(SEED_VARIABLE).is_some() || env::var_os(COUNT_VARIABLE).is_some() {
            return;
        }
        let here = || {};
        let origin = Origin {
            package: env!("CARGO_PKG_NAME"),
            binary: env!("CARGO_CRATE_NAME"),
            closure: core::any::type_name_of_val(&here),
        };
        assert_eq!(origin.test(), "seeds::tests::the_macro_finds_its_own_test");
        let tried = RefCell::new(Vec::new());
        crate::seeds!(3, |seed| tried.borrow_mut().push(seed));
        assert_eq!(tried.into_inner(), [origin.seed(0), origin.seed(1), origin.seed(2)]);
    }
}
