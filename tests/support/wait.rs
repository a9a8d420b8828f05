//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` gives something. Panics after `within`, saying what was waited for.
pub fn until<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain: {what}");
        std::thread::sleep(LOOK);
    }
}

/// As [`until`], for a condition that is only true or false.
pub fn until_true(within: Duration, what: &str, mut look: impl FnMut() -> bool) {
    until(within, what, || look().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_what_comes() {
        let mut looks = 0;
        let found = until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }

    #[test]
    #[should_panic(expected = "in vain: never")]
    fn gives_up_at_the_deadline() {
        until_true(Duration::from_millis(30), "never", || false);
    }
}
