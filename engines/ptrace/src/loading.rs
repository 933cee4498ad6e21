//! Starting a program: what execve(2) would do, with the guest's own loader in place of the host's.
//!
//! The kernel takes PT_INTERP and `#!` from the host's file system, so it must never see the guest's program. Instead the
//! tracee executes a tiny runner (see [`crate::script`]) with the guest's arguments and environment, which the kernel lays
//! out on the stack as ever; then the runner maps program and interpreter, and the tracer corrects the auxiliary vector
//! and starts the program. The path of the runner is written with so many slashes that the guest's own path has room in
//! its place: AT_EXECFN.

use std::{
    ffi::CStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
    rc::Rc,
};

use coracle_elf::{Elf, Segment};
use coracle_intercept::{
    Abi, Call, Errno, Guest, Rules, Scratch,
    errno::{EFAULT, ELIBBAD, ENOEXEC},
    program::{self, HEAD, Kind, MAX_SCRIPTS},
};

use crate::{
    memory::Memory,
    peer::{Peer, last_errno},
    script::{Image, ROOM, RowNumber, Script, page_down, page_up, room},
    window::{self, Window, path_of},
};

/// A program about to be started.
#[derive(Debug)]
pub(crate) struct Loading {
    /// Guest path of the program, for `/proc/PID/exe`.
    pub(crate) exe: Rc<[u8]>,
    pub(crate) abi: Abi,
    /// The path that the guest gave, for AT_EXECFN.
    given: Vec<u8>,
    /// What takes the place of the first argument, if a script is run.
    pub(crate) prefix: Vec<Vec<u8>>,
    program: Image,
    interpreter: Option<Image>,
    script: Script,
    rows: Option<Rows>,
    /// Where the kernel left things, known once execve(2) has succeeded.
    stack: Option<Stack>,
}

/// Rows whose results say where things are.
#[derive(Debug, Clone, Copy)]
struct Rows {
    window: RowNumber,
    program: Option<RowNumber>,
    interpreter: Option<RowNumber>,
}

/// The new process's stack.
#[derive(Debug)]
struct Stack {
    pointer: u64,
    script: u64,
    vector_at: u64,
    vector: Vec<(u64, u64)>,
}

/// Where the program begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) entry: u64,
    pub(crate) stack: u64,
    pub(crate) window: u64,
}

/// Judges the program that `Scratch` holds after [`coracle_intercept::Verdict::Execute`], following `#!` lines.
pub(crate) fn prepare(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    call: &Call,
    argv: u8,
    scratch: &mut Scratch,
    mark: u64,
) -> Result<Loading, Errno> {
    let mut given = vec![0; coracle_paths::PATH_MAX];
    let len = peer.read_string(call.arg(argv - 1), &mut given)?;
    given.truncate(len);
    if given.is_empty() {
        given = format!("/dev/fd/{}", call.int(0)).into_bytes();
    }
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    let mut host = scratch.lent()[0].bytes().to_vec();
    for _ in 0..=MAX_SCRIPTS {
        let mut head = [0; HEAD];
        let (file, len) = open(&host, &mut head)?;
        match program::judge(&head[..len])? {
            Kind::Elf(elf) => {
                let exe = Rc::from(scratch.program());
                let program = read_image(file, host, elf)?;
                let interpreter = find_interpreter(rules, peer, &program, scratch)?;
                let abi = if elf.wide { Abi::X86_64 } else { Abi::I386 };
                let script = Script::new(abi, mark);
                return Ok(Loading { exe, abi, given, prefix, program, interpreter, script, rows: None, stack: None });
            }
            Kind::Script { interpreter, argument } => {
                // The script takes its own first argument's place, behind its interpreter and the argument of that.
                let name = prefix.first().cloned().unwrap_or_else(|| given.clone());
                let mut new = vec![interpreter.to_vec()];
                new.extend(argument.map(<[u8]>::to_vec));
                new.push(name);
                new.extend(prefix.drain(..).skip(1));
                prefix = new;
                host = scratch.find(rules, peer, interpreter)?.to_bytes_with_nul().to_vec();
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Opens a file that may be executed and reads its head.
fn open(host: &[u8], head: &mut [u8]) -> Result<(File, usize), Errno> {
    let path = CStr::from_bytes_with_nul(host).map_err(|_| Errno::ENOENT)?;
    // SAFETY: a NUL-terminated path; faccessat writes nothing.
    if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) } != 0 {
        return Err(last_errno());
    }
    let errno = |error: std::io::Error| {
        Errno(error.raw_os_error().and_then(|error| u16::try_from(error).ok()).unwrap_or(ENOEXEC.0))
    };
    let name = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    // What is no regular file might block when opened.
    if !std::fs::metadata(name).map_err(errno)?.is_file() {
        return Err(Errno::EACCES);
    }
    let file = File::open(name).map_err(errno)?;
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64).map_err(errno)? {
            0 => break,
            more => len += more,
        }
    }
    Ok((file, len))
}

