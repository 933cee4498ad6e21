//! Lending: what a changed call points to, put into the window.

use std::ffi::CStr;

use coracle_intercept::{
    Abi, Call, Errno, Lent,
    errno::{E2BIG, EFAULT},
};

use crate::{
    loading::Loading,
    memory::Memory,
    window::{Slot, Window},
};

/// Lends what a verdict asks for, to a guest that sees the window at address `seen_at`.
pub(crate) fn lend(window: &mut Window, seen_at: u64, lent: &[Lent], call: &mut Call) -> Result<Option<Slot>, Errno> {
    if lent.iter().all(|lent| lent.bytes().is_empty()) {
        return Ok(None);
    }
    let slot = window.take(lent.iter().map(|lent| lent.bytes().len() + 8).sum())?;
    let (mut at, mut before) = (0, 0_u64);
    for lent in lent {
        if lent.bytes().is_empty() {
            continue;
        }
        let address = seen_at + window.put(slot, at, lent.bytes());
        if lent.pointer() > 0 {
            window.put(slot, at, &before.to_le_bytes()[..lent.pointer()]);
        }
        if let Some(within) = lent.within() {
            let pointer = address + within.to as u64;
            window.put(slot, at + within.at, &pointer.to_le_bytes()[..within.size]);
        }
        before = address;
        if let Some(arg) = lent.arg() {
            call.args[arg] = address;
        }
        at += lent.bytes().len().next_multiple_of(8);
    }
    Ok(Some(slot))
}

/// Turns a call into one that executes the runner, with the guest's arguments (behind those of a `#!` line).
pub(crate) fn lend_program(
    window: &mut Window,
    seen_at: u64,
    memory: Memory,
    call: &mut Call,
    argv: u8,
    (loading, runner): (&Loading, &CStr),
) -> Result<Slot, Errno> {
    let path = loading.padded(runner);
    let (argv, envp) = (call.arg(argv), call.arg(argv + 1));
    let execve = if call.abi == Abi::X86_64 { 59 } else { 11 };
    if loading.prefix.is_empty() {
        let slot = window.take(path.len())?;
        let path = seen_at + window.put(slot, 0, &path);
        (call.number, call.args) = (execve, [path, argv, envp, 0, 0, 0]);
        return Ok(slot);
    }
    // The array of pointers, its first replaced by pointers to what the script adds.
    let word = if call.abi == Abi::X86_64 { 8 } else { 4 };
    let old = read_pointers(memory, argv, word)?;
    let strings: usize = loading.prefix.iter().map(|string| string.len() + 1).sum();
    let array = (loading.prefix.len() + old.len().saturating_sub(word) / word + 1) * word;
    let slot = window.take(path.len() + strings + 8 + array).map_err(|_| E2BIG)?;
    let mut at = path.len();
    let path = seen_at + window.put(slot, 0, &path);
    let mut pointers = Vec::with_capacity(array);
    for string in &loading.prefix {
        let mut string = string.clone();
        string.push(0);
        let address = seen_at + window.put(slot, at, &string);
        pointers.extend_from_slice(&address.to_le_bytes()[..word]);
        at += string.len();
    }
    pointers.extend_from_slice(old.get(word..).unwrap_or_default());
    pointers.resize(pointers.len() + word, 0);
    let argv = seen_at + window.put(slot, at.next_multiple_of(8), &pointers);
    (call.number, call.args) = (execve, [path, argv, envp, 0, 0, 0]);
    Ok(slot)
}

/// Reads an array of pointers up to its null, as bytes.
fn read_pointers(memory: Memory, at: u64, word: usize) -> Result<Vec<u8>, Errno> {
    const LIMIT: usize = 6 << 20;
    let mut all = Vec::new();
    if at == 0 {
        return Ok(all);
    }
    let mut chunk = [0; 4096];
    while all.len() < LIMIT {
        let got = memory.read_some(at + all.len() as u64, &mut chunk)? / word * word;
        if got == 0 {
            return Err(EFAULT);
        }
        for pointer in chunk[..got].chunks_exact(word) {
            if pointer.iter().all(|byte| *byte == 0) {
                return Ok(all);
            }
            all.extend_from_slice(pointer);
        }
    }
    Err(E2BIG)
}
