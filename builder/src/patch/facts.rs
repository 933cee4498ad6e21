//! Image facts: what engines ask of an image, from the ELF headers of its programs.
//!
//! Only headers are read, and only of executable files. They are hostile: whatever does not parse is no program to us,
//! as it would be none to the kernel, and no length in them is believed beyond [`MOST`].

use std::{collections::BTreeSet, io};

use coracle_api::ImageFacts;
use coracle_format::ImageConfig;
use goblin::{
    container::{Container, Ctx, Endian},
    elf::{
        Elf,
        dynamic::{DF_1_PIE, DT_FLAGS_1, Dynamic},
        header::{
            EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_MIPS,
            EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, ET_DYN, ET_EXEC, SELFMAG,
        },
        program_header::{PT_DYNAMIC, PT_INTERP, ProgramHeader},
    },
};

use crate::flatten::{Data, InodeKind, Tree};

/// Bytes of program headers, of an interpreter's name or of a dynamic section that are read: far above any real ones.
const MOST: u64 = 1 << 16;

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /{path} of the image from {from}")]
pub struct FactsError {
    path: String,
    from: String,
    #[source]
    error: io::Error,
}

/// Gathers the facts of a tree.
///
/// # Errors
/// A file could not be read.
pub fn facts(tree: &Tree, config: &ImageConfig) -> Result<ImageFacts, FactsError> {
    let (mut interpreters, mut static_programs) = (BTreeSet::new(), Vec::new());
    let mut machines = std::collections::BTreeMap::<&str, usize>::new();
    for (path, id) in &tree.paths {
        let Some(inode) = tree.inodes.get(id.0 as usize) else { continue };
        let InodeKind::File { size, data } = &inode.kind else { continue };
        if inode.mode & 0o111 == 0 {
            continue;
        }
        let program = Reader { data, size: *size }.program().map_err(|error| FactsError {
            path: String::from_utf8_lossy(path).into_owned(),
            from: data.origin(),
            error,
        })?;
        let Some(program) = program else { continue };
        *machines.entry(program.machine).or_default() += 1;
        match program.loading {
            Loading::Interpreter(interpreter) => drop(interpreters.insert(interpreter)),
            Loading::Static => static_programs.push(format!("/{}", String::from_utf8_lossy(path))),
            Loading::Library => {}
        }
    }
    let commonest = machines.iter().max_by_key(|(_, count)| **count).map(|(machine, _)| (*machine).to_owned());
    let architecture = Some(config.architecture.clone()).filter(|named| !named.is_empty()).or(commonest);
    Ok(ImageFacts {
        architecture: architecture.unwrap_or_default(),
        interpreters: interpreters.into_iter().collect(),
        static_programs,
        ..ImageFacts::default()
    })
}

/// An ELF file that can be executed or loaded.
struct Program {
    /// OCI's word for its machine.
    machine: &'static str,
    loading: Loading,
}

enum Loading {
    /// By the interpreter that it names.
    Interpreter(String),
    /// By the kernel alone.
    Static,
    /// By an interpreter on behalf of another; the interpreter itself is one too.
    Library,
}

struct Reader<'a> {
    data: &'a Data,
    size: u64,
}

impl Reader<'_> {
    /// The program, or `None` for what is none.
    fn program(&self) -> io::Result<Option<Program>> {
        let Some(ident) = self.bytes(0, 64)? else { return Ok(None) };
        if &ident[..SELFMAG] != ELFMAG {
            return Ok(None);
        }
        let container = if ident[EI_CLASS] == ELFCLASS64 { Container::Big } else { Container::Little };
        let endian = if ident[EI_DATA] == ELFDATA2LSB { Endian::Little } else { Endian::Big };
        let context = Ctx::new(container, endian);
        let Ok(header) = Elf::parse_header(&ident) else { return Ok(None) };
        if !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Ok(None);
        }
        let count = usize::from(header.e_phnum);
        let length = (count * ProgramHeader::size(context)) as u64;
        let Some(table) = self.bytes(header.e_phoff, length)? else { return Ok(None) };
        let Ok(segments) = ProgramHeader::parse(&table, 0, count, context) else { return Ok(None) };
        let machine = machine(header.e_machine, context);
        let loading = match segments.iter().find(|segment| segment.p_type == PT_INTERP) {
            Some(segment) => {
                let Some(name) = self.bytes(segment.p_offset, segment.p_filesz)? else { return Ok(None) };
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                Loading::Interpreter(String::from_utf8_lossy(&name[..end]).into_owned())
            }
            None if header.e_type == ET_EXEC || self.is_pie(&segments, context)? => Loading::Static,
            None => Loading::Library,
        };
        Ok(Some(Program { machine, loading }))
    }

    /// Whether a shared object without interpreter is a static-pie program, by the flag that linkers set.
    fn is_pie(&self, segments: &[ProgramHeader], context: Ctx) -> io::Result<bool> {
        let Some(segment) = segments.iter().find(|segment| segment.p_type == PT_DYNAMIC) else { return Ok(false) };
        let Some(bytes) = self.bytes(segment.p_offset, segment.p_filesz)? else { return Ok(false) };
        let whole =
            ProgramHeader { p_type: PT_DYNAMIC, p_offset: 0, p_filesz: bytes.len() as u64, ..ProgramHeader::default() };
        let dynamic = Dynamic::parse(&bytes, &[whole], context);
        Ok(dynamic.is_ok_and(|dynamic| {
            dynamic.is_some_and(|dynamic| {
                dynamic.dyns.iter().any(|entry| entry.d_tag == DT_FLAGS_1 && entry.d_val & DF_1_PIE != 0)
            })
        }))
    }

    /// Bytes of the file, or `None` if it does not have them or they are absurdly many.
    fn bytes(&self, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        if len > MOST || at.checked_add(len).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(len).expect("at most MOST")];
        self.data.read_exact_at(&mut bytes, at)?;
        Ok(Some(bytes))
    }
}

/// OCI's word (that is, Go's) for an ELF machine.
fn machine(number: u16, context: Ctx) -> &'static str {
    let (wide, little) = (context.container.is_big(), context.le.is_little());
    match number {
        EM_X86_64 => "amd64",
        EM_386 => "386",
        EM_AARCH64 => "arm64",
        EM_ARM => "arm",
        EM_PPC64 if little => "ppc64le",
        EM_PPC64 => "ppc64",
        EM_S390 => "s390x",
        EM_RISCV if wide => "riscv64",
        EM_LOONGARCH if wide => "loong64",
        EM_MIPS => match (wide, little) {
            (true, true) => "mips64le",
            (true, false) => "mips64",
            (false, true) => "mipsle",
            (false, false) => "mips",
        },
        _ => "unknown",
    }
}