fn read_image(file: File, host: Vec<u8>, elf: Elf) -> Result<Image, Errno> {
    let size = elf.header_size();
    let mut table = vec![0; size * usize::from(elf.headers)];
    file.read_exact_at(&mut table, elf.headers_at).map_err(|_| ENOEXEC)?;
    let segments =
        table.chunks_exact(size).map(|bytes| elf.segment(bytes).ok_or(ENOEXEC)).collect::<Result<Vec<_>, _>>()?;
    // What is mapped must be mappable: a header that lies would only harm the guest itself, but let it be refused cleanly.
    let sound = |segment: &Segment| {
        segment.kind != Segment::LOAD
            || (segment.file_size <= segment.memory_size
                && segment.address.checked_add(segment.memory_size).is_some_and(|end| end < 1 << 47)
                && segment.address % 4096 == segment.offset % 4096)
    };
    if !segments.iter().all(sound) || !segments.iter().any(|segment| segment.kind == Segment::LOAD) {
        return Err(ENOEXEC);
    }
    // A descriptor's name in `/proc` is the caller's, and closed by the time of loading if it is O_CLOEXEC: ours is open.
    let host =
        if host.starts_with(b"/proc/") { path_of(&file).map_err(|_| ENOEXEC)?.into_bytes_with_nul() } else { host };
    Ok(Image { host, file, elf, segments })
}

fn find_interpreter(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    program: &Image,
    scratch: &mut Scratch,
) -> Result<Option<Image>, Errno> {
    let Some(segment) = program.segments.iter().find(|segment| segment.kind == Segment::INTERPRETER) else {
        return Ok(None);
    };
    let size = usize::try_from(segment.file_size).map_err(|_| ENOEXEC)?;
    if !(2..=coracle_paths::PATH_MAX).contains(&size) {
        return Err(ENOEXEC);
    }
    let mut name = vec![0; size];
    program.file.read_exact_at(&mut name, segment.offset).map_err(|_| ENOEXEC)?;
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| ENOEXEC)?;
    let host = scratch.find(rules, peer, name.to_bytes())?.to_bytes_with_nul().to_vec();
    let mut head = [0; HEAD];
    let (file, len) = open(&host, &mut head)?;
    match program::judge(&head[..len]) {
        Ok(Kind::Elf(elf)) if elf.wide == program.elf.wide && elf.movable => read_image(file, host, elf).map(Some),
        _ => Err(ELIBBAD),
    }
}

impl Loading {
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
        let (vector_at, vector) = read_vector(memory, self.abi, pointer)?;
        self.script.set_name(self.given.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
        let window = self.script.map_shared(&window.path, window::SIZE);
        let hint = self.hint(random);
        let program = self.script.load(&self.program, hint);
        let interpreter = self.interpreter.as_ref().and_then(|image| self.script.load(image, 0));
        self.rows = Some(Rows { window, program, interpreter });
        let script = room(self.abi, instruction);
        if self.script.size() as u64 > ROOM {
            return Err(ENOEXEC);
        }
        memory.write(script, &self.script.write(script))?;
        self.stack = Some(Stack { pointer, script, vector_at, vector });
        Ok(script)
    }

    /// Where a program that has an interpreter is to lie: below the place where the kernel starts the heap of a process
    /// like this one, so that the heap can grow.
    fn hint(&self, random: u64) -> u64 {
        if !self.program.elf.movable || self.interpreter.is_none() {
            return 0;
        }
        let loads = || self.program.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
        let size = page_up(loads().map(|segment| segment.address + segment.memory_size).max().unwrap_or(0));
        let align = loads().map(|segment| segment.align).filter(|align| align.is_power_of_two()).max().unwrap_or(4096);
        let (low, high): (u64, u64) = match self.abi {
            Abi::X86_64 => (0x5500_0000_0000, 0x5555_5555_4000),
            Abi::I386 => (0x5000_0000, 0x5655_5000),
        };
        let room = high.saturating_sub(low + size + align);
        let at = low + if room == 0 { 0 } else { random % room };
        page_down(at) & !(align.max(4096) - 1)
    }

