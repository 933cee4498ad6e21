//! Starting a program: what execve(2) would do, with the guest's own loader in place of the host's.
//!
//! The kernel takes PT_INTERP and `#!` from the host's file system, so it must never see the guest's program. Instead the
//! tracee executes a tiny runner (see [`crate::script`]) with the guest's arguments and environment, which the kernel lays
//! out on the stack as ever; then the runner maps program and interpreter, corrects the auxiliary vector and what the kernel
//! believes of the program's memory, and the tracer starts the program. The path of the runner is written with so many
//! slashes that the guest's own path has room in its place: AT_EXECFN.

use std::{ffi::CStr, os::unix::fs::MetadataExt, rc::Rc};

use coracle_elf::Segment;
use coracle_intercept::{Abi, Credentials, Errno, errno::ENOEXEC};

use crate::{
    memory::Memory,
    script::{Image, MemoryMap, ROOM, RowNumber, Script, StackKind, page_down, page_up, room},
    stack::Stack,
    window::Window,
};

const PAGE: u64 = 4096;

/// A program about to be started.
#[derive(Debug)]
pub(crate) struct Loading {
    /// Guest path of the program, for `/proc/PID/exe`.
    pub(crate) exe: Rc<[u8]>,
    pub(crate) abi: Abi,
    /// What it says of its stack.
    pub(crate) stack_kind: StackKind,
    /// Whom the process becomes, and whether its program is to mistrust its surroundings; in runs that pretend.
    pub(crate) person: Option<(Credentials, bool)>,
    /// The path that the guest gave, for AT_EXECFN.
    given: Vec<u8>,
    /// The name of the process.
    name: Vec<u8>,
    /// What takes the place of the first argument, if a script is run.
    pub(crate) prefix: Vec<Vec<u8>>,
    program: Image,
    interpreter: Option<Image>,
    script: Script,
    /// The signals that the process blocks, if the breakpoint's is among them.
    pub(crate) mask: Option<u64>,
    begun: Option<Begun>,
}

/// What is known once execve(2) has succeeded.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// The program's stack.
    stack: u64,
    /// Where the script is.
    script: u64,
    /// Rows whose results say where things are.
    window: RowNumber,
    program: Option<RowNumber>,
    interpreter: Option<RowNumber>,
}

/// Where the program begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) entry: u64,
    pub(crate) stack: u64,
    pub(crate) window: u64,
}

impl Loading {
    pub(crate) fn new(
        exe: Rc<[u8]>,
        (abi, stack_kind): (Abi, StackKind),
        (given, name, prefix): (Vec<u8>, Vec<u8>, Vec<Vec<u8>>),
        (program, interpreter): (Image, Option<Image>),
        mark: u64,
    ) -> Self {
        let script = Script::new(abi, mark);
        let (person, mask, begun) = (None, None, None);
        Self { exe, abi, stack_kind, person, given, name, prefix, program, interpreter, script, mask, begun }
    }

    /// Device and inode of the program.
    pub(crate) fn file(&self) -> (u64, u64) {
        self.program.file.metadata().map_or((0, 0), |file| (file.dev(), file.ino()))
    }

    /// The path by which the guest executes the runner: at least as long as the path that it gave.
    pub(crate) fn padded(&self, runner: &CStr) -> Vec<u8> {
        let runner = runner.to_bytes_with_nul();
        let mut path = vec![b'/'; (self.given.len() + 1).saturating_sub(runner.len())];
        path.extend_from_slice(runner);
        path
    }

    /// execve(2) has succeeded: reads what the kernel laid out at stack `pointer`, writes the script into the room of the
    /// runner that is about to start at `instruction`. Its address.
    pub(crate) fn begin(
        &mut self,
        memory: Memory,
        (instruction, pointer): (u64, u64),
        window: &Window,
        random: u64,
    ) -> Result<u64, Errno> {
        let mut stack = Stack::read(memory, self.abi, pointer)?;
        self.correct(memory, &mut stack)?;
        self.script.set_name(&self.name);
        let window = self.script.map_window(window);
        let hint = self.hint(random, stack.is_at_top());
        let map = self.script.memory_map(&Self::believed(&self.program, &stack));
        let program = self.script.load(&self.program, hint);
        if program.is_some() {
            for (kind, value) in [(libc::AT_PHDR, headers_of(&self.program)), (libc::AT_ENTRY, self.program.elf.entry)]
            {
                if let Some(at) = stack.value_at(kind) {
                    self.script.store(at, value);
                }
            }
            self.script.move_memory_map(&map);
        }
        let gap = if stack.is_at_top() { 0 } else { PAGE + page_down((random >> 24) % (32 << 20)) };
        if self.has_own_heap() {
            self.script.set_heap(&map, page_up(end_of(&self.program)) + gap, program.is_some());
        }
        let interpreter = self.interpreter.as_ref().and_then(|image| self.script.load(image, 0));
        if let Some(at) = stack.value_at(libc::AT_BASE)
            && interpreter.is_some()
        {
            self.script.store(at, 0);
        }
        if !self.has_own_heap() {
            self.script.keep_heap(&map);
        }
        self.script.tell_memory_map(&map);
        let script = room(self.abi, instruction);
        if self.script.size() as u64 > ROOM {
            return Err(ENOEXEC);
        }
        memory.write(script, &self.script.write(script))?;
        self.begun = Some(Begun { stack: pointer, script, window, program, interpreter });
        Ok(script)
    }

