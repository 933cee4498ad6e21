//! The script by which a new process loads its own program: see [`coracle_sys::script`] for what runs it.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::OwnedFd,
};

use coracle_elf::{Elf, Segment};
use coracle_intercept::{Abi, Errno, errno::ENOMEM};
use coracle_layout::memory_file;
use coracle_sys::script::{self, row};

use crate::window::{self, Way, Window, path_of};

const PAGE: u64 = 4096;

/// Numbers of the calls that scripts make.
struct Numbers {
    openat: u64,
    close: u64,
    /// mmap(2) on 64 bits; mmap2(2), whose offset counts pages, on 32.
    map: u64,
    map_unit: u64,
    prctl: u64,
    brk: u64,
    /// shmat(2), which 32-bit programs have since Linux 5.1.
    attach: u64,
}

const NUMBERS_64: Numbers = Numbers { openat: 257, close: 3, map: 9, map_unit: 1, prctl: 157, brk: 12, attach: 30 };
const NUMBERS_32: Numbers =
    Numbers { openat: 295, close: 6, map: 192, map_unit: PAGE, prctl: 172, brk: 45, attach: 397 };

/// An argument of a row.
#[derive(Debug, Clone, Copy)]
enum Word {
    Is(u64),
    /// The address of the string that begins here among the script's strings.
    String(u64),
}

/// A script being written.
#[derive(Debug)]
pub(crate) struct Script {
    abi: Abi,
    mark: u64,
    rows: Vec<(u64, u64, [Word; 6], u64)>,
    strings: Vec<u8>,
}

/// A program or its interpreter, as it is to be mapped.
#[derive(Debug)]
pub(crate) struct Image {
    /// Host path, with its NUL.
    pub(crate) host: Vec<u8>,
    /// The file, open until it is loaded.
    pub(crate) file: File,
    pub(crate) elf: Elf,
    pub(crate) segments: Vec<Segment>,
}

/// What a program says of its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StackKind {
    /// Nothing: the kernel decides, by architecture.
    Unsaid,
    Plain,
    Executable,
}

/// What the kernel believes of a process's memory: pairs of beginning and end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryMap {
    pub(crate) code: (u64, u64),
    pub(crate) data: (u64, u64),
    pub(crate) stack: u64,
    pub(crate) arguments: (u64, u64),
    pub(crate) environment: (u64, u64),
    /// The auxiliary vector: where, and how many bytes.
    pub(crate) vector: (u64, u64),
}

/// A `struct prctl_mm_map` among the script's strings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapPlace {
    at: u64,
    map: MemoryMap,
}

/// Bytes of `struct prctl_mm_map`, on every interface.
const MAP_SIZE: u64 = 104;
/// Where the heap's beginning and end are in it.
const HEAP_AT: [u64; 2] = [32, 40];

/// A row whose result is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNumber(usize);

impl Script {
    /// An empty one; `mark` goes with each call that has room for it, so that filters let it pass.
    pub(crate) fn new(abi: Abi, mark: u64) -> Self {
        Self { abi, mark, rows: Vec::new(), strings: Vec::new() }
    }