    /// The script has run: corrects what the kernel told of the runner.
    pub(crate) fn finish(&mut self, memory: Memory) -> Result<Started, Errno> {
        let (Some(stack), Some(rows)) = (&mut self.stack, self.rows) else { return Err(ENOEXEC) };
        let word = if self.abi == Abi::X86_64 { 8 } else { 4 };
        let result = |row: RowNumber| {
            let mut bytes = [0; 8];
            memory.read(stack.script + self.script.result_at(row) as u64, &mut bytes[..word])?;
            Ok(u64::from_le_bytes(bytes))
        };
        let base_of = |image: &Image, row: Option<RowNumber>| {
            let Some(row) = row else { return Ok(0) };
            let start = image.segments.iter().filter(|segment| segment.kind == Segment::LOAD);
            let start = page_down(start.map(|segment| segment.address).min().unwrap_or(0));
            result(row).map(|at| at.wrapping_sub(start))
        };
        let window = result(rows.window)?;
        let program = base_of(&self.program, rows.program)?;
        let interpreter = match &self.interpreter {
            Some(image) => Some((base_of(image, rows.interpreter)?, image.elf.entry)),
            None => None,
        };
        let entry = self.program.elf.entry.wrapping_add(program);
        let mut name_at = None;
        for (kind, value) in &mut stack.vector {
            match *kind {
                libc::AT_PHDR => *value = headers_of(&self.program).wrapping_add(program),
                libc::AT_PHENT => *value = self.program.elf.header_size() as u64,
                libc::AT_PHNUM => *value = u64::from(self.program.elf.headers),
                libc::AT_ENTRY => *value = entry,
                libc::AT_BASE => *value = interpreter.map_or(0, |(base, _)| base),
                libc::AT_EXECFN => name_at = Some(*value),
                _ => {}
            }
        }
        let mut bytes = Vec::with_capacity(stack.vector.len() * 16);
        for (kind, value) in &stack.vector {
            bytes.extend_from_slice(&kind.to_le_bytes()[..word]);
            bytes.extend_from_slice(&value.to_le_bytes()[..word]);
        }
        memory.write(stack.vector_at, &bytes)?;
        if let Some(at) = name_at {
            let mut name = self.given.clone();
            name.push(0);
            memory.write(at, &name)?;
        }
        let entry = interpreter.map_or(entry, |(base, entry)| base.wrapping_add(entry));
        Ok(Started { entry, stack: stack.pointer, window })
    }
}

/// Address of the program headers in memory, before moving.
fn headers_of(image: &Image) -> u64 {
    let at = image.elf.headers_at;
    let find = |kind: u32| image.segments.iter().filter(move |segment| segment.kind == kind);
    find(Segment::HEADERS)
        .map(|segment| segment.address)
        .next()
        .or_else(|| {
            find(Segment::LOAD)
                .find(|segment| (segment.offset..segment.offset + segment.file_size).contains(&at))
                .map(|segment| segment.address + (at - segment.offset))
        })
        .unwrap_or(0)
}

/// The auxiliary vector, which stands behind arguments and environment.
fn read_vector(memory: Memory, abi: Abi, stack: u64) -> Result<(u64, Vec<(u64, u64)>), Errno> {
    let size: u64 = if abi == Abi::X86_64 { 8 } else { 4 };
    let mut words = Words { memory, size, at: stack, chunk: Vec::new(), used: 0 };
    // The count, the arguments, a null, the environment, a null.
    for _ in 0..=words.next()? {
        words.next()?;
    }
    while words.next()? != 0 {}
    let at = words.at;
    let mut vector = Vec::new();
    loop {
        let pair = (words.next()?, words.next()?);
        vector.push(pair);
        if pair.0 == libc::AT_NULL {
            return Ok((at, vector));
        }
    }
}

/// Words of a tracee's memory, one after the other.
struct Words {
    memory: Memory,
    size: u64,
    at: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl Words {
    fn next(&mut self) -> Result<u64, Errno> {
        let size = usize::try_from(self.size).unwrap_or(8);
        if self.used + size > self.chunk.len() {
            self.chunk.resize(4096, 0);
            let got = self.memory.read_some(self.at, &mut self.chunk)?;
            self.chunk.truncate(got);
            self.used = 0;
            if got < size {
                return Err(EFAULT);
            }
        }
        let mut word = [0; 8];
        word[..size].copy_from_slice(&self.chunk[self.used..self.used + size]);
        self.used += size;
        self.at += self.size;
        Ok(u64::from_le_bytes(word))
    }
}
