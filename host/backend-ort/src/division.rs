//! Integer divisions that trap: by zero, or of the smallest number by -1.
//!
//! On x86 they raise SIGFPE, which kills the process. ONNX Runtime checks for some of the first and
//! none of the second, so one request could kill the host. In the library's code the signal is
//! handled instead: the instruction is skipped, with the registers' content as its quotient, and
//! the run fails. Other architectures raise no signal.

#![expect(unsafe_code, reason = "a signal handler, which reads and sets registers")]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use x86::{guard, watch};

/// Runs `work`. Returns its result, and whether an integer division in it trapped.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn watch<T>(_threads: usize, work: impl FnOnce() -> T) -> (T, bool) {
    (work(), false)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn guard(_in_library: *const libc::c_void) {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod x86 {
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    thread_local! {
        /// Number of trapped divisions of this thread.
        static TRAPPED: Cell<u64> = const { Cell::new(0) };
    }

    /// Number of trapped divisions of all threads.
    static TRAPPED_ANYWHERE: AtomicU64 = AtomicU64::new(0);
    /// Start address of the library's code.
    static START: AtomicUsize = AtomicUsize::new(0);
    /// End address of the library's code.
    static END: AtomicUsize = AtomicUsize::new(0);
    /// The previous action of the signal.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

    /// Runs `work`. Returns its result, and whether an integer division in it trapped. With several
    /// `threads` divisions of concurrent runs count, too: such a run may fail without need, but
    /// never returns a wrong result.
    pub(crate) fn watch<T>(threads: usize, work: impl FnOnce() -> T) -> (T, bool) {
        let count = || match threads {
            0 | 1 => TRAPPED.get(),
            _ => TRAPPED_ANYWHERE.load(Ordering::Relaxed),
        };
        let before = count();
        let result = work();
        (result, count() != before)
    }

    /// Installs the handler, for the code of the library that `in_library` points into.
    pub(crate) fn guard(in_library: *const libc::c_void) {
        let mut search = Search { address: in_library.addr(), found: None };
        // SAFETY: the callback receives this pointer, which is valid for the call.
        unsafe { libc::dl_iterate_phdr(Some(find_code), (&raw mut search).cast()) };
        let Some((start, end)) = search.found else { return };
        START.store(start, Ordering::Relaxed);
        END.store(end, Ordering::Relaxed);
        PREVIOUS.get_or_init(|| {
            let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: both structures are valid. The handler is async-signal-safe: it accesses the
            // registers of the interrupted thread, atomics and an initialised thread-local cell.
            unsafe {
                let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(libc::SIGFPE, &raw const action, previous.as_mut_ptr());
                previous.assume_init()
            }
        });
    }

    /// The search for the code at an address.
    struct Search {
        address: usize,
        found: Option<(usize, usize)>,
    }

    unsafe extern "C" fn find_code(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut libc::c_void,
    ) -> c_int {
        // SAFETY: `data` is the `Search` of `guard`, and `info` is valid for the call.
        let (search, info) = unsafe { (&mut *data.cast::<Search>(), &*info) };
        let headers = (0..usize::from(info.dlpi_phnum)).map(|n| {
            // SAFETY: `dlpi_phdr` has `dlpi_phnum` headers.
            unsafe { &*info.dlpi_phdr.add(n) }
        });
        #[expect(clippy::cast_possible_truncation, reason = "addresses of this process")]
        for header in headers.filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0) {
            let start = (info.dlpi_addr + header.p_vaddr) as usize;
            let end = start + header.p_memsz as usize;
            if (start..end).contains(&search.address) {
                search.found = Some((start, end));
                return 1;
            }
        }
        0
    }

    unsafe extern "C" fn handle(
        signal: c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: the kernel passes a valid context to a handler with SA_SIGINFO.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let at = registers[libc::REG_RIP as usize].cast_unsigned();
        let (start, end) = (START.load(Ordering::Relaxed), END.load(Ordering::Relaxed));
        if usize::try_from(at).is_ok_and(|at| (start..end).contains(&at)) {
            // SAFETY: the processor has fetched the instruction there. None is longer than 15
            // bytes.
            let code = unsafe { std::slice::from_raw_parts(at as *const u8, 15) };
            if let Some((length, of_bytes)) = division(code) {
                TRAPPED.set(TRAPPED.get() + 1);
                TRAPPED_ANYWHERE.fetch_add(1, Ordering::Relaxed);
                // The register of the quotient stays unchanged, the remainder is 0.
                if of_bytes {
                    registers[libc::REG_RAX as usize] &= !0xff00;
                } else {
                    registers[libc::REG_RDX as usize] = 0;
                }
                registers[libc::REG_RIP as usize] += length;
                return;
            }
        }
        // SAFETY: the arguments are those of the kernel, which would have called the previous
        // action.
        unsafe { call_previous(signal, info, context) };
    }

    /// Length in bytes of the division instruction at the start of `code`, and whether its operands
    /// are bytes (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, DIV and
    /// IDIV).
    pub(super) fn division(code: &[u8]) -> Option<(i64, bool)> {
        let mut at = 0;
        while matches!(code.get(at), Some(0x66 | 0x67 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65)) {
            at += 1;
        }
        if matches!(code.get(at), Some(0x40..=0x4f)) {
            at += 1;
        }
        let of_bytes = match code.get(at)? {
            0xf6 => true,
            0xf7 => false,
            _ => return None,
        };
        let operand = *code.get(at + 1)?;
        // DIV is /6, IDIV is /7.
        if (operand >> 3) & 7 < 6 {
            return None;
        }
        at += 2;
        let (mode, register) = (operand >> 6, operand & 7);
        if mode != 3 {
            let base = if register == 4 {
                at += 1;
                code.get(at - 1)? & 7
            } else {
                register
            };
            at += match mode {
                0 if base == 5 => 4,
                0 => 0,
                1 => 1,
                _ => 4,
            };
        }
        Some((i64::try_from(at).ok()?, of_bytes))
    }

    /// Calls the previous handler of the signal, or restores its default action.
    unsafe fn call_previous(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let previous = PREVIOUS.get();
        match previous.map(|action| action.sa_sigaction) {
            Some(libc::SIG_IGN) | Some(libc::SIG_DFL) | None => {
                // SAFETY: sets the default action, for the instruction that is executed again.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Some(handler) => {
                let with_info = previous.is_some_and(|a| a.sa_flags & libc::SA_SIGINFO != 0);
                // SAFETY: the handler was installed with this signature.
                unsafe {
                    if with_info {
                        type Handler =
                            unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);
                        std::mem::transmute::<*const (), Handler>(ptr::with_exposed_provenance(
                            handler,
                        ))(signal, info, context);
                    } else {
                        std::mem::transmute::<*const (), unsafe extern "C" fn(c_int)>(
                            ptr::with_exposed_provenance(handler),
                        )(signal);
                    }
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::x86::division;

    #[test]
    fn lengths_of_divisions_are_those_of_an_assembler() {
        for (code, expected) in [
            (&[0xf7, 0xf9][..], Some((2, false))),               // idiv ecx
            (&[0x48, 0xf7, 0xf9], Some((3, false))),             // idiv rcx
            (&[0x49, 0xf7, 0xf8], Some((3, false))),             // idiv r8
            (&[0x48, 0xf7, 0x3c, 0xca], Some((4, false))),       // idiv qword [rdx+rcx*8]
            (&[0x48, 0xf7, 0x7d, 0xf8], Some((4, false))),       // idiv qword [rbp-8]
            (&[0xf7, 0xbd, 0, 1, 0, 0], Some((6, false))),       // idiv dword [rbp+256]
            (&[0xf7, 0x3d, 0, 1, 0, 0], Some((6, false))),       // idiv dword [rip+256]
            (&[0x49, 0xf7, 0x7c, 0x24, 8], Some((5, false))),    // idiv qword [r12+8]
            (&[0xf7, 0x3c, 0x25, 0, 0, 0, 0], Some((7, false))), // idiv dword [0]
            (&[0x66, 0xf7, 0xf9], Some((3, false))),             // idiv cx
            (&[0x41, 0xf6, 0xf8], Some((3, true))),              // idiv r8b
            (&[0xf7, 0xf1], Some((2, false))),                   // div ecx
            (&[0xf7, 0xe9], None),                               // imul ecx
            (&[0x90], None),                                     // nop
            (&[0x48], None),
        ] {
            assert_eq!(division(code), expected, "{code:x?}");
        }
    }
}
