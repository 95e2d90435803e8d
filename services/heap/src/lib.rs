//! How much memory the allocator keeps for itself.
//!
//! glibc gives threads arenas of their own, up to eight for each core, and what a thread has freed serves that arena alone.
//! A program of many threads then holds a multiple of what it uses: figures in `services/docs/figures.md`.

/// Bytes from which a block has pages of its own, which go back to the system with it: a password's 19 MiB, a page of facts.
#[cfg(target_env = "gnu")]
const OWN_PAGES: i32 = 1 << 20;
/// Bytes at an arena's end that it keeps when they are free.
#[cfg(target_env = "gnu")]
const SPARE: i32 = 1 << 20;
/// Arenas at least: one that is at work holds nobody else up.
#[cfg(target_env = "gnu")]
const ARENAS_MIN: usize = 2;

/// Bounds what the allocator keeps: as many arenas as there are cores. Call it first, before there are threads. What the
/// environment says (`MALLOC_ARENA_MAX`) is replaced. Does nothing where the allocator is another one.
pub fn bound() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(ARENAS_MIN, usize::from);
        let arenas = i32::try_from(cores.max(ARENAS_MIN)).unwrap_or(i32::MAX);
        for (parameter, value) in [
            (libc::M_ARENA_MAX, arenas),
            (libc::M_MMAP_THRESHOLD, OWN_PAGES),
            (libc::M_TRIM_THRESHOLD, SPARE),
        ] {
            set(parameter, value);
        }
    }
}

/// An allocator that refuses a parameter goes on as it was.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "measured, see services/docs/figures.md; the standard library has no door to it"
)]
fn set(parameter: i32, value: i32) {
    // SAFETY: mallopt takes two integers, reads no memory of ours, and takes its own lock.
    unsafe {
        libc::mallopt(parameter, value);
    }
}
