//! The wall clock, passed in.
//!
//! It decides nothing but the times that files and events show, and the validity of certificates
//! and join tokens. Everything that measures a duration uses the runtime's own clock, which a
//! simulation controls.

use ministry_types::Timestamp;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The time of day now.
    fn now(&self) -> Timestamp;
}
