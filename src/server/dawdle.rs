//! For tests: processes that dawdle.
//!
//! Some things hold only because one write follows another within microseconds, in the product or
//! in a test. In a build with the feature `dawdle` processes wait for a random time wherever another
//! can see the first of two things done and the second not yet. `make dawdle` runs the tests against
//! it. In any other build [`here`] is nothing.

#[cfg(feature = "dawdle")]
use {super::process::random, std::thread::sleep, std::time::Duration};

/// The longest wait.
#[cfg(feature = "dawdle")]
const MOST: Duration = Duration::from_millis(120);

/// A place to dawdle.
#[inline]
pub fn here() {
    #[cfg(feature = "dawdle")]
    sleep(MOST.mul_f64(random()));
}