    /// Corrects what the kernel told of the runner; what depends on where the program will lie is added by the script.
    fn correct(&self, memory: Memory, stack: &mut Stack) -> Result<(), Errno> {
        let elf = &self.program.elf;
        for (kind, value) in &mut stack.vector {
            match *kind {
                libc::AT_PHDR => *value = headers_of(&self.program),
                libc::AT_PHENT => *value = elf.header_size() as u64,
                libc::AT_PHNUM => *value = u64::from(elf.headers),
                libc::AT_ENTRY => *value = elf.entry,
                libc::AT_BASE => *value = 0,
                _ => {}
            }
            let Some((who, mistrusts)) = &self.person else { continue };
            match *kind {
                libc::AT_UID => *value = who.user.real.into(),
                libc::AT_EUID => *value = who.user.effective.into(),
                libc::AT_GID => *value = who.group.real.into(),
                libc::AT_EGID => *value = who.group.effective.into(),
                libc::AT_SECURE => *value = u64::from(*mistrusts),
                _ => {}
            }
        }
        let word = usize::try_from(stack.word).unwrap_or(8);
        let mut bytes = Vec::with_capacity(stack.vector.len() * 16);
        for (kind, value) in &stack.vector {
            bytes.extend_from_slice(&kind.to_le_bytes()[..word]);
            bytes.extend_from_slice(&value.to_le_bytes()[..word]);
        }
        memory.write(stack.vector_at, &bytes)?;
        if let Some(at) = stack.value(libc::AT_EXECFN) {
            let mut name = self.given.clone();
            name.push(0);
            memory.write(at, &name)?;
        }
        Ok(())
    }

    /// What the kernel is to believe of the memory of a program, before it is moved.
    fn believed(program: &Image, stack: &Stack) -> MemoryMap {
        let loads = || program.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
        let code = || loads().filter(|segment| segment.flags & 1 != 0);
        let file_end = |segment: &Segment| segment.address + segment.file_size;
        MemoryMap {
            code: (code().map(|segment| segment.address).min().unwrap_or(0), code().map(file_end).max().unwrap_or(0)),
            data: (loads().map(|segment| segment.address).max().unwrap_or(0), loads().map(file_end).max().unwrap_or(0)),
            stack: stack.pointer,
            arguments: stack.arguments,
            environment: stack.environment,
            vector: (stack.vector_at, stack.vector_size()),
        }
    }

    /// Whether the heap follows the program, as the kernel has it for all but those that load themselves.
    fn has_own_heap(&self) -> bool {
        !self.program.elf.movable || self.interpreter.is_some() || self.alignment() > PAGE
    }

    /// What the program's addresses must be multiples of.
    fn alignment(&self) -> u64 {
        let loads = self.program.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
        loads.map(|segment| segment.align).filter(|align| align.is_power_of_two()).max().unwrap_or(PAGE).max(PAGE)
    }

    /// Where a program that does not load itself is to lie: about where the kernel puts such, and below the place where it
    /// starts the heap of a process like this one, should it refuse to be told another.
    fn hint(&self, random: u64, fixed: bool) -> u64 {
        if !self.program.elf.movable || !self.has_own_heap() {
            return 0;
        }
        let (size, align) = (page_up(end_of(&self.program)), self.alignment());
        let (low, high): (u64, u64) = match self.abi {
            Abi::X86_64 => (0x5500_0000_0000, 0x5555_5555_4000),
            Abi::I386 => (0x5000_0000, 0x5655_5000),
        };
        if fixed {
            return high & !(align - 1);
        }
        let room = high.saturating_sub(low + size + align);
        let at = low + if room == 0 { 0 } else { random % room };
        page_down(at) & !(align - 1)
    }

    /// The script has run: where the program begins.
    pub(crate) fn finish(&mut self, memory: Memory) -> Result<Started, Errno> {
        let begun = self.begun.ok_or(ENOEXEC)?;
        let word = if self.abi == Abi::X86_64 { 8 } else { 4 };
        let result = |row: RowNumber| {
            let mut bytes = [0; 8];
            memory.read(begun.script + self.script.result_at(row) as u64, &mut bytes[..word])?;
            Ok::<_, Errno>(u64::from_le_bytes(bytes))
        };
        let base_of = |image: &Image, row: Option<RowNumber>| {
            let Some(row) = row else { return Ok(0) };
            let start = image.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
            let start = page_down(start.map(|segment| segment.address).min().unwrap_or(0));
            result(row).map(|at| at.wrapping_sub(start))
        };
        let entry = match &self.interpreter {
            Some(image) => image.elf.entry.wrapping_add(base_of(image, begun.interpreter)?),
            None => self.program.elf.entry.wrapping_add(base_of(&self.program, begun.program)?),
        };
        Ok(Started { entry, stack: begun.stack, window: result(begun.window)? })
    }
}

/// Where a program's memory ends, before moving.
fn end_of(image: &Image) -> u64 {
    let loads = image.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
    loads.map(|segment| segment.address + segment.memory_size).max().unwrap_or(0)
}

/// Address of the program headers in memory, before moving.
fn headers_of(image: &Image) -> u64 {
    let at = image.elf.headers_at;
    let find = |kind: u32| image.segments.iter().filter(move |segment| segment.kind == kind);
    find(Segment::LOAD)
        .find(|segment| (segment.offset..segment.offset + segment.file_size).contains(&at))
        .map(|segment| segment.address + (at - segment.offset))
        .or_else(|| find(Segment::HEADERS).map(|segment| segment.address).next())
        .unwrap_or(0)
}
