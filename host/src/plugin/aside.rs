//! A thread on which policies are loaded: its stack is known, and a panic on it is an answer.
//!
//! wasmtime promises safety for what it runs, not for what it compiles: there are modules that make a compiler panic.

use std::panic::{self, AssertUnwindSafe};
use std::thread;

/// Types may nest as deep as `bounds` lets them, and are read by recursion. Only what is used costs memory.
const STACK_BYTES: usize = 32 * 1024 * 1024;

const NAME: &str = "waypost-loader";

/// Whether a panic on this thread is only an answer to whoever loads a policy.
pub(crate) fn is_loading() -> bool {
    thread::current().name() == Some(NAME)
}

/// Runs `work` and waits for it.
///
/// # Errors
/// What the panic says, or that there can be no thread.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || caught(work));
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            // Only what panics while it is dropped gets here.
            Ok(Err(_)) => Err(NO_REASON.to_owned()),
            Err(error) => Err(format!("cannot start a thread: {error}")),
        }
    })
}

/// Has this thread, which is to be one that [`run`] made, give way to requests from now on.
#[cfg(target_os = "linux")]
pub(super) fn yield_to_requests() {
    /// A third of the weight of a thread that says nothing.
    const NICE: i32 = 5;
    // Linux has a priority for each thread. Without it, loading is only less polite.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn yield_to_requests() {}

const NO_REASON: &str = "the compiler breaks down on it";

/// What `work` leaves behind is dropped with it; wasmtime's own state is behind locks.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        match text.and_then(|text| text.lines().next()) {
            Some(text) => format!("{NO_REASON}: {text}"),
            None => NO_REASON.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(run(|| 7), Ok(7));
        let number = 3;
        let refused = run(|| -> u32 { panic!("number {number}\nand more") });
        assert_eq!(
            refused,
            Err("the compiler breaks down on it: number 3".to_owned())
        );
        let refused = run(|| panic::panic_any(1));
        assert_eq!(refused, Err::<(), _>(NO_REASON.to_owned()));
    }

    #[test]
    fn it_is_told_from_other_threads_and_has_a_deep_stack() {
        fn descend(depth: u32) -> u32 {
            let room = std::hint::black_box([depth; 256]);
            match depth {
                0 => 0,
                _ => descend(depth - 1) + room.iter().filter(|d| **d == 0).count() as u32 + 1,
            }
        }
        assert!(!is_loading());
        assert_eq!(run(|| (is_loading(), descend(5_000))), Ok((true, 5_000)));
    }
}
