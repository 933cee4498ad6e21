//! Springs: how a changed call ends without a second stop.
//!
//! A program sees its registers as it left them, so those of a changed call must be put back when it ends, which costs a
//! stop as dear as the first. The trick: the call returns not to the program but to a few instructions in the window that
//! load the registers from there and jump to where the program goes on. The window is the guest's own memory, so nobody
//! has to stop for it; whatever slot the call borrowed stays borrowed until the thread next stops for anything.
//!
//! Rules:
//! - Only calls of which nothing but the registers remains to be put right, made by 64-bit code that nobody debugs.
//! - A thread that stops between the call's beginning and the program's next instruction (a signal; one that restarts the
//!   call) is put back before anything else is done with it: nobody ever sees it at the spring ([`Tracer::settle`]). A call
//!   that the kernel restarts by itself is made by the spring's own instruction, which stops as the first did.
//! - Slots are not taken back from springs, so springs leave enough of them free.

use coracle_intercept::{Abi, After, Call};

use crate::{
    registers::Registers,
    request::{Gone, registers, set_registers},
    tracer::{Place, Tracer},
    window::Slot,
};

/// Room at the beginning of each slot.
pub(crate) const ROOM: usize = 128;

/// Where the call returns to: after an instruction that makes it once more.
pub(crate) const ENTRY: u64 = 2;

/// Where the words are that the instructions load: in other lines of the cache, since they change.
pub(crate) const WORDS: usize = 64;

/// The instructions, the same in every slot.
#[rustfmt::skip] // one instruction, one line
pub(crate) const CODE: [u8; 50] = [
    0x0f, 0x05,                         // syscall
    0x48, 0x8b, 0x3d, 55, 0, 0, 0,      // mov rdi, [rip + …]: WORDS
    0x48, 0x8b, 0x35, 56, 0, 0, 0,      // mov rsi, [rip + …]: WORDS + 8
    0x48, 0x8b, 0x15, 57, 0, 0, 0,      // mov rdx, [rip + …]
    0x4c, 0x8b, 0x15, 58, 0, 0, 0,      // mov r10, [rip + …]
    0x4c, 0x8b, 0x05, 59, 0, 0, 0,      // mov r8, [rip + …]
    0x4c, 0x8b, 0x0d, 60, 0, 0, 0,      // mov r9, [rip + …]
    0xff, 0x25, 62, 0, 0, 0,            // jmp [rip + …]: WORDS + 48
];

/// Calls that end so, by their numbers: what is opened, made, or gone to.
const CALLS: [u64; 9] = [2, 80, 83, 85, 88, 257, 258, 266, 437];

/// A thread whose call returns, or has returned, by a spring.
#[derive(Debug)]
pub(crate) struct Sprung {
    /// As the program set them.
    registers: Registers,
    pub(crate) slot: Slot,
}

impl Tracer<'_> {
    /// Whether a changed call may end by a spring.
    pub(crate) fn may_spring(&self, thread: i32, (before, call): (&Call, &Call), after: After, place: Place) -> bool {
        place == Place::Filter
            && after == After::Nothing
            && call.abi == Abi::X86_64
            && CALLS.contains(&call.number)
            && CALLS.contains(&before.number)
            && !self.old_order
            && !self.rules.identity.pretends()
            && self.rules.marks.is_none()
            && !self.debuggers.are_any()
            && self.window.has_spare()
            && self
                .tracees
                .get(&thread)
                .is_some_and(|tracee| tracee.filters.is_empty() && tracee.process.borrow().springs)
    }

    /// Has the kernel make the changed call, and the program go on.
    pub(crate) fn spring(&mut self, thread: i32, now: Registers, call: &Call, slot: Slot) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return Ok(()) };
        let mut words = [0; 7];
        words[..6].copy_from_slice(&now.args());
        words[6] = now.instruction();
        self.window.set_spring(slot, &words);
        let mut changed = now;
        changed.set_call(call.number, call.args);
        changed.set_instruction(tracee.process.borrow().window + Slot::spring(slot) + ENTRY);
        tracee.sprung = Some(Box::new(Sprung { registers: now, slot }));
        set_registers(thread, &changed)?;
        self.go_on(thread, 0)
    }

    /// A thread has stopped: if it is at its spring still, it is put where the program has its call.
    pub(crate) fn settle(&mut self, thread: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return Ok(()) };
        let Some(sprung) = tracee.sprung.take() else { return Ok(()) };
        self.window.release(sprung.slot);
        let now = registers(thread)?;
        let begins = tracee.process.borrow().window + Slot::spring(sprung.slot);
        if !(begins..begins + ROOM as u64).contains(&now.instruction()) {
            return Ok(());
        }
        set_registers(thread, &sprung.registers.put_back(&now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instruction_loads_its_word() {
        let mut at = usize::try_from(ENTRY).expect("small");
        for word in 0..7 {
            let (length, distance_at) = if word < 6 { (7, 3) } else { (6, 2) };
            let distance = i32::from_le_bytes(CODE[at + distance_at..at + length].try_into().expect("four bytes"));
            at += length;
            assert_eq!(at + usize::try_from(distance).expect("ahead"), WORDS + 8 * word);
        }
        assert_eq!(at, CODE.len());
    }
}
