//! The shim's own addresses, before its loader has put them in.
//!
//! A loader relocates libraries from the last to the first, and the shim is among the first. A library behind it may have
//! functions that the loader is to choose (IFUNC), and what chooses may call us. So whoever makes the state, with the
//! first call of all, looks whether the loader has been here, and does part of its work if not: what is relative to our
//! own address. The loader does the same once more, with the same result; names of the C library's stay null until
//! then.

use core::arch::asm;

/// Entries of the dynamic section: tag and value.
type Entry = [usize; 2];

const DT_NULL: usize = 0;
const DT_RELA: usize = 7;
const DT_RELASZ: usize = 8;
const R_X86_64_RELATIVE: usize = 8;

#[used]
static HERE: extern "C" fn() = here;

extern "C" fn here() {}

/// Puts them in, unless that has been done.
pub(crate) fn relocate() {
    let (base, mut entry, own): (usize, *const Entry, usize);
    // SAFETY: addresses of our own, which need no relocation.
    unsafe {
        asm!("lea {}, [rip + __ehdr_start]", out(reg) base, options(pure, nomem, nostack));
        asm!("lea {}, [rip + _DYNAMIC]", out(reg) entry, options(pure, nomem, nostack));
        asm!("lea {}, [rip + {}]", out(reg) own, sym here, options(pure, nomem, nostack));
    }
    // SAFETY: a word of our own, which the loader changes without the compiler's knowing.
    if unsafe { (&raw const HERE).cast::<usize>().read_volatile() } == own {
        return;
    }
    let (mut table, mut size) = (0, 0);
    // SAFETY: our own dynamic section, which ends with a null entry.
    unsafe {
        while (*entry)[0] != DT_NULL {
            match *entry {
                [DT_RELA, offset] => table = offset,
                [DT_RELASZ, bytes] => size = bytes,
                _ => {}
            }
            entry = entry.add(1);
        }
    }
    // glibc's loader adds the base where it can write.
    let table = if table < base { base + table } else { table };
    let table = core::ptr::with_exposed_provenance::<[usize; 3]>(table);
    for at in 0..size / size_of::<[usize; 3]>() {
        // SAFETY: our own table of relocations; what it names is ours, and can be written to until the loader has been here.
        unsafe {
            let [offset, kind, addend] = *table.add(at);
            if kind == R_X86_64_RELATIVE {
                core::ptr::with_exposed_provenance_mut::<usize>(base + offset).write_volatile(base + addend);
            }
        }
    }
}
