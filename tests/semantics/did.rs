//! What came of a call, and what had to come of it: a failure names the user, the call, what was
//! expected and what was found.

use crate::errno::Errno;
use crate::raw::Call;

/// A call that returned.
#[derive(Debug)]
#[must_use]
pub struct Did<T> {
    who: &'static str,
    call: String,
    result: Call<T>,
}

impl<T> Did<T> {
    /// What `who` got from `call`.
    pub fn new(who: &'static str, call: String, result: Call<T>) -> Did<T> {
        Did { who, call, result }
    }

    /// It must have gone well.
    #[track_caller]
    pub fn ok(self) -> T {
        match self.result {
            Ok(value) => value,
            Err(errno) => panic!("{}: {}: expected success, found {errno:?}", self.who, self.call),
        }
    }

    /// It must have failed with this error number.
    #[track_caller]
    pub fn fails(self, expected: i32) {
        let expected = Errno(expected);
        match self.result {
            Ok(_) => panic!("{}: {}: expected {expected:?}, found success", self.who, self.call),
            Err(found) => assert!(
                found == expected,
                "{}: {}: expected {expected:?}, found {found:?}",
                self.who,
                self.call
            ),
        }
    }

    /// It must have failed, with one of these.
    #[track_caller]
    pub fn fails_with_one_of(self, expected: &[i32]) {
        match self.result {
            Err(found) if expected.contains(&found.0) => {}
            Ok(_) => panic!("{}: {}: expected an error, found success", self.who, self.call),
            Err(found) => panic!("{}: {}: found {found:?}", self.who, self.call),
        }
    }

    /// Whatever it gave.
    pub fn result(self) -> Call<T> {
        self.result
    }

    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Did<U> {
        Did { who: self.who, call: self.call, result: self.result.map(change) }
    }
}

impl<T: PartialEq + std::fmt::Debug> Did<T> {
    /// It must have given this.
    #[track_caller]
    pub fn gives(self, expected: T) {
        let (who, call) = (self.who, self.call.clone());
        let found = self.ok();
        assert!(found == expected, "{who}: {call}: expected {expected:?}, found {found:?}");
    }
}

impl Did<Vec<u8>> {
    /// It must have given these bytes.
    #[track_caller]
    pub fn gives_bytes(self, expected: impl AsRef<[u8]>) {
        let (who, call, expected) = (self.who, self.call.clone(), expected.as_ref());
        let found = self.ok();
        assert!(
            found == expected,
            "{who}: {call}: expected {} bytes {:?}, found {} bytes {:?}",
            expected.len(),
            String::from_utf8_lossy(&expected[..expected.len().min(60)]),
            found.len(),
            String::from_utf8_lossy(&found[..found.len().min(60)])
        );
    }
}
