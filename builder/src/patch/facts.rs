//! Image facts: what engines ask of an image, from the ELF headers of its programs.
//!
//! Only headers are read, and only of executable files. They are hostile: whatever does not parse is no program to us,
//! as it would be none to the kernel, and no length in them is believed beyond what real ones have.

use std::{collections::BTreeMap, io};

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

use super::bytes::Bytes;
use crate::flatten::{Data, InodeKind, Tree};

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /{path} of the image from {from}")]
pub struct FactsError {
    path: String,
    from: String,
    #[source]
    error: io::Error,
}

impl FactsError {
    pub(super) fn new(path: &[u8], data: &Data, error: io::Error) -> Self {
        Self { path: String::from_utf8_lossy(path).into_owned(), from: data.origin(), error }
    }
}

/// Gathers what headers alone tell of a tree, and how many programs name each interpreter.
pub(super) fn facts(tree: &Tree, config: &ImageConfig) -> Result<(ImageFacts, BTreeMap<String, usize>), FactsError> {
    let (mut interpreters, mut static_programs) = (BTreeMap::<String, usize>::new(), Vec::new());
    let mut machines = BTreeMap::<&str, usize>::new();
    for (path, id) in &tree.paths {
        let Some(inode) = tree.inodes.get(id.0 as usize) else { continue };
        let InodeKind::File { size, data } = &inode.kind else { continue };
        if inode.mode & 0o111 == 0 {
            continue;
        }
        let bytes = Bytes { data, size: *size };
        let program = Reader(bytes).program().map_err(|error| FactsError::new(path, data, error))?;
        let Some(program) = program else { continue };
        *machines.entry(program.machine).or_default() += 1;
        match program.loading {
            Loading::Interpreter(interpreter) => *interpreters.entry(interpreter).or_default() += 1,
            Loading::Static => static_programs.push(format!("/{}", String::from_utf8_lossy(path))),
            Loading::Library => {}
        }
    }
    let commonest = machines.iter().max_by_key(|(_, count)| **count).map(|(machine, _)| (*machine).to_owned());
    let architecture = Some(config.architecture.clone()).filter(|named| !named.is_empty()).or(commonest);
    let facts = ImageFacts {
        architecture: architecture.unwrap_or_default(),
        interpreters: interpreters.keys().cloned().collect(),
        static_programs,
        ..ImageFacts::default()
    };
    Ok((facts, interpreters))
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

struct Reader<'a>(Bytes<'a>);

impl Reader<'_> {
    /// The program, or `None` for what is none.
    fn program(&self) -> io::Result<Option<Program>> {
        let Some(ident) = self.0.get(0, 64)? else { return Ok(None) };
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
        let Some(table) = self.0.get(header.e_phoff, length)? else { return Ok(None) };
        let Ok(segments) = ProgramHeader::parse(&table, 0, count, context) else { return Ok(None) };
        let machine = machine(header.e_machine, context);
        let loading = match segments.iter().find(|segment| segment.p_type == PT_INTERP) {
            Some(segment) => {
                let Some(name) = self.0.get(segment.p_offset, segment.p_filesz)? else { return Ok(None) };
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
        let Some(bytes) = self.0.get(segment.p_offset, segment.p_filesz)? else { return Ok(false) };
        let whole =
            ProgramHeader { p_type: PT_DYNAMIC, p_offset: 0, p_filesz: bytes.len() as u64, ..ProgramHeader::default() };
        let dynamic = Dynamic::parse(&bytes, &[whole], context);
        Ok(dynamic.is_ok_and(|dynamic| {
            dynamic.is_some_and(|dynamic| {
                dynamic.dyns.iter().any(|entry| entry.d_tag == DT_FLAGS_1 && entry.d_val & DF_1_PIE != 0)
            })
        }))
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
