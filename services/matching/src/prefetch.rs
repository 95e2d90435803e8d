//! The one place with `unsafe`: asking the processor to fetch a cache line early.

/// Starts fetching the line of this value into the caches. Changes nothing; does nothing on other processors.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "measured in lib.rs, \"What was tried\"; there is no safe prefetch in stable Rust"
)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has SSE, the one condition of the call; a prefetch of any address cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// [`prefetch`] of an element, without a look whether it exists.
#[inline(always)]
#[expect(unsafe_code, reason = "as above")]
pub(crate) fn prefetch_at<T>(list: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above. The address is computed by wrapping arithmetic and never read.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            list.as_ptr().wrapping_add(at).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (list, at);
}