    fn numbers(&self) -> &'static Numbers {
        match self.abi {
            Abi::X86_64 => &NUMBERS_64,
            Abi::I386 => &NUMBERS_32,
        }
    }

    fn push(&mut self, flags: u64, number: u64, args: [u64; 6], less: u64) -> RowNumber {
        self.rows.push((flags, number, args.map(Word::Is), less));
        RowNumber(self.rows.len() - 1)
    }

    fn string(&mut self, bytes: &[u8]) -> Word {
        let at = self.strings.len() as u64;
        self.strings.extend_from_slice(bytes);
        Word::String(at)
    }

    /// Names the process, as `ps` and `/proc/PID/comm` show it.
    pub(crate) fn set_name(&mut self, name: &[u8]) {
        let mut text = name[..name.len().min(15)].to_vec();
        text.push(0);
        let text = self.string(&text);
        let prctl = self.numbers().prctl;
        let name = u64::try_from(libc::PR_SET_NAME).unwrap_or(0);
        let (zero, mark) = (Word::Is(0), Word::Is(self.mark));
        self.rows.push((row::CALL | row::MAY_FAIL, prctl, [Word::Is(name), text, zero, zero, zero, mark], 0));
    }

    /// Stores a value, with the base of what was mapped last added, at an address.
    pub(crate) fn store(&mut self, at: u64, value: u64) {
        self.store_at(Word::Is(at), value);
    }

    fn store_at(&mut self, at: Word, value: u64) {
        let zero = Word::Is(0);
        self.rows.push((row::STORE, 0, [at, Word::Is(value), zero, zero, zero, zero], 0));
    }

    /// Writes down what the kernel is to believe of the process's memory; see prctl(2), PR_SET_MM_MAP.
    pub(crate) fn memory_map(&mut self, map: &MemoryMap) -> MapPlace {
        let mut bytes = Vec::new();
        let MemoryMap { code, data, stack, arguments, environment, vector } = *map;
        for word in [
            code.0,
            code.1,
            data.0,
            data.1,
            0,
            0,
            stack,
            arguments.0,
            arguments.1,
            environment.0,
            environment.1,
            vector.0,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&u32::try_from(vector.1).unwrap_or(0).to_le_bytes());
        // The file stays what it is: to change that needs a capability.
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let at = self.strings.len() as u64;
        self.strings.extend_from_slice(&bytes);
        MapPlace { at, map: *map }
    }

    /// The program was moved: so are its code and data.
    pub(crate) fn move_memory_map(&mut self, place: &MapPlace) {
        let MemoryMap { code, data, .. } = place.map;
        for (at, value) in [(0, code.0), (8, code.1), (16, data.0), (24, data.1)] {
            self.store_at(Word::String(place.at + at), value);
        }
    }

    /// The heap begins at this address, to which the base of the program is added if that was moved.
    pub(crate) fn set_heap(&mut self, place: &MapPlace, heap: u64, moved: bool) {
        for at in HEAP_AT {
            if moved {
                self.store_at(Word::String(place.at + at), heap);
            } else {
                let at = usize::try_from(place.at + at).unwrap_or(usize::MAX);
                if let Some(field) = self.strings.get_mut(at..at + 8) {
                    field.copy_from_slice(&heap.to_le_bytes());
                }
            }
        }
    }

    /// The heap stays where the kernel has it.
    pub(crate) fn keep_heap(&mut self, place: &MapPlace) {
        let brk = self.numbers().brk;
        self.push(row::CALL | row::SET_BASE, brk, [0, 0, 0, 0, 0, self.mark], 0);
        for at in HEAP_AT {
            self.store_at(Word::String(place.at + at), 0);
        }
    }

    /// Tells the kernel. Where it does not listen (built without checkpoints) the program runs all the same.
    pub(crate) fn tell_memory_map(&mut self, place: &MapPlace) {
        const PR_SET_MM_MAP: u64 = 14;
        let prctl = self.numbers().prctl;
        let zero = Word::Is(0);
        let what = [number(libc::PR_SET_MM), PR_SET_MM_MAP, 0, MAP_SIZE].map(Word::Is);
        let args = [what[0], what[1], Word::String(place.at), what[3], zero, Word::Is(self.mark)];
        self.rows.push((row::CALL | row::MAY_FAIL, prctl, args, 0));
    }

    fn open(&mut self, path: &[u8]) {
        let path = self.string(path);
        let flags = u64::try_from(libc::O_RDONLY | libc::O_CLOEXEC).unwrap_or(0);
        let cwd = i64::from(libc::AT_FDCWD).cast_unsigned();
        let args = [Word::Is(cwd), path, Word::Is(flags), Word::Is(0), Word::Is(0), Word::Is(self.mark)];
        let openat = self.numbers().openat;
        self.rows.push((row::CALL | row::SET_FD, openat, args, 0));
    }

    fn close(&mut self) {
        let close = self.numbers().close;
        self.push(row::CALL | row::USE_FD_FIRST | row::MAY_FAIL, close, [0, 0, 0, 0, 0, self.mark], 0);
    }

    fn map(&mut self, extra: u64, [address, size, protection, flags, offset]: [u64; 5], less: u64) -> RowNumber {
        let numbers = self.numbers();
        let file = if extra & row::USE_FD_FIFTH == 0 { u64::MAX } else { 0 };
        let args = [address, size, protection, flags, file, offset / numbers.map_unit];
        self.push(row::CALL | extra, numbers.map, args, less)
    }

    /// Maps the window, not to be written, wherever there is room.
    pub(crate) fn map_window(&mut self, window: &Window) -> RowNumber {
        let executable = window.is_executable();
        match &window.way {
            Way::File(path, _) => {
                self.open(path.to_bytes_with_nul());
                let flags = number(libc::MAP_SHARED);
                let protection = number(libc::PROT_READ) | if executable { number(libc::PROT_EXEC) } else { 0 };
                let at = self.map(row::USE_FD_FIFTH, [0, window::SIZE as u64, protection, flags, 0], 0);
                self.close();
                at
            }
            Way::Segment(id) => {
                let flags = number(libc::SHM_RDONLY) | if executable { number(libc::SHM_EXEC) } else { 0 };
                let attach = self.numbers().attach;
                self.push(row::CALL, attach, [number(*id), 0, flags, 0, 0, self.mark], 0)
            }
        }
    }

    /// Maps a program as the kernel would; the row tells its base, if it has one.
    pub(crate) fn load(&mut self, image: &Image, hint: u64) -> Option<RowNumber> {
        let loads = || image.segments.iter().filter(|segment| segment.kind == Segment::LOAD && segment.memory_size > 0);
        let start = page_down(loads().map(|segment| segment.address).min()?);
        let end = page_up(loads().map(|segment| segment.address.saturating_add(segment.memory_size)).max()?);
        self.open(&image.host);
        let private = number(libc::MAP_PRIVATE);
        let anonymous = private | number(libc::MAP_ANONYMOUS);
        let fixed = number(libc::MAP_FIXED);
        let mut base = None;
        if image.elf.movable {
            let flags = anonymous | number(libc::MAP_NORESERVE);
            let none = number(libc::PROT_NONE);
            base = Some(self.map(row::SET_BASE, [hint, end - start, none, flags, 0], start));
        }
        for segment in loads() {
            let protection = protection_of(segment.flags);
            let into_page = segment.address % PAGE;
            let file_end = segment.address + segment.file_size;
            let memory_end = segment.address + segment.memory_size;
            if segment.file_size > 0 {
                self.map(
                    row::ADD_BASE | row::USE_FD_FIFTH,
                    [
                        segment.address - into_page,
                        segment.file_size + into_page,
                        protection,
                        private | fixed,
                        page_down(segment.offset),
                    ],
                    0,
                );
            }
            // Without bytes of a file, a page that another segment begins stays that one's.
            let mapped_end = page_up(file_end);
            if memory_end > file_end && segment.file_size > 0 && protection & number(libc::PROT_WRITE) != 0 {
                // The rest of the last page of the file is the file's.
                self.push(row::ZERO | row::ADD_BASE, 0, [file_end, mapped_end - file_end, 0, 0, 0, 0], 0);
            }
            if memory_end > mapped_end {
                let size = page_up(memory_end) - mapped_end;
                self.map(row::ADD_BASE, [mapped_end, size, protection, anonymous | fixed, 0], 0);
            }
        }
        self.close();
        base
    }

    /// How many bytes [`write`](Self::write) gives.
    pub(crate) fn size(&self) -> usize {
        (self.rows.len() + 2) * self.row_size() + self.strings.len()
    }

    fn row_size(&self) -> usize {
        match self.abi {
            Abi::X86_64 => script::ROW_WORDS * 8,
            Abi::I386 => script::ROW_WORDS_32 * 4,
        }
    }

    /// The script as it is to stand at `address`.
    pub(crate) fn write(&self, address: u64) -> Vec<u8> {
        // One row of zeroes ends it; one more takes what the 32-bit runner carries on.
        let strings_at = address + ((self.rows.len() + 2) * self.row_size()) as u64;
        let mut bytes = Vec::with_capacity(self.size());
        for (flags, number, args, less) in &self.rows {
            let mut words = vec![*flags, *number];
            words.extend(args.iter().map(|word| match word {
                Word::Is(value) => *value,
                Word::String(at) => strings_at + at,
            }));
            words.push(*less);
            if self.abi == Abi::I386 {
                words.extend([0, 0]);
            }
            for word in words {
                let word = word.to_le_bytes();
                bytes.extend_from_slice(if self.abi == Abi::I386 { &word[..4] } else { &word });
            }
        }
        bytes.resize(bytes.len() + 2 * self.row_size(), 0);
        bytes.extend_from_slice(&self.strings);
        bytes
    }

    /// Where, after the script's beginning, the result of a row is.
    pub(crate) fn result_at(&self, row: RowNumber) -> usize {
        let word = self.row_size() / if self.abi == Abi::I386 { script::ROW_WORDS_32 } else { script::ROW_WORDS };
        row.0 * self.row_size() + script::RESULT_WORD * word
    }
}

