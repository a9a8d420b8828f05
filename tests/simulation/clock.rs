//! The clock of the machine, as a simulated thread sees it: it stands still unless the world moves
//! it.
//!
//! Libraries that ask the operating system for the time (tarpc does, for its deadlines) would bring
//! in when exactly a thread was given the processor. So this program has a `clock_gettime` of its
//! own, which the standard library finds before the one of the system. Threads that simulate
//! nothing get the true time.

use std::cell::Cell;

/// Before this, a clock may be asked for a time before the beginning.
const START_SECONDS: u64 = 1_000_000;

thread_local! {
    static MILLISECONDS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on it is so many milliseconds after the beginning, for this thread.
pub fn set(milliseconds: u64) {
    MILLISECONDS.set(Some(milliseconds));
}

/// Takes the place of the system's function.
///
/// # Safety
/// As of the system's: `time` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    match MILLISECONDS.try_with(Cell::get).ok().flatten() {
        Some(now) => {
            let seconds = (START_SECONDS + now / 1000) as libc::time_t;
            let nanoseconds = (now % 1000 * 1_000_000) as libc::c_long;
            // SAFETY: the caller promises that it may be written.
            unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds }) };
            0
        }
        // SAFETY: the same promise is handed on to the kernel.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

#[test]
fn the_clock_of_a_simulated_thread_stands_still() {
    let simulated = std::thread::spawn(|| {
        set(5);
        let before = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let still = before.elapsed();
        set(12);
        (still.as_millis(), before.elapsed().as_millis())
    });
    assert_eq!(simulated.join().expect("it does not panic"), (0, 7));
    let before = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(before.elapsed().as_millis() >= 2);
}
