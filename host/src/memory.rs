//! What the allocator keeps of memory that is free again.

/// Gives it back to the system. Without this it stays until somebody allocates, and of an idle host
/// nobody does. Takes some milliseconds after much was freed.
pub fn give_back() {
    const ALL_OF_IT: bool = true;
    #[expect(unsafe_code, reason = "a function of the allocator")]
    // SAFETY: it may be called at any time, by any thread; it touches nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(ALL_OF_IT);
    }
}