/// The runners that have been needed so far, by interface and stack.
#[derive(Debug, Default)]
pub(crate) struct Runners {
    made: Vec<(Abi, StackKind, CString, OwnedFd)>,
}

impl Runners {
    /// The path by which a guest executes such a runner.
    pub(crate) fn of(&mut self, abi: Abi, stack: StackKind) -> Result<&CStr, Errno> {
        let known = self.made.iter().position(|made| made.0 == abi && made.1 == stack);
        let at = match known {
            Some(at) => at,
            None => {
                let make = || {
                    let file = runner_file(abi, stack)?;
                    Ok::<_, io::Error>((abi, stack, path_of(&file)?, file))
                };
                self.made.push(make().map_err(|_| ENOMEM)?);
                self.made.len() - 1
            }
        };
        Ok(&self.made[at].2)
    }
}

/// The ELF file that holds nothing but the script's runner, in memory.
fn runner_file(abi: Abi, stack: StackKind) -> io::Result<OwnedFd> {
    let (name, code) = match abi {
        Abi::X86_64 => (c"coracle-loader", script::runner64()),
        Abi::I386 => (c"coracle-loader-32", script::runner32()),
    };
    let file = memory_file(name)?;
    let mut rest = &elf_of(abi, stack, code)[..];
    while !rest.is_empty() {
        let written = nix::unistd::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok(file)
}

/// Where the runner's file has its code, and where in memory it has room for a script.
const SEGMENTS: u16 = 3;
/// Room for a script: three paths, and the rows of more segments than any linker makes.
pub(crate) const ROOM: u64 = 64 << 10;

/// Sizes of file header and program header.
fn header_sizes(abi: Abi) -> (u16, u16) {
    if abi == Abi::X86_64 { (64, 56) } else { (52, 32) }
}

/// Where the runner begins in memory, from its beginning.
fn entry_of(abi: Abi) -> u64 {
    let (header, segment) = header_sizes(abi);
    u64::from(header + SEGMENTS * segment)
}

/// The room for the script of a runner that is about to start at `instruction`.
pub(crate) fn room(abi: Abi, instruction: u64) -> u64 {
    instruction - entry_of(abi) + PAGE
}

/// A position-independent program of one page, with room for a script behind it, that says so of its stack.
fn elf_of(abi: Abi, stack: StackKind, code: &[u8]) -> Vec<u8> {
    let wide = abi == Abi::X86_64;
    let (header, segment) = header_sizes(abi);
    let entry = entry_of(abi);
    let size = entry + code.len() as u64;
    let mut file = b"\x7fELF".to_vec();
    file.extend([if wide { 2 } else { 1 }, 1, 1]);
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(&value.to_le_bytes()[..if wide { 8 } else { 4 }]);
    half(&mut file, 3); // ET_DYN
    half(&mut file, if wide { 62 } else { 3 });
    word(&mut file, 1);
    long(&mut file, entry);
    long(&mut file, u64::from(header));
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [header, segment, SEGMENTS, 0, 0, 0] {
        half(&mut file, value);
    }
    let (stack, stack_flags) = match stack {
        StackKind::Unsaid => (0, 0),
        StackKind::Plain => (Segment::STACK, 6),
        StackKind::Executable => (Segment::STACK, 7),
    };
    // PT_LOAD of the file, PT_LOAD of the room, PT_GNU_STACK or nothing: kind, flags, address, size in the file and in
    // memory.
    for (kind, flags, at, in_file, in_memory) in
        [(1, 5, 0, size, size), (1, 6, PAGE, 0, ROOM), (stack, stack_flags, 0, 0, 0)]
    {
        word(&mut file, kind);
        if wide {
            word(&mut file, flags);
        }
        for value in [0, at, at, in_file, in_memory] {
            long(&mut file, value);
        }
        if !wide {
            word(&mut file, flags);
        }
        long(&mut file, if kind == 1 { PAGE } else { 16 });
    }
    file.extend_from_slice(code);
    assert!(file.len() <= usize::try_from(PAGE).unwrap_or(0), "the runner fits a page");
    file
}

fn number(flag: i32) -> u64 {
    u64::try_from(flag).unwrap_or(0)
}

fn protection_of(flags: u32) -> u64 {
    [(4, libc::PROT_READ), (2, libc::PROT_WRITE), (1, libc::PROT_EXEC)]
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |all, (_, protection)| all | number(*protection))
}

pub(crate) fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

pub(crate) fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE - 1))
}
