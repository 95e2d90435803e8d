//! The one place with `unsafe`: asking the processor to fetch a cache line early.

/// Starts fetching the line of an element into the caches. Changes nothing, whether or not there is such an element; does
/// nothing on other processors.
#[inline(always)]
#[expect(unsafe_code, reason = "measured, see docs/figures.md; there is no safe prefetch in stable Rust")]
pub(crate) fn prefetch<T>(list: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has SSE, the one condition of the call; a prefetch of any address cannot fault. The
    // address comes from wrapping arithmetic, so that it may lie outside the list; nothing is read from it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            list.as_ptr().wrapping_add(at).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (list, at);
}
